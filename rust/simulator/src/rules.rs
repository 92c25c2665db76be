//! The model's rules for headers, tags, destinations and template data.

use std::fmt::Write;

use crate::address;
use crate::error::ApiError;
use crate::request::{Destination, Header, Tag, Text};

/// Entries in a bulk call.
pub const MAX_ENTRIES: usize = 50;
/// Recipients (to, cc and bcc) of one mail.
const MAX_RECIPIENTS: usize = 50;
/// Bytes of a request with an inline template: Amazon says "1 MB", so the smaller reading of it.
pub const MAX_TEMPLATE_REQUEST_BYTES: usize = 1_000_000;
/// Bytes of any request: a mail of 40 MB in base64, and something around it.
pub const MAX_REQUEST_BYTES: usize = 56 << 20;
/// Bytes of one mail.
pub const MAX_MAIL_BYTES: usize = 40 << 20;
/// Characters of template data.
const MAX_TEMPLATE_DATA_CHARS: usize = 262_144;
/// Custom headers in one list.
const MAX_HEADERS: usize = 15;
/// Headers that SES writes itself, lower case.
const FORBIDDEN_HEADERS: [&str; 12] = [
    "bcc",
    "cc",
    "content-disposition",
    "content-type",
    "date",
    "from",
    "message-id",
    "mime-version",
    "reply-to",
    "return-path",
    "subject",
    "to",
];

/// A header list that keeps the rules, as (name, value) pairs. `path` is the list's, for the error.
pub fn headers<'a>(list: Option<&'a [Header]>, path: &str) -> Result<Vec<(&'a str, &'a str)>, ApiError> {
    let list = list.unwrap_or_default();
    if list.len() > MAX_HEADERS {
        return Err(ApiError::constraint(path, "Member must have length less than or equal to 15"));
    }
    let mut pairs = Vec::with_capacity(list.len());
    for header in list {
        let name = required(&header.name, path, "name")?;
        let value = required(&header.value, path, "value")?;
        let legal_name = |b: u8| (b'!'..=b'~').contains(&b) && b != b':';
        if !(1..=126).contains(&name.len()) || !name.bytes().all(legal_name) {
            return Err(ApiError::constraint(path, "Header name must satisfy [!-9;-@A-~]{1,126}"));
        }
        if !(1..=995).contains(&value.len()) || !value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(ApiError::constraint(path, "Header value must satisfy [ -~]{1,995}"));
        }
        if name.len() + value.len() > 996 {
            return Err(ApiError::constraint(path, "Header name and value must have at most 996 characters"));
        }
        if FORBIDDEN_HEADERS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
            return Err(ApiError::bad_request(format!("Header <{name}> is not allowed.")));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// A tag list that keeps the rules, as (name, value) pairs.
pub fn tags<'a>(list: Option<&'a [Tag]>, path: &str) -> Result<Vec<(&'a str, &'a str)>, ApiError> {
    let list = list.unwrap_or_default();
    let mut pairs = Vec::with_capacity(list.len());
    for tag in list {
        let name = required(&tag.name, path, "name")?;
        let value = required(&tag.value, path, "value")?;
        for text in [name, value] {
            let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            if !(1..=256).contains(&text.len()) || !text.bytes().all(legal) {
                return Err(ApiError::bad_request(format!(
                    "Invalid message tag <{text}>: only alphanumeric ASCII characters, '_' and '-' are allowed, at most 256."
                )));
            }
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// Writes `own` on top of `defaults` as `name<separator>value` lines: a default of the same name gives way.
pub fn write_merged(defaults: &[(&str, &str)], own: &[(&str, &str)], separator: &str, out: &mut String) {
    let overridden = |name: &str| own.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let kept = defaults.iter().filter(|(name, _)| !overridden(name));
    for (name, value) in kept.chain(own) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name}{separator}{value}");
    }
}

/// Who a mail goes to, written as one bare address a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recipients {
    pub to: u8,
    pub cc: u8,
    pub all: u8,
    /// Those that count against the daily quota.
    pub counted: u8,
}

/// Why a destination is refused.
#[derive(Debug)]
pub enum DestinationError {
    /// The model's rules: the whole call is refused.
    Call(ApiError),
    /// An implausible address: in a bulk call this entry is refused.
    Address(String),
}

/// Writes the destination's addresses to `out`, to before cc before bcc.
pub fn write_destination(destination: &Destination, out: &mut String) -> Result<Recipients, DestinationError> {
    let lists = [&destination.to_addresses, &destination.cc_addresses, &destination.bcc_addresses];
    let [to, cc, bcc] = lists.map(|list| list.as_deref().unwrap_or_default());
    let all = to.len() + cc.len() + bcc.len();
    if all == 0 {
        return Err(DestinationError::Call(ApiError::bad_request("Missing required destination.")));
    }
    if all > MAX_RECIPIENTS {
        return Err(DestinationError::Call(ApiError::bad_request("Recipient count exceeds 50.")));
    }
    let mut recipients = Recipients { to: to.len() as u8, cc: cc.len() as u8, all: all as u8, counted: 0 };
    for text in to.iter().chain(cc).chain(bcc) {
        let bare = address::bare(text).map_err(|reason| DestinationError::Address(reason.to_owned()))?;
        recipients.counted += u8::from(!address::is_simulator(bare));
        out.push_str(bare);
        out.push('\n');
    }
    Ok(recipients)
}

