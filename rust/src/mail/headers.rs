//! The headers that a customer may set.

use std::collections::{BTreeMap, HashSet};

use super::fields::Errors;
use crate::message::{is_header_name, is_header_value};

/// SES takes 15 custom headers, and one of them is our own.
const MAX_HEADERS: usize = 14;
/// SES takes 996 characters of name and value, and 870 by its older documentation: both have room for this.
const MAX_HEADER_BYTES: usize = 870;

/// Headers of RFC 5322, 2156, 2919, 3834 and common use that say nothing about who sends, who receives, how the
/// body is built and how to unsubscribe. Lower case.
const ALLOWED: [&str; 19] = [
    "accept-language",
    "auto-submitted",
    "comments",
    "content-language",
    "expires",
    "importance",
    "in-reply-to",
    "keywords",
    "list-archive",
    "list-help",
    "list-id",
    "list-owner",
    "organization",
    "precedence",
    "priority",
    "references",
    "sensitivity",
    "thread-index",
    "thread-topic",
];
/// Beginnings of `X-` headers that mean something to SES or to us. Lower case.
const RESERVED_X: [&str; 3] = ["x-ses-", "x-mailrail-", "x-amz"];

/// The headers, their values trimmed.
pub(super) fn check_headers(headers: BTreeMap<String, String>, errors: &mut Errors) -> BTreeMap<String, String> {
    if headers.len() > MAX_HEADERS {
        errors.add("headers", "list_too_long", format!("headers has at most {MAX_HEADERS} items."));
        return headers;
    }
    let mut known = HashSet::new();
    let check = |(name, value): (String, String)| {
        let value = value.trim_matches(' ').to_owned();
        check_header(&name, &value, errors);
        if !known.insert(name.to_ascii_lowercase()) {
            errors.add(param_of(&name), "header_repeated", "This header is given twice.");
        }
        (name, value)
    };
    headers.into_iter().map(check).collect()
}

fn check_header(name: &str, value: &str, errors: &mut Errors) {
    let param = param_of(name);
    if !is_header_name(name) {
        errors.add(param, "header_invalid", "A header's name has 1 to 126 ASCII characters without spaces and colons.");
    } else if !is_allowed(name) {
        let message = format!("The header {name} cannot be set. Choose a name that begins with X-.");
        errors.add(param, "header_reserved", message);
    } else if value.is_empty() || !is_header_value(value) {
        let message = format!("The value of {name} must be printable ASCII in one line, and not empty.");
        errors.add(param, "header_invalid", message);
    } else if name.len() + value.len() > MAX_HEADER_BYTES {
        let message = format!("{name} and its value have at most {MAX_HEADER_BYTES} characters together.");
        errors.add(param, "text_too_long", message);
    }
}

fn is_allowed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_free = name.len() > 2 && name.starts_with("x-") && !RESERVED_X.iter().any(|start| name.starts_with(start));
    is_free || ALLOWED.contains(&name.as_str())
}

/// The path of a header, with nothing in it that a path of ours would not have.
fn param_of(name: &str) -> String {
    if is_header_name(name) { format!("headers.{name}") } else { "headers".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(name: &str, value: &str) -> Vec<&'static str> {
        let mut errors = Errors::default();
        check_headers(BTreeMap::from([(name.to_owned(), value.to_owned())]), &mut errors);
        errors.0.iter().map(|error| error.code).collect()
    }

    #[test]
    fn harmless_headers_pass() {
        for name in ["X-Order", "x-a", "In-Reply-To", "REFERENCES", "List-Id", "Auto-Submitted", "X-Priority"] {
            assert!(codes(name, "some value").is_empty(), "{name}");
        }
        assert!(codes("X-Order", &"v".repeat(MAX_HEADER_BYTES - 7)).is_empty());
    }

    #[test]
    fn headers_that_are_not_the_customers_are_refused() {
        for name in [
            "From",
            "to",
            "CC",
            "Bcc",
            "Sender",
            "Reply-To",
            "Return-Path",
            "Subject",
            "Date",
            "Message-ID",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding",
            "DKIM-Signature",
            "ARC-Seal",
            "Authentication-Results",
            "Received",
            "X-SES-CONFIGURATION-SET",
            "x-ses-message-tags",
            "X-Mailrail-Id",
            "List-Unsubscribe",
            "List-Unsubscribe-Post",
            "Resent-To",
            "Feedback-ID",
            "X-",
            "Anything",
        ] {
            assert_eq!(codes(name, "x"), ["header_reserved"], "{name}");
        }
    }

    #[test]
    fn what_could_end_a_header_is_refused() {
        for value in ["a\r\nBcc: b@c.d", "a\nb", "a\rb", "a\0b", "a\tb", "a\u{85}b", "a\u{2028}b", "é", "", "  "] {
            assert_eq!(codes("X-A", value), ["header_invalid"], "{value:?}");
        }
        for name in ["", "X A", "X-A:", "X-A\r\nBcc", "X-Ä", &"x-".repeat(64)] {
            assert_eq!(codes(name, "x"), ["header_invalid"], "{name:?}");
        }
        assert_eq!(codes("X-A", &"v".repeat(MAX_HEADER_BYTES)), ["text_too_long"]);
    }

    #[test]
    fn too_many_and_repeated_headers_are_refused() {
        let check = |names: Vec<String>| {
            let mut errors = Errors::default();
            check_headers(names.into_iter().map(|name| (name, "x".to_owned())).collect(), &mut errors);
            errors.0.into_iter().map(|error| (error.param, error.code)).collect::<Vec<_>>()
        };
        assert!(check((0..14).map(|n| format!("X-{n}")).collect()).is_empty());
        assert_eq!(check((0..15).map(|n| format!("X-{n}")).collect()), [("headers".to_owned(), "list_too_long")]);
        assert_eq!(check(vec!["X-A".into(), "x-a".into()]), [("headers.x-a".to_owned(), "header_repeated")]);
    }
}
