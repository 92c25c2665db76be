//! What rounds of every kind share: their line to SES, the books they keep, and the report at the end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::copy::{Reader, Writer};
use crate::error::Result;
use crate::lease::Lease;
use crate::message;
use crate::ses::outcome::{self, BulkVerdict, Limit, Outcome, Settled};
use crate::ses::request::Request;
use crate::ses::sigv4::Signer;
use crate::ses::trace::Carried;
use crate::ses::{Call, Ending, Sender};

/// Longest address, RFC 5321 §4.5.3.1: 64 and 255 characters and the `@`.
const MAX_ADDRESS_BYTES: usize = 320;
/// Columns of `results` in the COPY bytes of a report.
const RESULT_COLUMNS: i16 = 7;

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Binary COPY rows (stream_id int8, seq int4, attempt int2, outcome int2, ses_message_id
    /// text null, error text null, account_id int8), one per input row and in input order.
    pub outcomes: Vec<u8>,
    /// Recipients per outcome code.
    pub counts: BTreeMap<i16, u64>,
    /// Recipients that were deferred because SES was asked for more than its rate.
    pub throttled: u64,
    /// Whether an answer said that the quota of the last 24 hours is used up.
    pub daily_quota_hit: bool,
    /// JSON `[[first, last], …]`: the numbers of the accepted recipients, in order and as few ranges as can be.
    pub accepted_ranges: Vec<u8>,
    /// Recipients whose outcome comes from a bulk call.
    pub slots_recipients: u64,
    /// Recipients whose outcome comes from a call of their own.
    pub simple_recipients: u64,
    /// Requests of which a byte may have been written.
    pub calls: u64,
    /// Time in template evaluation and entry building, summed over tasks, nanoseconds.
    pub render_ns: u64,
    /// Time in assembling, hashing and signing requests, summed over tasks, nanoseconds.
    pub sign_ns: u64,
    /// Time between the first byte of a request and its answer, summed over calls, nanoseconds.
    pub call_ns: u64,
}

/// What one recipient's attempt came to: number, outcome code, SES's message id, reason.
pub type Answer = (i32, i16, Option<String>, Option<String>);

impl Report {
    /// The outcomes one by one, for a caller who answers each recipient's own request.
    ///
    /// # Errors
    /// None for outcomes that this crate wrote; data errors otherwise.
    pub fn answers(outcomes: &[u8]) -> Result<Vec<Answer>> {
        let mut reader = Reader::open(outcomes)?;
        let mut answers = Vec::new();
        while let Some(mut row) = reader.next_row(RESULT_COLUMNS)? {
            row.int8("stream_id")?;
            let seq = row.int4("seq")?.unwrap_or_default();
            row.int2("attempt")?;
            let outcome = row.int2("outcome")?.unwrap_or_default();
            let message_id = row.text("ses_message_id")?.map(str::to_owned);
            let error = row.text("error")?.map(str::to_owned);
            answers.push((seq, outcome, message_id, error));
        }
        Ok(answers)
    }
}

/// What every call of a round goes over.
pub(crate) struct Line {
    sender: Arc<Sender>,
    signer: Arc<Signer>,
    lease: Lease,
    /// Per row, whether a call with it may have been written. Survives the task that set it.
    touched: Box<[AtomicBool]>,
}

impl Line {
    /// A line for a round of `rows` rows, with the credentials of now.
    ///
    /// # Errors
    /// A config error when the sender has no credentials.
    pub(crate) fn open(sender: Arc<Sender>, lease: Lease, rows: usize) -> Result<Self> {
        let signer = sender.signer()?;
        Ok(Self { sender, signer, lease, touched: (0..rows).map(|_| AtomicBool::new(false)).collect() })
    }

    /// How many calls the sender makes at the same time.
    pub(crate) fn max_connections(&self) -> usize {
        self.sender.max_connections()
    }

    /// Makes one call for `rows`.
    pub(crate) async fn call(&self, request: &Request, carried: Carried, rows: &[usize]) -> Call {
        let touch = || rows.iter().for_each(|row| self.touched[*row].store(true, Ordering::SeqCst));
        self.sender.call(request, carried, &self.signer, &self.lease, touch).await
    }

