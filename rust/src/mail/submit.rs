//! Sending single mails: one address, one call.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::attachments::Disposition;
use super::fields::Mailbox;
use super::mime;
use super::stored::{Mode, Stored, StoredAttachment};
use crate::copy::{MailRow, MailRows};
use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::message;
use crate::round::{Books, Called, Line, Numbered, Report, check_address};
use crate::ses::Sender;
use crate::ses::outcome::{Outcome, Settled};
use crate::ses::request::{self, Addressee, Envelope, Finished, FinishedAttachment, Request};
use crate::ses::trace::Carried;
use crate::token::TokenKeys;

/// Whose mails they are. Other members are ignored: the same JSON serves other purposes.
#[derive(Debug, Clone, Deserialize)]
pub struct Identity {
    /// The tenant.
    pub account_id: i64,
    /// SES configuration set, which publishes the events.
    #[serde(default)]
    pub configuration_set: Option<String>,
}

impl Identity {
    /// Reads it from JSON.
    ///
    /// # Errors
    /// A data error for JSON without an account.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| Error::data(format!("the identity JSON: {error}")))
    }
}

/// Rows of one attempt at mails that are at hand; the slices run side by side.
///
/// # Errors
/// A data error for slices of different lengths.
pub fn encode_rows(
    stream_id: i64,
    seqs: &[i32],
    attempt: i16,
    skips: &[Option<i16>],
    emails: &[String],
    contents: &[impl AsRef<[u8]>],
) -> Result<Vec<u8>> {
    if [skips.len(), emails.len(), contents.len()].iter().any(|length| *length != seqs.len()) {
        return Err(Error::data("the lists of a round of mails have different lengths"));
    }
    let bytes = contents.iter().map(|content| content.as_ref().len() + 96).sum();
    let lists = seqs.iter().zip(skips).zip(emails).zip(contents);
    let rows = lists.map(|(((seq, skip), email), content)| MailRow {
        stream_id,
        seq: *seq,
        attempt,
        skip: *skip,
        email,
        content: content.as_ref(),
    });
    Ok(MailRows::encode(rows, bytes))
}

/// Sends one round of single mails by the rules of [`crate::batch::submit`].
///
/// # Errors
/// Data errors for malformed rows or an identity that is none, config errors when the sender has no credentials.
pub async fn submit(
    sender: Arc<Sender>,
    identity: Identity,
    rows: Bytes,
    lease: Lease,
    keys: TokenKeys,
) -> Result<Report> {
    let rows = MailRows::parse(rows)?;
    let stream_id = stream_of(&rows)?;
    let line = Line::open(sender, lease, rows.len())?;
    let mut books = Books::new(rows.len());
    let round = Arc::new(Round { line, rows, stream_id, identity, keys });
    let mut calling = JoinSet::new();
    let mut next = 0;
    loop {
        while next < round.rows.len() && calling.len() < round.line.max_connections() {
            // The rows were checked when they were opened.
            if round.rows.get(next).is_ok_and(|row| row.skip.is_none()) {
                let (round, row) = (round.clone(), next);
                calling.spawn(async move { round.call(row).await });
            }
            next += 1;
        }
        match calling.join_next().await {
            Some(Ok(called)) => drop(books.note(called)),
            // A task broke off; its row is found when the report is made.
            Some(Err(_)) => {}
            None => break,
        }
    }
    let numbered = (0..round.rows.len())
        .map(|index| round.rows.get(index).map(|row| Numbered { seq: row.seq, attempt: row.attempt, skip: row.skip }));
    books.report(&round.line, (stream_id, round.identity.account_id), numbered)
}

/// The one stream of all rows; 0 without any.
fn stream_of(rows: &MailRows) -> Result<i64> {
    let mut found = None;
    for index in 0..rows.len() {
        let stream_id = rows.get(index)?.stream_id;
        if *found.get_or_insert(stream_id) != stream_id {
            return Err(Error::data("a round of mails has rows of two streams"));
        }
    }
    Ok(found.unwrap_or_default())
}

struct Round {
    line: Line,
    rows: MailRows,
    stream_id: i64,
    identity: Identity,
    keys: TokenKeys,
}

impl Round {
    async fn call(&self, row: usize) -> Called {
        let (attempt, first_seq) = self.rows.get(row).map_or((0, 0), |row| (row.attempt, row.seq));
        let carried = Carried { stream_id: self.stream_id, attempt, rows: 1, first_seq };
        self.line.call_single(row, carried, || self.request(row)).await
    }

    fn request(&self, row: usize) -> std::result::Result<Request, Settled> {
        let row = self.rows.get(row).map_err(unsendable)?;
        check_address(row.email)?;
        let mail = Stored::read(row.content).map_err(unsendable)?;
        assemble(&self.identity, &self.keys, &row, &mail).map_err(unsendable)
    }
}

/// The call for the copy that one address gets.
pub(super) fn assemble(identity: &Identity, keys: &TokenKeys, row: &MailRow<'_>, mail: &Stored<'_>) -> Result<Request> {
    let id = keys.encode_id("eml", row.stream_id as u64, row.seq as u32, 0);
    let tag = keys.tag(row.stream_id, row.seq, row.attempt);
    let token = mail.token.map(|_| keys.track_token(row.stream_id, row.seq));
    let tags = [("mr", tag.as_str())];
    let mut envelope = Envelope {
        from: mailbox(&mail.from)?,
        reply_to: Vec::new(),
        configuration_set: identity.configuration_set.clone(),
    };
    if mail.mode == Mode::Raw {
        let mime = mime::build(mail, &id, token.as_deref())?;
        return Ok(request::raw(&envelope, Addressee { email: row.email, headers: &[], tags: &tags }, &mime));
    }
    envelope.reply_to = mail.reply_to.iter().map(mailbox).collect::<Result<_>>()?;
    let mut headers: Vec<(&str, &str)> =
        mail.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers.push(("X-Mailrail-Id", &id));
    // The name that the mail shows for its one reader.
    let shown = mail.to.first().filter(|to| to.email == row.email).map(mailbox).transpose()?;
    let addressee = Addressee { email: shown.as_deref().unwrap_or(row.email), headers: &headers, tags: &tags };
    let attachments: Vec<_> = mail.attachments.iter().map(attached).collect();
    let message = Finished {
        subject: mail.subject.get(),
        html: mail.html.map(RawValue::get),
        text: mail.text.map(RawValue::get),
        replacement: mail.token.zip(token.as_deref()),
        attachments: &attachments,
    };
    Ok(request::finished(&envelope, addressee, message))
}

fn mailbox(mailbox: &Mailbox) -> Result<String> {
    message::mailbox(mailbox.name.as_deref(), &mailbox.email)
}

fn attached<'a>(file: &'a StoredAttachment<'a>) -> FinishedAttachment<'a> {
    FinishedAttachment {
        content: file.content.get(),
        filename: &file.filename,
        content_type: &file.content_type,
        content_id: file.content_id.as_deref(),
        is_inline: file.disposition == Disposition::Inline,
    }
}

fn unsendable(error: Error) -> Settled {
    Settled::because(Outcome::Failed, error.to_string())
}
