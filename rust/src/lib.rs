//! The send core of mailrail: render, sign and submit mail to Amazon SES.
//!
//! Everything per recipient happens here, a batch at a time, with no Python in sight.

pub mod batch;
mod bounds;
pub mod copy;
mod entities;
pub mod error;
pub mod events;
pub mod failpoints;
pub mod import;
pub mod lease;
mod links;
pub mod mail;
pub mod message;
pub mod plan;
pub mod recipient;
mod round;
mod scan;
pub mod ses;
pub mod slots;
pub mod template;
mod text;
pub mod token;

pub use error::{Error, ErrorKind, Result};
