//! Single mails: checked and finished once, stored, and sent from what is stored.
//!
//! A mail to several addresses is sent to each by a call of its own, whose envelope holds that address alone; the
//! headers of every copy name all of To and Cc, never Bcc. One address needs nothing special (SES's Simple). Several
//! travel as Raw, where SES takes the envelope from `Destination` and leaves the headers as they are.

mod attachments;
mod fields;
mod headers;
#[cfg(test)]
mod injection;
mod inspect;
mod mime;
mod prepare;
mod stored;
mod submit;

pub use fields::FieldError;
pub use inspect::inspect;
pub use prepare::{Refusal, prepare};
pub use stored::Stored;
pub use submit::{Identity, encode_rows, submit};
