//! Email addresses, checked as `mailrail/addresses.py` does; `tests/vectors/addresses.json` holds the two together.
//!
//! The rules are those of the library that is used there (email-validator 2, strict, no quoted or
//! internationalised local parts). Whatever needs Unicode tables is left to it: see [`Checked::Ask`].

/// The longest address in characters (RFC 5321, 4.5.3.1.3, less the angle brackets).
const ADDRESS_CHARS_MAX: usize = 254;
const LOCAL_PART_MAX: usize = 64;
const DOMAIN_MAX: usize = 253;
const LABEL_MAX: usize = 63;
/// Local parts that RFC 2142 reserves for roles: nobody tells their case apart.
const ROLES: [&str; 15] = [
    "info",
    "marketing",
    "sales",
    "support",
    "abuse",
    "noc",
    "security",
    "postmaster",
    "hostmaster",
    "usenet",
    "news",
    "webmaster",
    "www",
    "uucp",
    "ftp",
];
/// Top-level domains that reach nobody (RFC 6761, 6762, 7686). `.test` stays: it serves try-outs.
const SPECIAL_USE: [&str; 5] = ["arpa", "invalid", "local", "localhost", "onion"];

/// What an address turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// The address as it is stored: local part as written, domain in lower case.
    Valid(String),
    /// Why mail cannot be sent to it, as a sentence.
    Refused(&'static str),
    /// An internationalised domain, which takes Unicode's tables to judge.
    Ask,
}

/// Judges one address.
pub fn check_address(text: &str) -> Checked {
    use Checked::{Ask, Refused, Valid};
    if text.len() > ADDRESS_CHARS_MAX && text.chars().count() > ADDRESS_CHARS_MAX {
        return Refused("An email address has at most 254 characters.");
    }
    let Some((local, domain)) = text.split_once('@') else {
        return Refused("An email address must have an @-sign.");
    };
    if let Some(reason) = local_part_fault(local) {
        return Refused(reason);
    }
    if !domain.is_ascii() || has_punycode(domain) {
        return if domain.len() > 4 * DOMAIN_MAX { Refused(DOMAIN_TOO_LONG) } else { Ask };
    }
    if let Some(reason) = domain_fault(domain) {
        return Refused(reason);
    }
    let mut address = String::with_capacity(text.len());
    address.push_str(local);
    if ROLES.iter().any(|role| role.eq_ignore_ascii_case(local)) {
        address.make_ascii_lowercase();
    }
    address.push('@');
    address.extend(domain.chars().map(|c| c.to_ascii_lowercase()));
    Valid(address)
}

const DOMAIN_TOO_LONG: &str = "The email address is too long after the @-sign.";

fn local_part_fault(local: &str) -> Option<&'static str> {
    let bytes = local.as_bytes();
    if bytes.is_empty() {
        return Some("There must be something before the @-sign.");
    }
    if !local.is_ascii() {
        return Some("Internationalized characters before the @-sign are not supported.");
    }
    if bytes.len() > LOCAL_PART_MAX {
        return Some("The email address is too long before the @-sign.");
    }
    if !bytes.iter().all(|&byte| byte == b'.' || is_atext(byte)) {
        return Some("The email address contains invalid characters before the @-sign.");
    }
    let misplaced = bytes[0] == b'.' || bytes[bytes.len() - 1] == b'.' || local.contains("..");
    misplaced.then_some("A period before the @-sign must stand between other characters.")
}

/// RFC 5322, 3.2.3.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_!#$%&'*+-/=?^`{|}~".contains(&byte)
}

fn has_punycode(domain: &str) -> bool {
    domain.as_bytes().windows(4).any(|part| part.eq_ignore_ascii_case(b"xn--"))
}

fn domain_fault(domain: &str) -> Option<&'static str> {
    if domain.is_empty() {
        return Some("There must be something after the @-sign.");
    }
    if domain.len() > DOMAIN_MAX {
        return Some(DOMAIN_TOO_LONG);
    }
    if !domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.') {
        return Some("The part after the @-sign contains invalid characters.");
    }
    for label in domain.split('.') {
        if let Some(reason) = label_fault(label.as_bytes()) {
            return Some(reason);
        }
    }
    let Some((_, top)) = domain.rsplit_once('.') else {
        return Some("The part after the @-sign needs a period.");
    };
    if !top.ends_with(|c: char| c.is_ascii_alphabetic()) {
        return Some("The part after the @-sign is not within a valid top-level domain.");
    }
    SPECIAL_USE
        .iter()
        .any(|name| name.eq_ignore_ascii_case(top))
        .then_some("The part after the @-sign is a reserved name that cannot be used with email.")
}

fn label_fault(label: &[u8]) -> Option<&'static str> {
    match label {
        [] => Some("Periods after the @-sign must stand between other characters."),
        [b'-', ..] | [.., b'-'] => Some("Hyphens after the @-sign must stand between letters or digits."),
        [_, _, b'-', b'-', ..] => Some("Two letters and two hyphens after the @-sign are reserved for Punycode."),
        _ if label.len() > LABEL_MAX => Some("After the @-sign, periods cannot be separated by so many characters."),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_parts_stay_and_domains_are_folded() {
        let valid = |text: &str| Checked::Valid(text.to_owned());
        assert_eq!(check_address("New.User+tag@EXAMPLE.com"), valid("New.User+tag@example.com"));
        assert_eq!(check_address("Info@Example.com"), valid("info@example.com"));
        assert_eq!(check_address("x@demo.test"), valid("x@demo.test"));
        assert_eq!(check_address("x@b\u{fc}cher.example"), Checked::Ask);
        assert_eq!(check_address("x@XN--bcher-kva.example"), Checked::Ask);
    }

    #[test]
    fn the_vectors_that_python_shares_hold() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/addresses.json")).unwrap();
        for vector in vectors.as_array().unwrap() {
            let text = vector["text"].as_str().unwrap();
            match (check_address(text), vector["core_judges"].as_bool().unwrap()) {
                (Checked::Valid(address), true) => {
                    assert_eq!(vector["stored"].as_str(), Some(address.as_str()), "{text}")
                }
                (Checked::Refused(_), true) => assert!(vector["stored"].is_null(), "{text}"),
                (Checked::Ask, false) => {}
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_no_mail_reaches_is_refused() {
        for text in
            ["", "@", "x@", "@a.de", "x@test", "x@a..de", "x@-a.de", "x@a.1", "x@a.local", "a..b@a.de", "<x@a.de>"]
        {
            assert!(matches!(check_address(text), Checked::Refused(_)), "{text}");
        }
    }
}
