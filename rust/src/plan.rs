//! Everything that one stream's mails share, compiled once per process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::copy::RecipientRow;
use crate::error::{Error, Result};
use crate::message;
use crate::recipient::Recipient;
use crate::ses::request::{Addressee, BulkHead, Envelope};
use crate::slots::{Content, Skeleton, StreamIdentity};
use crate::template::{self, FrozenContent};
use crate::token::TokenKeys;

/// Which way onto the wire a stream prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// `SendBulkEmail`: the static body once, the dynamic pieces per recipient.
    Slots,
    /// `SendEmail` for each recipient.
    Simple,
    /// `SendBulkEmail` and nothing else: what cannot travel so fails. For mail that is to find out whether it can.
    Canary,
}

/// A stream: one campaign's send, or an account's transactional mail of a day.
#[derive(Debug, Clone, Deserialize)]
pub struct Stream {
    /// First half of every recipient's identity.
    pub stream_id: i64,
    /// The tenant; goes into unsubscribe tokens.
    pub account_id: i64,
    /// The list that the audience comes from; 0 or absent for none.
    #[serde(default)]
    pub list_id: Option<i64>,
    /// Display name of the sender.
    #[serde(default)]
    pub from_name: Option<String>,
    /// Address of the sender.
    pub from_email: String,
    /// Where replies go, if not to the sender.
    #[serde(default)]
    pub reply_to: Vec<String>,
    /// SES configuration set, which publishes the events.
    #[serde(default)]
    pub configuration_set: Option<String>,
    /// Beginning of all links, without a slash at its end.
    pub base_url: String,
    /// Way onto the wire.
    pub mode: Mode,
}

/// A stream's compiled content and the parts of its requests that never change.
pub struct Plan {
    /// Renders and takes apart.
    pub content: Content,
    /// The same for recipients who are not tracked, if the other has anything that tracks.
    untracked: Option<Content>,
    /// From, Reply-To and configuration set.
    pub envelope: Envelope,
    /// Way onto the wire.
    pub mode: Mode,
    stream_id: i64,
    account_id: i64,
    keys: TokenKeys,
    bulk_heads: Mutex<HashMap<u32, Arc<BulkHead>>>,
}

/// A recipient as the preview gets it.
#[derive(Deserialize)]
struct PreviewContact {
    #[serde(default)]
    contact_id: i64,
    email: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    first_name: Option<String>,
    #[serde(default)]
    last_name: Option<String>,
    #[serde(default)]
    custom_fields: Option<Box<RawValue>>,
    #[serde(default = "yes")]
    tracked: bool,
}

fn yes() -> bool {
    true
}

/// A mail as its reader would see it.
#[derive(Serialize)]
struct Preview<'a> {
    subject: &'a str,
    html: &'a str,
    text: &'a str,
}

/// Freezes a content: JSON of [`template::Source`] in, JSON of [`FrozenContent`] out.
///
/// # Errors
/// A template error where a part does not compile, a data error for other JSON.
pub fn freeze_json(content: &[u8]) -> Result<Vec<u8>> {
    let source: template::Source = from_json(content, "content")?;
    to_json(&template::freeze(&source)?)
}

fn from_json<T: DeserializeOwned>(json: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| Error::data(format!("the {what} JSON: {error}")))
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::data(format!("the result cannot be JSON: {error}")))
}

impl Plan {
    /// Compiles from the JSON of [`FrozenContent`] and [`Stream`].
    ///
    /// # Errors
    /// As [`Plan::compile`], and a data error for other JSON.
    pub fn from_json(frozen: &[u8], stream: &[u8], keys: TokenKeys) -> Result<Self> {
        Self::compile(from_json(frozen, "frozen content")?, from_json(stream, "stream")?, keys)
    }

    /// Compiles `frozen` for `stream`.
    ///
    /// # Errors
    /// A template error where a part does not compile, a config error for an address of the
    /// stream that no header can carry.
    pub fn compile(frozen: FrozenContent, stream: Stream, keys: TokenKeys) -> Result<Self> {
        let reply_to = stream.reply_to.iter().map(|address| message::mailbox(None, address));
        let envelope = Envelope {
            from: message::mailbox(stream.from_name.as_deref(), &stream.from_email)?,
            reply_to: reply_to.collect::<Result<_>>()?,
            configuration_set: stream.configuration_set,
        };
        let identity = StreamIdentity {
            stream_id: stream.stream_id,
            account_id: stream.account_id,
            list_id: stream.list_id.unwrap_or(0),
            base_url: stream.base_url,
        };
        let untracked = frozen.without_tracking();
        let compile = |frozen| Content::compile(frozen, identity.clone(), keys.clone());
        Ok(Self {
            untracked: untracked.map(compile).transpose()?.map(Content::beside_another),
            content: compile(frozen)?,
            envelope,
            mode: stream.mode,
            stream_id: stream.stream_id,
            account_id: stream.account_id,
            keys,
            bulk_heads: Mutex::new(HashMap::new()),
        })
    }

    /// What this recipient is sent.
    pub fn content_for(&self, recipient: &Recipient<'_>) -> &Content {
        self.untracked.as_ref().filter(|_| !recipient.tracked).unwrap_or(&self.content)
    }

