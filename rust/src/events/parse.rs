//! From the JSON of one SES event to one row: whose mail, what happened, when, and how to know it again.
//!
//! Field names and values are those of "Examples of event data that Amazon SES publishes to Amazon SNS" in the
//! SES developer guide, and of the older identity notifications, which say `notificationType`. Everything is
//! optional here, as events come with parts missing; an event is parked only if its type or its mail is unknown.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use super::timestamp::unix_micros;
use crate::copy::{Reader, Writer};
use crate::error::{Error, Result};
use crate::token::TokenKeys;

/// The header that names the mail where tags are missing, as in identity notifications.
const ID_HEADER: &str = "X-Mailrail-Id";
const INPUT_COLUMNS: i16 = 2;
const EVENT_COLUMNS: i16 = 11;
const PARKED_COLUMNS: i16 = 2;
/// PostgreSQL counts time from 2000-01-01.
const PG_EPOCH_UNIX_US: i64 = 946_684_800_000_000;
const MAX_DETAIL_CHARS: usize = 500;
/// RFC 5321 allows 64 + 1 + 255; longer ones are cut, as nothing can match them.
const MAX_ADDRESS_CHARS: usize = 320;
const MAX_MESSAGE_ID_CHARS: usize = 200;
const MAX_REASON_CHARS: usize = 200;

/// What an event says; the numbers are those of the column `events.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum EventKind {
    /// SES took the mail.
    Send = 1,
    /// The receiving server took it.
    Delivery = 2,
    /// The address does not exist, or is on a suppression list.
    BouncePermanent = 3,
    /// Given up for now; the address may work again. Undetermined bounces too.
    BounceTransient = 4,
    /// SES found a virus.
    Reject = 5,
    /// SES could not fill in the template; nothing was sent.
    RenderingFailure = 6,
    /// The recipient's provider reported the mail.
    Complaint = 7,
    /// Still trying.
    DeliveryDelay = 8,
    /// SES's own open pixel was loaded.
    Open = 9,
    /// A link that SES rewrote was followed.
    Click = 10,
}

/// The rows made of a batch of notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedEvents {
    /// Binary COPY of (notification_id int8, stream_id int8, seq int4, attempt int2, kind int2, dedupe int8,
    /// at timestamptz null, address text null, ses_message_id text null, detail text null, machine text null).
    pub events: Vec<u8>,
    /// Binary COPY of (notification_id int8, reason text): what could not be placed.
    pub parked: Vec<u8>,
    /// Rows in `events`.
    pub event_count: usize,
    /// Rows in `parked`.
    pub parked_count: usize,
}

/// Makes one row of each notification in `rows`, binary COPY of (notification_id int8, body text or bytea).
///
/// `dedupe` is the attempt (0 when unknown) where one mail has the event once, else a hash of what tells two of them
/// apart. So a repeated notification gives the same row, and the same event of another attempt, which is how a mail
/// that was sent twice comes to light, gives another. Fails only if `rows` is not what it should be.
pub fn parse_events(keys: &TokenKeys, rows: &[u8]) -> Result<ParsedEvents> {
    let mut input = Reader::open(rows)?;
    let mut events = Writer::new(EVENT_COLUMNS, rows.len() / 8);
    let mut parked = Writer::new(PARKED_COLUMNS, 0);
    let (mut event_count, mut parked_count) = (0, 0);
    while let Some(mut row) = input.next_row(INPUT_COLUMNS)? {
        let id = row.int8("notification_id")?.ok_or_else(|| Error::data("notification_id is NULL"))?;
        match read_event(keys, row.raw()?.unwrap_or_default()) {
            Ok(event) => {
                event.write(id, &mut events);
                event_count += 1;
            }
            Err(reason) => {
                parked.row().int8(id).text(clip(&reason, MAX_REASON_CHARS));
                parked_count += 1;
            }
        }
    }
    Ok(ParsedEvents { events: events.finish(), parked: parked.finish(), event_count, parked_count })
}

