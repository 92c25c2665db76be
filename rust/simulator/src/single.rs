//! SendEmail with finished parts or a template.

use std::sync::Arc;

use serde_json::json;

use crate::accept::{
    Acceptable, Envelopes, Sender, accept, check_template_request_bytes, debit, invalid_data, template,
};
use crate::error::ApiError;
use crate::raw::send_raw;
use crate::request::{Charsetted, Destination, Header, SendRequest, Simple, Tag, TemplateUse};
use crate::rules::{self, DestinationError};
use crate::send::parse;
use crate::state::State;
use crate::stats::{Mode, Operation};
use crate::store::{Call, Content, message_id};
use crate::template::{DataError, Rendered};

/// Accepts one mail and answers with its id.
pub fn send_one(state: &State, body: &[u8]) -> Result<String, ApiError> {
    let request: SendRequest = parse(body)?;
    let content = request.content.as_ref().ok_or_else(|| ApiError::missing("content"))?;
    if request.list_management_options.is_some() {
        return Err(ApiError::not_found("List does not exist."));
    }
    let call = match (&content.simple, &content.raw, &content.template) {
        (Some(simple), None, None) => send_simple(state, &request, simple, body.len())?,
        (None, Some(raw), None) => send_raw(state, &request, raw, body.len())?,
        (None, None, Some(used)) => {
            check_template_request_bytes(body)?;
            send_template(state, &request, used, body.len())?
        }
        _ => {
            return Err(ApiError::bad_request("Content must be exactly one of simple, raw and template."));
        }
    };
    Ok(json!({"MessageId": message_id(state.instance, call.first, call.at_ms)}).to_string())
}

fn sender_of<'a>(state: &State, request: &'a SendRequest) -> Result<Sender<'a>, ApiError> {
    Sender::check(
        state,
        request.from_email_address.as_deref(),
        request.reply_to_addresses.as_deref(),
        request.configuration_set_name.as_deref(),
        request.tenant_name.as_deref(),
    )
}

/// The one envelope of SendEmail.
fn envelope(
    destination: Option<&Destination>,
    headers: Option<&[Header]>,
    tags: Option<&[Tag]>,
) -> Result<Envelopes, ApiError> {
    let headers = rules::headers(headers, "content.headers")?;
    let tags = rules::tags(tags, "emailTags")?;
    let none = Destination::default();
    let mut envelopes = Envelopes::default();
    envelopes.add(destination.unwrap_or(&none), (&[], &headers), (&[], &tags)).map_err(whole_call)?;
    Ok(envelopes)
}

/// With a single mail, a bad address refuses the call.
pub fn whole_call(error: DestinationError) -> ApiError {
    match error {
        DestinationError::Call(error) => error,
        DestinationError::Address(reason) => ApiError::bad_request(reason),
    }
}

fn send_simple(
    state: &State,
    request: &SendRequest,
    simple: &Simple,
    request_bytes: usize,
) -> Result<Arc<Call>, ApiError> {
    let subject = simple.subject.as_ref().ok_or_else(|| ApiError::missing("content.simple.subject"))?;
    let body = simple.body.as_ref().ok_or_else(|| ApiError::missing("content.simple.body"))?;
    let part =
        |part: &Option<Charsetted>, path: &str| part.as_ref().map_or(Ok(String::new()), |part| charsetted(part, path));
    let rendered = Rendered {
        subject: charsetted(subject, "content.simple.subject")?,
        html: part(&body.html, "content.simple.body.html")?,
        text: part(&body.text, "content.simple.body.text")?,
    };
    if body.html.is_none() && body.text.is_none() {
        return Err(ApiError::bad_request("Body must have an HTML or a text part."));
    }
    if rendered.subject.bytes().any(|b| b.is_ascii_control()) {
        return Err(ApiError::bad_request("Control characters are not allowed in the subject."));
    }
    let rendered_bytes = rendered.subject.len() + rendered.html.len() + rendered.text.len();
    check_mail_bytes(rendered_bytes)?;
    let sender = sender_of(state, request)?;
    let envelopes = envelope(request.destination.as_ref(), simple.headers.as_deref(), request.email_tags.as_deref())?;
    debit(state, &envelopes)?;
    accept(
        state,
        Acceptable {
            operation: Operation::SendEmail,
            mode: Mode::Simple,
            sender,
            subject: Some(rendered.subject.as_str().into()),
            envelopes,
            content: Content::Simple(rendered),
            request_bytes,
            rendered_bytes,
        },
    )
}

/// Text in its character set. Without one SES sends 7-bit ASCII, and everything else is lost.
fn charsetted(content: &Charsetted, path: &str) -> Result<String, ApiError> {
    let data = content.data.as_deref().ok_or_else(|| ApiError::missing(&format!("{path}.data")))?;
    match content.charset.as_deref() {
        Some(charset) if charset.eq_ignore_ascii_case("utf-8") => Ok(data.to_owned()),
        Some(charset) if !charset.eq_ignore_ascii_case("us-ascii") && !charset.eq_ignore_ascii_case("iso-8859-1") => {
            Err(ApiError::bad_request(format!("Unsupported charset {charset}.")))
        }
        charset => {
            let limit = if charset.is_some_and(|name| name.eq_ignore_ascii_case("iso-8859-1")) { 0xff } else { 0x7f };
            Ok(data.chars().map(|c| if u32::from(c) > limit { '?' } else { c }).collect())
        }
    }
}

/// A mail has at most 40 MB.
pub fn check_mail_bytes(bytes: usize) -> Result<(), ApiError> {
    if bytes > rules::MAX_MAIL_BYTES {
        return Err(ApiError::bad_request(format!(
            "Message length is more than {} bytes long.",
            rules::MAX_MAIL_BYTES
        )));
    }
    Ok(())
}

fn send_template(
    state: &State,
    request: &SendRequest,
    used: &TemplateUse,
    request_bytes: usize,
) -> Result<Arc<Call>, ApiError> {
    let sender = sender_of(state, request)?;
    let (template, data) = template(state, used, "content.template")?;
    let mut envelopes = envelope(request.destination.as_ref(), used.headers.as_deref(), request.email_tags.as_deref())?;
    let rendered_bytes = match template.measure(data) {
        Ok(bytes) => bytes,
        Err(DataError::Missing(slot)) => {
            envelopes.mails[0].missing_slot = Some(template.slot_name(slot).into());
            0
        }
        Err(DataError::Malformed) => return Err(invalid_data()),
    };
    debit(state, &envelopes)?;
    accept(
        state,
        Acceptable {
            operation: Operation::SendEmail,
            mode: Mode::Slots,
            sender,
            subject: None,
            envelopes,
            content: Content::Template { template, data: data.into(), ends: [data.len() as u32].into() },
            request_bytes,
            rendered_bytes,
        },
    )
}
