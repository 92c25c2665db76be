//! A strict stand-in for Amazon SES.
//!
//! It answers the SES v2 operations that mailrail uses, checks what Amazon would check (and refuses what Amazon leaves
//! undefined), publishes signed SNS notifications, and can be told to misbehave. It shares no code with the sender, so
//! that it can judge it.

mod accept;
mod accept_log;
mod account;
mod address;
mod admin;
mod api;
mod bulk;
mod certificates;
mod clock;
mod error;
mod events;
mod faults;
mod identities;
mod mime;
mod options;
mod pump;
mod queue;
mod quota;
mod random;
mod raw;
mod request;
mod rules;
mod send;
mod server;
mod sigv4;
mod single;
mod sns;
mod sqs;
mod state;
mod stats;
mod store;
mod suppression;
mod template;

pub use options::Options;
pub use server::Simulator;

/// Runs a simulator until SIGTERM or SIGINT.
///
/// `options` is a JSON object, see [`Options`]; an empty slice means all defaults. Prints `ready <port>` on standard
/// output once it listens. Errors are sentences for the operator: a bad option, an unusable directory, a taken port.
pub fn run(options: &[u8]) -> Result<(), String> {
    let options = Options::read(options)?;
    server::run(options)
}
