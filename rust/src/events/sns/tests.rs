//! Envelopes signed by the published rule, and all that is wrong with others.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use serde_json::{Map, Value, json};

use super::envelope::MAX_BODY_BYTES;
use super::*;

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
    fields.insert("SubscribeURL".into(), json!("https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription"));
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
        assert_eq!(refusal(&with("SigningCertURL", json!(url))), "the certificate's address is not Amazon's", "{url}");
        assert!(verifier().add_certificate_key(url, &spki(&KEY)).is_err(), "{url}");
    }
    let china = SnsVerifier::new(vec!["arn:aws-cn:sns:cn-north-1:1:t".into()], vec![], 60).unwrap();
    assert!(china.may_sign("https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0a.pem", "cn-north-1"));
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
