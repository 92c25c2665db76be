//! Nothing that a customer or a reader writes may become a header or a part of a mail. Tests only: what goes through
//! `prepare` is written as MIME and read again by the plain rules of RFC 5322 and 2046, which here are written anew.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::mime;
use super::prepare::{Refusal, prepare};
use super::stored::Stored;
use super::submit::{Identity, assemble};
use crate::copy::MailRow;
use crate::token::TokenKeys;

/// What could end a header, begin one, end a part, or be read as something else than it is.
const NASTY: [&str; 24] = [
    "\r\nBcc: victim@example.com",
    "\nBcc: victim@example.com",
    "\rBcc: victim@example.com",
    "\r\n Bcc: victim@example.com",
    "\r\n\tBcc: victim@example.com",
    "\r\n\r\n<p>another body</p>",
    "\n\nanother body",
    "\u{85}Bcc: victim@example.com",
    "\u{2028}Bcc: victim@example.com",
    "\u{2029}Bcc: victim@example.com",
    "\u{b}Bcc: victim@example.com",
    "\u{c}Bcc: victim@example.com",
    "\0Bcc: victim@example.com",
    "\u{10a}\u{10d}Bcc: victim@example.com",
    "=?utf-8?q?=0D=0ABcc:_victim@example.com?=",
    "=?utf-8?b?DQpCY2M6IHZpY3RpbUBleGFtcGxlLmNvbQ==?=",
    "\" <victim@example.com>, \"",
    "\\\" <victim@example.com>, \\\"",
    "x> , <victim@example.com",
    "(comment\\) victim@example.com",
    "\"; name=\"evil.exe\r\nContent-Type: text/html",
    "\r\n--boundary\r\nContent-Type: text/html\r\n\r\n<p>another</p>\r\n--boundary--\r\n",
    "\r\n.\r\nMAIL FROM:<victim@example.com>",
    "é\r\nBcc: victim@example.com\r\n日本語",
];

/// Where a value can stand, as the path of the mail's JSON.
const PLACES: [&str; 14] = [
    "/from/name",
    "/from/email",
    "/to/0/name",
    "/to/0/email",
    "/to/1/name",
    "/cc/0/name",
    "/reply_to/0/name",
    "/reply_to/0/email",
    "/subject",
    "/variables/value",
    "/headers/X-Order",
    "/attachments/0/filename",
    "/attachments/0/content_type",
    "/attachments/0/content_id",
];

fn mail() -> Value {
    json!({
        "from": {"name": "Acme", "email": "you@acme.com"},
        "to": [{"name": "Ann", "email": "ann@example.com"}, {"name": "Bob", "email": "bob@example.com"}],
        "cc": [{"name": "Carl", "email": "carl@example.com"}],
        "reply_to": [{"name": "Desk", "email": "desk@acme.com"}],
        "render": true,
        "variables": {"value": "v"},
        "subject": "Hi",
        "preheader": "{{ value }}",
        "html": "<p>{{ value }}</p><a href=\"https://example.com/?q={{ value }}\">{{ value }}</a>",
        "text": "{{ value }}",
        "headers": {"X-Order": "7"},
        "attachments": [{
            "filename": "a.txt", "content": "aGk=", "content_type": "text/plain", "content_id": "a",
            "disposition": "inline",
        }],
        "base_url": "https://m.example.com",
        "track_opens": true,
        "track_clicks": true,
    })
}

/// The value alone, and in the middle of a harmless one.
fn values() -> impl Iterator<Item = String> {
    NASTY.iter().flat_map(|nasty| [(*nasty).to_owned(), format!("good{nasty}better"), format!("{nasty}{nasty}")])
}

fn put(mail: &mut Value, place: &str, value: &str) {
    *mail.pointer_mut(place).unwrap() = json!(value);
}

/// What is sent of a mail that is taken, as its bytes in MIME.
fn written(mail: &Value) -> Option<Vec<u8>> {
    match prepare(&serde_json::to_vec(mail).unwrap(), b"{}") {
        Ok(content) => Some(mime::build(&Stored::read(&content).unwrap(), "eml_x", Some(&"t".repeat(39))).unwrap()),
        Err(Refusal::Fields(errors)) => {
            assert!(!errors.is_empty());
            None
        }
        Err(Refusal::Call(error)) => panic!("{error}"),
    }
}

