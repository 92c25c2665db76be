//! The data plane of one round: rows in, calls out, one outcome per row back.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use crate::copy::{Reader, RecipientRow, RecipientRows, Writer};
use crate::error::Result;
use crate::lease::Lease;
use crate::message;
use crate::plan::{Mode, Plan, recipient_of};
use crate::ses::outcome::{self, BulkVerdict, Limit, Outcome, Settled};
use crate::ses::request::{self, BulkHead, Message, Request};
use crate::ses::request::{MAX_BULK_BODY_BYTES, MAX_ENTRIES, MAX_ENTRY_DATA_CHARS};
use crate::ses::sigv4::Signer;
use crate::ses::trace::Carried;
use crate::ses::{Call, Ending, Sender};
use crate::slots::{Evaluated, Rendered};

/// Rows that one task evaluates: enough to pay for the task, little enough to share well.
const CHUNK_ROWS: usize = 100;
/// Entries are a few KB each; a piece of memory this large takes a good number of them.
const ARENA_BYTES: usize = 64 * 1024;
/// Groups up to this size are not worth a bulk call.
const LARGEST_SMALL_GROUP: usize = 2;
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

/// Sends one round. A recipient's failure is an outcome; an error means that nothing was sent.
///
/// Runs to its end on the current Tokio runtime; dropping the future aborts the calls under way
/// and loses their outcomes, so spawn it.
///
/// # Errors
/// Data errors for malformed rows, config errors when the sender has no credentials.
pub async fn submit(sender: Arc<Sender>, plan: Arc<Plan>, rows: Bytes, lease: Lease) -> Result<Report> {
    let mut round = Round::open(sender, plan, rows, lease)?;
    round.start_evaluating();
    while let Some(done) = round.next_done().await {
        match done {
            Done::Evaluated(chunk) => round.group(chunk),
            Done::Called(called) => round.settle(called),
            Done::Lost => {}
        }
        round.start_evaluating();
        if round.is_all_evaluated() {
            round.call_the_rest();
        }
    }
    round.report()
}

/// What all tasks of a round read.
struct Shared {
    sender: Arc<Sender>,
    signer: Arc<Signer>,
    plan: Arc<Plan>,
    rows: RecipientRows,
    lease: Lease,
    /// Per row, whether a call with it may have been written. Survives the task that set it.
    touched: Box<[AtomicBool]>,
}

struct Round {
    shared: Arc<Shared>,
    next_row: usize,
    evaluating: JoinSet<Chunk>,
    calling: JoinSet<Called>,
    groups: HashMap<u32, Group>,
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

/// Recipients that share a skeleton and wait for a call to fill up.
struct Group {
    head: Arc<BulkHead>,
    rows: Vec<usize>,
    entries: Vec<Bytes>,
    body_bytes: usize,
}

/// What became of some rows in one task of evaluation.
struct Chunk {
    prepared: Vec<(usize, Prepared)>,
    time: Duration,
}

enum Prepared {
    /// An element of `BulkEmailEntries` for this skeleton's calls.
    Entry { head: Arc<BulkHead>, skeleton_id: u32, json: Bytes },
    /// A request of its own.
    Single(Request),
    /// It cannot be sent.
    Settled(Settled),
}

/// The end of one call.
struct Called {
    rows: Vec<usize>,
    is_bulk: bool,
    verdict: BulkVerdict,
    was_written: bool,
    sign_time: Duration,
    call_time: Duration,
}

enum Done {
    Evaluated(Chunk),
    Called(Called),
    /// A task broke off; the rows that it had are found when the report is made.
    Lost,
}

impl Round {
    fn open(sender: Arc<Sender>, plan: Arc<Plan>, rows: Bytes, lease: Lease) -> Result<Self> {
        let rows = RecipientRows::parse(rows)?;
        let count = rows.len();
        let signer = sender.signer()?;
        let touched = (0..count).map(|_| AtomicBool::new(false)).collect();
        Ok(Self {
            shared: Arc::new(Shared { sender, signer, plan, rows, lease, touched }),
            next_row: 0,
            evaluating: JoinSet::new(),
            calling: JoinSet::new(),
            groups: HashMap::new(),
            settled: vec![None; count],
            tally: Tally::default(),
        })
    }

