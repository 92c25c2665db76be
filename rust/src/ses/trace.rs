//! The failpoints that one call passes, in their order, and the span that it is open for.

use super::Ending;
use crate::failpoints::{self, Fact, Failpoints};

/// What a call carries, for the history.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// The stream of all its recipients.
    pub stream_id: i64,
    /// The attempt of the first recipient.
    pub attempt: i16,
    /// How many recipients.
    pub rows: usize,
    /// Number of the first recipient.
    pub first_seq: i32,
}

/// A call on its way past the failpoints; without them it does nothing.
#[derive(Debug)]
pub struct Trace(Option<Marks>);

#[derive(Debug)]
struct Marks {
    failpoints: &'static Failpoints,
    call: u64,
    carried: Carried,
    is_open: bool,
}

impl Trace {
    /// The trace of a call that is about to be made.
    pub fn start(carried: Carried) -> Self {
        let marks = |failpoints: &'static Failpoints| {
            let call = failpoints.next_call();
            Marks { failpoints, call, carried, is_open: false }
        };
        Self(failpoints::active().map(marks))
    }

    /// There is a connection, and the request is not signed yet.
    pub fn rendered(&self) {
        self.hit("call.rendered");
    }

    /// Signed; the lease is not looked at yet.
    pub fn signed(&self) {
        self.hit("call.signed");
    }

    /// The lease holds; the first byte has not left. From here the call is open: it may be accepted.
    pub fn checked(&mut self) {
        let Some(marks) = &mut self.0 else { return };
        if !marks.is_open {
            marks.is_open = true;
            let facts = [&[("span", Fact::Word("call"))], &marks.facts()[..]].concat();
            marks.failpoints.record("call.open", &facts);
        }
        self.hit("call.checked");
    }

    /// The kernel has the whole request, and no answer was looked at.
    pub fn written(&self) {
        self.hit("call.written");
    }

    /// The answer is in hand, and nobody has been told.
    pub fn answered(&self) {
        self.hit("call.answered");
    }

    /// It ended like this. A call that never got as far as its first byte was not open.
    pub fn closed(self, ending: &Ending) {
        if let Some(marks) = self.0.filter(|marks| marks.is_open) {
            let ending = match ending {
                Ending::Answered(_) => "answered",
                Ending::NoAnswer(_) => "no answer",
                Ending::LeaseOver | Ending::NotConnected(_) => "not written",
            };
            let facts =
                [&[("span", Fact::Word("call"))], &marks.facts()[..], &[("ending", Fact::Word(ending))]].concat();
            marks.failpoints.record("call.closed", &facts);
        }
    }

    fn hit(&self, point: &str) {
        if let Some(marks) = &self.0 {
            marks.failpoints.hit(point, &marks.facts());
        }
    }
}

impl Marks {
    fn facts(&self) -> [(&'static str, Fact); 5] {
        let Carried { stream_id, attempt, rows, first_seq } = self.carried;
        [
            ("call", Fact::Int(self.call as i64)),
            ("stream_id", Fact::Int(stream_id)),
            ("attempt", Fact::Int(attempt.into())),
            ("rows", Fact::Int(rows as i64)),
            ("seq", Fact::Int(first_seq.into())),
        ]
    }
}
