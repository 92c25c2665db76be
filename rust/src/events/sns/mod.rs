//! Is this envelope from our SNS topic? Signature, certificate address, topic and age, without a single fetch.
//!
//! The signature alone proves only that *some* topic of Amazon SNS sent the message, and anybody can own one. So
//! the topic is compared first: a stranger's envelope costs no fetch and no RSA. The rule for the certificate's
//! address is that of AWS's own validators, made narrower: the host's region must be the topic's.

mod address;
mod envelope;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use data_encoding::BASE64;

use super::timestamp::unix_micros;
use crate::{Error, Result};
use address::{is_certificate_path, is_host_and_port, region_of, region_of_host};
use envelope::Fields;
pub use envelope::{Envelope, EnvelopeStatus};

/// Amazon rotates certificates about once a year; this many known at once means that something is wrong.
const MAX_CERTIFICATE_KEYS: usize = 256;
/// Clocks differ, so an envelope may come from this far in the future.
const MAX_LEAD_S: i64 = 300;
/// What is signed, in byte order, as "Verifying the signatures of Amazon SNS messages" lists it.
const SIGNED_NOTIFICATION: [&str; 6] = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
const SIGNED_CONFIRMATION: [&str; 7] =
    ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

/// Checks SNS envelopes against a list of topics and a set of known certificate keys.
pub struct SnsVerifier {
    topic_arns: Vec<String>,
    cert_hosts: Vec<String>,
    max_age_s: i64,
    keys: RwLock<HashMap<String, Arc<ParsedPublicKey>>>,
}

impl SnsVerifier {
    /// Accepts envelopes of exactly `topic_arns`, not older than `max_age_s`. `cert_hosts` are further
    /// `host:port` pairs that may serve certificates, over http too: a stand-in for tests, never Amazon's.
    pub fn new(topic_arns: Vec<String>, cert_hosts: Vec<String>, max_age_s: i64) -> Result<Self> {
        if let Some(arn) = topic_arns.iter().find(|arn| region_of(arn).is_none()) {
            return Err(Error::config(format!("not the ARN of an SNS topic: {arn}")));
        }
        if let Some(host) = cert_hosts.iter().find(|host| !is_host_and_port(host)) {
            return Err(Error::config(format!("a certificate host is written host:port, not {host}")));
        }
        if max_age_s < 1 {
            return Err(Error::config("the greatest age of an SNS message is at least 1 second"));
        }
        Ok(Self { topic_arns, cert_hosts, max_age_s, keys: RwLock::default() })
    }