/// The mail that an event is about.
#[derive(Debug, Clone, Copy)]
struct Subject {
    stream_id: i64,
    seq: i32,
    attempt: i16,
}

/// One event, ready to be written.
struct Event<'a> {
    subject: Subject,
    message_id: Option<Cow<'a, str>>,
    fact: Fact<'a>,
}

/// What the part of an event says that is named like its type.
struct Fact<'a> {
    kind: EventKind,
    /// What tells two events of this kind apart; `None` where one mail has it once.
    distinction: Option<i64>,
    at: Option<Cow<'a, str>>,
    address: Option<Cow<'a, str>>,
    detail: Option<Cow<'a, str>>,
    /// How an open or a click shows that no person made it.
    machine: Option<&'static str>,
}

impl Event<'_> {
    fn write(&self, notification_id: i64, rows: &mut Writer) {
        let (subject, fact) = (&self.subject, &self.fact);
        rows.row().int8(notification_id).int8(subject.stream_id).int4(subject.seq).int2(subject.attempt);
        rows.int2(fact.kind as i16).int8(fact.distinction.unwrap_or(subject.attempt.into()));
        match fact.at.as_deref().and_then(unix_micros) {
            Some(at) => rows.int8(at - PG_EPOCH_UNIX_US),
            None => rows.null(),
        };
        rows.text_or_null(clipped(&fact.address, MAX_ADDRESS_CHARS));
        rows.text_or_null(clipped(&self.message_id, MAX_MESSAGE_ID_CHARS));
        rows.text_or_null(clipped(&fact.detail, MAX_DETAIL_CHARS));
        rows.text_or_null(fact.machine);
    }
}

type Parked = Cow<'static, str>;

fn read_event<'a>(keys: &TokenKeys, body: &'a [u8]) -> std::result::Result<Event<'a>, Parked> {
    let mut notice = read_notice(body)?;
    let fact = fact_of(&mut notice)?;
    let subject = subject_of(keys, &notice.mail)?;
    Ok(Event { subject, message_id: notice.mail.message_id.map(|text| text.0), fact })
}

/// SES posts a sentence, not JSON, when an event destination is attached; that is no fault.
fn read_notice(body: &[u8]) -> std::result::Result<Notice<'_>, Parked> {
    if body.starts_with(b"Successfully validated SNS topic") {
        return Err("the test message of SES".into());
    }
    // serde_json, as it skips what we ignore without recursion: sonic-rs overflows the stack on deep nesting.
    serde_json::from_slice(body).map_err(|_| "not the JSON of an SES event".into())
}

/// By the tag, else by our header: identity notifications carry no tags, and events may lack headers.
fn subject_of(keys: &TokenKeys, mail: &Mail) -> std::result::Result<Subject, Parked> {
    let by_tag = mail.tag().and_then(|tag| keys.read_tag(tag));
    let subject = by_tag.or_else(|| {
        let (id, seq, attempt) = keys.decode_id("eml", mail.headers.0.as_ref()?.trim())?;
        (attempt == 0).then_some((id as i64, seq as i32, 0))
    });
    match subject {
        // Signs are checked because a tag of another origin is read as random numbers.
        Some((stream_id @ 0.., seq @ 1.., attempt @ 0..)) => Ok(Subject { stream_id, seq, attempt }),
        Some(_) => Err("its tag is not one of ours".into()),
        None if mail.tag().is_some() => Err("its tag is not one of ours".into()),
        None => Err("no tag and no header of ours".into()),
    }
}

