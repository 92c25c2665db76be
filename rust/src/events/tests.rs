//! Notifications in, rows out.

use serde_json::{Value, json};

use super::fact::hash;
use super::parse::{MAX_REASON_CHARS, PG_EPOCH_UNIX_US, parse_events};
use crate::copy::{Reader, Writer};
use crate::token::TokenKeys;

const STREAM: i64 = 0x1234_5678_0000_0007;

fn keys() -> TokenKeys {
    TokenKeys::derive(b"a secret for tests")
}

#[derive(Debug, PartialEq)]
struct Row {
    notification_id: i64,
    subject: (i64, i32, i16),
    kind: i16,
    dedupe: i64,
    at: Option<i64>,
    address: Option<String>,
    message_id: Option<String>,
    detail: Option<String>,
    machine: Option<String>,
}

fn rows_of(bodies: &[&[u8]]) -> Vec<u8> {
    let mut rows = Writer::new(2, 0);
    for (id, body) in (1..).zip(bodies) {
        rows.row().int8(id).raw(body);
    }
    rows.finish()
}

fn parse(bodies: &[&[u8]]) -> (Vec<Row>, Vec<(i64, String)>) {
    let parsed = parse_events(&keys(), &rows_of(bodies)).unwrap();
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let (mut events, mut parked) = (Vec::new(), Vec::new());
    let mut reader = Reader::open(&parsed.events).unwrap();
    while let Some(mut row) = reader.next_row(11).unwrap() {
        events.push(Row {
            notification_id: row.int8("").unwrap().unwrap(),
            subject: (row.int8("").unwrap().unwrap(), row.int4("").unwrap().unwrap(), row.int2("").unwrap().unwrap()),
            kind: row.int2("").unwrap().unwrap(),
            dedupe: row.int8("").unwrap().unwrap(),
            at: row.int8("").unwrap(),
            address: owned(row.text("").unwrap()),
            message_id: owned(row.text("").unwrap()),
            detail: owned(row.text("").unwrap()),
            machine: owned(row.text("").unwrap()),
        });
    }
    let mut reader = Reader::open(&parsed.parked).unwrap();
    while let Some(mut row) = reader.next_row(2).unwrap() {
        parked.push((row.int8("").unwrap().unwrap(), owned(row.text("").unwrap()).unwrap()));
    }
    assert_eq!((parsed.event_count, parsed.parked_count), (events.len(), parked.len()));
    (events, parked)
}

fn one(event: &Value) -> Row {
    let (mut events, parked) = parse(&[event.to_string().as_bytes()]);
    assert_eq!(parked, []);
    events.remove(0)
}

fn reason(body: &[u8]) -> String {
    let (events, mut parked) = parse(&[body]);
    assert_eq!(events, []);
    parked.remove(0).1
}

fn mail() -> Value {
    json!({
        "timestamp": "2026-11-23T16:39:28.123Z",
        "messageId": "0100-abc-000000",
        "source": "hello@example.com",
        "destination": ["ann@example.net", "bob@example.net"],
        "headersTruncated": false,
        "headers": [{"name": "From", "value": "hello@example.com"}, {"name": "Subject", "value": "Hi \"you\""}],
        "commonHeaders": {"from": ["hello@example.com"], "subject": "Hi"},
        "tags": {"ses:configuration-set": ["mailrail"], "mr": [keys().tag(STREAM, 42, 3), "second"]},
    })
}

fn event(kind: &str, part_name: &str, part: Value) -> Value {
    json!({"eventType": kind, part_name: part, "mail": mail()})
}

const AT_MAIL: i64 = 1_795_451_968_123_000 - PG_EPOCH_UNIX_US;
const AT_PART: i64 = AT_MAIL + 3_877_000;
const PART_TIME: &str = "2026-11-23T16:39:32Z";

#[test]
fn a_send_takes_time_and_address_from_its_mail() {
    let row = one(&event("Send", "send", json!({})));
    assert_eq!(
        row,
        Row {
            notification_id: 1,
            subject: (STREAM, 42, 3),
            kind: 1,
            dedupe: 3,
            at: Some(AT_MAIL),
            address: Some("ann@example.net".into()),
            message_id: Some("0100-abc-000000".into()),
            detail: None,
            machine: None,
        }
    );
}

