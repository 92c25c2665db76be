//! Counters, and the names they are kept under.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A sending operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    SendEmail,
    SendBulkEmail,
}

/// How a mail was put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// A template and its data.
    Slots,
    /// Finished subject and bodies.
    Simple,
    /// Finished MIME.
    Raw,
}

impl Operation {
    /// The name in the SES model.
    pub fn name(self) -> &'static str {
        match self {
            Operation::SendEmail => "SendEmail",
            Operation::SendBulkEmail => "SendBulkEmail",
        }
    }
}

impl Mode {
    /// The name in statistics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Slots => "slots",
            Mode::Simple => "simple",
            Mode::Raw => "raw",
        }
    }
}

/// One accepted call, as it is counted.
pub struct CallCount {
    pub operation: Operation,
    pub mode: Mode,
    pub messages: u64,
    pub recipients: u64,
    pub request_bytes: u64,
    pub rendered_bytes: u64,
}

#[derive(Default)]
struct Line {
    calls: u64,
    messages: u64,
    recipients: u64,
    request_bytes: u64,
    rendered_bytes: u64,
}

/// What was asked of the simulator since it started or was reset.
#[derive(Default)]
pub struct Stats {
    lines: BTreeMap<(Operation, Mode), Line>,
    send_calls: u64,
    throttled_calls: u64,
    refused_for_age: u64,
    rejected_calls: BTreeMap<&'static str, u64>,
    rejected_entries: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// Counts a genuine call of a sending operation, whatever becomes of it.
    pub fn send_call(&mut self) {
        self.send_calls += 1;
    }

    /// Counts a sending call refused with 429, or with an entry that was over the rate.
    pub fn throttled_call(&mut self) {
        self.throttled_calls += 1;
    }

    /// Counts a call of any operation whose signature's time was too far from ours.
    pub fn refused_for_age(&mut self) {
        self.refused_for_age += 1;
    }

    /// Counts an accepted call.
    pub fn accepted(&mut self, call: &CallCount) {
        let line = self.lines.entry((call.operation, call.mode)).or_default();
        line.calls += 1;
        line.messages += call.messages;
        line.recipients += call.recipients;
        line.request_bytes += call.request_bytes;
        line.rendered_bytes += call.rendered_bytes;
    }

    /// Counts a call answered with an error.
    pub fn rejected_call(&mut self, kind: &'static str) {
        *self.rejected_calls.entry(kind).or_default() += 1;
    }

    /// Counts a bulk entry answered with another status than SUCCESS.
    pub fn rejected_entry(&mut self, status: &'static str) {
        *self.rejected_entries.entry(status).or_default() += 1;
    }

    /// Counts an injected fault.
    pub fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    /// Everything, with the counters of `events` beside it.
    pub fn describe(&self, events: Value) -> Value {
        let mut out = json!({"SendEmail": {}, "SendBulkEmail": {}});
        for ((operation, mode), line) in &self.lines {
            out[operation.name()][mode.name()] = json!({
                "calls": line.calls,
                "messages": line.messages,
                "recipients": line.recipients,
                "request_bytes": line.request_bytes,
                "rendered_bytes": line.rendered_bytes,
            });
        }
        out["accepted"] = self.lines.values().map(|line| line.recipients).sum::<u64>().into();
        out["send_calls"] = self.send_calls.into();
        out["throttled_calls"] = self.throttled_calls.into();
        out["refused_for_age"] = self.refused_for_age.into();
        out["rejected_calls"] = json!(self.rejected_calls);
        out["rejected_entries"] = json!(self.rejected_entries);
        out["faults"] = json!(self.faults);
        out["events"] = events;
        out
    }
}