fn fact_of<'a>(notice: &mut Notice<'a>) -> std::result::Result<Fact<'a>, Parked> {
    let kind = notice.event_type.take().or_else(|| notice.notification_type.take());
    match kind.as_ref().map_or("", |text| &text.0) {
        "Send" => Ok(notice.mail.fact(EventKind::Send, None)),
        "Reject" => Ok(notice.mail.fact(EventKind::Reject, notice.reject.take().reason)),
        "Rendering Failure" => Ok(notice.mail.fact(EventKind::RenderingFailure, notice.failure.take().error_message)),
        "Delivery" => Ok(notice.delivery.take().fact()),
        "Bounce" => Ok(notice.bounce.take().fact()),
        "Complaint" => Ok(notice.complaint.take().fact()),
        "DeliveryDelay" => Ok(notice.delivery_delay.take().fact()),
        "Open" => Ok(notice.open.take().fact(EventKind::Open, &notice.mail)),
        "Click" => Ok(notice.click.take().fact(EventKind::Click, &notice.mail)),
        "" => Err("no event type".into()),
        other => Err(format!("not a type that we read: {other}").into()),
    }
}

/// An SES event; of its parts only the one named like the type is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notice<'a> {
    #[serde(borrow)]
    event_type: Option<Text<'a>>,
    #[serde(borrow)]
    notification_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    mail: Mail<'a>,
    #[serde(borrow, default)]
    delivery: Part<Delivery<'a>>,
    #[serde(borrow, default)]
    bounce: Part<Bounce<'a>>,
    #[serde(borrow, default)]
    complaint: Part<Complaint<'a>>,
    #[serde(borrow, default)]
    reject: Part<Reject<'a>>,
    #[serde(borrow, default)]
    failure: Part<Failure<'a>>,
    #[serde(borrow, default)]
    delivery_delay: Part<DeliveryDelay<'a>>,
    #[serde(borrow, default)]
    open: Part<Visit<'a>>,
    #[serde(borrow, default)]
    click: Part<Visit<'a>>,
}