/// The names of an entity's headers, and its body.
fn read(entity: &str) -> (Vec<(String, String)>, &str) {
    let (head, body) = entity.split_once("\r\n\r\n").unwrap();
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in head.split("\r\n") {
        assert!(!line.contains(['\r', '\n']), "a bare line break in a header: {line:?}");
        assert!(line.is_ascii() && !line.contains('\0'), "not plain ASCII: {line:?}");
        if line.starts_with([' ', '\t']) {
            assert!(!line.trim().is_empty(), "a folded line of nothing");
            headers.last_mut().unwrap().1.push_str(line);
        } else {
            let (name, value) = line.split_once(':').unwrap();
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    (headers, body)
}

/// The tree of types, as `mixed(text html)`, and all headers of all entities, counted.
fn shape(entity: &str, found: &mut BTreeMap<String, usize>) -> String {
    let (headers, body) = read(entity);
    for (name, _) in &headers {
        *found.entry(name.clone()).or_default() += 1;
    }
    let kind = &headers.iter().find(|(name, _)| name == "content-type").unwrap().1;
    let Some((_, boundary)) = kind.split_once("boundary=\"") else {
        return kind.split(';').next().unwrap().to_owned();
    };
    let boundary = boundary.split('"').next().unwrap();
    let end = format!("\r\n--{boundary}");
    let whole = format!("\r\n{body}");
    let mut pieces = whole.split(end.as_str());
    pieces.next();
    let parts: Vec<String> =
        pieces.filter_map(|piece| piece.strip_prefix("\r\n")).map(|part| shape(part, found)).collect();
    format!("{}({})", kind.split(';').next().unwrap(), parts.join(" "))
}

fn seen(mime: &[u8]) -> (String, BTreeMap<String, usize>) {
    let mut found = BTreeMap::new();
    (shape(std::str::from_utf8(mime).unwrap(), &mut found), found)
}

/// Everybody that the message's address headers name, in the order of the message.
fn readers(mime: &[u8]) -> Vec<String> {
    let (headers, _) = read(std::str::from_utf8(mime).unwrap());
    let boxes = headers.iter().filter(|(name, _)| ["from", "to", "cc", "bcc", "reply-to"].contains(&name.as_str()));
    boxes.flat_map(|(_, value)| angles(value)).collect()
}

/// What stands in angle brackets outside of quotes.
fn angles(value: &str) -> Vec<String> {
    let (mut found, mut is_quoted, mut is_escaped, mut inside) = (Vec::new(), false, false, None::<String>);
    for character in value.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '<' if !is_quoted => inside = Some(String::new()),
            '>' if !is_quoted => found.extend(inside.take()),
            _ => {
                if let Some(address) = &mut inside {
                    address.push(character);
                }
            }
        }
    }
    found
}

#[test]
fn no_value_becomes_a_header_a_part_or_a_recipient() {
    let plain = written(&mail()).unwrap();
    let (expected, boxes) = (seen(&plain), readers(&plain));
    let whole = "multipart/alternative(text/plain multipart/related(text/html text/plain))";
    assert_eq!(expected.0, whole);
    assert_eq!(
        boxes,
        ["you@acme.com", "ann@example.com", "bob@example.com", "carl@example.com", "desk@acme.com"],
        "the reader of these tests reads"
    );
    let mut taken = 0;
    for place in PLACES {
        for value in values() {
            let mut changed = mail();
            put(&mut changed, place, &value);
            let Some(mime) = written(&changed) else { continue };
            taken += 1;
            let (shape, headers) = seen(&mime);
            // A type may be changed by its own field, but never into more than one.
            if place != "/attachments/0/content_type" {
                assert_eq!(shape, whole, "{place} {value:?}");
            }
            assert_eq!(headers, expected.1, "{place} {value:?}");
            // An address may be another, but not two.
            let found = readers(&mime);
            assert_eq!(found.len(), boxes.len(), "{place} {value:?}");
            assert!(found == boxes || place.ends_with("/email"), "{place} {value:?}");
        }
    }
    // Not all were refused: bodies take anything but NUL, and names what can be quoted.
    assert!(taken > 60, "{taken}");
}

