//! Addresses as SES takes them: ASCII only, one per string, optionally with a display name.

/// Domain of the mailbox simulator's addresses.
const SIMULATOR_DOMAIN: &str = "simulator.amazonses.com";

/// The bare address in `someone@example.com`, `Name <someone@example.com>` or `"Na, me" <someone@example.com>`.
///
/// The error is the reason, in the words SES uses.
pub fn bare(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() {
        return Err("Empty address");
    }
    if !text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err("Address contains control or non-ASCII characters");
    }
    let Some(inner) = text.strip_suffix('>') else {
        check(text)?;
        return Ok(text);
    };
    let open = inner.rfind('<').ok_or("Missing '<'")?;
    check_display(inner[..open].trim())?;
    let address = &inner[open + 1..];
    check(address)?;
    Ok(address)
}

/// The part after the `@` of a bare address.
pub fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

fn check_display(display: &str) -> Result<(), &'static str> {
    if let Some(rest) = display.strip_prefix('"') {
        let inner = rest.strip_suffix('"').ok_or("Missing '\"'")?;
        let mut bytes = inner.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => drop(bytes.next().ok_or("Missing '\"'")?),
                b'"' => return Err("Illegal quoting"),
                _ => {}
            }
        }
        return Ok(());
    }
    if display.bytes().any(|b| b"()<>[]:;@\\,\"".contains(&b)) {
        return Err("Illegal character in display name");
    }
    Ok(())
}

fn check(address: &str) -> Result<(), &'static str> {
    let (local, domain) = address.rsplit_once('@').ok_or("Missing final '@domain'")?;
    check_local(local)?;
    check_domain(domain)
}

fn check_local(local: &str) -> Result<(), &'static str> {
    if local.is_empty() || local.len() > 64 {
        return Err("Local address must have 1 to 64 characters");
    }
    if local.len() > 1 && local.starts_with('"') && local.ends_with('"') {
        let inner = &local[1..local.len() - 1];
        return if inner.contains(['"', '\\']) { Err("Illegal quoting in local address") } else { Ok(()) };
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    if !local.bytes().all(legal) {
        return Err("Local address contains illegal character");
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return Err("Local address has an empty part");
    }
    Ok(())
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    if domain.len() > 255 || !domain.contains('.') {
        return Err("Domain must have at least two parts");
    }
    let legal = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if domain.split('.').all(legal) { Ok(()) } else { Err("Domain contains illegal character") }
}

/// What becomes of mail to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Delivered.
    Delivered,
    /// Hard bounce, mailbox does not exist.
    Bounced,
    /// Delivered, then complained about.
    Complained,
    /// Hard bounce, as if on the global suppression list.
    Suppressed,
    /// Hard bounce, because it is on the account's suppression list.
    OnAccountList,
    /// Delivered, then answered by an out-of-office notice, which SES reports as a transient bounce.
    OutOfOffice,
}

/// Whether an address is one of the mailbox simulator's, which do not count against the daily quota.
pub fn is_simulator(address: &str) -> bool {
    domain(address).eq_ignore_ascii_case(SIMULATOR_DOMAIN)
}

/// The fate of mail to a bare address; labels (`bounce+7@…`) do not matter.
pub fn fate(address: &str) -> Fate {
    if !is_simulator(address) {
        return Fate::Delivered;
    }
    let local = address.split(['@', '+']).next().unwrap_or("");
    match local.to_ascii_lowercase().as_str() {
        "bounce" => Fate::Bounced,
        "complaint" => Fate::Complained,
        "suppressionlist" => Fate::Suppressed,
        "ooto" => Fate::OutOfOffice,
        _ => Fate::Delivered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plausible_addresses_pass() {
        for (text, expected) in [
            ("a@example.com", "a@example.com"),
            ("Acme <news@example.com>", "news@example.com"),
            ("\"Acme, Inc.\" <news@example.com>", "news@example.com"),
            ("=?UTF-8?B?w4k=?= <e@xn--bcher-kva.example>", "e@xn--bcher-kva.example"),
            ("<a.b+c@sub.example.co>", "a.b+c@sub.example.co"),
            ("\"odd name\"@example.com", "\"odd name\"@example.com"),
        ] {
            assert_eq!(bare(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn implausible_addresses_are_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "a",
            "@example.com",
            "a@",
            "a@localhost",
            "a b@example.com",
            "a@exa_mple.com",
            "a@-x.com",
            "a@x-.com",
            "a@x..com",
            ".a@example.com",
            "a..b@example.com",
            "é@example.com",
            "É <a@example.com>",
            "a@example.com, b@example.com",
            "Acme, Inc. <a@example.com>",
            "\"Acme <a@example.com>",
            "\"A\"B\" <a@example.com>",
            "a@example.com>",
            "a@example.com\r\nBcc: b@example.com",
            &long_local,
        ] {
            assert!(bare(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_mailbox_simulator_decides_by_name_without_label() {
        assert_eq!(fate("bounce+12@simulator.amazonses.com"), Fate::Bounced);
        assert_eq!(fate("Complaint@Simulator.AmazonSES.com"), Fate::Complained);
        assert_eq!(fate("suppressionlist@simulator.amazonses.com"), Fate::Suppressed);
        assert_eq!(fate("ooto@simulator.amazonses.com"), Fate::OutOfOffice);
        assert_eq!(fate("success@simulator.amazonses.com"), Fate::Delivered);
        assert_eq!(fate("bounce@example.com"), Fate::Delivered);
    }
}