    /// Keeps every worker busy, but not further ahead of the calls than memory should pay for.
    fn start_evaluating(&mut self) {
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let most_calls = 2 * self.shared.sender.max_connections();
        while self.next_row < self.shared.rows.len()
            && self.evaluating.len() < workers
            && self.calling.len() < most_calls
        {
            let end = (self.next_row + CHUNK_ROWS).min(self.shared.rows.len());
            let (shared, rows) = (self.shared.clone(), self.next_row..end);
            self.evaluating.spawn(async move { shared.evaluate(rows) });
            self.next_row = end;
        }
    }

    async fn next_done(&mut self) -> Option<Done> {
        tokio::select! {
            Some(evaluated) = self.evaluating.join_next() => {
                Some(evaluated.map_or(Done::Lost, Done::Evaluated))
            }
            Some(called) = self.calling.join_next() => Some(called.map_or(Done::Lost, Done::Called)),
            else => None,
        }
    }

    /// Sorts evaluated recipients by skeleton and sends every group that is full.
    fn group(&mut self, chunk: Chunk) {
        self.tally.render_time += chunk.time;
        for (row, prepared) in chunk.prepared {
            match prepared {
                Prepared::Settled(settled) => self.settled[row] = Some(settled),
                Prepared::Single(request) => self.call_single(row, Some(request)),
                Prepared::Entry { head, skeleton_id, json } => {
                    let group = self.groups.entry(skeleton_id).or_insert_with(|| Group::new(head));
                    let full = (!group.has_room_for(&json)).then(|| group.take());
                    group.add(row, json);
                    let full = full.or_else(|| (group.rows.len() >= MAX_ENTRIES).then(|| group.take()));
                    if let Some(full) = full {
                        self.call_group(full);
                    }
                }
            }
        }
    }

    fn is_all_evaluated(&self) -> bool {
        self.next_row == self.shared.rows.len() && self.evaluating.is_empty()
    }

    /// Sends the groups that will not grow any more.
    fn call_the_rest(&mut self) {
        for (_, group) in std::mem::take(&mut self.groups) {
            self.call_group(group);
        }
    }

    fn call_group(&mut self, group: Group) {
        if group.rows.len() <= LARGEST_SMALL_GROUP {
            return group.rows.into_iter().for_each(|row| self.call_single(row, None));
        }
        let shared = self.shared.clone();
        self.calling.spawn(async move { shared.call_bulk(group).await });
    }

    fn call_single(&mut self, row: usize, request: Option<Request>) {
        let shared = self.shared.clone();
        self.calling.spawn(async move { shared.call_single(row, request).await });
    }

