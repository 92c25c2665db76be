//! Is this envelope from our SNS topic? Signature, certificate address, topic and age, without a single fetch.
//!
//! The signature alone proves only that *some* topic of Amazon SNS sent the message, and anybody can own one. So
//! the topic is compared first: a stranger's envelope costs no fetch and no RSA. The rule for the certificate's
//! address is that of AWS's own validators, made narrower: the host's region must be the topic's.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use data_encoding::BASE64;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::timestamp::unix_micros;
use crate::{Error, Result};

/// SNS messages end at 256 KiB; escaping and the other fields at most quadruple that.
const MAX_BODY_BYTES: usize = 1 << 20;
const MAX_KEYS_PER_ENVELOPE: usize = 64;
/// Amazon rotates certificates about once a year; this many known at once means that something is wrong.
const MAX_CERTIFICATE_KEYS: usize = 256;
/// Clocks differ, so an envelope may come from this far in the future.
const MAX_LEAD_S: i64 = 300;

/// The fields of an envelope that matter here. Others are allowed and ignored, as SNS may add some.
const FIELDS: [&str; 11] = [
    "Message",
    "MessageId",
    "Signature",
    "SignatureVersion",
    "SigningCertURL",
    "Subject",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
];
/// What is signed, in byte order, as "Verifying the signatures of Amazon SNS messages" lists it.
const SIGNED_NOTIFICATION: [&str; 6] = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
const SIGNED_CONFIRMATION: [&str; 7] =
    ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

/// What became of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeStatus {
    /// Genuine, from a topic of ours, fresh.
    Ok,
    /// Undecided: fetch the certificate named by `certificate_url`, add its key, verify again.
    NeedCertificate,
    /// Not to be used; `reason` says why.
    Refused,
}

impl EnvelopeStatus {
    /// The status as the binding shows it: `ok`, `need_certificate` or `refused`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NeedCertificate => "need_certificate",
            Self::Refused => "refused",
        }
    }
}

/// An envelope after the check. What it carries (`message`, `token`, `subscribe_url`) is filled in only when `ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The verdict.
    pub status: EnvelopeStatus,
    /// Why it was refused.
    pub reason: Option<&'static str>,
    /// The certificate to fetch, already checked against the rule, when the status is `need_certificate`.
    pub certificate_url: Option<String>,
    /// `Notification`, `SubscriptionConfirmation` or `UnsubscribeConfirmation`; empty if unreadable.
    pub kind: String,
    /// The SNS MessageId, the same in every delivery of one message; empty if unreadable.
    pub message_id: String,
    /// The topic it claims to come from; empty if unreadable.
    pub topic_arn: String,
    /// The decoded message.
    pub message: Vec<u8>,
    /// The token that confirms a subscription.
    pub token: Option<String>,
    /// The address that confirms a subscription. It is signed, but a caller does better to build its own.
    pub subscribe_url: Option<String>,
}

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

impl Envelope {
    fn empty() -> Self {
        Self {
            status: EnvelopeStatus::Refused,
            reason: None,
            certificate_url: None,
            kind: String::new(),
            message_id: String::new(),
            topic_arn: String::new(),
            message: Vec::new(),
            token: None,
            subscribe_url: None,
        }
    }

    fn refused(self, reason: &'static str) -> Self {
        Self { status: EnvelopeStatus::Refused, reason: Some(reason), ..self }
    }

    fn need_certificate(self, fields: &Fields) -> Self {
        let certificate_url = fields.get("SigningCertURL").map(str::to_owned);
        Self { status: EnvelopeStatus::NeedCertificate, certificate_url, ..self }
    }

    fn with_content(self, fields: &Fields) -> Self {
        Self {
            status: EnvelopeStatus::Ok,
            message: fields.get("Message").unwrap_or_default().as_bytes().to_vec(),
            token: fields.get("Token").map(str::to_owned),
            subscribe_url: fields.get("SubscribeURL").map(str::to_owned),
            ..self
        }
    }
}

