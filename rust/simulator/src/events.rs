//! SES events: which ones a mail causes, and their JSON.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Map, Value, json};

use crate::address::{self, Fate};
use crate::clock;
use crate::faults::EventFate;
use crate::options::EventType;
use crate::queue::Event;
use crate::state::{State, lock};
use crate::store::{Call, Mail, message_id};

/// Bytes of headers an event holds at most.
const MAX_HEADER_BYTES: usize = 10 * 1024;
/// How long delivering a mail is said to take, in milliseconds.
const PROCESSING_MS: u64 = 287;
/// A name that can stand for any mail server.
const REPORTING_MTA: &str = "a8-50.smtp-out.amazonses.com";

/// An event that a mail can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Send,
    Delivery,
    /// Permanent, mailbox does not exist.
    Bounce,
    /// Permanent, on the global suppression list.
    Suppressed,
    /// Permanent, on the account's suppression list.
    OnAccountList,
    /// Transient, an automatic answer after the delivery.
    OutOfOffice,
    Complaint,
    RenderingFailure,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Send,
        Kind::RenderingFailure,
        Kind::Delivery,
        Kind::Bounce,
        Kind::Suppressed,
        Kind::OnAccountList,
        Kind::OutOfOffice,
        Kind::Complaint,
    ];

    fn event_type(self) -> EventType {
        match self {
            Kind::Send => EventType::Send,
            Kind::Delivery => EventType::Delivery,
            Kind::Bounce | Kind::Suppressed | Kind::OnAccountList | Kind::OutOfOffice => EventType::Bounce,
            Kind::Complaint => EventType::Complaint,
            Kind::RenderingFailure => EventType::RenderingFailure,
        }
    }

    /// Whether mail to someone of this fate causes this event.
    fn concerns(self, fate: Fate) -> bool {
        match self {
            Kind::Send | Kind::RenderingFailure => true,
            Kind::Delivery => {
                matches!(fate, Fate::Delivered | Fate::Complained | Fate::OutOfOffice)
            }
            Kind::Bounce => fate == Fate::Bounced,
            Kind::Suppressed => fate == Fate::Suppressed,
            Kind::OnAccountList => fate == Fate::OnAccountList,
            Kind::OutOfOffice => fate == Fate::OutOfOffice,
            Kind::Complaint => fate == Fate::Complained,
        }
    }
}

/// Queues the events of an accepted call. Without a configuration set, or a subscriber, there are none.
pub fn publish(state: &State, call: &Arc<Call>) {
    let has_subscriber = state.options.events_url.is_some() || state.options.event_queue.is_some();
    if call.configuration_set.is_none() || !has_subscriber {
        return;
    }
    let mut faults = lock(&state.faults);
    let touches_events = faults.touches_events();
    let counts = &state.events.counts;
    state.events.add(|adding| {
        for (n, mail) in call.mails.iter().enumerate() {
            for kind in kinds(call, mail, &state.options.event_types) {
                counts.published.fetch_add(1, Relaxed);
                let fate = if touches_events { faults.event() } else { EventFate::default() };
                if fate.is_lost {
                    counts.lost.fetch_add(1, Relaxed);
                    continue;
                }
                counts.held_back.fetch_add(u64::from(fate.delay_ms > 0), Relaxed);
                let event = Event { call: call.clone(), mail: n as u16, kind, notification: adding.number() };
                if let Some(as_new) = fate.copy {
                    counts.doubled.fetch_add(1, Relaxed);
                    let notification = if as_new { adding.number() } else { event.notification };
                    adding.push(Event { notification, ..event.clone() }, 0);
                }
                adding.push(event, fate.delay_ms);
            }
        }
    });
}

fn kinds<'a>(call: &'a Call, mail: &'a Mail, wanted: &'a [EventType]) -> impl Iterator<Item = Kind> + 'a {
    Kind::ALL.into_iter().filter(move |kind| {
        let happens = match kind {
            Kind::Send => true,
            Kind::RenderingFailure => mail.missing_slot.is_some(),
            _ => mail.missing_slot.is_none() && call.destination(mail).any(|address| kind.concerns(call.fate(address))),
        };
        happens && wanted.contains(&kind.event_type())
    })
}

/// The JSON that SES hands to SNS for an event.
pub fn message(state: &State, event: &Event) -> String {
    let call = &event.call;
    let mail = &call.mails[usize::from(event.mail)];
    let mut out = json!({"mail": describe_mail(state, event, mail)});
    let concerned: Vec<&str> =
        call.destination(mail).filter(|address| event.kind.concerns(call.fate(address))).collect();
    let timestamp = clock::iso(call.at_ms + PROCESSING_MS);
    let (event_type, member, detail) = match event.kind {
        Kind::Send => ("Send", "send", json!({})),
        Kind::Delivery => ("Delivery", "delivery", delivery(&timestamp, &concerned)),
        Kind::Bounce | Kind::Suppressed | Kind::OnAccountList | Kind::OutOfOffice => {
            ("Bounce", "bounce", bounce(event.kind, &timestamp, &feedback_id(state, event), &concerned))
        }
        Kind::Complaint => ("Complaint", "complaint", complaint(&timestamp, &feedback_id(state, event), &concerned)),
        Kind::RenderingFailure => ("Rendering Failure", "failure", failure(mail)),
    };
    out["eventType"] = event_type.into();
    out[member] = detail;
    out.to_string()
}

fn delivery(timestamp: &str, recipients: &[&str]) -> Value {
    json!({
        "timestamp": timestamp,
        "processingTimeMillis": PROCESSING_MS,
        "recipients": recipients,
        "smtpResponse": "250 2.6.0 Message received",
        "reportingMTA": REPORTING_MTA,
        "remoteMtaIp": "192.0.2.25",
    })
}

