//! Events, their envelopes, and a subscriber that comes and goes.

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::{BULK, Running, SEND, Subscriber, bulk, entry, simple, start};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde_json::{Value, json};

const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:mailrail";

fn subscribed(mut options: Value) -> (Running, Subscriber) {
    let subscriber = Subscriber::start();
    options["events_url"] = json!(subscriber.url());
    let running = start(options);
    subscriber.confirm(&running);
    (running, subscriber)
}

/// Checks an envelope as a subscriber of AWS would: certificate chain, then signature over the named fields.
fn verify(running: &Running, envelope: &Value, fields: &[&str]) {
    let text = |name: &str| envelope[name].as_str().unwrap_or_else(|| panic!("{name}: {envelope}"));
    assert_eq!(text("SignatureVersion"), "2");
    assert_eq!(text("TopicArn"), TOPIC);
    let base = format!("http://127.0.0.1:{}", running.simulator.port());
    let path = text("SigningCertURL").strip_prefix(&base).expect("our host");
    let name =
        path.strip_prefix("/SimpleNotificationService-").and_then(|rest| rest.strip_suffix(".pem")).expect("the name");
    assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_hexdigit()));
    let pem = running.plain("GET", path, "").text;
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let authority = CertificateDer::from_pem_slice(running.simulator.ca_pem().as_bytes()).expect("a certificate");
    let anchor = webpki::anchor_from_trusted_cert(&authority).expect("an anchor");
    let end_entity = webpki::EndEntityCert::try_from(&certificate).expect("a leaf");
    end_entity
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[anchor],
            &[],
            UnixTime::now(),
            webpki::KeyUsage::server_auth(),
            None,
            None,
        )
        .expect("a chain");
    let signed: String = fields.iter().map(|field| format!("{field}\n{}\n", text(field))).collect();
    let signature = base64_simd::STANDARD.decode_to_vec(text("Signature")).expect("base64");
    end_entity
        .verify_signature(webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
        .expect("the right signature");
}

fn event_types(events: &[Value]) -> Vec<String> {
    let mut types: Vec<String> =
        events.iter().map(|event| event["eventType"].as_str().expect("text").to_owned()).collect();
    types.sort();
    types
}

#[test]
fn nothing_is_posted_before_the_subscription_is_confirmed() {
    let subscriber = Subscriber::start();
    let running = start(json!({"events_url": subscriber.url()}));
    running.post(BULK, &bulk(&["a@x.org"]));
    let confirmation = subscriber.wait_for("SubscriptionConfirmation", 1).remove(0);
    let fields = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];
    verify(&running, &confirmation, &fields);
    let token = confirmation["Token"].as_str().expect("a token");
    let wrong = format!("/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={}", "0".repeat(token.len()));
    assert_eq!(running.plain("GET", &wrong, "").status, 400);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(running.get("/_simulator/stats")["events"]["pending"], 1);
    subscriber.confirm(&running);
    let notification = subscriber.wait_for("Notification", 1).remove(0);
    verify(&running, &notification, &["Message", "MessageId", "Timestamp", "TopicArn", "Type"]);
    let posts = subscriber.posts.lock().expect("unpoisoned");
    let post = posts.last().expect("a post");
    assert_eq!(post.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(post.header("x-amz-sns-topic-arn"), Some(TOPIC));
    assert_eq!(post.header("x-amz-sns-message-id"), notification["MessageId"].as_str());
    assert!(post.header("x-amz-sns-subscription-arn").is_some_and(|arn| arn.starts_with(TOPIC)));
    assert!(post.head.starts_with("POST /events/ses HTTP/1.1"));
}

#[test]
fn a_delivery_carries_tags_headers_and_ids() {
    let (running, subscriber) = subscribed(json!({}));
    let reply = running.post(SEND, &simple("a@x.org"));
    let event = subscriber.events(1).remove(0);
    assert_eq!(event["eventType"], "Delivery");
    assert_eq!(event["delivery"]["recipients"], json!(["a@x.org"]));
    let mail = &event["mail"];
    assert_eq!(mail["messageId"], reply.json()["MessageId"]);
    assert_eq!(mail["source"], "news@example.com");
    assert_eq!(mail["destination"], json!(["a@x.org"]));
    assert_eq!(mail["tags"]["mr"], json!(["tag"]));
    assert_eq!(mail["tags"]["ses:configuration-set"], json!(["mailrail"]));
    assert_eq!(mail["tags"]["ses:operation"], json!(["SendEmail"]));
    let headers = mail["headers"].as_array().expect("a list");
    assert!(headers.contains(&json!({"name": "X-Mailrail-Id", "value": "eml_a@x.org"})));
    assert_eq!(mail["headersTruncated"], false);
    assert_eq!(mail["commonHeaders"]["subject"], "Été");
}