/// The decoded string fields of an envelope.
struct Fields<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Fields<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        if body.len() > MAX_BODY_BYTES {
            return None;
        }
        serde_json::from_slice(body).ok()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }

    fn need(&self, name: &str) -> std::result::Result<&str, Verdict> {
        self.get(name).ok_or(Verdict::Refused("a field is missing"))
    }

    /// The envelope with its names only: what it carries is not known to be genuine yet.
    fn envelope(&self) -> Envelope {
        let text = |name| self.get(name).unwrap_or_default().to_owned();
        Envelope { kind: text("Type"), message_id: text("MessageId"), topic_arn: text("TopicArn"), ..Envelope::empty() }
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an SNS envelope")
    }

    /// Refuses a key that occurs twice: two readers could take different ones.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(FIELDS.len());
        let mut seen: Vec<Text<'de>> = Vec::with_capacity(FIELDS.len());
        while let Some(key) = map.next_key::<Text>()? {
            if seen.len() >= MAX_KEYS_PER_ENVELOPE || seen.iter().any(|other| other.0 == key.0) {
                return Err(A::Error::custom("a key occurs twice, or there are too many"));
            }
            match FIELDS.iter().find(|name| **name == key.0) {
                // A field that is null is a field that is not there.
                Some(name) => fields.extend(map.next_value::<Option<Text>>()?.map(|text| (*name, text.0))),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            seen.push(key);
        }
        Ok(Fields(fields))
    }
}

/// A JSON string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

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

