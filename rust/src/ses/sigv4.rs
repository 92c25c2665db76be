//! AWS Signature Version 4 for the two sending operations.
//!
//! Outside rule: AWS "Create a signed AWS API request". The service in the scope is `ses`
//! although the host says `email`; the body hash is required, `x-amz-content-sha256` is not.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const SERVICE: &str = "ses";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What AWS's credential chain yields. Not `Debug`, so that no secret lands in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: String,
    /// Present with temporary credentials.
    pub session_token: Option<String>,
}

/// What goes into a signature besides key and time.
#[derive(Debug, Clone, Copy)]
pub struct Signable<'a> {
    /// Absolute path without anything that needs encoding.
    pub path: &'a str,
    /// The `host` header exactly as it is sent.
    pub host: &'a str,
    /// SHA-256 of the body.
    pub body_hash: &'a [u8; 32],
}

/// The headers that a signature adds to the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeaders {
    /// `x-amz-date`, e.g. `20260102T030405Z`.
    pub date: String,
    /// `authorization`.
    pub authorization: String,
    /// `x-amz-security-token`, with temporary credentials.
    pub session_token: Option<String>,
}

/// Credentials of one region with the signing key of the day.
pub struct Signer {
    credentials: Credentials,
    region: String,
    /// The key's day and the key: four HMACs that are the same until midnight UTC.
    day_key: Mutex<Option<(String, Arc<[u8; 32]>)>>,
}

impl Signer {
    /// A signer for `region`, e.g. `eu-west-1`.
    pub fn new(credentials: Credentials, region: impl Into<String>) -> Self {
        Self { credentials, region: region.into(), day_key: Mutex::new(None) }
    }

    /// Signs a POST of JSON at `now`. AWS refuses it once it is more than 5 minutes old.
    pub fn sign(&self, request: Signable<'_>, now: SystemTime) -> SignedHeaders {
        let date = amz_date(now);
        let day = &date[..8];
        let scope = format!("{day}/{}/{SERVICE}/aws4_request", self.region);
        let token = self.credentials.session_token.as_deref();
        let canonical = canonical_request(request, &date, token);
        let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let signature = hex(&hmac(&*self.day_key(day), to_sign.as_bytes()));
        let authorization = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
            self.credentials.access_key,
            signed_header_names(token),
        );
        SignedHeaders { date, authorization, session_token: self.credentials.session_token.clone() }
    }

    fn day_key(&self, day: &str) -> Arc<[u8; 32]> {
        // The guarded value is replaced whole, so a poisoned lock still holds a sound one.
        let mut cached = self.day_key.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((of_day, key)) if of_day == day => key.clone(),
            _ => {
                let key = Arc::new(signing_key(&self.credentials.secret_key, day, &self.region));
                *cached = Some((day.to_owned(), key.clone()));
                key
            }
        }
    }
}

fn signed_header_names(session_token: Option<&str>) -> &'static str {
    match session_token {
        None => "content-type;host;x-amz-date",
        Some(_) => "content-type;host;x-amz-date;x-amz-security-token",
    }
}

fn canonical_request(request: Signable<'_>, date: &str, session_token: Option<&str>) -> String {
    let mut canonical =
        format!("POST\n{}\n\ncontent-type:application/json\nhost:{}\nx-amz-date:{date}\n", request.path, request.host,);
    if let Some(token) = session_token {
        canonical.push_str("x-amz-security-token:");
        canonical.push_str(token);
        canonical.push('\n');
    }
    canonical.push('\n');
    canonical.push_str(signed_header_names(session_token));
    canonical.push('\n');
    canonical.push_str(&hex(request.body_hash));
    canonical
}

fn signing_key(secret_key: &str, day: &str, region: &str) -> [u8; 32] {
    let of_day = hmac(format!("AWS4{secret_key}").as_bytes(), day.as_bytes());
    let of_region = hmac(&of_day, region.as_bytes());
    let of_service = hmac(&of_region, SERVICE.as_bytes());
    hmac(&of_service, b"aws4_request")
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length; the Result is an artefact of the shared trait.
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes any key");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// `YYYYMMDDTHHMMSSZ` of a time after 1970.
fn amz_date(now: SystemTime) -> String {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (year, month, day) = civil_date(since_epoch / 86_400);
    let second = since_epoch % 86_400;
    let mut date = String::with_capacity(16);
    // Writing into a String cannot fail.
    let _ = write!(date, "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60);
    date
}

/// Year, month and day of a count of days since 1970-01-01, by counting from a 1 March so that
/// the leap day is the last of its year.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"FromEmailAddress":"a@example.com"}"#;

    fn signer(session_token: Option<&str>) -> Signer {
        let credentials = Credentials {
            access_key: "AKIDEXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: session_token.map(str::to_owned),
        };
        Signer::new(credentials, "us-east-1")
    }

    /// 2026-01-02 03:04:05 UTC.
    fn moment() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_767_323_045)
    }

    fn request(body_hash: &[u8; 32]) -> Signable<'_> {
        Signable { path: "/v2/email/outbound-bulk-emails", host: "email.us-east-1.amazonaws.com", body_hash }
    }

    /// The vector was made with botocore and checked by hand.
    #[test]
    fn the_known_request_has_the_known_signature() {
        let body_hash: [u8; 32] = Sha256::digest(BODY).into();
        assert_eq!(hex(&body_hash), "970a025ca825d05cb88640b8d6e8fa58a13f99d0524e1db35666294a3a44d43b");
        let canonical = canonical_request(request(&body_hash), "20260102T030405Z", None);
        assert_eq!(hex(&Sha256::digest(canonical)), "d2ad8c0cd5bcee8d779da220ae0d8d49e35dcd983972e09280e179bc7f2e5f67");
        let signed = signer(None).sign(request(&body_hash), moment());
        assert_eq!(signed.date, "20260102T030405Z");
        assert_eq!(
            signed.authorization,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/ses/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=8a0619ac626d99cb1a3173c14a62f318157bdb6ab1a2628bd6e9532cf37c4bfb"
        );
    }

    #[test]
    fn a_session_token_is_signed_and_sent() {
        let body_hash: [u8; 32] = Sha256::digest(BODY).into();
        let signed = signer(Some("TOKEN")).sign(request(&body_hash), moment());
        assert_eq!(signed.session_token.as_deref(), Some("TOKEN"));
        assert!(signed.authorization.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token,"));
        assert_ne!(signed.authorization, signer(None).sign(request(&body_hash), moment()).authorization);
    }

    #[test]
    fn the_day_key_changes_at_midnight() {
        let signer = signer(None);
        let today = signer.day_key("20260102");
        assert!(Arc::ptr_eq(&today, &signer.day_key("20260102")));
        assert_ne!(today, signer.day_key("20260103"));
    }

    #[test]
    fn dates_are_civil() {
        let at = |days: u64| amz_date(UNIX_EPOCH + Duration::from_secs(days * 86_400 + 86_399));
        assert_eq!(at(0), "19700101T235959Z");
        assert_eq!(at(11_016), "20000229T235959Z");
        assert_eq!(at(19_782), "20240229T235959Z");
        assert_eq!(at(20_819), "20270101T235959Z");
        assert_eq!(at(47_541), "21000301T235959Z");
    }
}
