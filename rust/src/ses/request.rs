//! The exact JSON bodies of `SendEmail` (Simple, Raw) and `SendBulkEmail` (inline template).
//!
//! Outside rules: the Amazon SES API v2 model. Text travels as UTF-8 and says so (the default
//! is 7-bit ASCII). `TemplateData` is always `"{}"` and every entry brings all of its slots,
//! because a missing one is accepted and then fails to render. `List-Unsubscribe` comes before
//! `List-Unsubscribe-Post`, both in the entry: some clients hide the button otherwise.

use bytes::Bytes;
use memchr::memmem;
use sha2::{Digest, Sha256};

use super::json::{push_nested, push_string};

/// SES takes at most 50 destinations in one `SendBulkEmail`.
pub const MAX_ENTRIES: usize = 50;
/// SES takes 1 MB for a request with an inline template; what counts is not said exactly, so
/// the whole body stays below this many bytes.
pub const MAX_BULK_BODY_BYTES: usize = 900_000;
/// SES takes 262,144 characters of `ReplacementTemplateData`.
pub const MAX_ENTRY_DATA_CHARS: usize = 262_144;

/// The two operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// One message to one recipient.
    SendEmail,
    /// One template and up to 50 entries.
    SendBulkEmail,
}

impl Operation {
    /// Where the operation is POSTed to.
    pub fn path(self) -> &'static str {
        match self {
            Self::SendEmail => "/v2/email/outbound-emails",
            Self::SendBulkEmail => "/v2/email/outbound-bulk-emails",
        }
    }
}

/// A body with its hash, ready to be signed.
#[derive(Debug, Clone)]
pub struct Request {
    /// Decides the path.
    pub operation: Operation,
    /// The JSON.
    pub body: Bytes,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
}

/// What all mails of a stream share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The From header: address, or encoded display name and address.
    pub from: String,
    /// Reply-To addresses.
    pub reply_to: Vec<String>,
    /// Name of the configuration set, if any.
    pub configuration_set: Option<String>,
}

/// What differs from recipient to recipient whatever the way onto the wire.
#[derive(Debug, Clone, Copy)]
pub struct Addressee<'a> {
    /// The address.
    pub email: &'a str,
    /// Headers in the order in which they shall appear; printable ASCII.
    pub headers: &'a [(&'a str, &'a str)],
    /// Message tags by which events find back to the recipient.
    pub tags: &'a [(&'a str, &'a str)],
}

/// A message that is ready to read.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Decoded subject in one line.
    pub subject: &'a str,
    /// HTML part.
    pub html: &'a str,
    /// Text part.
    pub text: &'a str,
}

