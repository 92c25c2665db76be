//! The data plane of one round: rows in, calls out, one outcome per row back.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use crate::copy::{RecipientRow, RecipientRows};
use crate::error::Result;
use crate::lease::Lease;
use crate::plan::{Mode, Plan, recipient_of};
pub use crate::round::{Answer, Report};
use crate::round::{Books, Called, Line, Numbered, check_address, unanswered};
use crate::ses::outcome::{self, BulkVerdict, Outcome, Settled};
use crate::ses::request::{self, BulkHead, Message, Request};
use crate::ses::request::{MAX_BULK_BODY_BYTES, MAX_ENTRIES, MAX_ENTRY_DATA_CHARS};
use crate::ses::trace::Carried;
use crate::ses::{Ending, Sender};
use crate::slots::{Evaluated, Rendered};

/// Rows that one task evaluates: enough to pay for the task, little enough to share well.
const CHUNK_ROWS: usize = 100;
/// Entries are a few KB each; a piece of memory this large takes a good number of them.
const ARENA_BYTES: usize = 64 * 1024;
/// Groups up to this size are not worth a bulk call.
const LARGEST_SMALL_GROUP: usize = 2;

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
    line: Line,
    plan: Arc<Plan>,
    rows: RecipientRows,
}

struct Round {
    shared: Arc<Shared>,
    next_row: usize,
    evaluating: JoinSet<Chunk>,
    calling: JoinSet<Called>,
    groups: HashMap<u32, Group>,
    books: Books,
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

enum Done {
    Evaluated(Chunk),
    Called(Called),
    /// A task broke off; the rows that it had are found when the report is made.
    Lost,
}

impl Round {
    fn open(sender: Arc<Sender>, plan: Arc<Plan>, rows: Bytes, lease: Lease) -> Result<Self> {
        let rows = RecipientRows::parse(rows)?;
        let line = Line::open(sender, lease, rows.len())?;
        Ok(Self {
            books: Books::new(rows.len()),
            shared: Arc::new(Shared { line, plan, rows }),
            next_row: 0,
            evaluating: JoinSet::new(),
            calling: JoinSet::new(),
            groups: HashMap::new(),
        })
    }

    /// Keeps every worker busy, but not further ahead of the calls than memory should pay for.
    fn start_evaluating(&mut self) {
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let most_calls = 2 * self.shared.line.max_connections();
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
        self.books.rendered(chunk.time);
        for (row, prepared) in chunk.prepared {
            match prepared {
                Prepared::Settled(settled) => self.books.settle(row, settled),
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
        if group.rows.len() <= LARGEST_SMALL_GROUP && self.shared.plan.mode != Mode::Canary {
            return group.rows.into_iter().for_each(|row| self.call_single(row, None));
        }
        let shared = self.shared.clone();
        self.calling.spawn(async move { shared.call_bulk(group).await });
    }

    fn call_single(&mut self, row: usize, request: Option<Request>) {
        let shared = self.shared.clone();
        self.calling.spawn(async move { shared.call_single(row, request).await });
    }

    /// Notes what a call came to. The recipients of a batch that SES refused as such go out one by one.
    fn settle(&mut self, called: Called) {
        for row in self.books.note(called) {
            self.call_single(row, None);
        }
    }

    fn report(self) -> Result<Report> {
        let Shared { line, plan, rows } = &*self.shared;
        let numbered = (0..rows.len())
            .map(|index| rows.get(index).map(|row| Numbered { seq: row.seq, attempt: row.attempt, skip: row.skip }));
        self.books.report(line, (plan.stream_id(), plan.account_id()), numbered)
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
        let (skeleton, values) = match self.plan.content_for(&recipient).evaluate(&recipient).map_err(unrenderable)? {
            Evaluated::Plain(rendered) => return self.alone(|| Ok(self.simple_request(row, &rendered))),
            Evaluated::Slots { skeleton, values } => (skeleton, values),
        };
        if values.len() != skeleton.slot_names.len() {
            return self.alone(|| self.rendered_request(row));
        }
        buffer.clear();
        let data_chars =
            self.plan.address(&recipient, |to| request::push_entry(buffer, to, &skeleton.slot_names, &values));
        let head = self.plan.bulk_head(&skeleton);
        if data_chars > MAX_ENTRY_DATA_CHARS || head.fixed_bytes() + buffer.len() > MAX_BULK_BODY_BYTES {
            return self.alone(|| self.rendered_request(row));
        }
        Ok(Piece::Entry { head, skeleton_id: skeleton.id })
    }

    /// The request of a recipient who fits into no bulk call; a canary has no other way.
    fn alone(
        &self,
        request: impl FnOnce() -> std::result::Result<Request, Settled>,
    ) -> std::result::Result<Piece, Settled> {
        if self.plan.mode == Mode::Canary {
            return Err(Settled::because(Outcome::Failed, "it does not fit into a call of SendBulkEmail"));
        }
        request().map(Piece::Single)
    }

    fn rendered_request(&self, row: &RecipientRow<'_>) -> std::result::Result<Request, Settled> {
        let recipient = recipient_of(row);
        let rendered = self.plan.content_for(&recipient).render(&recipient).map_err(unrenderable)?;
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
        let call = self.line.call(&request, self.carried(&group.rows), &group.rows).await;
        let verdict = match &call.ending {
            Ending::Answered(answer) => match outcome::of_bulk(answer, group.rows.len()) {
                BulkVerdict::All(settled) if call.stalled() => BulkVerdict::All(settled.after_a_stall()),
                BulkVerdict::Refused(settled) if self.plan.mode == Mode::Canary => BulkVerdict::All(settled),
                verdict => verdict,
            },
            other => BulkVerdict::All(unanswered(other)),
        };
        Called::new(group.rows, true, verdict, &call, assembling)
    }

    async fn call_single(&self, row: usize, request: Option<Request>) -> Called {
        let assemble = || request.map_or_else(|| self.late_request(row), Ok);
        self.line.call_single(row, self.carried(&[row]), assemble).await
    }

    /// The request of a recipient that was meant for a bulk call.
    fn late_request(&self, row: usize) -> std::result::Result<Request, Settled> {
        self.rendered_request(&self.rows.get(row).map_err(unrenderable)?)
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

fn unrenderable(error: crate::Error) -> Settled {
    Settled::because(Outcome::Failed, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

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