    /// First half of every recipient's identity.
    pub fn stream_id(&self) -> i64 {
        self.stream_id
    }

    /// The tenant whose stream it is.
    pub fn account_id(&self) -> i64 {
        self.account_id
    }

    /// The mail that a contact would get, by the plain renderer: JSON `{"contact_id","email",
    /// "name","first_name","last_name","custom_fields","tracked"}` in, `{"subject","html","text"}` out.
    /// Its links carry seq 0, which no recipient has.
    ///
    /// # Errors
    /// A template error where rendering fails, a data error for other JSON.
    pub fn preview(&self, contact: &[u8]) -> Result<Vec<u8>> {
        let contact: PreviewContact = from_json(contact, "contact")?;
        // Read as the bytes they are, so that order and digits are those of the mail.
        let custom_fields = contact.custom_fields.as_deref().map(RawValue::get);
        if custom_fields.is_some_and(|json| !json.starts_with('{')) {
            return Err(Error::data("the contact JSON: custom_fields is not an object"));
        }
        let recipient = Recipient {
            seq: 0,
            attempt: 0,
            contact_id: contact.contact_id,
            email: &contact.email,
            name: contact.name.as_deref(),
            first_name: contact.first_name.as_deref(),
            last_name: contact.last_name.as_deref(),
            custom_fields: custom_fields.map(str::as_bytes),
            tracked: contact.tracked,
        };
        let rendered = self.content_for(&recipient).render(&recipient)?;
        to_json(&Preview { subject: &rendered.subject, html: &rendered.html, text: &rendered.text })
    }

    /// Hands the recipient's address, headers and tags to `make`.
    pub fn address<T>(&self, recipient: &Recipient<'_>, make: impl FnOnce(Addressee<'_>) -> T) -> T {
        let id = self.keys.encode_id("eml", self.stream_id as u64, recipient.seq as u32, 0);
        let headers = message::recipient_headers(&self.content.unsubscribe_url(recipient), &id);
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let tag = self.keys.tag(self.stream_id, recipient.seq, recipient.attempt);
        make(Addressee { email: recipient.email, headers: &headers, tags: &[("mr", &tag)] })
    }

    /// The shared part of the bulk calls of `skeleton`, built and hashed on first use.
    pub fn bulk_head(&self, skeleton: &Skeleton) -> Arc<BulkHead> {
        let heads = || self.bulk_heads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(head) = heads().get(&skeleton.id) {
            return head.clone();
        }
        let head = Arc::new(BulkHead::new(&self.envelope, &skeleton.template_json));
        heads().entry(skeleton.id).or_insert(head).clone()
    }
}

/// The recipient in a row. A mail without a contact has contact id 0.
pub fn recipient_of<'a>(row: &RecipientRow<'a>) -> Recipient<'a> {
    Recipient {
        seq: row.seq,
        attempt: row.attempt,
        contact_id: row.contact_id.unwrap_or(0),
        email: row.email,
        name: row.name,
        first_name: row.first_name,
        last_name: row.last_name,
        custom_fields: row.custom_fields,
        tracked: row.tracked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(html: &str) -> Plan {
        let frozen = FrozenContent { html: html.to_owned(), ..FrozenContent::default() };
        let stream = br#"{"stream_id":1,"account_id":2,"from_email":"a@b.example","base_url":"https://t.example",
            "mode":"slots"}"#;
        let frozen = serde_json::to_vec(&frozen).unwrap();
        Plan::from_json(&frozen, stream, TokenKeys::derive(&[7; 32])).unwrap()
    }

    #[test]
    fn a_preview_prints_fields_as_the_mail_does() {
        let plan = plan("{{ x }}");
        for fields in [
            r#"{"x": {"b": 1.10, "a": 1e3, "b2": [1e400, 123456789012345678901234567890, 0.1e-6, -0]}}"#,
            r#"{"x": 9007199254740993.0}"#,
            r#"{"x": 1, "x": 2}"#,
            "{}",
        ] {
            let sent = plan.content.render(&Recipient {
                seq: 0,
                attempt: 0,
                contact_id: 0,
                email: "c@d.example",
                name: None,
                first_name: None,
                last_name: None,
                custom_fields: Some(fields.as_bytes()),
                tracked: true,
            });
            let contact = format!(r#"{{"email":"c@d.example","custom_fields":{fields}}}"#);
            let preview: serde_json::Value =
                serde_json::from_slice(&plan.preview(contact.as_bytes()).unwrap()).unwrap();
            assert_eq!(preview["html"], sent.unwrap().html, "{fields}");
        }
    }

    #[test]
    fn a_preview_takes_an_object_or_nothing() {
        let preview =
            |fields: &str| plan("{{ x }}").preview(format!(r#"{{"email":"c@d.example"{fields}}}"#).as_bytes());
        assert!(preview("").is_ok());
        assert!(preview(r#","custom_fields":null"#).is_ok());
        assert!(preview(r#","custom_fields": {} "#).is_ok());
        for other in ["[]", "1", r#""x""#, "{", "{\"x\":}"] {
            assert!(preview(&format!(r#","custom_fields":{other}"#)).is_err(), "{other}");
        }
        let deep = format!(r#","custom_fields":{{"x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert!(preview(&deep).is_err());
    }
}
