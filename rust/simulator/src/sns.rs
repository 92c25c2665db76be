//! SNS as a subscriber sees it: signed envelopes, the certificate behind them, and the subscription handshake.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use serde::Serialize;

use crate::certificates::SnsIdentity;
use crate::clock;
use crate::random;

/// The topic, and the one subscription to it.
pub struct Topic {
    arn: String,
    /// `http://host:port`
    base_url: String,
    certificate_path: String,
    certificate_pem: String,
    key: KeyPair,
    token: String,
    subscription_id: String,
    instance: u64,
    is_confirmed: AtomicBool,
}

/// One HTTP POST to the subscriber.
pub struct Post {
    pub message_type: &'static str,
    pub message_id: String,
    pub body: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a> {
    #[serde(rename = "Type")]
    message_type: &'a str,
    message_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    topic_arn: &'a str,
    message: &'a str,
    #[serde(rename = "SubscribeURL", skip_serializing_if = "Option::is_none")]
    subscribe_url: Option<&'a str>,
    timestamp: &'a str,
    signature_version: &'a str,
    signature: &'a str,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: &'a str,
    #[serde(rename = "UnsubscribeURL", skip_serializing_if = "Option::is_none")]
    unsubscribe_url: Option<&'a str>,
}

impl Topic {
    /// Where this simulator is reached, without TLS.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// A topic that signs with `identity` and is reached at `base_url`.
    pub fn new(arn: &str, base_url: String, identity: SnsIdentity) -> Topic {
        Topic {
            arn: arn.to_owned(),
            base_url,
            certificate_path: format!("/SimpleNotificationService-{}.pem", identity.fingerprint),
            certificate_pem: identity.certificate_pem,
            key: identity.key,
            token: data_encoding::HEXLOWER.encode(&random::unguessable::<64>()),
            subscription_id: uuid(u64::from_le_bytes(random::unguessable()), 0),
            instance: u64::from_le_bytes(random::unguessable()),
            is_confirmed: AtomicBool::new(false),
        }
    }

    /// The certificate, if `path` is where it is served.
    pub fn certificate(&self, path: &str) -> Option<&str> {
        (path == self.certificate_path).then_some(&*self.certificate_pem)
    }

    /// Confirms the subscription; false if topic or token are wrong.
    pub fn confirm(&self, topic_arn: &str, token: &str) -> bool {
        let is_right = topic_arn == self.arn && token == self.token;
        if is_right {
            self.is_confirmed.store(true, Relaxed);
        }
        is_right
    }

    /// Whether the subscriber fetched the confirmation URL.
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed.load(Relaxed)
    }

    /// Name of the topic.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// Name of the subscription.
    pub fn subscription_arn(&self) -> String {
        format!("{}:{}", self.arn, self.subscription_id)
    }

    /// A signed notification; the same `number` gives the same message id.
    pub fn notification(&self, message: &str, number: u64) -> Post {
        let message_id = uuid(self.instance, number);
        let timestamp = clock::iso(clock::now_ms());
        let signature = self.sign(&[
            ("Message", message),
            ("MessageId", &message_id),
            ("Timestamp", &timestamp),
            ("TopicArn", &self.arn),
            ("Type", "Notification"),
        ]);
        let unsubscribe_url =
            format!("{}/?Action=Unsubscribe&SubscriptionArn={}", self.base_url, self.subscription_arn());
        let body = json(&Envelope {
            message_type: "Notification",
            message_id: &message_id,
            token: None,
            topic_arn: &self.arn,
            message,
            subscribe_url: None,
            timestamp: &timestamp,
            signature_version: "2",
            signature: &signature,
            signing_cert_url: &self.certificate_url(),
            unsubscribe_url: Some(&unsubscribe_url),
        });
        Post { message_type: "Notification", message_id, body }
    }

    /// The signed request to confirm the subscription.
    pub fn confirmation(&self) -> Post {
        let message_id = uuid(u64::from_le_bytes(random::unguessable()), 0);
        let timestamp = clock::iso(clock::now_ms());
        let message = format!(
            "You have chosen to subscribe to the topic {}.\nTo confirm the subscription, visit the SubscribeURL included in this message.",
            self.arn
        );
        let subscribe_url =
            format!("{}/?Action=ConfirmSubscription&TopicArn={}&Token={}", self.base_url, self.arn, self.token);
        let signature = self.sign(&[
            ("Message", &message),
            ("MessageId", &message_id),
            ("SubscribeURL", &subscribe_url),
            ("Timestamp", &timestamp),
            ("Token", &self.token),
            ("TopicArn", &self.arn),
            ("Type", "SubscriptionConfirmation"),
        ]);
        let body = json(&Envelope {
            message_type: "SubscriptionConfirmation",
            message_id: &message_id,
            token: Some(&self.token),
            topic_arn: &self.arn,
            message: &message,
            subscribe_url: Some(&subscribe_url),
            timestamp: &timestamp,
            signature_version: "2",
            signature: &signature,
            signing_cert_url: &self.certificate_url(),
            unsubscribe_url: None,
        });
        Post { message_type: "SubscriptionConfirmation", message_id, body }
    }

    fn certificate_url(&self) -> String {
        format!("{}{}", self.base_url, self.certificate_path)
    }

    /// Signature version 2: RSA PKCS#1 v1.5 with SHA-256 over `Key\nValue\n` lines in byte order of the keys.
    fn sign(&self, fields: &[(&str, &str)]) -> String {
        let mut text = String::new();
        for (key, value) in fields {
            for part in [key, value] {
                text.push_str(part);
                text.push('\n');
            }
        }
        let mut signature = vec![0; self.key.public_modulus_len()];
        // PKCS#1 v1.5 with a checked key and a buffer of the right length has no way to fail.
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .expect("RSA signing works");
        base64_simd::STANDARD.encode_to_string(&signature)
    }
}

fn json(envelope: &Envelope) -> Vec<u8> {
    // Strings alone always serialise.
    serde_json::to_vec(envelope).unwrap_or_default()
}

/// A UUID of version 4 and the usual variant, made from two numbers.
pub fn uuid(instance: u64, number: u64) -> String {
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{number:012x}",
        instance >> 32,
        instance >> 16 & 0xffff,
        instance >> 4 & 0xfff,
        number >> 48 & 0xfff,
        number = number & 0xffff_ffff_ffff,
    )
}