    /// Makes the key of the certificate at `url` known. `spki_der` is the SubjectPublicKeyInfo of a certificate
    /// whose chain and dates the caller has checked.
    pub fn add_certificate_key(&self, url: &str, spki_der: &[u8]) -> Result<()> {
        let mut regions = self.topic_arns.iter().filter_map(|arn| region_of(arn));
        if !regions.any(|region| self.may_sign(url, region)) {
            return Err(Error::config("this address may not serve an SNS certificate"));
        }
        let key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, spki_der)
            .map_err(|_| Error::config("the certificate's key is not an RSA public key"))?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_CERTIFICATE_KEYS && !keys.contains_key(url) {
            return Err(Error::config("too many SNS certificates are known already"));
        }
        keys.insert(url.to_owned(), Arc::new(key));
        Ok(())
    }

    /// Checks each body, now. The answer has one envelope per body, in their order.
    pub fn verify<B: AsRef<[u8]>>(&self, bodies: &[B]) -> Vec<Envelope> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        bodies.iter().map(|body| self.verify_at(body.as_ref(), now)).collect()
    }

    /// Checks one body as of `now_s`, seconds since 1970.
    pub fn verify_at(&self, body: &[u8], now_s: i64) -> Envelope {
        let Some(fields) = Fields::read(body) else {
            return Envelope::empty().refused("not an SNS envelope");
        };
        match self.check(&fields, now_s) {
            Ok(()) => fields.envelope().with_content(&fields),
            Err(Verdict::NeedCertificate) => fields.envelope().need_certificate(&fields),
            Err(Verdict::Refused(reason)) => fields.envelope().refused(reason),
        }
    }

    /// The cheap checks come first, and the topic before anything that could make us fetch.
    fn check(&self, fields: &Fields, now_s: i64) -> std::result::Result<(), Verdict> {
        let region = self.check_topic(fields)?;
        check_signature_version(fields)?;
        let signed = signed_fields(fields)?;
        let key = self.key_for(fields, region)?;
        check_signature(fields, signed, &key)?;
        self.check_age(fields, now_s)
    }

    fn check_topic<'a>(&self, fields: &'a Fields) -> std::result::Result<&'a str, Verdict> {
        let arn = fields.need("TopicArn")?;
        if !self.topic_arns.iter().any(|known| known == arn) {
            return Err(Verdict::Refused("not a topic of ours"));
        }
        region_of(arn).ok_or(Verdict::Refused("not a topic of ours"))
    }

    fn key_for(&self, fields: &Fields, region: &str) -> std::result::Result<Arc<ParsedPublicKey>, Verdict> {
        let url = fields.need("SigningCertURL")?;
        if !self.may_sign(url, region) {
            return Err(Verdict::Refused("the certificate's address is not Amazon's"));
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(url).cloned().ok_or(Verdict::NeedCertificate)
    }

    fn check_age(&self, fields: &Fields, now_s: i64) -> std::result::Result<(), Verdict> {
        let sent = unix_micros(fields.need("Timestamp")?).ok_or(Verdict::Refused("the timestamp is unreadable"))?;
        let age_us = now_s * 1_000_000 - sent;
        if age_us > self.max_age_s.saturating_mul(1_000_000) {
            return Err(Verdict::Refused("too old"));
        }
        if age_us < -MAX_LEAD_S * 1_000_000 {
            return Err(Verdict::Refused("from the future"));
        }
        Ok(())
    }

    /// Whether a certificate at `url` may sign for topics in `region`.
    fn may_sign(&self, url: &str, region: &str) -> bool {
        let (is_https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return false,
        };
        // What stands before the first slash is compared as a whole, so userinfo, ports, queries and fragments
        // need no parser: they match nothing.
        let Some((authority, path)) = rest.split_once('/') else {
            return false;
        };
        if !is_certificate_path(path) {
            return false;
        }
        is_https && region_of_host(authority) == Some(region) || self.cert_hosts.iter().any(|host| host == authority)
    }
}

impl fmt::Debug for SnsVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnsVerifier").field("topic_arns", &self.topic_arns).finish_non_exhaustive()
    }
}

/// Why an envelope is not accepted, yet or at all.
#[derive(Debug)]
enum Verdict {
    NeedCertificate,
    Refused(&'static str),
}

/// The names that this type of envelope signs. All must be there but the subject.
fn signed_fields(fields: &Fields) -> std::result::Result<&'static [&'static str], Verdict> {
    let signed: &[&str] = match fields.need("Type")? {
        "Notification" => &SIGNED_NOTIFICATION,
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" => &SIGNED_CONFIRMATION,
        _ => return Err(Verdict::Refused("not a type of SNS envelope")),
    };
    for name in signed {
        let value = fields.get(name);
        if value.is_none() && *name != "Subject" {
            return Err(Verdict::Refused("a field is missing"));
        }
        // The signed string joins names and values by line feeds. If any value but the message had one, the same
        // signature could fit an envelope that is cut up differently.
        if *name != "Message" && value.is_some_and(|text| text.chars().any(char::is_control)) {
            return Err(Verdict::Refused("a control character where none belongs"));
        }
    }
    Ok(signed)
}

/// Version 1 is SHA-1; our topics are set to version 2, so nothing else is genuine.
fn check_signature_version(fields: &Fields) -> std::result::Result<(), Verdict> {
    match fields.need("SignatureVersion")? {
        "2" => Ok(()),
        _ => Err(Verdict::Refused("not signature version 2")),
    }
}

fn check_signature(fields: &Fields, signed: &[&str], key: &ParsedPublicKey) -> std::result::Result<(), Verdict> {
    let wrong = Verdict::Refused("the signature does not fit");
    let Ok(signature) = BASE64.decode(fields.need("Signature")?.as_bytes()) else {
        return Err(wrong);
    };
    key.verify_sig(string_to_sign(fields, signed).as_bytes(), &signature).map_err(|_| wrong)
}

fn string_to_sign(fields: &Fields, signed: &[&str]) -> String {
    let mut text = String::with_capacity(512 + fields.get("Message").map_or(0, str::len));
    for name in signed {
        if let Some(value) = fields.get(name) {
            for part in [*name, "\n", value, "\n"] {
                text.push_str(part);
            }
        }
    }
    text
}