#[test]
fn a_delivery_keeps_the_answer_of_the_server() {
    let part = json!({
        "timestamp": PART_TIME, "processingTimeMillis": 546, "recipients": ["bob@example.net"],
        "smtpResponse": "250 ok", "reportingMTA": "a8-1.smtp-out.amazonses.com",
    });
    let row = one(&event("Delivery", "delivery", part));
    assert_eq!((row.kind, row.dedupe, row.at), (2, 3, Some(AT_PART)));
    assert_eq!((row.address.as_deref(), row.detail.as_deref()), (Some("bob@example.net"), Some("250 ok")));
}

#[test]
fn the_same_event_of_another_attempt_is_another_row() {
    let delivered = |attempt: i16| {
        let mut event = event("Delivery", "delivery", json!({"timestamp": PART_TIME}));
        event["mail"]["tags"]["mr"] = json!([keys().tag(STREAM, 42, attempt)]);
        one(&event)
    };
    assert_eq!(delivered(1), delivered(1));
    assert_eq!((delivered(1).dedupe, delivered(2).dedupe), (1, 2));
    let mut untagged = event("Delivery", "delivery", json!({"timestamp": PART_TIME}));
    untagged["mail"]["tags"] = json!(null);
    untagged["mail"]["headers"] =
        json!([{"name": "X-Mailrail-Id", "value": keys().encode_id("eml", STREAM as u64, 42, 0)}]);
    assert_eq!((one(&untagged).subject, one(&untagged).dedupe), ((STREAM, 42, 0), 0));
}

fn bounce(bounce_type: &str, feedback_id: &str) -> Row {
    let part = json!({
        "bounceType": bounce_type, "bounceSubType": "General", "timestamp": PART_TIME,
        "feedbackId": feedback_id, "remoteMtaIp": "127.0.2.0",
        "bouncedRecipients": [
            {"emailAddress": "ann@example.net", "action": "failed", "status": "5.1.1",
             "diagnosticCode": "smtp; 550 5.1.1 user unknown"},
            {"emailAddress": "bob@example.net"},
        ],
    });
    one(&event("Bounce", "bounce", part))
}

#[test]
fn only_permanent_bounces_are_final_and_happen_once() {
    let row = bounce("Permanent", "f1");
    assert_eq!((row.kind, row.dedupe, row.at), (3, 3, Some(AT_PART)));
    assert_eq!(row.address.as_deref(), Some("ann@example.net"));
    assert_eq!(row.detail.as_deref(), Some("Permanent/General: smtp; 550 5.1.1 user unknown"));
    for bounce_type in ["Transient", "Undetermined", "SomethingNew"] {
        let row = bounce(bounce_type, "f1");
        assert_eq!(row.kind, 4);
        assert_eq!(row, bounce(bounce_type, "f1"), "a repeated event is the same row");
        assert!(row.dedupe > 0);
        assert_ne!(row.dedupe, bounce(bounce_type, "f2").dedupe);
    }
}

#[test]
fn a_bare_bounce_is_read_too() {
    let row = one(&event("Bounce", "bounce", json!({"bounceType": "Permanent"})));
    assert_eq!((row.kind, row.at, row.address), (3, None, None));
    assert_eq!(row.detail.as_deref(), Some("Permanent"));
    let row = one(&event("Bounce", "bounce", json!(null)));
    assert_eq!((row.kind, row.detail), (4, None));
    let status_only = json!({"bounceSubType": "Suppressed", "bouncedRecipients": [{"status": "5.0.0"}]});
    let row = one(&event("Bounce", "bounce", status_only));
    assert_eq!(row.detail.as_deref(), Some("Suppressed: 5.0.0"));
}