#[test]
fn a_value_in_the_subject_stays_one_line_or_is_refused() {
    for value in values() {
        let mut changed = mail();
        put(&mut changed, "/subject", "Hi {{ value }}!");
        put(&mut changed, "/variables/value", &value);
        let is_line = !value.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
        let mime = written(&changed);
        assert_eq!(mime.is_some(), is_line, "{value:?}");
    }
}

#[test]
fn no_name_of_a_header_is_more_than_a_name() {
    let expected = seen(&written(&mail()).unwrap()).1;
    for value in values() {
        for name in [value.clone(), format!("X-Order{value}"), format!("X-Order: 7{value}")] {
            let mut changed = mail();
            changed["headers"] = json!({name.as_str(): "7"});
            let Some(mime) = written(&changed) else { continue };
            let mut headers = expected.clone();
            headers.remove("x-order");
            headers.insert(name.to_ascii_lowercase(), 1);
            assert_eq!(seen(&mime).1, headers, "{name:?}");
            assert!(!name.contains(|c: char| c.is_control() || c == ':' || c == ' '), "{name:?}");
        }
    }
}

#[test]
fn the_reader_finds_what_is_smuggled() {
    let plain = String::from_utf8(written(&mail()).unwrap()).unwrap();
    let header = plain.replacen("\r\nSubject:", "\r\nBcc: <victim@example.com>\r\nSubject:", 1);
    assert_ne!(seen(header.as_bytes()).1, seen(plain.as_bytes()).1);
    assert_ne!(readers(header.as_bytes()), readers(plain.as_bytes()));
    let boundary = plain.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap();
    let part = format!("\r\n--{boundary}\r\nContent-Type: text/html\r\n\r\nx\r\n--{boundary}--");
    let smuggled = plain.replacen(&format!("\r\n--{boundary}--"), &part, 1);
    assert_ne!(seen(smuggled.as_bytes()).0, seen(plain.as_bytes()).0);
}

/// The request for Ann's copy.
fn asked_of_ses(content: &[u8]) -> Value {
    let identity = Identity { account_id: 1, configuration_set: None };
    let row = MailRow { stream_id: 9, seq: 1, attempt: 1, skip: None, email: "ann@example.com", content };
    let keys = TokenKeys::derive(&[7; 32]);
    let request = assemble(&identity, &keys, &row, &Stored::read(content).unwrap()).unwrap();
    serde_json::from_slice(&request.body).unwrap()
}

/// What goes as JSON is read back as what was put in: SES builds those mails, and gets no more fields than these.
#[test]
fn mail_to_one_address_stays_in_its_fields() {
    for place in ["/from/name", "/to/0/name", "/reply_to/0/name", "/variables/value", "/headers/X-Order"] {
        for value in values() {
            let mut changed = mail();
            changed["to"] = json!([{"name": "Ann", "email": "ann@example.com"}]);
            changed["cc"] = json!([]);
            changed["attachments"] = json!([]);
            put(&mut changed, place, &value);
            let Ok(content) = prepare(&serde_json::to_vec(&changed).unwrap(), b"{}") else { continue };
            let request = asked_of_ses(&content);
            let simple = &request["Content"]["Simple"];
            let named: Vec<&str> =
                simple["Headers"].as_array().unwrap().iter().filter_map(|one| one["Name"].as_str()).collect();
            assert_eq!(named, ["X-Order", "X-Mailrail-Id"], "{place} {value:?}");
            let lines = [
                &request["FromEmailAddress"],
                &request["Destination"],
                &request["ReplyToAddresses"],
                &simple["Subject"],
                &simple["Headers"],
            ];
            for line in lines {
                let text = line.to_string();
                assert!(!text.contains("\\r") && !text.contains("\\n"), "{place} {value:?}: {text}");
            }
            assert_eq!(angles(request["Destination"]["ToAddresses"][0].as_str().unwrap()), ["ann@example.com"]);
        }
    }
}