/// A part that may be missing or null; taking a missing one gives the empty one.
#[derive(Deserialize)]
struct Part<T>(Option<T>);

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Default> Part<T> {
    fn take(&mut self) -> T {
        self.0.take().unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mail<'a> {
    #[serde(borrow)]
    message_id: Option<Text<'a>>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    destination: First<Text<'a>>,
    #[serde(borrow)]
    tags: Option<Tags<'a>>,
    #[serde(borrow, default)]
    headers: IdHeader<'a>,
}

#[derive(Deserialize)]
struct Tags<'a> {
    #[serde(borrow, default)]
    mr: First<Text<'a>>,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

impl<'a> Mail<'a> {
    fn tag(&self) -> Option<&str> {
        Some(&self.tags.as_ref()?.mr.0.as_ref()?.0)
    }

    /// For the events that have no time and no address of their own.
    fn fact(&mut self, kind: EventKind, detail: Option<Text<'a>>) -> Fact<'a> {
        Fact {
            kind,
            distinction: None,
            at: self.timestamp.take().map(|text| text.0),
            address: self.destination.0.take().map(|text| text.0),
            detail: detail.map(|text| text.0),
            machine: None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery<'a> {
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    recipients: First<Text<'a>>,
    #[serde(borrow)]
    smtp_response: Option<Text<'a>>,
}

impl<'a> Delivery<'a> {
    fn fact(self) -> Fact<'a> {
        Fact {
            kind: EventKind::Delivery,
            distinction: None,
            at: self.timestamp.map(|text| text.0),
            address: self.recipients.0.map(|text| text.0),
            detail: self.smtp_response.map(|text| text.0),
            machine: None,
        }
    }
}

/// A recipient inside a bounce, a complaint or a delay.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Affected<'a> {
    #[serde(borrow)]
    email_address: Option<Text<'a>>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    #[serde(borrow)]
    diagnostic_code: Option<Text<'a>>,
}

impl Affected<'_> {
    fn diagnostic(&self) -> &str {
        self.diagnostic_code.as_ref().or(self.status.as_ref()).map_or("", |text| &text.0)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bounce<'a> {
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    feedback_id: Option<Text<'a>>,
    #[serde(borrow)]
    bounce_type: Option<Text<'a>>,
    #[serde(borrow)]
    bounce_sub_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    bounced_recipients: First<Affected<'a>>,
}

impl<'a> Bounce<'a> {
    /// Only `Permanent` is final. A type that Amazon adds later counts as transient, so it suppresses nobody.
    fn fact(self) -> Fact<'a> {
        let affected = self.bounced_recipients.0.unwrap_or_default();
        let kind = match str_of(&self.bounce_type) {
            "Permanent" => EventKind::BouncePermanent,
            _ => EventKind::BounceTransient,
        };
        let distinction = match kind {
            EventKind::BouncePermanent => None,
            _ => Some(hash(&[str_of(&self.feedback_id.or_else(|| self.timestamp.clone()))])),
        };
        let types = [str_of(&self.bounce_type), str_of(&self.bounce_sub_type)];
        Fact {
            kind,
            distinction,
            detail: detail_of(&types, affected.diagnostic()),
            at: self.timestamp.map(|text| text.0),
            address: affected.email_address.map(|text| text.0),
            machine: None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Complaint<'a> {
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    feedback_id: Option<Text<'a>>,
    #[serde(borrow)]
    complaint_sub_type: Option<Text<'a>>,
    #[serde(borrow)]
    complaint_feedback_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    complained_recipients: First<Affected<'a>>,
}

impl<'a> Complaint<'a> {
    /// `not-spam` and `auth-failure` are kept like the others: what they lead to is decided by who applies them.
    fn fact(self) -> Fact<'a> {
        let affected = self.complained_recipients.0.unwrap_or_default();
        let types = [str_of(&self.complaint_feedback_type), str_of(&self.complaint_sub_type)];
        Fact {
            kind: EventKind::Complaint,
            detail: detail_of(&types, ""),
            distinction: Some(hash(&[str_of(&self.feedback_id.or_else(|| self.timestamp.clone()))])),
            at: self.timestamp.map(|text| text.0),
            address: affected.email_address.map(|text| text.0),
            machine: None,
        }
    }
}

#[derive(Default, Deserialize)]
struct Reject<'a> {
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    #[serde(borrow)]
    error_message: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryDelay<'a> {
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    delay_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    delayed_recipients: First<Affected<'a>>,
}

impl<'a> DeliveryDelay<'a> {
    fn fact(self) -> Fact<'a> {
        let affected = self.delayed_recipients.0.unwrap_or_default();
        Fact {
            kind: EventKind::DeliveryDelay,
            distinction: Some(hash(&[str_of(&self.timestamp)])),
            detail: detail_of(&[str_of(&self.delay_type)], affected.diagnostic()),
            at: self.timestamp.map(|text| text.0),
            address: affected.email_address.map(|text| text.0),
            machine: None,
        }
    }
}

/// An open or a click.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Visit<'a> {
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    ip_address: Option<Text<'a>>,
    #[serde(borrow)]
    link: Option<Text<'a>>,
    /// `Likely` where SES takes it for a program's; older events lack it.
    #[serde(borrow)]
    is_bot_event: Option<Word<'a>>,
}

impl<'a> Visit<'a> {
    fn fact(self, kind: EventKind, mail: &Mail<'a>) -> Fact<'a> {
        Fact {
            kind,
            distinction: Some(hash(&[str_of(&self.timestamp), str_of(&self.ip_address), str_of(&self.link)])),
            at: self.timestamp.map(|text| text.0),
            address: mail.destination.0.as_ref().map(|text| text.0.clone()),
            machine: self.is_bot_event.is_some_and(|said| said.is_yes()).then_some("amazon"),
            detail: self.link.map(|text| text.0),
        }
    }
}

/// A JSON string, borrowed where it has no escapes.
#[derive(Clone, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A word that may as well come as a boolean.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word<'a> {
    Flag(bool),
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Other(IgnoredAny),
}

impl Word<'_> {
    fn is_yes(&self) -> bool {
        match self {
            Self::Flag(flag) => *flag,
            Self::Text(text) => ["likely", "true", "yes"].iter().any(|yes| text.eq_ignore_ascii_case(yes)),
            Self::Other(_) => false,
        }
    }
}

fn str_of<'b>(text: &'b Option<Text<'_>>) -> &'b str {
    text.as_ref().map_or("", |text| &text.0)
}