    /// Notes what a call came to. A batch that SES refused as such was not accepted for anyone,
    /// so its recipients go out one by one.
    fn settle(&mut self, called: Called) {
        self.tally.calls += u64::from(called.was_written);
        self.tally.sign_time += called.sign_time;
        self.tally.call_time += called.call_time;
        let recipients = called.rows.len() as u64;
        let outcomes = match called.verdict {
            BulkVerdict::Refused => {
                return called.rows.into_iter().for_each(|row| self.call_single(row, None));
            }
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
    }

    /// One outcome for every row: passed through, settled, or what can be said without an answer.
    fn report(self) -> Result<Report> {
        let rows = &self.shared.rows;
        let (stream_id, account_id) = (self.shared.plan.stream_id(), self.shared.plan.account_id());
        let mut counts = BTreeMap::new();
        let (mut throttled, mut daily_quota_hit) = (0, false);
        let mut accepted = Vec::with_capacity(rows.len());
        let mut writer = Writer::new(RESULT_COLUMNS, rows.len() * 112);
        for (index, settled) in self.settled.into_iter().enumerate() {
            let row = rows.get(index)?;
            let touched = self.shared.touched[index].load(Ordering::SeqCst);
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

impl Group {
    fn new(head: Arc<BulkHead>) -> Self {
        Self { body_bytes: head.fixed_bytes(), head, rows: Vec::new(), entries: Vec::new() }
    }

    fn has_room_for(&self, entry: &Bytes) -> bool {
        self.rows.is_empty() || self.body_bytes + entry.len() < MAX_BULK_BODY_BYTES
    }

    fn add(&mut self, row: usize, entry: Bytes) {
        self.body_bytes += entry.len() + 1;
        self.rows.push(row);
        self.entries.push(entry);
    }

    /// The group as it is, leaving an empty one.
    fn take(&mut self) -> Self {
        let empty = Self::new(self.head.clone());
        std::mem::replace(self, empty)
    }
}

impl Shared {
    /// Evaluates the rows that are to be sent.
    fn evaluate(&self, rows: std::ops::Range<usize>) -> Chunk {
        let started = Instant::now();
        let mut arena = BytesMut::with_capacity(ARENA_BYTES);
        let mut buffer = Vec::new();
        let mut prepared = Vec::with_capacity(rows.len());
        for index in rows {
            // The rows were checked when they were opened.
            let Ok(row) = self.rows.get(index) else { continue };
            if row.skip.is_some() {
                continue;
            }
            // One recipient's data must not take its neighbours down, however it does it.
            let result = catch_unwind(AssertUnwindSafe(|| self.prepare(&row, &mut buffer)));
            let outcome = match result {
                Ok(Ok(Piece::Entry { head, skeleton_id })) => {
                    arena.extend_from_slice(&buffer);
                    Prepared::Entry { head, skeleton_id, json: arena.split().freeze() }
                }
                Ok(Ok(Piece::Single(request))) => Prepared::Single(request),
                Ok(Err(settled)) => Prepared::Settled(settled),
                Err(_) => Prepared::Settled(Settled::because(Outcome::Failed, "rendering broke off")),
            };
            prepared.push((index, outcome));
        }
        Chunk { prepared, time: started.elapsed() }
    }

    /// Makes the row's entry in `buffer`, or its request where it has to travel alone.
    fn prepare(&self, row: &RecipientRow<'_>, buffer: &mut Vec<u8>) -> std::result::Result<Piece, Settled> {
        check_address(row.email)?;
        if self.plan.mode == Mode::Simple {
            return self.rendered_request(row).map(Piece::Single);
        }
        let recipient = recipient_of(row);
        let (skeleton, values) = match self.plan.content.evaluate(&recipient).map_err(unrenderable)? {
            Evaluated::Plain(rendered) => return Ok(Piece::Single(self.simple_request(row, &rendered))),
            Evaluated::Slots { skeleton, values } => (skeleton, values),
        };
        if values.len() != skeleton.slot_names.len() {
            return self.rendered_request(row).map(Piece::Single);
        }
        buffer.clear();
        let data_chars =
            self.plan.address(&recipient, |to| request::push_entry(buffer, to, &skeleton.slot_names, &values));
        let head = self.plan.bulk_head(&skeleton);
        if data_chars > MAX_ENTRY_DATA_CHARS || head.fixed_bytes() + buffer.len() > MAX_BULK_BODY_BYTES {
            return self.rendered_request(row).map(Piece::Single);
        }
        Ok(Piece::Entry { head, skeleton_id: skeleton.id })
    }

    fn rendered_request(&self, row: &RecipientRow<'_>) -> std::result::Result<Request, Settled> {
        let rendered = self.plan.content.render(&recipient_of(row)).map_err(unrenderable)?;
        Ok(self.simple_request(row, &rendered))
    }

    fn simple_request(&self, row: &RecipientRow<'_>, rendered: &Rendered) -> Request {
        let message = Message { subject: &rendered.subject, html: &rendered.html, text: &rendered.text };
        self.plan.address(&recipient_of(row), |to| request::simple(&self.plan.envelope, to, message))
    }

    async fn call_bulk(&self, group: Group) -> Called {
        let assembling = Instant::now();
        let request = group.head.request(group.entries.iter().map(|entry| &entry[..]));
        let assembling = assembling.elapsed();
        let call = self.call(&request, &group.rows).await;
        let verdict = match &call.ending {
            Ending::Answered(answer) => match outcome::of_bulk(answer, group.rows.len()) {
                BulkVerdict::All(settled) if call.stalled() => BulkVerdict::All(settled.after_a_stall()),
                verdict => verdict,
            },
            other => BulkVerdict::All(unanswered(other)),
        };
        Called::new(group.rows, true, verdict, &call, assembling)
    }

    async fn call_single(&self, row: usize, request: Option<Request>) -> Called {
        let assembling = Instant::now();
        let request = request.map_or_else(|| self.late_request(row), Ok);
        let assembling = assembling.elapsed();
        let request = match request {
            Ok(request) => request,
            Err(settled) => return Called::without_call(row, settled),
        };
        let call = self.call(&request, &[row]).await;
        let settled = match &call.ending {
            Ending::Answered(answer) if call.stalled() => outcome::of_simple(answer).after_a_stall(),
            Ending::Answered(answer) => outcome::of_simple(answer),
            other => unanswered(other),
        };
        Called::new(vec![row], false, BulkVerdict::All(settled), &call, assembling)
    }

    /// The request of a recipient that was meant for a bulk call.
    fn late_request(&self, row: usize) -> std::result::Result<Request, Settled> {
        self.rendered_request(&self.rows.get(row).map_err(unrenderable)?)
    }

    async fn call(&self, request: &Request, rows: &[usize]) -> Call {
        let touch = || rows.iter().for_each(|row| self.touched[*row].store(true, Ordering::SeqCst));
        self.sender.call(request, self.carried(rows), &self.signer, &self.lease, touch).await
    }

    fn carried(&self, rows: &[usize]) -> Carried {
        let first = rows.first().and_then(|row| self.rows.get(*row).ok());
        let (attempt, first_seq) = first.map_or((0, 0), |row| (row.attempt, row.seq));
        Carried { stream_id: self.plan.stream_id(), attempt, rows: rows.len(), first_seq }
    }
}

enum Piece {
    Entry { head: Arc<BulkHead>, skeleton_id: u32 },
    Single(Request),
}

impl Called {
    fn new(rows: Vec<usize>, is_bulk: bool, verdict: BulkVerdict, call: &Call, assembling: Duration) -> Self {
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

fn unanswered(ending: &Ending) -> Settled {
    match ending {
        Ending::LeaseOver => Settled::because(Outcome::NotWritten, "the lease ended before the call"),
        Ending::NotConnected(reason) => Settled::because(Outcome::Deferred, reason.clone()),
        Ending::NoAnswer(reason) => Settled::because(Outcome::Unknown, reason.clone()),
        Ending::Answered(_) => Settled::because(Outcome::Unknown, "an answer without a verdict"),
    }
}

fn unrenderable(error: crate::Error) -> Settled {
    Settled::because(Outcome::Failed, error.to_string())
}

/// Refuses what SES would refuse, with the whole batch perhaps: it has no SMTPUTF8, and a
/// comma or an angle bracket would make one address two.
fn check_address(email: &str) -> std::result::Result<(), Settled> {
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

    #[test]
    fn a_group_never_outgrows_a_body() {
        let envelope = request::Envelope { from: "a@b.c".into(), reply_to: vec![], configuration_set: None };
        let head = Arc::new(BulkHead::new(&envelope, &[b'x'; 100_000]));
        let mut group = Group::new(head.clone());
        let entry = Bytes::from(vec![b'y'; 99_000]);
        let mut added = 0;
        while group.has_room_for(&entry) {
            group.add(added, entry.clone());
            added += 1;
        }
        let request = head.request(group.entries.iter().map(|entry| &entry[..]));
        assert!(request.body.len() <= MAX_BULK_BODY_BYTES);
        assert!(request.body.len() + entry.len() > MAX_BULK_BODY_BYTES);
        assert_eq!(group.take().rows.len(), added);
        assert!(group.rows.is_empty());
    }
}
