//! An envelope as it comes in, and as it is handed out.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Verdict;

/// SNS messages end at 256 KiB; escaping and the other fields at most quadruple that.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;
const MAX_KEYS_PER_ENVELOPE: usize = 64;

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

impl Envelope {
    pub(super) fn empty() -> Self {
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

    pub(super) fn refused(self, reason: &'static str) -> Self {
        Self { status: EnvelopeStatus::Refused, reason: Some(reason), ..self }
    }

    pub(super) fn need_certificate(self, fields: &Fields) -> Self {
        let certificate_url = fields.get("SigningCertURL").map(str::to_owned);
        Self { status: EnvelopeStatus::NeedCertificate, certificate_url, ..self }
    }

    pub(super) fn with_content(self, fields: &Fields) -> Self {
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
pub(super) struct Fields<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Fields<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        if body.len() > MAX_BODY_BYTES {
            return None;
        }
        serde_json::from_slice(body).ok()
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }

    pub(super) fn need(&self, name: &str) -> std::result::Result<&str, Verdict> {
        self.get(name).ok_or(Verdict::Refused("a field is missing"))
    }

    /// The envelope with its names only: what it carries is not known to be genuine yet.
    pub(super) fn envelope(&self) -> Envelope {
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
