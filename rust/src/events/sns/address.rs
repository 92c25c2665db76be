//! The forms of a topic, and of the places that may serve the certificates of its signatures.

/// The region of `arn:<partition>:sns:<region>:<account>:<name>`.
pub(super) fn region_of(arn: &str) -> Option<&str> {
    let mut parts = arn.split(':');
    let (scheme, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, name) = (parts.next()?, parts.next()?, parts.next()?);
    let complete = scheme == "arn"
        && partition.starts_with("aws")
        && service == "sns"
        && is_region(region)
        && !account.is_empty()
        && !name.is_empty()
        && parts.next().is_none();
    complete.then_some(region)
}

/// The region in `sns.<region>.amazonaws.com` or `….com.cn`.
pub(super) fn region_of_host(host: &str) -> Option<&str> {
    let rest = host.strip_prefix("sns.")?;
    let region = rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn"))?;
    is_region(region).then_some(region)
}

fn is_region(text: &str) -> bool {
    text.len() >= 3 && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// `SimpleNotificationService-<lower-case hex>.pem`, the path without its first slash.
pub(super) fn is_certificate_path(path: &str) -> bool {
    let hex = path.strip_prefix("SimpleNotificationService-").and_then(|rest| rest.strip_suffix(".pem"));
    hex.is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

pub(super) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    !host.is_empty() && host.bytes().all(plain) && port.parse::<u16>().is_ok()
}