    /// Assembles and makes the call of one row.
    pub(crate) async fn call_single(
        &self,
        row: usize,
        carried: Carried,
        assemble: impl FnOnce() -> std::result::Result<Request, Settled>,
    ) -> Called {
        let assembling = Instant::now();
        let request = assemble();
        let assembling = assembling.elapsed();
        let request = match request {
            Ok(request) => request,
            Err(settled) => return Called::without_call(row, settled),
        };
        let call = self.call(&request, carried, &[row]).await;
        let settled = match &call.ending {
            Ending::Answered(answer) if call.stalled() => outcome::of_simple(answer).after_a_stall(),
            Ending::Answered(answer) => outcome::of_simple(answer),
            other => unanswered(other),
        };
        Called::new(vec![row], false, BulkVerdict::All(settled), &call, assembling)
    }
}

/// The end of one call.
pub(crate) struct Called {
    pub(crate) rows: Vec<usize>,
    is_bulk: bool,
    verdict: BulkVerdict,
    was_written: bool,
    sign_time: Duration,
    call_time: Duration,
}

impl Called {
    pub(crate) fn new(
        rows: Vec<usize>,
        is_bulk: bool,
        verdict: BulkVerdict,
        call: &Call,
        assembling: Duration,
    ) -> Self {
        Self {
            rows,
            is_bulk,
            verdict,
            was_written: call.was_written(),
            sign_time: call.sign_time + assembling,
            call_time: call.call_time,
        }
    }

    fn without_call(row: usize, settled: Settled) -> Self {
        Self {
            rows: vec![row],
            is_bulk: false,
            verdict: BulkVerdict::All(settled),
            was_written: false,
            sign_time: Duration::ZERO,
            call_time: Duration::ZERO,
        }
    }
}

/// What holds for the rows of a call that SES did not answer.
pub(crate) fn unanswered(ending: &Ending) -> Settled {
    match ending {
        Ending::LeaseOver => Settled::because(Outcome::NotWritten, "the lease ended before the call"),
        Ending::NotConnected(reason) => Settled::because(Outcome::Deferred, reason.clone()),
        Ending::NoAnswer(reason) => Settled::because(Outcome::Unknown, reason.clone()),
        Ending::Answered(_) => Settled::because(Outcome::Unknown, "an answer without a verdict"),
    }
}

/// What is known of a round's rows, and what it took so far.
pub(crate) struct Books {
    settled: Vec<Option<Settled>>,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    slots_recipients: u64,
    simple_recipients: u64,
    calls: u64,
    render_time: Duration,
    sign_time: Duration,
    call_time: Duration,
}

/// A row as its report names it.
pub(crate) struct Numbered {
    pub(crate) seq: i32,
    pub(crate) attempt: i16,
    /// An outcome code to pass through.
    pub(crate) skip: Option<i16>,
}

impl Books {
    /// The books of a round of `rows` rows.
    pub(crate) fn new(rows: usize) -> Self {
        Self { settled: vec![None; rows], tally: Tally::default() }
    }

    /// Notes what became of a row without a call.
    pub(crate) fn settle(&mut self, row: usize, settled: Settled) {
        self.settled[row] = Some(settled);
    }

    /// Notes time spent on evaluating.
    pub(crate) fn rendered(&mut self, time: Duration) {
        self.tally.render_time += time;
    }

    /// Notes what a call came to. Gives back the rows of a batch that SES refused as such: it was not accepted
    /// for anyone.
    pub(crate) fn note(&mut self, called: Called) -> Vec<usize> {
        self.tally.calls += u64::from(called.was_written);
        self.tally.sign_time += called.sign_time;
        self.tally.call_time += called.call_time;
        let recipients = called.rows.len() as u64;
        let outcomes = match called.verdict {
            BulkVerdict::Refused(_) => return called.rows,
            BulkVerdict::PerEntry(outcomes) => outcomes,
            BulkVerdict::All(settled) => vec![settled; called.rows.len()],
        };
        for (row, outcome) in called.rows.into_iter().zip(outcomes) {
            self.settled[row] = Some(outcome);
        }
        match (called.was_written, called.is_bulk) {
            (true, true) => self.tally.slots_recipients += recipients,
            (true, false) => self.tally.simple_recipients += recipients,
            (false, _) => {}
        }
        Vec::new()
    }

