//! What goes into a message's headers: names, addresses, subjects, unsubscribe headers.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// The longest header value that SES takes, in bytes (SendEmail's `MessageHeader.Value`).
pub const MAX_HEADER_VALUE_BYTES: usize = 995;
/// The longest encoded word (RFC 2047, section 2).
const MAX_ENCODED_WORD_BYTES: usize = 75;

/// A subject fit for a header: each run of control characters becomes one space, then the ends are trimmed.
pub fn clean_subject(subject: &str) -> Cow<'_, str> {
    if !subject.contains(char::is_control) {
        return Cow::Borrowed(subject.trim());
    }
    Cow::Owned(without_controls(subject).trim().to_owned())
}

fn without_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_run = false;
    for character in text.chars() {
        if !character.is_control() {
            out.push(character);
        } else if !in_run {
            out.push(' ');
        }
        in_run = character.is_control();
    }
    out
}

/// An address with an optional display name, as SES takes it in `FromEmailAddress` and `ReplyToAddresses`.
///
/// Errors if the address could break out of its header.
pub fn mailbox(name: Option<&str>, address: &str) -> Result<String> {
    let address = checked_address(address)?;
    let name = name.map(display_name).unwrap_or_default();
    Ok(if name.is_empty() { address.to_owned() } else { format!("{name} <{address}>") })
}

/// A display name for an address header: as it is if it is plain words, quoted if it has specials
/// (RFC 5322, section 3.2.3), as RFC 2047 encoded words if it is not ASCII. Control characters become spaces.
pub fn display_name(name: &str) -> String {
    let name = without_controls(name);
    let name = name.trim();
    if !name.is_ascii() {
        encoded_words(name)
    } else if name.bytes().all(is_word_byte) && !name.contains("=?") {
        name.to_owned()
    } else {
        quoted(name)
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn quoted(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    out.push('"');
    for character in name.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
    out
}

/// UTF-8 in base64, in as many words as needed; no character is split between words (RFC 2047, section 5).
fn encoded_words(text: &str) -> String {
    const START: &str = "=?UTF-8?B?";
    const END: &str = "?=";
    const MAX_CHUNK_BYTES: usize = (MAX_ENCODED_WORD_BYTES - START.len() - END.len()) / 4 * 3;
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(MAX_CHUNK_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (chunk, after) = rest.split_at(end);
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(START);
        out.push_str(&base64_simd::STANDARD.encode_to_string(chunk));
        out.push_str(END);
        rest = after;
    }
    out
}

/// The address, if it is printable ASCII that cannot end its header or begin another mailbox.
pub fn checked_address(address: &str) -> Result<&str> {
    let address = address.trim();
    let printable = address.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>,;\\\"()[]".contains(&byte));
    let parts = address.rsplit_once('@');
    let complete = parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if printable && complete {
        return Ok(address);
    }
    Err(Error::config("an email address is not plain ASCII of the form name@domain"))
}

/// Whether SES and every mail server take `value` as a header's value: printable ASCII, not too long.
pub fn is_header_value(value: &str) -> bool {
    value.len() <= MAX_HEADER_VALUE_BYTES && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether `name` can be a header's name: 1 to 126 printable ASCII characters without a colon.
pub fn is_header_name(name: &str) -> bool {
    (1..=126).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

/// The headers of one recipient, in the order that mail clients need to show their unsubscribe button.
/// `public_id` is the mail's `eml_…`.
pub fn recipient_headers(unsubscribe_url: &str, public_id: &str) -> [(&'static str, String); 3] {
    [
        ("List-Unsubscribe", format!("<{unsubscribe_url}>")),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned()),
        ("X-Mailrail-Id", public_id.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_lose_control_characters_and_outer_space() {
        for (subject, clean) in [
            ("Hello", "Hello"),
            ("  Hi \u{3000}", "Hi"),
            ("a\r\nBcc: x\0\u{85}\u{7f}b\n", "a Bcc: x b"),
            ("\n\t", ""),
            ("héllo 👋 \u{202b}שלום", "héllo 👋 \u{202b}שלום"),
        ] {
            assert_eq!(clean_subject(subject), clean);
        }
    }

    #[test]
    fn display_names_are_plain_quoted_or_encoded() {
        for (name, shown) in [
            ("Acme News", "Acme News"),
            ("Acme, Inc.", "\"Acme, Inc.\""),
            ("A \"B\" \\ C", "\"A \\\"B\\\" \\\\ C\""),
            ("=?utf-8?q?x?=", "\"=?utf-8?q?x?=\""),
            ("Zoë", "=?UTF-8?B?Wm/Dqw==?="),
            ("a\r\nBcc: x", "\"a Bcc: x\""),
            ("  ", ""),
        ] {
            assert_eq!(display_name(name), shown, "{name}");
        }
    }

    #[test]
    fn long_names_become_short_words_that_decode() {
        let name = "Größe 👩‍🚀 ".repeat(20);
        let shown = display_name(&name);
        let mut decoded = String::new();
        for word in shown.split(' ') {
            assert!(word.len() <= MAX_ENCODED_WORD_BYTES);
            let base64 = word.strip_prefix("=?UTF-8?B?").and_then(|word| word.strip_suffix("?=")).unwrap();
            let bytes = base64_simd::STANDARD.decode_to_vec(base64).unwrap();
            decoded.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        assert_eq!(decoded, name.trim());
    }

    #[test]
    fn mailboxes_cannot_be_injected() {
        assert_eq!(mailbox(Some("Ada"), "a@example.com").unwrap(), "Ada <a@example.com>");
        assert_eq!(mailbox(None, " a@example.com ").unwrap(), "a@example.com");
        assert_eq!(mailbox(Some(" \n"), "a@example.com").unwrap(), "a@example.com");
        for address in ["", "a", "@b", "a@", "a@b\r\nBcc: c@d", "a@b>", "a@b, c@d", "ä@b", "a b@c"] {
            assert!(mailbox(None, address).is_err(), "{address}");
        }
    }

    #[test]
    fn header_checks() {
        assert!(is_header_value("<https://a.example/u/x>"));
        assert!(!is_header_value("a\nb") && !is_header_value("ä") && !is_header_value(&"a".repeat(996)));
        assert!(is_header_name("X-Mailrail-Id"));
        assert!(!is_header_name("") && !is_header_name("a:b") && !is_header_name("a b"));
        let names: Vec<_> = recipient_headers("https://a/u/x", "eml_x").map(|(name, _)| name).into();
        assert_eq!(names, ["List-Unsubscribe", "List-Unsubscribe-Post", "X-Mailrail-Id"]);
    }
}