/// A `SendEmail` request.
pub fn simple(envelope: &Envelope, addressee: Addressee<'_>, message: Message<'_>) -> Request {
    let mut out = Vec::with_capacity(1_024 + (message.html.len() + message.text.len()) * 17 / 16);
    push_single_head(&mut out, envelope, addressee);
    out.extend_from_slice(br#"{"Simple":{"Subject":"#);
    push_content(&mut out, |out| push_string(out, message.subject));
    out.extend_from_slice(br#","Body":{"Text":"#);
    push_content(&mut out, |out| push_string(out, message.text));
    out.extend_from_slice(br#","Html":"#);
    push_content(&mut out, |out| push_string(out, message.html));
    out.extend_from_slice(br#"},"Headers":"#);
    push_pairs(&mut out, addressee.headers);
    out.extend_from_slice(b"}}");
    single(out, addressee)
}

/// A message whose long texts are JSON strings already, with their quotes, and travel as they are spelt.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// Subject as JSON.
    pub subject: &'a str,
    /// HTML part as JSON.
    pub html: Option<&'a str>,
    /// Text part as JSON.
    pub text: Option<&'a str>,
    /// What stands in the HTML and text for something else, and that: plain ASCII without quotes and backslashes.
    pub replacement: Option<(&'a str, &'a str)>,
    /// Files that come along.
    pub attachments: &'a [FinishedAttachment<'a>],
}

/// A file that comes along.
#[derive(Debug, Clone, Copy)]
pub struct FinishedAttachment<'a> {
    /// Base64 as JSON.
    pub content: &'a str,
    /// Its name.
    pub filename: &'a str,
    /// MIME type.
    pub content_type: &'a str,
    /// What `cid:` links in the HTML call it.
    pub content_id: Option<&'a str>,
    /// Whether it belongs into the text rather than beside it.
    pub is_inline: bool,
}

/// A `SendEmail` request whose texts need no work.
///
/// Attachments say that they are base64: SES's default is 7-bit, in which a file would not survive.
pub fn finished(envelope: &Envelope, addressee: Addressee<'_>, message: Finished<'_>) -> Request {
    let parts = [message.html, message.text].into_iter().flatten().chain(message.attachments.iter().map(|a| a.content));
    let mut out = Vec::with_capacity(2_048 + parts.map(|part| part.len() + 256).sum::<usize>());
    push_single_head(&mut out, envelope, addressee);
    out.extend_from_slice(br#"{"Simple":{"Subject":"#);
    push_content(&mut out, |out| out.extend_from_slice(message.subject.as_bytes()));
    out.extend_from_slice(br#","Body":{"#);
    let mut separator: &[u8] = b"";
    for (name, part) in [("\"Text\":", message.text), ("\"Html\":", message.html)] {
        let Some(part) = part else { continue };
        out.extend_from_slice(std::mem::replace(&mut separator, b","));
        out.extend_from_slice(name.as_bytes());
        push_content(&mut out, |out| push_replaced(out, part, message.replacement));
    }
    out.extend_from_slice(br#"},"Headers":"#);
    push_pairs(&mut out, addressee.headers);
    for (index, attachment) in message.attachments.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b"," } else { br#","Attachments":["# });
        push_attachment(&mut out, attachment);
    }
    out.extend_from_slice(if message.attachments.is_empty() { b"}}" } else { b"]}}" });
    single(out, addressee)
}

/// A `SendEmail` request with finished MIME. SES delivers to the addressee alone, whoever the message's own headers
/// name: `Destination` is the envelope, and only without it are recipients taken from the headers.
pub fn raw(envelope: &Envelope, addressee: Addressee<'_>, mime: &[u8]) -> Request {
    let mut out = Vec::with_capacity(1_024 + mime.len() * 4 / 3);
    push_single_head(&mut out, envelope, addressee);
    out.extend_from_slice(br#"{"Raw":{"Data":""#);
    base64_simd::STANDARD.encode_append(mime, &mut out);
    out.extend_from_slice(br#""}}"#);
    single(out, addressee)
}

/// A body up to the value of its `Content`.
fn push_single_head(out: &mut Vec<u8>, envelope: &Envelope, addressee: Addressee<'_>) {
    push_envelope(out, envelope);
    out.extend_from_slice(br#","Destination":{"ToAddresses":["#);
    push_string(out, addressee.email);
    out.extend_from_slice(br#"]},"Content":"#);
}

/// Ends a body behind its `Content`.
fn single(mut out: Vec<u8>, addressee: Addressee<'_>) -> Request {
    out.extend_from_slice(br#","EmailTags":"#);
    push_pairs(&mut out, addressee.tags);
    out.push(b'}');
    let body_hash = Sha256::digest(&out).into();
    Request { operation: Operation::SendEmail, body: out.into(), body_hash }
}

/// The part of a `SendBulkEmail` body that all calls of one skeleton share, hashed once.
#[derive(Debug, Clone)]
pub struct BulkHead {
    bytes: Vec<u8>,
    hash: Sha256,
}

const BULK_TAIL: &[u8] = b"]}";

impl BulkHead {
    /// `template_json` is the JSON of `TemplateContent`.
    pub fn new(envelope: &Envelope, template_json: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(template_json.len() + 512);
        push_envelope(&mut bytes, envelope);
        bytes.extend_from_slice(br#","DefaultContent":{"Template":{"TemplateContent":"#);
        bytes.extend_from_slice(template_json);
        bytes.extend_from_slice(br#","TemplateData":"{}"}},"BulkEmailEntries":["#);
        let hash = Sha256::new_with_prefix(&bytes);
        Self { bytes, hash }
    }

    /// Length of a body without any entry.
    pub fn fixed_bytes(&self) -> usize {
        self.bytes.len() + BULK_TAIL.len()
    }

    /// A `SendBulkEmail` request with these entries, made by [`push_entry`].
    pub fn request<'e>(&self, entries: impl Iterator<Item = &'e [u8]> + Clone) -> Request {
        let entry_bytes: usize = entries.clone().map(|entry| entry.len() + 1).sum();
        let mut out = Vec::with_capacity(self.fixed_bytes() + entry_bytes);
        out.extend_from_slice(&self.bytes);
        for (index, entry) in entries.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(entry);
        }
        out.extend_from_slice(BULK_TAIL);
        let mut hash = self.hash.clone();
        hash.update(&out[self.bytes.len()..]);
        let body_hash = hash.finalize().into();
        Request { operation: Operation::SendBulkEmail, body: out.into(), body_hash }
    }
}

/// Appends one element of `BulkEmailEntries` with all of its slots and gives the length of its
/// template data in bytes as escaped twice, an upper bound of the characters that SES counts.
///
/// The slot map is JSON inside a JSON string; it is written in one go.
pub fn push_entry(out: &mut Vec<u8>, addressee: Addressee<'_>, slot_names: &[String], values: &[String]) -> usize {
    debug_assert_eq!(slot_names.len(), values.len(), "every slot must be in every entry");
    out.extend_from_slice(br#"{"Destination":{"ToAddresses":["#);
    push_string(out, addressee.email);
    out.extend_from_slice(br#"]},"ReplacementEmailContent":{"ReplacementTemplate":{"ReplacementTemplateData":""#);
    let data_start = out.len();
    out.push(b'{');
    for (index, (name, value)) in slot_names.iter().zip(values).enumerate() {
        out.extend_from_slice(if index > 0 { br#",\""# } else { br#"\""# });
        // Slot names are ASCII letters, which need no escaping.
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(br#"\":\""#);
        push_nested(out, value);
        out.extend_from_slice(br#"\""#);
    }
    out.push(b'}');
    let data_bytes = out.len() - data_start;
    out.extend_from_slice(br#""}},"ReplacementHeaders":"#);
    push_pairs(out, addressee.headers);
    out.extend_from_slice(br#","ReplacementTags":"#);
    push_pairs(out, addressee.tags);
    out.push(b'}');
    data_bytes
}

/// Begins a body; the caller goes on with a comma.
fn push_envelope(out: &mut Vec<u8>, envelope: &Envelope) {
    out.extend_from_slice(br#"{"FromEmailAddress":"#);
    push_string(out, &envelope.from);
    if !envelope.reply_to.is_empty() {
        out.extend_from_slice(br#","ReplyToAddresses":["#);
        for (index, address) in envelope.reply_to.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_string(out, address);
        }
        out.push(b']');
    }
    if let Some(name) = &envelope.configuration_set {
        out.extend_from_slice(br#","ConfigurationSetName":"#);
        push_string(out, name);
    }
}

fn push_content(out: &mut Vec<u8>, push_data: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(br#"{"Data":"#);
    push_data(out);
    out.extend_from_slice(br#","Charset":"UTF-8"}"#);
}

fn push_replaced(out: &mut Vec<u8>, json: &str, replacement: Option<(&str, &str)>) {
    let json = json.as_bytes();
    let mut copied = 0;
    if let Some((marker, with)) = replacement {
        for at in memmem::find_iter(json, marker) {
            out.extend_from_slice(&json[copied..at]);
            out.extend_from_slice(with.as_bytes());
            copied = at + marker.len();
        }
    }
    out.extend_from_slice(&json[copied..]);
}

fn push_attachment(out: &mut Vec<u8>, attachment: &FinishedAttachment<'_>) {
    out.extend_from_slice(br#"{"RawContent":"#);
    out.extend_from_slice(attachment.content.as_bytes());
    out.extend_from_slice(br#","FileName":"#);
    push_string(out, attachment.filename);
    out.extend_from_slice(br#","ContentType":"#);
    push_string(out, attachment.content_type);
    if let Some(id) = attachment.content_id {
        out.extend_from_slice(br#","ContentId":"#);
        push_string(out, id);
    }
    out.extend_from_slice(if attachment.is_inline {
        br#","ContentDisposition":"INLINE""#
    } else {
        br#","ContentDisposition":"ATTACHMENT""#
    });
    out.extend_from_slice(br#","ContentTransferEncoding":"BASE64"}"#);
}

fn push_pairs(out: &mut Vec<u8>, pairs: &[(&str, &str)]) {
    out.push(b'[');
    for (index, (name, value)) in pairs.iter().enumerate() {
        out.extend_from_slice(if index > 0 { br#",{"Name":"# } else { br#"{"Name":"# });
        push_string(out, name);
        out.extend_from_slice(br#","Value":"#);
        push_string(out, value);
        out.push(b'}');
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HEADERS: &[(&str, &str)] = &[
        ("List-Unsubscribe", "<https://t.example/u/TOKEN>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("X-Mailrail-Id", "eml_x"),
    ];

    fn envelope() -> Envelope {
        Envelope {
            from: "\"Acme, Inc\" <news@example.com>".into(),
            reply_to: vec!["r@example.com".into()],
            configuration_set: Some("mailrail".into()),
        }
    }

    fn ann() -> Addressee<'static> {
        Addressee { email: "ann@example.net", headers: HEADERS, tags: &[("mr", "tag")] }
    }

    fn names(pairs: &Value) -> Vec<&str> {
        pairs.as_array().unwrap().iter().map(|pair| pair["Name"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_simple_body_says_utf_8_everywhere() {
        let request = simple(&envelope(), ann(), Message { subject: "Größe", html: "<p>\"x\"</p>", text: "x\n" });
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(
            body,
            json!({
                "FromEmailAddress": "\"Acme, Inc\" <news@example.com>",
                "ReplyToAddresses": ["r@example.com"],
                "ConfigurationSetName": "mailrail",
                "Destination": {"ToAddresses": ["ann@example.net"]},
                "Content": {"Simple": {
                    "Subject": {"Data": "Größe", "Charset": "UTF-8"},
                    "Body": {"Text": {"Data": "x\n", "Charset": "UTF-8"},
                             "Html": {"Data": "<p>\"x\"</p>", "Charset": "UTF-8"}},
                    "Headers": [
                        {"Name": "List-Unsubscribe", "Value": "<https://t.example/u/TOKEN>"},
                        {"Name": "List-Unsubscribe-Post", "Value": "List-Unsubscribe=One-Click"},
                        {"Name": "X-Mailrail-Id", "Value": "eml_x"},
                    ],
                }},
                "EmailTags": [{"Name": "mr", "Value": "tag"}],
            })
        );
        assert_eq!(request.body_hash[..], Sha256::digest(&request.body)[..]);
    }

    #[test]
    fn a_bulk_body_has_the_template_once_and_all_slots_in_every_entry() {
        let head = BulkHead::new(&envelope(), br#"{"Subject":"{{a}}","Text":"t","Html":"<b>{{b}}</b>"}"#);
        let slot_names = ["a".to_owned(), "b".to_owned()];
        let values = [["S \"1\"\\".to_owned(), String::new()], ["S2\n".to_owned(), "<i>\u{1}é</i>".to_owned()]];
        let entries: Vec<Vec<u8>> = values
            .iter()
            .map(|values| {
                let mut entry = Vec::new();
                push_entry(&mut entry, ann(), &slot_names, values);
                entry
            })
            .collect();
        let request = head.request(entries.iter().map(Vec::as_slice));
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(request.body_hash[..], Sha256::digest(&request.body)[..]);
        assert_eq!(body["DefaultContent"]["Template"]["TemplateData"], "{}");
        assert_eq!(body["DefaultContent"]["Template"]["TemplateContent"]["Html"], "<b>{{b}}</b>");
        assert!(body.get("ConfigurationOverrides").is_none());
        for (entry, values) in body["BulkEmailEntries"].as_array().unwrap().iter().zip(&values) {
            let data = &entry["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"];
            let data: Value = serde_json::from_str(data.as_str().unwrap()).unwrap();
            assert_eq!(data, json!({"a": values[0], "b": values[1]}));
            assert_eq!(entry["Destination"], json!({"ToAddresses": ["ann@example.net"]}));
            assert_eq!(
                names(&entry["ReplacementHeaders"]),
                ["List-Unsubscribe", "List-Unsubscribe-Post", "X-Mailrail-Id"]
            );
            assert_eq!(entry["ReplacementTags"], json!([{"Name": "mr", "Value": "tag"}]));
        }
    }

    #[test]
    fn absent_parts_of_the_envelope_are_left_out() {
        let envelope = Envelope { from: "a@b.c".into(), reply_to: vec![], configuration_set: None };
        let request = BulkHead::new(&envelope, b"{}").request(std::iter::empty::<&[u8]>());
        assert_eq!(
            &request.body[..],
            br#"{"FromEmailAddress":"a@b.c","DefaultContent":{"Template":{"TemplateContent":{},"TemplateData":"{}"}},"BulkEmailEntries":[]}"#
        );
    }

    #[test]
    fn the_data_length_bounds_the_characters() {
        let mut entry = Vec::new();
        let bound = push_entry(&mut entry, ann(), &["a".into()], &["é\"\n".into()]);
        let entry: Value = serde_json::from_slice(&entry).unwrap();
        let data = entry["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"].as_str();
        assert!(data.unwrap().chars().count() <= bound);
    }
}
