//! A mail's content as it is stored: finished but for its recipient's token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::attachments::{Attachment, Disposition};
use super::fields::Mailbox;
use crate::error::{Error, Result};

/// How a mail's copies travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// SES makes the MIME.
    Simple,
    /// We make it.
    Raw,
}

/// What `prepare` writes.
#[derive(Debug, Serialize)]
pub(super) struct Finished {
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) cc: Vec<Mailbox>,
    pub(super) bcc: Vec<Mailbox>,
    pub(super) reply_to: Vec<Mailbox>,
    pub(super) subject: String,
    pub(super) html: Option<String>,
    pub(super) text: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) links: Vec<String>,
    pub(super) token: Option<String>,
    pub(super) mode: Mode,
}

/// The same, read for sending: what is long stays JSON.
#[derive(Debug, Deserialize)]
pub struct Stored<'a> {
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) cc: Vec<Mailbox>,
    pub(super) reply_to: Vec<Mailbox>,
    #[serde(borrow)]
    pub(super) subject: &'a RawValue,
    #[serde(borrow)]
    pub(super) html: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) text: Option<&'a RawValue>,
    pub(super) headers: BTreeMap<String, String>,
    #[serde(borrow)]
    pub(super) attachments: Vec<StoredAttachment<'a>>,
    pub(super) token: Option<&'a str>,
    pub(super) mode: Mode,
}

/// A file that comes along.
#[derive(Debug, Deserialize)]
pub(super) struct StoredAttachment<'a> {
    pub(super) filename: String,
    #[serde(borrow)]
    pub(super) content: &'a RawValue,
    pub(super) content_type: String,
    pub(super) content_id: Option<String>,
    pub(super) disposition: Disposition,
}

impl<'a> Stored<'a> {
    /// Reads what [`super::prepare`] wrote.
    ///
    /// # Errors
    /// A data error for anything else.
    pub fn read(content: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(content).map_err(|error| Error::data(format!("the stored mail: {error}")))
    }
}
