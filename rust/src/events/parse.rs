//! From the JSON of one SES event to one row: whose mail, what happened, when, and how to know it again.
//!
//! An event is parked only if its type or its mail is unknown.

use std::borrow::Cow;

use super::fact::{Fact, Parked, Reading, read};
use super::notice::{Bridged, Mail, Notice};
use super::timestamp::unix_micros;
use crate::copy::{Reader, Writer};
use crate::error::{Error, Result};
use crate::token::TokenKeys;

const INPUT_COLUMNS: i16 = 2;
const EVENT_COLUMNS: i16 = 11;
const PARKED_COLUMNS: i16 = 2;
/// PostgreSQL counts time from 2000-01-01.
pub(super) const PG_EPOCH_UNIX_US: i64 = 946_684_800_000_000;
const MAX_DETAIL_CHARS: usize = 500;
/// RFC 5321 allows 64 + 1 + 255; longer ones are cut, as nothing can match them.
const MAX_ADDRESS_CHARS: usize = 320;
const MAX_MESSAGE_ID_CHARS: usize = 200;
pub(super) const MAX_REASON_CHARS: usize = 200;

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

/// Makes one row of each notification in `rows`, binary COPY of (notification_id int8, body text or bytea); none of what is
/// known and tells of no mail.
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
            Ok(Reading::Nothing) => {}
            Ok(Reading::Fact(event)) => {
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

impl Event<'_> {
    fn write(&self, notification_id: i64, rows: &mut Writer) {
        let (subject, fact) = (&self.subject, &self.fact);
        rows.row().int8(notification_id).int8(subject.stream_id).int4(subject.seq).int2(subject.attempt);
        rows.int2(fact.kind as i16).int8(fact.distinction.unwrap_or(subject.attempt.into()));
        rows.int8_or_null(fact.at.as_deref().and_then(unix_micros).map(|at| at - PG_EPOCH_UNIX_US));
        rows.text_or_null(clipped(&fact.address, MAX_ADDRESS_CHARS));
        rows.text_or_null(clipped(&self.message_id, MAX_MESSAGE_ID_CHARS));
        rows.text_or_null(clipped(&fact.detail, MAX_DETAIL_CHARS));
        rows.text_or_null(fact.machine);
    }
}

fn read_event<'a>(keys: &TokenKeys, body: &'a [u8]) -> std::result::Result<Reading<Event<'a>>, Parked> {
    // SES posts a sentence, not JSON, when an event destination is attached.
    if body.starts_with(b"Successfully validated SNS topic") {
        return Ok(Reading::Nothing);
    }
    let mut notice = read_notice(body)?;
    let Reading::Fact(fact) = read(&mut notice)? else {
        return Ok(Reading::Nothing);
    };
    let subject = subject_of(keys, &notice.mail)?;
    Ok(Reading::Fact(Event { subject, message_id: notice.mail.message_id.map(|text| text.0), fact }))
}

fn read_notice(body: &[u8]) -> std::result::Result<Notice<'_>, Parked> {
    const UNREADABLE: Parked = Cow::Borrowed("not the JSON of an SES event");
    // serde_json, as it skips what we ignore without recursion: sonic-rs overflows the stack on deep nesting.
    let notice: Notice = serde_json::from_slice(body).map_err(|_| UNREADABLE)?;
    if notice.event_type.is_some() || notice.notification_type.is_some() {
        return Ok(notice);
    }
    let bridged: Bridged = serde_json::from_slice(body).map_err(|_| UNREADABLE)?;
    Ok(bridged.detail.unwrap_or(notice))
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
