//! Checks the AWS Signature Version 4 of a request.

use std::sync::Mutex;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use http::HeaderMap;

use crate::clock;
use crate::error::ApiError;

/// The refusal of a signature whose time is too far from ours.
pub const WRONG_TIME: &str = "InvalidSignatureException";
/// SES signs as `ses`, although its hosts are called `email`.
pub const SES: &str = "ses";
/// SQS signs as it is called.
pub const SQS: &str = "sqs";

/// What a signature covers.
pub struct Signed<'a> {
    /// HTTP method, in capitals.
    pub method: &'a str,
    /// The path as it stood in the request line, still percent-encoded.
    pub path: &'a str,
    /// The query as it stood in the request line, empty if none.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
}

/// Knows the one credential and checks signatures made with it.
pub struct Verifier {
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    region: String,
    service: &'static str,
    /// The signing key of the last day seen: it is the same for every request of a day.
    signing_key: Mutex<Option<(String, hmac::Key)>>,
}

struct Authorization<'a> {
    access_key: &'a str,
    date: &'a str,
    scope: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl Verifier {
    /// A verifier for one credential in one region and for one service.
    pub fn new(
        access_key: &str,
        secret_key: &str,
        session_token: Option<&str>,
        region: &str,
        service: &'static str,
    ) -> Verifier {
        Verifier {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            session_token: session_token.map(str::to_owned),
            region: region.to_owned(),
            service,
            signing_key: Mutex::new(None),
        }
    }

    /// Accepts or refuses a request. No `max_age_ms` lets old signatures pass, which is a fault to test others with.
    pub fn verify(&self, signed: &Signed, now_ms: u64, max_age_ms: Option<u64>) -> Result<(), ApiError> {
        let authorization = parse(signed.headers)?;
        let time = header(signed.headers, "x-amz-date").ok_or_else(|| {
            incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
        })?;
        self.check_credential(&authorization, signed.headers)?;
        self.check_scope(&authorization, time)?;
        if let Some(max_age_ms) = max_age_ms {
            check_time(time, now_ms, max_age_ms)?;
        }
        check_signed_headers(&authorization, signed.headers)?;
        self.check_signature(&authorization, time, signed)
    }

    fn check_credential(&self, authorization: &Authorization, headers: &HeaderMap) -> Result<(), ApiError> {
        let token = header(headers, "x-amz-security-token");
        if authorization.access_key != self.access_key || token != self.session_token.as_deref() {
            return Err(ApiError::new(
                403,
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            ));
        }
        Ok(())
    }

    fn check_scope(&self, authorization: &Authorization, time: &str) -> Result<(), ApiError> {
        let expected = format!("{}/{}/{}/aws4_request", authorization.date, self.region, self.service);
        if authorization.scope != expected {
            return Err(mismatch(format!(
                "Credential should be scoped to '{expected}', not '{}'.",
                authorization.scope
            )));
        }
        if !time.starts_with(authorization.date) || authorization.date.len() != 8 {
            return Err(mismatch(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.",
            ));
        }
        Ok(())
    }

    fn check_signature(&self, authorization: &Authorization, time: &str, signed: &Signed) -> Result<(), ApiError> {
        let body_hash = hex(digest(&SHA256, signed.body).as_ref());
        if header(signed.headers, "x-amz-content-sha256").is_some_and(|sent| sent != body_hash) {
            return Err(mismatch("The value of x-amz-content-sha256 is not the hash of the request body."));
        }
        let request = canonical_request(signed, authorization.signed_headers, &body_hash);
        let request_hash = hex(digest(&SHA256, request.as_bytes()).as_ref());
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{}\n{request_hash}", authorization.scope);
        let expected = hmac::sign(&self.signing_key(authorization.date), to_sign.as_bytes());
        if hex(expected.as_ref()) != authorization.signature {
            return Err(mismatch(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method. Consult the service documentation for details.",
            ));
        }
        Ok(())
    }

    fn signing_key(&self, date: &str) -> hmac::Key {
        let mut cached = self.signing_key.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((day, key)) = cached.as_ref()
            && day == date
        {
            return key.clone();
        }
        let mut secret = format!("AWS4{}", self.secret_key).into_bytes();
        for part in [date, &self.region, self.service, "aws4_request"] {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
            secret = hmac::sign(&key, part.as_bytes()).as_ref().to_vec();
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        *cached = Some((date.to_owned(), key.clone()));
        key
    }
}

fn parse(headers: &HeaderMap) -> Result<Authorization<'_>, ApiError> {
    let text = header(headers, "authorization")
        .ok_or_else(|| ApiError::new(403, "MissingAuthenticationTokenException", "Missing Authentication Token"))?;
    let rest = text.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(|| incomplete("Unsupported AWS 'algorithm'."))?;
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for part in rest.split(',') {
        match part.trim().split_once('=') {
            Some(("Credential", value)) => credential = Some(value),
            Some(("SignedHeaders", value)) => signed_headers = Some(value),
            Some(("Signature", value)) => signature = Some(value),
            _ => return Err(incomplete("Authorization header has an unknown part.")),
        }
    }
    let (Some(credential), Some(signed_headers), Some(signature)) = (credential, signed_headers, signature) else {
        return Err(incomplete("Authorization header requires 'Credential', 'SignedHeaders' and 'Signature'."));
    };
    let (access_key, scope) = credential
        .split_once('/')
        .ok_or_else(|| incomplete("Credential must have exactly 5 slash-delimited elements."))?;
    let date = scope.split('/').next().unwrap_or("");
    Ok(Authorization { access_key, date, scope, signed_headers, signature })
}

