//! From a request to the content that is stored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::attachments::{Attachment, Given as GivenAttachment, check_attachments};
use super::fields::{
    Errors, FieldError, Mailbox, check_body, check_mailbox, check_recipients, check_reply_to, check_subject,
};
use super::headers::check_headers;
use super::stored::{Finished, Mode};
use crate::error::Error;
use crate::template::{self, Part, Source};

/// The largest mail unless the options say otherwise.
const MAX_MAIL_BYTES: usize = 10_000_000;
/// What a mail's headers and boundaries may take beside its parts.
const OVERHEAD_BYTES: usize = 4_096;

/// A mail as it is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    from: Mailbox,
    to: Vec<Mailbox>,
    #[serde(default)]
    cc: Vec<Mailbox>,
    #[serde(default)]
    bcc: Vec<Mailbox>,
    #[serde(default)]
    reply_to: Vec<Mailbox>,
    subject: String,
    #[serde(default)]
    html: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    preheader: Option<String>,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    attachments: Vec<GivenAttachment>,
    #[serde(default)]
    variables: Option<Box<RawValue>>,
    #[serde(default)]
    render: bool,
    #[serde(default)]
    track_opens: bool,
    #[serde(default)]
    track_clicks: bool,
    #[serde(default)]
    base_url: String,
    // Transactional mail has no footer, so it goes nowhere.
    #[serde(default, rename = "postal_address")]
    _postal_address: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    max_mail_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_mail_bytes: MAX_MAIL_BYTES }
    }
}