fn bounce(kind: Kind, timestamp: &str, feedback_id: &str, recipients: &[&str]) -> Value {
    let (bounce_type, sub_type, status, diagnostic) = match kind {
        Kind::Suppressed => (
            "Permanent",
            "Suppressed",
            "5.1.1",
            "Amazon SES has suppressed sending to this address because it has a recent history of bouncing as an invalid address.",
        ),
        Kind::OnAccountList => (
            "Permanent",
            "OnAccountSuppressionList",
            "5.1.1",
            "Amazon SES did not send the message to this address because it is on the suppression list for your account.",
        ),
        Kind::OutOfOffice => ("Transient", "General", "4.0.0", "smtp; automatic reply"),
        _ => ("Permanent", "General", "5.1.1", "smtp; 550 5.1.1 user unknown"),
    };
    let bounced: Vec<Value> = recipients
        .iter()
        .map(|address| json!({"emailAddress": address, "action": "failed", "status": status, "diagnosticCode": diagnostic}))
        .collect();
    json!({
        "bounceType": bounce_type,
        "bounceSubType": sub_type,
        "bouncedRecipients": bounced,
        "timestamp": timestamp,
        "feedbackId": feedback_id,
        "reportingMTA": format!("dns; {REPORTING_MTA}"),
    })
}

fn complaint(timestamp: &str, feedback_id: &str, recipients: &[&str]) -> Value {
    let complained: Vec<Value> = recipients.iter().map(|address| json!({"emailAddress": address})).collect();
    json!({
        "complainedRecipients": complained,
        "timestamp": timestamp,
        "feedbackId": feedback_id,
        "complaintSubType": null,
        "userAgent": "Amazon SES Mailbox Simulator",
        "complaintFeedbackType": "abuse",
        "arrivalDate": timestamp,
    })
}

fn failure(mail: &Mail) -> Value {
    let slot = mail.missing_slot.as_deref().unwrap_or("");
    json!({
        "templateName": "",
        "errorMessage": format!("Attribute '{slot}' is not present in the rendering data."),
    })
}

/// The same for every copy of an event: made from the mail, not from the notification.
fn feedback_id(state: &State, event: &Event) -> String {
    let number = event.call.first + u64::from(event.mail);
    message_id(!state.instance, number << 3 | event.kind as u64, event.call.at_ms)
}

fn describe_mail(state: &State, event: &Event, mail: &Mail) -> Value {
    let call = &event.call;
    let options = &state.options;
    let from_address = address::bare(&call.from).unwrap_or("");
    let from_domain = address::domain(from_address);
    let mut out = json!({
        "timestamp": clock::iso(call.at_ms),
        "messageId": message_id(state.instance, call.first + u64::from(event.mail), call.at_ms),
        "source": call.from,
        "sourceArn": format!("arn:aws:ses:{}:{}:identity/{from_domain}", options.region, options.account_id),
        "sendingAccountId": options.account_id,
        "destination": call.destination(mail).collect::<Vec<_>>(),
        "tags": tags(call, mail, from_domain, event.kind),
    });
    // A mail that was never put together has no headers to show.
    if event.kind != Kind::RenderingFailure {
        add_headers(call, mail, &mut out);
    }
    out
}

fn tags(call: &Call, mail: &Mail, from_domain: &str, kind: Kind) -> Value {
    let mut tags: Map<String, Value> = call.tags(mail).map(|(name, value)| (name.to_owned(), json!([value]))).collect();
    let mut add = |name: &str, value: &str| drop(tags.insert(format!("ses:{name}"), json!([value])));
    add("configuration-set", call.configuration_set.as_deref().unwrap_or(""));
    add("operation", call.operation.name());
    add("from-domain", from_domain);
    add("source-ip", "192.0.2.1");
    add("source-tls-version", "TLSv1.3");
    add("caller-identity", "simulator");
    if kind == Kind::Delivery {
        add("outgoing-ip", "192.0.2.2");
    }
    Value::Object(tags)
}

fn add_headers(call: &Call, mail: &Mail, out: &mut Value) {
    let addresses: Vec<&str> = call.destination(mail).collect();
    let (to, rest) = addresses.split_at(usize::from(mail.recipients.to));
    let cc = &rest[..usize::from(mail.recipients.cc)];
    let mut headers: Vec<(&str, String)> = vec![("From", call.from.to_string())];
    let mut common = json!({"from": [call.from], "messageId": out["messageId"]});
    if !call.reply_to.is_empty() {
        headers.push(("Reply-To", call.reply_to.join(", ")));
        common["replyTo"] = json!(call.reply_to);
    }
    for (name, key, addresses) in [("To", "to", to), ("Cc", "cc", cc)] {
        if !addresses.is_empty() {
            headers.push((name, addresses.join(", ")));
            common[key] = json!(addresses);
        }
    }
    if let Some(subject) = &call.subject {
        headers.push(("Subject", subject.to_string()));
        common["subject"] = json!(subject);
    }
    headers.push(("MIME-Version", "1.0".to_owned()));
    headers.extend(call.headers(mail).map(|(name, value)| (name, value.to_owned())));
    let mut bytes = 0;
    let all = headers.len();
    headers.retain(|(name, value)| {
        bytes += name.len() + value.len();
        bytes <= MAX_HEADER_BYTES
    });
    let listed: Vec<Value> = headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    out["headersTruncated"] = (listed.len() < all).into();
    out["headers"] = listed.into();
    out["commonHeaders"] = common;
}