#[test]
fn the_mailbox_simulator_decides_the_event() {
    let (running, subscriber) = subscribed(json!({}));
    let to = |name: &str| format!("{name}+7@simulator.amazonses.com");
    let addresses = ["success", "bounce", "complaint", "suppressionlist", "ooto"].map(to);
    running.post(BULK, &bulk(&addresses.each_ref().map(String::as_str)));
    let events = subscriber.events(7);
    let of = |name: &str| -> Vec<Value> {
        let mut found: Vec<Value> =
            events.iter().filter(|event| event["mail"]["destination"][0] == to(name)).cloned().collect();
        found.sort_by_key(|event| event["eventType"].to_string());
        found
    };
    assert_eq!(event_types(&of("success")), ["Delivery"]);
    assert_eq!(event_types(&of("bounce")), ["Bounce"]);
    assert_eq!(event_types(&of("complaint")), ["Complaint", "Delivery"]);
    assert_eq!(event_types(&of("suppressionlist")), ["Bounce"]);
    assert_eq!(event_types(&of("ooto")), ["Bounce", "Delivery"]);
    let kind = |event: &Value| (event["bounce"]["bounceType"].clone(), event["bounce"]["bounceSubType"].clone());
    assert_eq!(kind(&of("bounce")[0]), (json!("Permanent"), json!("General")));
    assert_eq!(kind(&of("suppressionlist")[0]), (json!("Permanent"), json!("Suppressed")));
    assert_eq!(kind(&of("ooto")[0]), (json!("Transient"), json!("General")));
    assert_eq!(of("bounce")[0]["bounce"]["bouncedRecipients"][0]["emailAddress"], to("bounce"));
    assert_eq!(of("complaint")[0]["complaint"]["complainedRecipients"][0]["emailAddress"], to("complaint"));
    assert!(of("bounce")[0]["bounce"]["feedbackId"].is_string());
    assert_eq!(
        of("success")[0]["mail"]["commonHeaders"].get("subject"),
        None,
        "a templated mail's subject is not known"
    );
}

#[test]
fn a_missing_slot_is_a_rendering_failure_and_no_delivery() {
    let (running, subscriber) = subscribed(json!({"event_types": ["SEND", "DELIVERY", "RENDERING_FAILURE"]}));
    let mut request = bulk(&["a@x.org"]);
    request["BulkEmailEntries"][0] = entry("a@x.org", &json!({}));
    running.post(BULK, &request);
    let events = subscriber.events(2);
    assert_eq!(event_types(&events), ["Rendering Failure", "Send"]);
    let failure = events.iter().find(|event| event["eventType"] == "Rendering Failure").expect("there");
    assert_eq!(failure["failure"]["errorMessage"], "Attribute 'a' is not present in the rendering data.");
    assert_eq!(failure["mail"]["tags"]["mr"], json!(["tag"]));
    assert_eq!(failure["mail"].get("headers"), None);
}

#[test]
fn only_wanted_types_and_named_configuration_sets_publish() {
    let (running, subscriber) = subscribed(json!({"event_types": ["COMPLAINT"]}));
    let mut without_set = bulk(&["complaint@simulator.amazonses.com"]);
    without_set.as_object_mut().expect("an object").remove("ConfigurationSetName");
    running.post(BULK, &without_set);
    running.post(BULK, &bulk(&["a@x.org", "complaint@simulator.amazonses.com"]));
    running.wait_for_events("one posted", |events| events["posted"] == 1);
    assert_eq!(event_types(&subscriber.events(1)), ["Complaint"]);
    assert_eq!(running.get("/_simulator/stats")["events"]["published"], 1);
}

#[test]
fn events_can_be_lost_doubled_and_held_back() {
    let (running, subscriber) = subscribed(json!({}));
    running.faults(&json!({"lose_events": 1}));
    running.post(BULK, &bulk(&["a@x.org"]));
    running.faults(&json!({"duplicate_events": 1}));
    running.post(BULK, &bulk(&["b@x.org"; 20]));
    let events = running.wait_for_events("all posted", |events| events["posted"] == 40);
    assert_eq!((&events["published"], &events["lost"], &events["doubled"]), (&json!(21), &json!(1), &json!(20)));
    let envelopes = subscriber.wait_for("Notification", 40);
    let mut ids: Vec<&str> = envelopes.iter().map(|envelope| envelope["MessageId"].as_str().expect("text")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > 20 && ids.len() < 40, "some copies are the same notification, some a new one: {}", ids.len());
    running.plain("POST", "/_simulator/reset", "");
    running.faults(&json!({"reorder_events": 1}));
    running.post(BULK, &bulk(&["c@x.org"; 2]));
    assert_eq!(running.get("/_simulator/stats")["events"]["held_back"], 2);
    running.wait_for_events("held ones posted", |events| events["posted"] == 2);
}

#[test]
fn an_absent_or_failing_subscriber_is_tried_again_and_nothing_is_lost() {
    // The port is known, but nobody listens yet.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let running = start(json!({"events_url": format!("http://127.0.0.1:{port}/events/ses")}));
    running.post(BULK, &bulk(&["a@x.org"; 40]));
    std::thread::sleep(Duration::from_millis(100));
    let subscriber = Subscriber::on(TcpListener::bind(("127.0.0.1", port)).expect("the port"));
    subscriber.answer_with(503);
    std::thread::sleep(Duration::from_millis(100));
    subscriber.answer_with(200);
    subscriber.confirm(&running);
    subscriber.events(40);
    subscriber.answer_with(503);
    running.post(BULK, &bulk(&["b@x.org"; 40]));
    running.wait_for_events("retries", |events| events["retried"].as_u64() > Some(10));
    subscriber.answer_with(200);
    subscriber.events(80);
    running.wait_for_events("all answered", |events| events["pending"] == 0 && events["posted"] == 80);
}

#[test]
fn a_4xx_drops_the_event() {
    let (running, subscriber) = subscribed(json!({}));
    subscriber.answer_with(400);
    running.post(BULK, &bulk(&["a@x.org"]));
    let events = running.wait_for_events("dropped", |events| events["dropped_4xx"] == 1);
    assert_eq!((&events["posted"], &events["pending"]), (&json!(0), &json!(0)));
}