/// Template data within its limit of 262,144 characters.
pub fn template_data<'a>(data: &'a str, path: &str) -> Result<&'a str, ApiError> {
    // Counting characters is only worth it where bytes already exceed the limit.
    if data.len() > MAX_TEMPLATE_DATA_CHARS && data.chars().count() > MAX_TEMPLATE_DATA_CHARS {
        return Err(ApiError::constraint(path, "Member must have length less than or equal to 262144"));
    }
    Ok(data)
}

fn required<'a>(member: &'a Option<Text>, path: &str, name: &str) -> Result<&'a str, ApiError> {
    member.as_deref().ok_or_else(|| ApiError::missing(&format!("{path}.{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_headers(json: &str) -> Result<usize, ApiError> {
        let list: Vec<Header> = sonic_rs::from_str(json).unwrap();
        headers(Some(&list), "headers").map(|pairs| pairs.len())
    }

    fn header(name: &str, value: &str) -> String {
        serde_json::json!([{"Name": name, "Value": value}]).to_string()
    }

    #[test]
    fn headers_keep_patterns_lengths_and_the_forbidden_list() {
        assert_eq!(check_headers(&header("X-A", "b c")), Ok(1));
        assert_eq!(check_headers(&header(&"n".repeat(126), &"v".repeat(870))), Ok(1));
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a:", "x"),
            ("é", "x"),
            (&*"n".repeat(127), "x"),
            ("X-A", ""),
            ("X-A", "é"),
            ("X-A", "a\nb"),
            ("X-A", &*"v".repeat(996)),
            (&*"n".repeat(126), &*"v".repeat(871)),
        ] {
            assert_eq!(check_headers(&header(name, value)).unwrap_err().status, 400, "{name}: {value}");
        }
        for name in FORBIDDEN_HEADERS {
            assert!(check_headers(&header(&name.to_uppercase(), "x")).is_err(), "{name}");
        }
        assert!(check_headers(r#"[{"Name":"X-A"}]"#).is_err());
        let many = |n| format!("[{}]", vec![r#"{"Name":"X-A","Value":"b"}"#; n].join(","));
        assert_eq!(check_headers(&many(15)), Ok(15));
        assert!(check_headers(&many(16)).is_err());
    }

    #[test]
    fn tags_keep_their_character_set_and_length() {
        let check = |name: &str, value: &str| {
            let json = serde_json::json!([{"Name": name, "Value": value}]).to_string();
            let list: Vec<Tag> = sonic_rs::from_str(&json).unwrap();
            tags(Some(&list), "tags").map(|_| ())
        };
        assert_eq!(check("mr", "Az_0-9"), Ok(()));
        assert_eq!(check(&"n".repeat(256), &"v".repeat(256)), Ok(()));
        for (name, value) in
            [("", "x"), ("a", ""), ("a b", "x"), ("a", "x.y"), (&*"n".repeat(257), "x"), ("a", &*"v".repeat(257))]
        {
            assert!(check(name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn replacements_override_defaults_without_regard_to_case() {
        let mut out = String::new();
        write_merged(&[("X-A", "1"), ("X-B", "2")], &[("x-a", "3"), ("X-C", "4")], ": ", &mut out);
        assert_eq!(out, "X-B: 2\nx-a: 3\nX-C: 4\n");
    }

    #[test]
    fn destinations_have_one_to_fifty_plausible_recipients() {
        let check = |json: &str| {
            let destination: Destination = sonic_rs::from_str(json).unwrap();
            let mut out = String::new();
            write_destination(&destination, &mut out).map(|recipients| (recipients, out))
        };
        let (recipients, out) = check(
            r#"{"ToAddresses":["A <a@b.co>"],"CcAddresses":["c@b.co"],"BccAddresses":["success@simulator.amazonses.com"]}"#,
        )
        .unwrap();
        assert_eq!(recipients, Recipients { to: 1, cc: 1, all: 3, counted: 2 });
        assert_eq!(out, "a@b.co\nc@b.co\nsuccess@simulator.amazonses.com\n");
        assert!(matches!(check("{}"), Err(DestinationError::Call(_))));
        let many = |n| format!(r#"{{"ToAddresses":[{}]}}"#, vec![r#""a@b.co""#; n].join(","));
        assert!(check(&many(50)).is_ok());
        assert!(matches!(check(&many(51)), Err(DestinationError::Call(_))));
        assert!(matches!(check(r#"{"ToAddresses":["nobody"]}"#), Err(DestinationError::Address(_))));
    }

    #[test]
    fn template_data_is_counted_in_characters() {
        assert!(template_data(&"é".repeat(262_144), "d").is_ok());
        assert!(template_data(&"é".repeat(262_145), "d").is_err());
    }
}