/// The first item of a JSON array; the others are skipped. Null is an empty array.
struct First<T>(Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(FirstVisitor(PhantomData))
    }
}

struct FirstVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FirstVisitor<T> {
    type Value = First<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or null")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(First(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Self::Value, A::Error> {
        let first = items.next_element()?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(first))
    }
}

/// The value of our header, picked out of the list of all headers. SES keeps names as written, a relay may not.
#[derive(Default)]
struct IdHeader<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for IdHeader<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(IdHeaderVisitor)
    }
}

struct IdHeaderVisitor;

impl<'de> Visitor<'de> for IdHeaderVisitor {
    type Value = IdHeader<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of headers or null")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(IdHeader(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(header) = items.next_element::<Header>()? {
            if found.is_none() && str_of(&header.name).eq_ignore_ascii_case(ID_HEADER) {
                found = header.value.map(|text| text.0);
            }
        }
        Ok(IdHeader(found))
    }
}

/// `type/subtype: diagnostic`, less the pieces that are missing.
fn detail_of(types: &[&str], diagnostic: &str) -> Option<Cow<'static, str>> {
    let types: Vec<&str> = types.iter().copied().filter(|text| !text.is_empty()).collect();
    let pieces: Vec<String> =
        [types.join("/"), diagnostic.to_owned()].into_iter().filter(|piece| !piece.is_empty()).collect();
    (!pieces.is_empty()).then(|| pieces.join(": ").into())
}

/// 63 bits that depend on `parts` alone, on every machine and in every version: rows compare by them.
fn hash(parts: &[&str]) -> i64 {
    let mut sha = Sha256::new();
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    let digest: [u8; 32] = sha.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    i64::from_be_bytes([a, b, c, d, e, f, g, h]) & i64::MAX
}

fn clipped<'b>(text: &'b Option<Cow<'_, str>>, max_chars: usize) -> Option<&'b str> {
    text.as_deref().map(|text| clip(text, max_chars))
}

fn clip(text: &str, max_chars: usize) -> &str {
    // Most texts are short, and bytes are never fewer than characters.
    if text.len() <= max_chars {
        return text;
    }
    text.char_indices().nth(max_chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

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
        while let Some(mut row) = reader.next_row(EVENT_COLUMNS).unwrap() {
            events.push(Row {
                notification_id: row.int8("").unwrap().unwrap(),
                subject: (
                    row.int8("").unwrap().unwrap(),
                    row.int4("").unwrap().unwrap(),
                    row.int2("").unwrap().unwrap(),
                ),
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
        assert_eq!(events.len() + parked.len(), bodies.len(), "each notification gives exactly one row");
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
            json!([{"name": ID_HEADER, "value": keys().encode_id("eml", STREAM as u64, 42, 0)}]);
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
            let part =
                json!({"timestamp": PART_TIME, "ipAddress": ip, "userAgent": "x", "link": link, "linkTags": null});
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
        assert_eq!(
            park(&|v| v["mail"]["tags"]["mr"] = json!([keys().tag(STREAM, 0, 1)])),
            "its tag is not one of ours"
        );
        assert_eq!(park(&|v| v["mail"] = json!({})), "no tag and no header of ours");
        assert_eq!(park(&|v| v["mail"] = json!("x")), "not the JSON of an SES event");
        assert_eq!(park(&|v| v["eventType"] = Value::Null), "no event type");
        assert_eq!(park(&|v| v["eventType"] = json!("Subscription")), "not a type that we read: Subscription");
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
        let test_text = b"Successfully validated SNS topic for Amazon SES event publishing.";
        assert_eq!(reason(test_text), "the test message of SES");
        for body in [&b""[..], b"null", b"[]", b"{", b"{}x", b"\xff\xfe", b"7", b"\"a\""] {
            assert_eq!(reason(body), "not the JSON of an SES event", "{body:?}");
        }
        assert_eq!(reason(b"{}"), "no event type");
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
}