/// `x-amz-date` has whole seconds, so a signature may be up to 999 ms younger than it says and gets the benefit of that:
/// what is younger than `max_age_ms` surely passes, what is older than `max_age_ms` and a second is surely refused.
fn check_time(time: &str, now_ms: u64, max_age_ms: u64) -> Result<(), ApiError> {
    let signed_ms = clock::parse_basic(time).ok_or_else(|| incomplete("Date must be in ISO-8601 'basic format'."))?;
    let now = clock::basic(now_ms);
    let allowed = match max_age_ms {
        minutes if minutes % 60_000 == 0 => format!("{} min.", minutes / 60_000),
        milliseconds => format!("{milliseconds} ms"),
    };
    let problem = if signed_ms.saturating_add(999).saturating_add(max_age_ms) < now_ms {
        let limit = clock::basic(now_ms - max_age_ms);
        format!("Signature expired: {time} is now earlier than {limit} ({now} - {allowed})")
    } else if signed_ms > now_ms.saturating_add(max_age_ms) {
        let limit = clock::basic(now_ms + max_age_ms);
        format!("Signature not yet current: {time} is still later than {limit} ({now} + {allowed})")
    } else {
        return Ok(());
    };
    Err(ApiError::new(403, WRONG_TIME, problem))
}

/// `host` and every `x-amz-*` header must be covered, or someone on the way could change them.
fn check_signed_headers(authorization: &Authorization, headers: &HeaderMap) -> Result<(), ApiError> {
    let covered = |name: &str| authorization.signed_headers.split(';').any(|listed| listed == name);
    let must_be_covered =
        headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-amz-")).chain(["host"]);
    for name in must_be_covered {
        if !covered(name) {
            return Err(mismatch(format!("'{name}' must be a signed header.")));
        }
    }
    Ok(())
}