/// Why a mail was not prepared.
#[derive(Debug)]
pub enum Refusal {
    /// Everything that its author can mend.
    Fields(Vec<FieldError>),
    /// The JSON is not as the interface promises.
    Call(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

/// Checks a mail and finishes it but for its recipient's token; JSON in and out, as `_core.pyi` has it.
///
/// # Errors
/// [`Refusal::Fields`] with all that is wrong with the mail; [`Refusal::Call`] for other JSON.
pub fn prepare(mail: &[u8], options: &[u8]) -> Result<Vec<u8>, Refusal> {
    let given: Given = serde_json::from_slice(mail).map_err(|error| Error::data(format!("the mail JSON: {error}")))?;
    let options: Options =
        serde_json::from_slice(options).map_err(|error| Error::data(format!("the options JSON: {error}")))?;
    let mut errors = Errors::default();
    let finished = finish(given, &mut errors)?;
    check_size(&finished, options.max_mail_bytes, &mut errors);
    if !errors.0.is_empty() {
        return Err(Refusal::Fields(errors.0));
    }
    serde_json::to_vec(&finished).map_err(|error| Error::data(format!("the mail cannot be JSON: {error}")).into())
}

fn finish(given: Given, errors: &mut Errors) -> Result<Finished, Refusal> {
    let from = check_mailbox("from", given.from, errors);
    let [to, cc, bcc] = check_recipients([given.to, given.cc, given.bcc], errors);
    let reply_to = check_reply_to(given.reply_to, errors);
    let headers = check_headers(given.headers.unwrap_or_default(), errors);
    let attachments = check_attachments(given.attachments, errors);
    if given.html.is_none() && given.text.is_none() {
        errors.add("html", "field_missing", "html or text is required.");
    }
    let variables = given.variables.as_deref().map_or("{}", RawValue::get);
    if !variables.starts_with('{') {
        return Err(Error::data("the mail JSON: variables is not an object").into());
    }
    let mut render = |part: Part, source: String| -> Result<String, Refusal> {
        if !given.render {
            return Ok(source);
        }
        template::render_once(part, &source, variables.as_bytes()).or_else(|error| blame(part, error, errors))
    };
    let subject = render(Part::Subject, given.subject)?;
    let html = given.html.map(|html| render(Part::Html, html)).transpose()?;
    let text = given.text.map(|text| render(Part::Text, text)).transpose()?;
    let preheader = match given.preheader {
        Some(preheader) if given.render => Some(render(Part::Preheader, preheader)?),
        // As it stands it is words, not markup.
        preheader => preheader.map(|words| words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")),
    };
    let subject = check_subject(&subject, errors);
    for (param, part) in [("html", &html), ("text", &text)] {
        if let Some(part) = part {
            check_body(param, part, errors);
        }
    }
    let mode = mode_of(&to, &cc, &bcc, &attachments);
    let Some(html) = html else {
        let (links, token) = (Vec::new(), None);
        let html = None;
        return Ok(Finished {
            from,
            to,
            cc,
            bcc,
            reply_to,
            subject,
            html,
            text,
            headers,
            attachments,
            links,
            token,
            mode,
        });
    };
    let marker = marker_for(&html);
    let source = Source {
        html,
        text,
        preheader,
        base_url: given.base_url,
        track_opens: given.track_opens,
        track_clicks: given.track_clicks,
        ..Source::default()
    };
    let decorated = match template::decorate(&source, &marker) {
        Ok(decorated) => decorated,
        Err(error) => {
            blame(Part::Html, error, errors)?;
            template::Decorated::default()
        }
    };
    let token = (decorated.html.contains(&marker) || decorated.text.contains(&marker)).then_some(marker);
    let (html, text, links) = (Some(decorated.html), Some(decorated.text), decorated.links);
    Ok(Finished { from, to, cc, bcc, reply_to, subject, html, text, headers, attachments, links, token, mode })
}

/// Notes a template's error against its part; others concern the whole call.
fn blame(part: Part, error: Error, errors: &mut Errors) -> Result<String, Refusal> {
    if error.part.is_empty() {
        return Err(error.into());
    }
    errors.add(part.name(), "template_invalid", error.to_string());
    Ok("-".to_owned())
}

/// SES builds the MIME of what needs no care: one address, and files whose names it surely writes right.
fn mode_of(to: &[Mailbox], cc: &[Mailbox], bcc: &[Mailbox], attachments: &[Attachment]) -> Mode {
    let is_single = to.len() == 1 && cc.is_empty() && bcc.is_empty();
    if is_single && attachments.iter().all(Attachment::is_plain) { Mode::Simple } else { Mode::Raw }
}

/// 39 characters that the mail does not have, the same ones for the same mail.
fn marker_for(html: &str) -> String {
    let mut round = 0_u8;
    loop {
        let digest = Sha256::new().chain_update([round]).chain_update(html).finalize();
        let marker = format!("mailrail{}", &data_encoding::BASE32_NOPAD.encode(&digest)[..31]);
        if !html.contains(&marker) {
            return marker;
        }
        round = round.wrapping_add(1);
    }
}

fn check_size(mail: &Finished, max_bytes: usize, errors: &mut Errors) {
    let parts = [&mail.html, &mail.text].into_iter().flatten();
    // Base64 takes four bytes for three, and a line's end for each 76.
    let bytes = OVERHEAD_BYTES
        + parts.map(|part| part.len() * 4 / 3 * 78 / 76).sum::<usize>()
        + mail.attachments.iter().map(Attachment::travelling_bytes).sum::<usize>();
    if bytes > max_bytes {
        let param = if mail.attachments.is_empty() { "html" } else { "attachments" };
        let message = format!("The mail would travel as about {bytes} bytes; at most {max_bytes} are taken.");
        errors.add(param, "mail_too_large", message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mail(changes: Value) -> Vec<u8> {
        let mut mail = json!({
            "from": {"name": "Acme", "email": "you@acme.com"},
            "to": [{"email": "ann@example.com"}],
            "subject": "Hi",
            "html": "<p>Hello <a href=\"https://example.com/a\">A</a></p>",
            "base_url": "https://m.example.com",
        });
        for (name, value) in changes.as_object().unwrap() {
            mail[name] = value.clone();
        }
        serde_json::to_vec(&mail).unwrap()
    }

    fn prepared(changes: Value) -> Value {
        serde_json::from_slice(&prepare(&mail(changes), b"{}").unwrap()).unwrap()
    }

    fn refused(changes: Value) -> Vec<(String, &'static str)> {
        match prepare(&mail(changes), b"{}") {
            Err(Refusal::Fields(errors)) => errors.into_iter().map(|error| (error.param, error.code)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mail_is_taken_as_it_stands() {
        let made = prepared(json!({"html": "<p>{{ name }} {% if %}</p>"}));
        assert_eq!(made["html"], "<p>{{ name }} {% if %}</p>");
        assert_eq!(made["text"], "{{ name }} {% if %}");
        assert_eq!((&made["mode"], &made["token"], &made["links"]), (&json!("simple"), &Value::Null, &json!([])));
    }

    #[test]
    fn variables_fill_templates_and_are_escaped() {
        let made = prepared(json!({
            "render": true, "variables": {"who": "<Ann>"}, "subject": "Hi {{ who }}", "html": "<p>{{ who }}</p>",
        }));
        assert_eq!((&made["subject"], &made["html"]), (&json!("Hi <Ann>"), &json!("<p>&lt;Ann&gt;</p>")));
    }

    #[test]
    fn a_value_cannot_bring_a_line_into_the_subject() {
        let changes = json!({"render": true, "variables": {"who": "x\r\nBcc: b@c.d"}, "subject": "Hi {{ who }}"});
        assert_eq!(refused(changes), [("subject".to_owned(), "text_control_character")]);
    }

    #[test]
    fn links_and_pixel_wait_for_their_token() {
        let made = prepared(json!({"track_opens": true, "track_clicks": true}));
        let token = made["token"].as_str().unwrap();
        assert_eq!(token.len(), 39);
        let html = made["html"].as_str().unwrap();
        assert!(html.contains(&format!("https://m.example.com/c/{token}/1")), "{html}");
        assert!(html.contains(&format!("https://m.example.com/o/{token}")), "{html}");
        assert!(made["text"].as_str().unwrap().contains(token));
        assert_eq!(made["links"], json!(["https://example.com/a"]));
    }

    #[test]
    fn the_same_mail_is_the_same_bytes() {
        let mail = mail(json!({"track_opens": true}));
        assert_eq!(prepare(&mail, b"{}").unwrap(), prepare(&mail, b"{}").unwrap());
    }

    #[test]
    fn several_addresses_travel_raw() {
        assert_eq!(prepared(json!({"cc": [{"email": "bob@example.com"}]}))["mode"], "raw");
        assert_eq!(prepared(json!({"bcc": [{"email": "bob@example.com"}]}))["mode"], "raw");
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let found = refused(json!({
            "to": [{"email": "nobody"}], "subject": "a\nb", "html": null, "headers": {"Bcc": "x"},
            "attachments": [{"filename": "a.exe", "content": "???"}],
        }));
        let params: Vec<&str> = found.iter().map(|(param, _)| param.as_str()).collect();
        let expected =
            ["to[0].email", "headers.Bcc", "attachments[0].filename", "attachments[0].content", "html", "subject"];
        assert_eq!(params, expected);
    }

    #[test]
    fn a_template_that_fails_is_its_parts_error() {
        assert_eq!(refused(json!({"render": true, "html": "{% if %}"})), [("html".to_owned(), "template_invalid")]);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let big = mail(json!({"html": "x".repeat(200_000)}));
        match prepare(&big, br#"{"max_mail_bytes": 100000}"#) {
            Err(Refusal::Fields(errors)) => assert_eq!(errors[0].code, "mail_too_large"),
            other => panic!("{other:?}"),
        }
    }
}
