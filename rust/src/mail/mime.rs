//! A copy of a mail as finished MIME, for SES's Raw.

use std::borrow::Cow;

use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};
use serde_json::value::RawValue;

use super::attachments::Disposition;
use super::fields::Mailbox;
use super::stored::{Stored, StoredAttachment};
use crate::error::{Error, Result};

/// The message, with all of To and Cc and none of Bcc. `token` stands where the stored marker does.
pub(super) fn build(mail: &Stored<'_>, public_id: &str, token: Option<&str>) -> Result<Vec<u8>> {
    let subject: String = read(mail.subject)?;
    let mut builder = MessageBuilder::new().from(address(&mail.from)).to(addresses(&mail.to)).subject(subject);
    if !mail.cc.is_empty() {
        builder = builder.cc(addresses(&mail.cc));
    }
    if !mail.reply_to.is_empty() {
        builder = builder.reply_to(addresses(&mail.reply_to));
    }
    for (name, value) in &mail.headers {
        // Checked when the mail was prepared: one line of printable ASCII.
        builder = builder.header(name.as_str(), HeaderType::from(Raw::new(value.as_str())));
    }
    builder = builder.header("X-Mailrail-Id", HeaderType::from(Raw::new(public_id)));
    let html = mail.html.map(|part| finished(part, mail.token, token)).transpose()?;
    let text = mail.text.map(|part| finished(part, mail.token, token)).transpose()?;
    builder
        .body(body(html, text, &mail.attachments)?)
        .write_to_vec()
        .map_err(|error| Error::data(format!("the mail cannot be written: {error}")))
}

/// mixed( alternative( text, related( html, inline files ) ), files ), as far as there is something to hold.
fn body<'x>(html: Option<String>, text: Option<String>, files: &'x [StoredAttachment<'_>]) -> Result<MimePart<'x>> {
    let (inline, beside): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| file.disposition == Disposition::Inline && html.is_some());
    let html = html.map(|html| -> Result<MimePart<'x>> {
        let page = MimePart::new("text/html", BodyPart::Text(Cow::Owned(html)));
        wrapped("multipart/related", page, inline)
    });
    let text = text.map(|text| MimePart::new("text/plain", BodyPart::Text(Cow::Owned(text))));
    let readable = match (text, html.transpose()?) {
        (Some(text), Some(html)) => MimePart::new("multipart/alternative", vec![text, html]),
        (Some(part), None) | (None, Some(part)) => part,
        (None, None) => return Err(Error::data("the stored mail has no body")),
    };
    wrapped("multipart/mixed", readable, beside)
}

/// The part and the files in one of this type; the part alone where there are none.
fn wrapped<'x>(
    multipart: &'static str,
    part: MimePart<'x>,
    files: Vec<&'x StoredAttachment<'_>>,
) -> Result<MimePart<'x>> {
    if files.is_empty() {
        return Ok(part);
    }
    let files = files.into_iter().map(attached).collect::<Result<Vec<_>>>()?;
    Ok(MimePart::new(multipart, std::iter::once(part).chain(files).collect::<Vec<_>>()))
}

fn attached<'x>(file: &'x StoredAttachment<'_>) -> Result<MimePart<'x>> {
    let base64: Cow<'_, str> = read(file.content)?;
    let bytes = base64_simd::STANDARD
        .decode_to_vec(base64.as_bytes())
        .map_err(|_| Error::data("the stored attachment is not base64"))?;
    let part = MimePart::new(content_type(&file.content_type), BodyPart::Binary(Cow::Owned(bytes)));
    let part = match &file.content_id {
        Some(id) => part.cid(id.as_str()),
        None => part,
    };
    Ok(match file.disposition {
        Disposition::Attachment => part.attachment(file.filename.as_str()),
        Disposition::Inline => {
            part.header("Content-Disposition", ContentType::new("inline").attribute("filename", file.filename.as_str()))
        }
    })
}

fn content_type(text: &str) -> ContentType<'_> {
    let mut pieces = text.split(';');
    let mut built = ContentType::new(pieces.next().unwrap_or_default().trim());
    for piece in pieces {
        if let Some((name, value)) = piece.split_once('=') {
            built = built.attribute(name.trim(), value.trim().trim_matches('"'));
        }
    }
    built
}

fn address(mailbox: &Mailbox) -> Address<'_> {
    Address::new_address(mailbox.name.as_deref(), mailbox.email.as_str())
}

fn addresses(mailboxes: &[Mailbox]) -> Address<'_> {
    Address::new_list(mailboxes.iter().map(address).collect())
}

fn finished(part: &RawValue, marker: Option<&str>, token: Option<&str>) -> Result<String> {
    let part: String = read(part)?;
    Ok(match (marker, token) {
        (Some(marker), Some(token)) => part.replace(marker, token),
        _ => part,
    })
}

fn read<'a, T: serde::Deserialize<'a>>(json: &'a RawValue) -> Result<T> {
    serde_json::from_str(json.get()).map_err(|error| Error::data(format!("the stored mail: {error}")))
}