fn canonical_request(signed: &Signed, signed_headers: &str, body_hash: &str) -> String {
    let mut text = String::with_capacity(512);
    text.push_str(signed.method);
    text.push('\n');
    // The path arrives percent-encoded once; for every service but S3 the canonical form encodes it again.
    encode(signed.path.as_bytes(), true, &mut text);
    text.push('\n');
    text.push_str(&canonical_query(signed.query));
    text.push('\n');
    for name in signed_headers.split(';') {
        text.push_str(name);
        text.push(':');
        for (n, value) in signed.headers.get_all(name).iter().enumerate() {
            if n > 0 {
                text.push(',');
            }
            let value = String::from_utf8_lossy(value.as_bytes());
            for (n, word) in value.split_ascii_whitespace().enumerate() {
                if n > 0 {
                    text.push(' ');
                }
                text.push_str(word);
            }
        }
        text.push('\n');
    }
    text.push('\n');
    text.push_str(signed_headers);
    text.push('\n');
    text.push_str(body_hash);
    text
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (mut encoded_name, mut encoded_value) = (String::new(), String::new());
            encode(&decode(name), false, &mut encoded_name);
            encode(&decode(value), false, &mut encoded_value);
            (encoded_name, encoded_value)
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn encode(bytes: &[u8], keep_slash: bool, out: &mut String) {
    for &byte in bytes {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slash && byte == b'/');
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// Undoes percent-encoding; a broken escape stays as it is.
pub fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn mismatch(message: impl Into<String>) -> ApiError {
    ApiError::new(403, "SignatureDoesNotMatch", message)
}

fn incomplete(message: &str) -> ApiError {
    ApiError::new(400, "IncompleteSignatureException", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"FromEmailAddress":"a@example.com"}"#;
    const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/ses/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date, Signature=8a0619ac626d99cb1a3173c14a62f318157bdb6ab1a2628bd6e9532cf37c4bfb";

    fn verifier() -> Verifier {
        Verifier::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, "us-east-1", SES)
    }

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("host", "email.us-east-1.amazonaws.com".parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("x-amz-date", "20260102T030405Z".parse().unwrap());
        headers.insert("authorization", authorization.parse().unwrap());
        headers
    }

    fn check(headers: &HeaderMap, body: &[u8], now: &str, check_skew: bool) -> Result<(), ApiError> {
        let signed = Signed { method: "POST", path: "/v2/email/outbound-bulk-emails", query: "", headers, body };
        verifier().verify(&signed, clock::parse_basic(now).unwrap(), check_skew.then_some(300_000))
    }

    /// The vector was made by botocore.
    #[test]
    fn the_known_vector_verifies() {
        assert_eq!(check(&headers(AUTHORIZATION), BODY, "20260102T030405Z", true), Ok(()));
    }

    #[test]
    fn a_changed_body_header_or_path_is_refused() {
        let error = check(&headers(AUTHORIZATION), b"{}", "20260102T030405Z", true).unwrap_err();
        assert_eq!((error.status, error.kind), (403, "SignatureDoesNotMatch"));
        let mut changed = headers(AUTHORIZATION);
        changed.insert("content-type", "text/plain".parse().unwrap());
        assert!(check(&changed, BODY, "20260102T030405Z", true).is_err());
    }

    #[test]
    fn five_minutes_of_skew_are_the_limit_unless_switched_off() {
        let sent = headers(AUTHORIZATION);
        assert_eq!(check(&sent, BODY, "20260102T030905Z", true), Ok(()));
        let late = check(&sent, BODY, "20260102T030906Z", true).unwrap_err();
        assert_eq!((late.status, late.kind), (403, "InvalidSignatureException"));
        assert!(late.message.starts_with("Signature expired: 20260102T030405Z is now earlier than 20260102T030406Z"));
        assert_eq!(check(&sent, BODY, "20260102T025905Z", true), Ok(()));
        assert!(check(&sent, BODY, "20260102T025904Z", true).unwrap_err().message.contains("not yet current"));
        assert_eq!(check(&sent, BODY, "20270101T000000Z", false), Ok(()));
    }

    #[test]
    fn a_signature_is_given_its_whole_second_and_no_more() {
        let signed_ms = clock::parse_basic("20260102T030405Z").unwrap();
        // Made at the end of its second it is not yet older than 2000 ms, and after that it is, whenever it was made.
        assert_eq!(check_time("20260102T030405Z", signed_ms + 2_999, 2_000), Ok(()));
        let late = check_time("20260102T030405Z", signed_ms + 3_000, 2_000).unwrap_err();
        assert!(late.message.ends_with("(20260102T030408Z - 2000 ms)"), "{}", late.message);
        assert_eq!(check_time("20260102T030405Z", signed_ms - 2_000, 2_000), Ok(()));
        assert!(check_time("20260102T030405Z", signed_ms - 2_001, 2_000).is_err());
    }

    #[test]
    fn wrong_keys_scopes_and_shapes_are_refused() {
        let at = "20260102T030405Z";
        for (from, to, kind) in [
            ("AKIDEXAMPLE", "AKIDOTHER", "UnrecognizedClientException"),
            ("us-east-1", "eu-west-1", "SignatureDoesNotMatch"),
            ("/ses/", "/email/", "SignatureDoesNotMatch"),
            ("20260102/", "20260103/", "SignatureDoesNotMatch"),
            ("content-type;host;x-amz-date", "content-type;host", "SignatureDoesNotMatch"),
            ("content-type;host;x-amz-date", "content-type;x-amz-date", "SignatureDoesNotMatch"),
            ("8a06", "8a07", "SignatureDoesNotMatch"),
            ("SignedHeaders=", "Signed=", "IncompleteSignatureException"),
            ("AWS4-HMAC", "AWS5-HMAC", "IncompleteSignatureException"),
        ] {
            let error = check(&headers(&AUTHORIZATION.replace(from, to)), BODY, at, true).unwrap_err();
            assert_eq!(error.kind, kind, "{from} -> {to}");
        }
        let mut bare = headers(AUTHORIZATION);
        bare.remove("authorization");
        assert_eq!(check(&bare, BODY, at, true).unwrap_err().kind, "MissingAuthenticationTokenException");
        let mut token = headers(AUTHORIZATION);
        token.insert("x-amz-security-token", "t".parse().unwrap());
        assert_eq!(check(&token, BODY, at, true).unwrap_err().kind, "UnrecognizedClientException");
        let mut hash = headers(AUTHORIZATION);
        hash.insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap());
        assert_eq!(check(&hash, BODY, at, true).unwrap_err().kind, "SignatureDoesNotMatch");
    }

    #[test]
    fn paths_are_encoded_again_and_queries_sorted() {
        let mut text = String::new();
        encode(b"/v2/email/identities/a%40b.com", true, &mut text);
        assert_eq!(text, "/v2/email/identities/a%2540b.com");
        assert_eq!(canonical_query("b=2&a=x%20y&a=%7e&c"), "a=x%20y&a=~&b=2&c=");
        assert_eq!(decode("a%40b%zz%"), b"a@b%zz%");
    }
}