#[test]
fn complaints_keep_their_type() {
    let complaint = |feedback: Value, sub: Value| {
        one(&event(
            "Complaint",
            "complaint",
            json!({
                "complainedRecipients": [{"emailAddress": "ann@example.net"}], "timestamp": PART_TIME,
                "feedbackId": "c1", "userAgent": "Yahoo!", "complaintFeedbackType": feedback,
                "complaintSubType": sub, "arrivalDate": "2026-11-23T16:39:28.123Z",
            }),
        ))
    };
    let row = complaint(json!("not-spam"), json!(null));
    assert_eq!((row.kind, row.at, row.detail.as_deref()), (7, Some(AT_PART), Some("not-spam")));
    assert!(row.dedupe > 0);
    let row = complaint(json!(null), json!("OnAccountSuppressionList"));
    assert_eq!(row.detail.as_deref(), Some("OnAccountSuppressionList"));
    let row = complaint(json!("auth-failure"), json!("OnAccountSuppressionList"));
    assert_eq!(row.detail.as_deref(), Some("auth-failure/OnAccountSuppressionList"));
    assert_eq!(complaint(json!(null), json!(null)).detail, None);
}

#[test]
fn rejects_and_rendering_failures_keep_their_reason() {
    let row = one(&event("Reject", "reject", json!({"reason": "Bad content"})));
    assert_eq!((row.kind, row.dedupe, row.at), (5, 3, Some(AT_MAIL)));
    assert_eq!(row.detail.as_deref(), Some("Bad content"));
    let part = json!({"errorMessage": "Attribute 'a' is not present in the rendering data.", "templateName": "t"});
    let row = one(&event("Rendering Failure", "failure", part));
    assert_eq!((row.kind, row.dedupe, row.at), (6, 3, Some(AT_MAIL)));
    assert!(row.detail.unwrap().starts_with("Attribute 'a'"));
}

#[test]
fn a_delay_may_repeat() {
    let delay = |time: &str| {
        one(&event(
            "DeliveryDelay",
            "deliveryDelay",
            json!({
                "timestamp": time, "delayType": "MailboxFull", "expirationTime": "2026-11-25T16:39:32Z",
                "delayedRecipients": [{"emailAddress": "ann@example.net", "status": "4.2.2",
                                       "diagnosticCode": "smtp; 452 full"}],
            }),
        ))
    };
    let row = delay(PART_TIME);
    assert_eq!((row.kind, row.at), (8, Some(AT_PART)));
    assert_eq!(row.detail.as_deref(), Some("MailboxFull: smtp; 452 full"));
    assert_eq!(row.dedupe, delay(PART_TIME).dedupe);
    assert_ne!(row.dedupe, delay("2026-11-23T17:39:32Z").dedupe);
}

#[test]
fn opens_and_clicks_are_told_apart_by_time_place_and_link() {
    let visit = |kind: &str, ip: &str, link: Value| {
        let part = json!({"timestamp": PART_TIME, "ipAddress": ip, "userAgent": "x", "link": link, "linkTags": null});
        one(&event(kind, &kind.to_lowercase(), part))
    };
    let open = visit("Open", "192.0.2.1", json!(null));
    assert_eq!((open.kind, open.at, open.detail.as_deref()), (9, Some(AT_PART), None));
    assert_ne!(open.dedupe, visit("Open", "192.0.2.2", json!(null)).dedupe);
    let click = visit("Click", "192.0.2.1", json!("https://example.com/?a=1&b=\u{e9}"));
    assert_eq!((click.kind, click.detail.as_deref()), (10, Some("https://example.com/?a=1&b=\u{e9}")));
    assert_eq!(click.address.as_deref(), Some("ann@example.net"));
    // A long link is clipped in the row, yet all of it counts.
    let long = format!("https://example.com/{}", "é".repeat(600));
    let one = visit("Click", "192.0.2.1", json!(format!("{long}1")));
    let two = visit("Click", "192.0.2.1", json!(format!("{long}2")));
    assert_eq!(one.detail.as_ref().map(|text| text.chars().count()), Some(500));
    assert_eq!(one.detail, two.detail);
    assert_ne!(one.dedupe, two.dedupe);
}

