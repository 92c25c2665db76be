//! SendEmail with finished MIME.

use std::sync::Arc;

use serde_json::json;

use crate::accept::{Acceptable, Envelopes, Sender, accept, check_from, debit};
use crate::error::ApiError;
use crate::mime;
use crate::request::{Destination, Raw, SendRequest, Tag};
use crate::rules;
use crate::send::parse;
use crate::single::{check_mail_bytes, whole_call};
use crate::state::State;
use crate::stats::{Mode, Operation};
use crate::store::{Call, Content};

/// The headers that say who a raw mail is from and to; they are shown from the envelope instead.
const ENVELOPE_HEADERS: [&str; 7] = ["from", "to", "cc", "bcc", "reply-to", "subject", "mime-version"];

/// Who it is from and to may stand in the message itself, and so may configuration set and tags.
pub fn send_raw(state: &State, request: &SendRequest, raw: &Raw, request_bytes: usize) -> Result<Arc<Call>, ApiError> {
    let data = raw.data.as_deref().ok_or_else(|| ApiError::missing("content.raw.data"))?;
    let message = base64_simd::STANDARD
        .decode_to_vec(data)
        .map_err(|_| ApiError::serialization("content.raw.data is not base64"))?;
    check_mail_bytes(message.len())?;
    if message.split(|b| *b == b'\n').any(|line| line.len() > 1000) {
        return Err(ApiError::bad_request("Lines of a raw message must have at most 1000 characters."));
    }
    let (headers, _) = mime::split(&message).ok_or_else(|| ApiError::bad_request("The message has no headers."))?;
    let header = |name| mime::header(&headers, name);
    let sender = Sender::check(
        state,
        request.from_email_address.as_deref().or(header("From")),
        request.reply_to_addresses.as_deref(),
        request.configuration_set_name.as_deref().or(header("X-SES-CONFIGURATION-SET")),
        request.tenant_name.as_deref(),
    )?;
    if let Some(from) = header("From") {
        check_from(state, from)?;
    }
    let envelopes = raw_envelope(request, &headers)?;
    debit(state, &envelopes)?;
    accept(
        state,
        Acceptable {
            operation: Operation::SendEmail,
            mode: Mode::Raw,
            sender,
            subject: header("Subject").map(Into::into),
            envelopes,
            rendered_bytes: message.len(),
            content: Content::Raw(message.into()),
            request_bytes,
        },
    )
}

/// Recipients come from the destination, or else from the message's own headers; tags from both places.
fn raw_envelope(request: &SendRequest, headers: &[(String, String)]) -> Result<Envelopes, ApiError> {
    let list = |name| mime::header(headers, name).map(mime::addresses).unwrap_or_default();
    let from_headers = serde_json::to_vec(&json!({
        "ToAddresses": list("To"), "CcAddresses": list("Cc"), "BccAddresses": list("Bcc"),
    }))
    .unwrap_or_default();
    let from_headers: Destination = parse(&from_headers)?;
    let given = request.destination.as_ref().filter(|given| {
        [&given.to_addresses, &given.cc_addresses, &given.bcc_addresses]
            .iter()
            .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
    });
    let shown: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .filter(|(name, _)| {
            let is_ours = name.len() > 6 && name.as_bytes()[..6].eq_ignore_ascii_case(b"X-SES-");
            !is_ours && !ENVELOPE_HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known))
        })
        .collect();
    let header_tags = mime::header(headers, "X-SES-MESSAGE-TAGS").unwrap_or("");
    let header_tags: Vec<serde_json::Value> = header_tags
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| json!({"Name": name.trim(), "Value": value.trim()}))
        .collect();
    let header_tags = serde_json::to_vec(&header_tags).unwrap_or_default();
    let header_tags: Vec<Tag> = parse(&header_tags)?;
    let header_tags = rules::tags(Some(&header_tags), "X-SES-MESSAGE-TAGS")?;
    let tags = rules::tags(request.email_tags.as_deref(), "emailTags")?;
    let mut envelopes = Envelopes::default();
    envelopes.add(given.unwrap_or(&from_headers), (&[], &shown), (&header_tags, &tags)).map_err(whole_call)?;
    Ok(envelopes)
}