    /// One outcome for every row: passed through, settled, or what can be said without an answer.
    ///
    /// # Errors
    /// Those of `rows`.
    pub(crate) fn report(
        self,
        line: &Line,
        (stream_id, account_id): (i64, i64),
        rows: impl ExactSizeIterator<Item = Result<Numbered>>,
    ) -> Result<Report> {
        let mut counts = BTreeMap::new();
        let (mut throttled, mut daily_quota_hit) = (0, false);
        let mut accepted = Vec::with_capacity(rows.len());
        let mut writer = Writer::new(RESULT_COLUMNS, rows.len() * 112);
        for ((row, settled), touched) in rows.zip(self.settled).zip(&line.touched) {
            let row = row?;
            let touched = touched.load(Ordering::SeqCst);
            let (code, settled) = match row.skip {
                Some(code) => (code, None),
                None => {
                    let settled = settled.unwrap_or_else(|| unaccounted(touched));
                    (settled.outcome as i16, Some(settled))
                }
            };
            *counts.entry(code).or_insert(0) += 1;
            let limit = settled.as_ref().and_then(|settled| settled.limit);
            throttled += u64::from(limit == Some(Limit::Rate));
            daily_quota_hit |= limit == Some(Limit::DailyQuota);
            if code == Outcome::Accepted as i16 {
                accepted.push(row.seq);
            }
            let (id, error) = settled.map_or((None, None), |settled| (settled.ses_message_id, settled.error));
            writer.row().int8(stream_id).int4(row.seq).int2(row.attempt).int2(code);
            writer.text_or_null(id.as_deref()).text_or_null(error.as_deref()).int8(account_id);
        }
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Ok(Report {
            outcomes: writer.finish(),
            counts,
            throttled,
            daily_quota_hit,
            accepted_ranges: ranges_json(accepted),
            slots_recipients: self.tally.slots_recipients,
            simple_recipients: self.tally.simple_recipients,
            calls: self.tally.calls,
            render_ns: nanoseconds(self.tally.render_time),
            sign_ns: nanoseconds(self.tally.sign_time),
            call_ns: nanoseconds(self.tally.call_time),
        })
    }
}

/// JSON `[[first, last], …]` of the numbers, in order and merged where one follows the other.
fn ranges_json(mut numbers: Vec<i32>) -> Vec<u8> {
    // They come in order as a rule, and then this is one look at each.
    numbers.sort_unstable();
    let ranges = numbers.chunk_by(|before, after| i64::from(*after) - i64::from(*before) <= 1);
    let mut json = String::from("[");
    for range in ranges {
        if let [first, ..] = range
            && let [.., last] = range
        {
            let comma = if json.len() > 1 { "," } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(json, "{comma}[{first},{last}]");
        }
    }
    json.push(']');
    json.into_bytes()
}

/// What holds for a row whose task broke off.
fn unaccounted(touched: bool) -> Settled {
    if touched {
        Settled::because(Outcome::Unknown, "an internal error during the call")
    } else {
        Settled::because(Outcome::NotWritten, "an internal error before the call")
    }
}

/// Refuses what SES would refuse, with the whole batch perhaps: it has no SMTPUTF8, and a
/// comma or an angle bracket would make one address two.
pub(crate) fn check_address(email: &str) -> std::result::Result<(), Settled> {
    // The check looks past outer white space, which would travel along here.
    let is_sound = message::checked_address(email).is_ok_and(|checked| checked == email);
    if is_sound && email.len() <= MAX_ADDRESS_BYTES {
        return Ok(());
    }
    Err(Settled::because(Outcome::Failed, "the address has a form that SES does not take"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_break_a_batch_are_kept_out() {
        for good in ["a@b", "ann.o'neil+x@example.com", "success+1@simulator.amazonses.com"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in ["", "ann", "@b.c", "a@", "a b@c.d", "a@b.c,d@e.f", "A <a@b.c>", "ä@b.c", "a@b.c\n"] {
            assert_eq!(check_address(bad).unwrap_err().outcome, Outcome::Failed, "{bad}");
        }
    }

    #[test]
    fn accepted_numbers_become_few_ranges_in_order() {
        let json = |numbers: &[i32]| String::from_utf8(ranges_json(numbers.to_vec())).unwrap();
        assert_eq!(json(&[]), "[]");
        assert_eq!(json(&[7]), "[[7,7]]");
        assert_eq!(json(&[1, 2, 3, 5, 9, 10]), "[[1,3],[5,5],[9,10]]");
        assert_eq!(json(&[10, 2, 9, 1, 1]), "[[1,2],[9,10]]");
        assert_eq!(json(&[i32::MIN, i32::MAX]), "[[-2147483648,-2147483648],[2147483647,2147483647]]");
    }

    #[test]
    fn a_lost_task_leaves_unknown_only_what_was_written() {
        assert_eq!(unaccounted(true).outcome, Outcome::Unknown);
        assert_eq!(unaccounted(false).outcome, Outcome::NotWritten);
    }
}