#[test]
fn hashes_never_change() {
    // SHA-256 of the eight bytes of the length 2, then "f1": first eight bytes, without the top bit.
    assert_eq!(hash(&["f1"]), 2_994_902_430_193_122_018);
    assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
}

#[test]
fn without_a_tag_the_header_counts() {
    let mut notice = json!({"notificationType": "Delivery", "mail": mail(), "delivery": {"timestamp": PART_TIME}});
    let id = keys().encode_id("eml", STREAM as u64, 42, 0);
    notice["mail"]["tags"] = Value::Null;
    notice["mail"]["headers"] =
        json!([{"name": "To", "value": null}, {"name": "x-mailrail-ID", "value": format!(" {id}")}]);
    assert_eq!(one(&notice).subject, (STREAM, 42, 0));
    // A tag that is not ours does not hide the header.
    notice["mail"]["tags"] = json!({"mr": ["other"]});
    assert_eq!(one(&notice).subject, (STREAM, 42, 0));
}

#[test]
fn what_cannot_be_placed_is_parked() {
    let park = |change: &dyn Fn(&mut Value)| {
        let mut notice = event("Send", "send", json!({}));
        change(&mut notice);
        reason(notice.to_string().as_bytes())
    };
    assert_eq!(park(&|v| v["mail"]["tags"] = json!({})), "no tag and no header of ours");
    assert_eq!(park(&|v| v["mail"]["tags"] = json!({"mr": []})), "no tag and no header of ours");
    assert_eq!(park(&|v| v["mail"]["tags"] = json!({"mr": ["x"]})), "its tag is not one of ours");
    assert_eq!(park(&|v| v["mail"]["tags"]["mr"] = json!([keys().tag(-1, 1, 1)])), "its tag is not one of ours");
    assert_eq!(park(&|v| v["mail"]["tags"]["mr"] = json!([keys().tag(STREAM, 0, 1)])), "its tag is not one of ours");
    assert_eq!(park(&|v| v["mail"] = json!({})), "no tag and no header of ours");
    assert_eq!(park(&|v| v["mail"] = json!("x")), "not the JSON of an SES event");
    assert_eq!(park(&|v| v["eventType"] = Value::Null), "no event type");
    assert_eq!(park(&|v| v["eventType"] = json!("Answered")), "not a type that we read: Answered");
    let long = park(&|v| v["eventType"] = json!("é".repeat(1000)));
    assert_eq!(long.chars().count(), MAX_REASON_CHARS);
    let with_attempt = keys().encode_id("eml", STREAM as u64, 42, 1);
    assert_eq!(
        park(&|v| {
            v["mail"]["tags"] = Value::Null;
            v["mail"]["headers"] = json!([{"name": "X-Mailrail-Id", "value": with_attempt}]);
        }),
        "no tag and no header of ours"
    );
    for body in [&b""[..], b"null", b"[]", b"{", b"{}x", b"\xff\xfe", b"7", b"\"a\""] {
        assert_eq!(reason(body), "not the JSON of an SES event", "{body:?}");
    }
    assert_eq!(reason(b"{}"), "no event type");
}