/// The region of `arn:<partition>:sns:<region>:<account>:<name>`.
fn region_of(arn: &str) -> Option<&str> {
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
fn region_of_host(host: &str) -> Option<&str> {
    let rest = host.strip_prefix("sns.")?;
    let region = rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn"))?;
    is_region(region).then_some(region)
}

fn is_region(text: &str) -> bool {
    text.len() >= 3 && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// `SimpleNotificationService-<lower-case hex>.pem`, the path without its first slash.
fn is_certificate_path(path: &str) -> bool {
    let hex = path.strip_prefix("SimpleNotificationService-").and_then(|rest| rest.strip_suffix(".pem"));
    hex.is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    !host.is_empty() && host.bytes().all(plain) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
    use serde_json::{Map, Value, json};
    use std::sync::LazyLock;

    const ARN: &str = "arn:aws:sns:eu-central-1:123456789012:mailrail";
    const URL: &str = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a1b2c.pem";
    const STAND_IN: &str = "http://127.0.0.1:4579/SimpleNotificationService-00.pem";
    const NOW_S: i64 = 1_795_451_968;
    const TIME: &str = "2026-11-23T16:39:28.000Z";

    static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).unwrap());

    fn spki(key: &KeyPair) -> Vec<u8> {
        key.public_key().as_der().unwrap().as_ref().to_vec()
    }

    fn verifier() -> SnsVerifier {
        let verifier = SnsVerifier::new(vec![ARN.into()], vec!["127.0.0.1:4579".into()], 3600).unwrap();
        verifier.add_certificate_key(URL, &spki(&KEY)).unwrap();
        verifier
    }

    fn notification() -> Map<String, Value> {
        let value = json!({
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": ARN,
            "Subject": "Amazon SES Email Event Notification",
            "Message": "{\"eventType\":\"Send\",\"text\":\"gr\u{fc}n \u{1f600}\\n\"}\n",
            "Timestamp": TIME,
            "SignatureVersion": "2",
            "SigningCertURL": URL,
            "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
        });
        value.as_object().unwrap().clone()
    }

    fn confirmation() -> Map<String, Value> {
        let mut fields = notification();
        fields.remove("Subject");
        fields.insert("Type".into(), json!("SubscriptionConfirmation"));
        fields.insert("Token".into(), json!("2336412f37"));
        fields
            .insert("SubscribeURL".into(), json!("https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription"));
        fields
    }

    /// Signs what is there, by the published rule and not by the code under test.
    fn signed(fields: &Map<String, Value>) -> Vec<u8> {
        signed_by(fields, &KEY)
    }

    fn signed_by(fields: &Map<String, Value>, key: &KeyPair) -> Vec<u8> {
        let mut names: Vec<&str> = vec!["Message", "MessageId", "Timestamp", "TopicArn", "Type"];
        match fields["Type"].as_str() {
            Some("Notification") => names.extend(fields.contains_key("Subject").then_some("Subject")),
            _ => names.extend(["SubscribeURL", "Token"]),
        }
        names.sort_unstable();
        let text: String =
            names.iter().filter_map(|name| Some(format!("{name}\n{}\n", fields.get(*name)?.as_str()?))).collect();
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        let mut fields = fields.clone();
        fields.insert("Signature".into(), json!(BASE64.encode(&signature)));
        serde_json::to_vec(&fields).unwrap()
    }

    fn with(field: &str, value: Value) -> Vec<u8> {
        let mut fields = notification();
        fields.insert(field.into(), value);
        signed(&fields)
    }

    fn without(field: &str) -> Vec<u8> {
        let mut fields = notification();
        fields.remove(field);
        signed(&fields)
    }

    fn refusal(body: &[u8]) -> &'static str {
        let envelope = verifier().verify_at(body, NOW_S);
        assert_eq!(envelope.status, EnvelopeStatus::Refused, "{}", String::from_utf8_lossy(body));
        assert_eq!((envelope.message, envelope.token, envelope.subscribe_url), (vec![], None, None));
        envelope.reason.unwrap()
    }

    #[test]
    fn a_genuine_notification_is_ok() {
        let envelope = verifier().verify_at(&signed(&notification()), NOW_S);
        assert_eq!((envelope.status, envelope.reason), (EnvelopeStatus::Ok, None));
        assert_eq!(envelope.kind, "Notification");
        assert_eq!(envelope.message_id, "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324");
        assert_eq!(envelope.topic_arn, ARN);
        assert_eq!(envelope.message, notification()["Message"].as_str().unwrap().as_bytes());
        // Without a subject, with a null one, and with fields that SNS may add.
        assert_eq!(verifier().verify_at(&without("Subject"), NOW_S).status, EnvelopeStatus::Ok);
        let attributes = json!({"a": {"Type": "String", "Value": "x"}});
        assert_eq!(verifier().verify_at(&with("MessageAttributes", attributes), NOW_S).status, EnvelopeStatus::Ok);
    }

    #[test]
    fn escapes_in_the_json_do_not_change_what_is_signed() {
        let body = String::from_utf8(signed(&notification())).unwrap();
        let escaped = body.replace('\u{fc}', "\\u00fc").replace('\u{1f600}', "\\ud83d\\ude00").replace('/', "\\/");
        assert_ne!(escaped, body);
        assert_eq!(verifier().verify_at(escaped.as_bytes(), NOW_S).status, EnvelopeStatus::Ok);
    }

    #[test]
    fn confirmations_carry_their_token() {
        let envelope = verifier().verify_at(&signed(&confirmation()), NOW_S);
        assert_eq!((envelope.status, envelope.token.as_deref()), (EnvelopeStatus::Ok, Some("2336412f37")));
        assert!(envelope.subscribe_url.unwrap().ends_with("Action=ConfirmSubscription"));
        for field in ["Token", "SubscribeURL"] {
            let mut fields = confirmation();
            fields.remove(field);
            assert_eq!(refusal(&signed(&fields)), "a field is missing");
        }
    }

    #[test]
    fn an_unknown_certificate_is_asked_for() {
        let verifier = SnsVerifier::new(vec![ARN.into()], vec![], 3600).unwrap();
        let body = signed(&notification());
        let envelope = verifier.verify_at(&body, NOW_S);
        assert_eq!(envelope.status, EnvelopeStatus::NeedCertificate);
        assert_eq!(envelope.certificate_url.as_deref(), Some(URL));
        assert_eq!(envelope.message, b"", "nothing unproven is handed out");
        verifier.add_certificate_key(URL, &spki(&KEY)).unwrap();
        assert_eq!(verifier.verify_at(&body, NOW_S).status, EnvelopeStatus::Ok);
    }

    #[test]
    fn a_stand_in_may_serve_the_certificate_if_named() {
        let body = with("SigningCertURL", json!(STAND_IN));
        let verifier = verifier();
        assert_eq!(verifier.verify_at(&body, NOW_S).status, EnvelopeStatus::NeedCertificate);
        verifier.add_certificate_key(STAND_IN, &spki(&KEY)).unwrap();
        assert_eq!(verifier.verify_at(&body, NOW_S).status, EnvelopeStatus::Ok);
    }

    #[test]
    fn a_strange_topic_never_asks_for_a_certificate() {
        let arns = [
            "arn:aws:sns:eu-central-1:123456789012:mailrail2",
            "arn:aws:sns:eu-central-1:123456789013:mailrail",
            "arn:aws:sns:eu-west-1:123456789012:mailrail",
            "ARN:aws:sns:eu-central-1:123456789012:mailrail",
            " arn:aws:sns:eu-central-1:123456789012:mailrail",
            "",
        ];
        let verifier = SnsVerifier::new(vec![ARN.into()], vec![], 3600).unwrap();
        for arn in arns {
            let envelope = verifier.verify_at(&with("TopicArn", json!(arn)), NOW_S);
            assert_eq!(envelope.reason, Some("not a topic of ours"), "{arn}");
        }
    }

    #[test]
    fn certificates_come_from_amazon_only() {
        let urls = [
            "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-0a.pem",
            "https://evil.example/sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.com@evil.example/SimpleNotificationService-0a.pem",
            "https://a@sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "https://a:b@sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.com:443/SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem?x=1",
            "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem#x",
            "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem/",
            "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem\n",
            "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-.pem",
            "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0A.pem",
            "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0g.pem",
            "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a%2e.pem",
            "https://sns.eu-central-1.amazonaws.com//SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.com/a/SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.com/../SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.com\\@evil.example/SimpleNotificationService-0a.pem",
            "https://SNS.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.com./SimpleNotificationService-0a.pem",
            "https://bucket.s3.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.com.cn.evil/SimpleNotificationService-0a.pem",
            "https://xsns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "https://sns.x.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "https://sns.eu-central-1.amazonaws.co/SimpleNotificationService-0a.pem",
            "HTTPS://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "//sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a.pem",
            "ftp://127.0.0.1:4579/SimpleNotificationService-00.pem",
            "http://127.0.0.1:4580/SimpleNotificationService-00.pem",
            "http://127.0.0.1/SimpleNotificationService-00.pem",
            "http://a@127.0.0.1:4579/SimpleNotificationService-00.pem",
            "http://127.0.0.1:4579/other.pem",
            "file:///SimpleNotificationService-00.pem",
            "",
        ];
        for url in urls {
            assert_eq!(
                refusal(&with("SigningCertURL", json!(url))),
                "the certificate's address is not Amazon's",
                "{url}"
            );
            assert!(verifier().add_certificate_key(url, &spki(&KEY)).is_err(), "{url}");
        }
        let china = SnsVerifier::new(vec!["arn:aws-cn:sns:cn-north-1:1:t".into()], vec![], 60).unwrap();
        assert!(
            china.may_sign("https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0a.pem", "cn-north-1")
        );
    }

    #[test]
    fn every_change_to_a_signed_field_is_refused() {
        let body = signed(&notification());
        let genuine: Map<String, Value> = serde_json::from_slice(&body).unwrap();
        for field in ["Message", "MessageId", "Subject", "Timestamp"] {
            let mut changed = genuine.clone();
            let text = changed[field].as_str().unwrap().replacen(['2', 'A', '{'], "3", 1);
            changed.insert(field.into(), json!(text));
            assert_eq!(refusal(&serde_json::to_vec(&changed).unwrap()), "the signature does not fit", "{field}");
        }
        let mut no_subject = genuine.clone();
        no_subject.remove("Subject");
        assert_eq!(refusal(&serde_json::to_vec(&no_subject).unwrap()), "the signature does not fit");
        for signature in ["", "AAAA", "not base64!", &BASE64.encode(&[0; 256]), &"A".repeat(4096)] {
            let mut changed = genuine.clone();
            changed.insert("Signature".into(), json!(signature));
            assert_eq!(refusal(&serde_json::to_vec(&changed).unwrap()), "the signature does not fit");
        }
    }

    #[test]
    fn a_signature_over_bent_line_feeds_is_refused() {
        // Both envelopes join to the same signed text; only one of them was sent.
        let mut sent = notification();
        sent.insert("Message".into(), json!("first\nMessageId\nevil\nSubject\ntail"));
        sent.remove("Subject");
        let body: Map<String, Value> = serde_json::from_slice(&signed(&sent)).unwrap();
        let mut bent = body.clone();
        bent.insert("Message".into(), json!("first"));
        bent.insert("MessageId".into(), json!("evil"));
        bent.insert("Subject".into(), json!(format!("tail\nMessageId\n{}", body["MessageId"].as_str().unwrap())));
        assert_eq!(refusal(&serde_json::to_vec(&bent).unwrap()), "a control character where none belongs");
        assert_eq!(verifier().verify_at(&serde_json::to_vec(&body).unwrap(), NOW_S).status, EnvelopeStatus::Ok);
    }

    #[test]
    fn another_key_or_an_old_version_is_refused() {
        let other = KeyPair::generate(KeySize::Rsa2048).unwrap();
        assert_eq!(refusal(&signed_by(&notification(), &other)), "the signature does not fit");
        for version in ["1", "3", "", "2 ", "02"] {
            assert_eq!(refusal(&with("SignatureVersion", json!(version))), "not signature version 2");
        }
        assert!(verifier().add_certificate_key(URL, b"not a key").is_err());
    }

    #[test]
    fn only_fresh_envelopes_count() {
        let body = signed(&notification());
        let at = |now_s| verifier().verify_at(&body, now_s);
        for now_s in [NOW_S - 300, NOW_S, NOW_S + 3600] {
            assert_eq!(at(now_s).status, EnvelopeStatus::Ok);
        }
        assert_eq!(at(NOW_S + 3601).reason, Some("too old"));
        assert_eq!(at(NOW_S - 301).reason, Some("from the future"));
        assert_eq!(refusal(&with("Timestamp", json!("yesterday"))), "the timestamp is unreadable");
        assert_eq!(refusal(&with("Timestamp", json!("0000-01-01T00:00:00Z"))), "too old");
        assert_eq!(refusal(&with("Timestamp", json!("9999-01-01T00:00:00Z"))), "from the future");
    }

    #[test]
    fn unreadable_envelopes_are_refused() {
        let body = signed(&notification());
        let text = std::str::from_utf8(&body).unwrap();
        let doubled = |extra: &str| text.replacen('{', &format!("{{{extra},"), 1).into_bytes();
        let bodies = [
            b"".to_vec(),
            b"null".to_vec(),
            b"[]".to_vec(),
            b"\xff\xfe{}".to_vec(),
            format!("{text}x").into_bytes(),
            doubled(r#""Type":"Notification""#),
            doubled(r#""Ty\u0070e":"Notification""#),
            doubled(r#""Subject":null"#),
            doubled(r#""x":1,"x":2"#),
            text.replace("\"2\"", "2").into_bytes(),
            text.replace("gr\u{fc}n", "\\ud800").into_bytes(),
            "[".repeat(100_000).into_bytes(),
            format!("{{\"a\":{}", "[".repeat(100_000)).into_bytes(),
            vec![b' '; MAX_BODY_BYTES + 1],
            format!("{{{}}}", (0..65).map(|n| format!("\"k{n}\":1")).collect::<Vec<_>>().join(",")).into_bytes(),
        ];
        for body in bodies {
            assert_eq!(refusal(&body), "not an SNS envelope");
        }
        assert_eq!(refusal(&with("Type", json!("Other"))), "not a type of SNS envelope");
        for field in ["Message", "MessageId", "Timestamp"] {
            assert_eq!(refusal(&without(field)), "a field is missing", "{field}");
        }
        let mut unsigned = notification();
        unsigned.insert("Message".into(), json!("x"));
        assert_eq!(refusal(&serde_json::to_vec(&unsigned).unwrap()), "a field is missing");
    }

    #[test]
    fn cut_and_flipped_bodies_are_never_ok() {
        let body = signed(&notification());
        let genuine = verifier().verify_at(&body, NOW_S);
        for end in 0..body.len() {
            refusal(&body[..end]);
        }
        let mut survivors = 0;
        for bit in 0..body.len() * 8 {
            let mut broken = body.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let envelope = verifier_once().verify_at(&broken, NOW_S);
            // Only names and values that nobody signs or reads may change; what is handed out may not.
            if envelope.status == EnvelopeStatus::Ok {
                assert_eq!(envelope, genuine);
                survivors += 1;
            }
        }
        assert!(survivors < body.len() * 2, "{survivors}");
    }

    fn verifier_once() -> &'static SnsVerifier {
        static VERIFIER: LazyLock<SnsVerifier> = LazyLock::new(verifier);
        &VERIFIER
    }

    #[test]
    fn settings_are_checked() {
        for arn in ["", "mailrail", "arn:aws:sqs:eu-central-1:1:q", "arn:aws:sns::1:t", "arn:aws:sns:eu-central-1:1:"] {
            assert!(SnsVerifier::new(vec![arn.into()], vec![], 60).is_err(), "{arn}");
        }
        for host in ["", "127.0.0.1", "127.0.0.1:", "a/b:1", "a@b:1", "x:99999", "https://x:1"] {
            assert!(SnsVerifier::new(vec![ARN.into()], vec![host.into()], 60).is_err(), "{host}");
        }
        assert!(SnsVerifier::new(vec![ARN.into()], vec![], 0).is_err());
        assert!(SnsVerifier::new(vec![ARN.into()], vec!["localhost:1".into(), "[::1]:80".into()], 60).is_ok());
    }

    #[test]
    fn a_batch_keeps_its_order() {
        let bodies = [signed(&notification()), b"x".to_vec()];
        let envelopes = verifier().verify(&bodies);
        assert_eq!(envelopes.len(), 2);
        assert_eq!(envelopes[1].reason, Some("not an SNS envelope"));
        assert_eq!(envelopes[1].status.as_str(), "refused");
    }
}
