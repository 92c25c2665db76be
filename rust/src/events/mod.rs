//! What SES tells us afterwards: check that an SNS envelope is genuine, then turn its event into one row.
//!
//! [`SnsVerifier`] guards the door and needs no network: where a certificate is missing it says which one.
//! [`parse_events`] reads what was let in, as COPY rows, and gives COPY rows back. It never fails on the content
//! of a message: what it cannot place is parked with a reason.

mod fact;
mod notice;
mod parse;
mod sns;
#[cfg(test)]
mod tests;
mod timestamp;

pub use fact::EventKind;
pub use parse::{ParsedEvents, parse_events};
pub use sns::{Envelope, EnvelopeStatus, SnsVerifier};