#[test]
fn what_tells_of_no_mail_leaves_nothing() {
    let test_text = b"Successfully validated SNS topic for Amazon SES event publishing.";
    let greeting = json!({"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "x"}).to_string();
    let consent = event("Subscription", "subscription", json!({"contactList": "x"})).to_string();
    let (events, parked) = parse(&[test_text, greeting.as_bytes(), consent.as_bytes()]);
    assert_eq!((events, parked), (vec![], vec![]));
}

#[test]
fn programs_that_open_and_click_are_marked() {
    for (said, machine) in [
        (json!("Likely"), Some("amazon")),
        (json!(true), Some("amazon")),
        (json!("Unlikely"), None),
        (json!(false), None),
        (json!({"a": 1}), None),
        (json!(null), None),
    ] {
        let row = one(&event("Click", "click", json!({"timestamp": PART_TIME, "isBotEvent": said})));
        assert_eq!(row.machine.as_deref(), machine, "{said}");
    }
}

#[test]
fn an_envelope_is_told_from_an_event() {
    let body =
        |kind: &str| json!({"Type": kind, "TopicArn": "arn:aws:sns:eu-central-1:1:x", "Message": "{}"}).to_string();
    assert_eq!(reason(body("Notification").as_bytes()), "from an SNS topic that MAILRAIL_SNS_TOPICS does not name");
    assert_eq!(reason(body("SubscriptionConfirmation").as_bytes()), "an SNS envelope of type SubscriptionConfirmation");
}

#[test]
fn an_event_may_come_over_event_bridge() {
    let bridged = json!({
        "version": "0", "id": "x", "source": "aws.ses", "detail-type": "Email Sent", "resources": ["arn"],
        "detail": event("Send", "send", json!({})),
    });
    assert_eq!(one(&bridged), one(&event("Send", "send", json!({}))));
    let empty = json!({"source": "aws.ses", "detail-type": "Sending Status Disabled", "detail": {"origin": "AWS"}});
    assert_eq!(reason(empty.to_string().as_bytes()), "no event type");
    let wrong = json!({"source": "aws.ses", "detail": "text"});
    assert_eq!(reason(wrong.to_string().as_bytes()), "not the JSON of an SES event");
}

#[test]
fn doubled_keys_are_refused() {
    let tag = keys().tag(STREAM, 42, 3);
    let body = format!(r#"{{"eventType":"Send","eventType":"Send","mail":{{"tags":{{"mr":["{tag}"]}}}}}}"#);
    assert_eq!(reason(body.as_bytes()), "not the JSON of an SES event");
    let body = format!(r#"{{"eventType":"Send","mail":{{"tags":{{"mr":["x"],"mr":["{tag}"]}}}}}}"#);
    assert_eq!(reason(body.as_bytes()), "not the JSON of an SES event");
}

#[test]
fn a_nul_does_not_reach_the_row() {
    let row = one(&event("Reject", "reject", json!({"reason": "a\u{0}b"})));
    assert_eq!(row.detail.as_deref(), Some("a b"));
}

#[test]
fn a_mixed_batch_keeps_every_notification() {
    let send = event("Send", "send", json!({})).to_string();
    let (events, parked) = parse(&[send.as_bytes(), b"x", send.as_bytes()]);
    assert_eq!(events.iter().map(|row| row.notification_id).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(parked[0].0, 2);
    let mut null_body = Writer::new(2, 0);
    null_body.row().int8(9).null();
    assert_eq!(parse_events(&keys(), &null_body.finish()).unwrap().parked_count, 1);
    let mut null_id = Writer::new(2, 0);
    null_id.row().null().raw(b"{}");
    assert!(parse_events(&keys(), &null_id.finish()).is_err());
    assert!(parse_events(&keys(), b"").is_err());
}

#[test]
fn cut_and_broken_bodies_never_panic() {
    let body = event(
        "Bounce",
        "bounce",
        json!({
            "bounceType": "Transient", "bouncedRecipients": [{"emailAddress": "ann@example.net"}],
        }),
    )
    .to_string();
    let body = body.as_bytes();
    let cuts: Vec<&[u8]> = (0..body.len()).map(|end| &body[..end]).collect();
    let (events, _) = parse(&cuts);
    assert_eq!(events, []);
    let broken: Vec<Vec<u8>> = (0..body.len() * 8)
        .map(|bit| {
            let mut copy = body.to_vec();
            copy[bit / 8] ^= 1 << (bit % 8);
            copy
        })
        .collect();
    parse(&broken.iter().map(Vec::as_slice).collect::<Vec<_>>());
    // Depth is a classic: each reader in turn must give up in time.
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\"mail\":{\"headers\":[", "]}}")] {
        let deep = format!("{{\"x\":{}1{}}}", open.repeat(200_000), close.repeat(200_000));
        parse(&[deep.as_bytes()]);
        let deep = format!(
            "{{\"eventType\":\"Send\",\"mail\":{{\"headers\":{}1{}}}}}",
            open.repeat(200_000),
            close.repeat(200_000)
        );
        parse(&[deep.as_bytes()]);
    }
}
