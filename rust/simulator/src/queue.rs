//! Events that wait to be published: first in, first out, except those held back on purpose.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::clock;
use crate::events::Kind;
use crate::state::lock;
use crate::store::Call;

/// One event, in a few words; its text is made when it is sent.
#[derive(Clone)]
pub struct Event {
    pub call: Arc<Call>,
    /// Index of the mail in the call.
    pub mail: u16,
    pub kind: Kind,
    /// Number of the notification; two events with the same number are the same notification.
    pub notification: u64,
}

/// What became of events, and how many are under way.
#[derive(Default)]
pub struct Counts {
    pub published: AtomicU64,
    pub in_flight: AtomicU64,
    pub posted: AtomicU64,
    pub retried: AtomicU64,
    pub dropped_4xx: AtomicU64,
    pub expired: AtomicU64,
    pub lost: AtomicU64,
    pub doubled: AtomicU64,
    pub held_back: AtomicU64,
}

/// The queue. Unbounded: the number of events is bounded by what was accepted.
#[derive(Default)]
pub struct EventQueue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    pub counts: Counts,
}

#[derive(Default)]
struct Waiting {
    ready: VecDeque<Event>,
    held: BinaryHeap<Reverse<Held>>,
    next_notification: u64,
}

struct Held {
    due_ms: u64,
    event: Event,
}

impl Waiting {
    fn next(&mut self, now_ms: u64) -> Option<Event> {
        if self.held.peek().is_some_and(|Reverse(held)| held.due_ms <= now_ms) {
            return self.held.pop().map(|Reverse(held)| held.event);
        }
        self.ready.pop_front()
    }

    fn wait_ms(&self, now_ms: u64) -> u64 {
        self.held.peek().map_or(60_000, |Reverse(held)| held.due_ms.saturating_sub(now_ms).max(1))
    }
}

/// Adds events while the queue is locked once.
pub struct Adding<'a> {
    waiting: std::sync::MutexGuard<'a, Waiting>,
}

impl Adding<'_> {
    /// The number of a new notification.
    pub fn number(&mut self) -> u64 {
        self.waiting.next_notification += 1;
        self.waiting.next_notification
    }

    /// Adds one event, due in `delay_ms`.
    pub fn push(&mut self, event: Event, delay_ms: u64) {
        if delay_ms == 0 {
            self.waiting.ready.push_back(event);
        } else {
            let due_ms = clock::now_ms() + delay_ms;
            self.waiting.held.push(Reverse(Held { due_ms, event }));
        }
    }
}

impl EventQueue {
    /// Lets `add` put events in, then wakes the pump.
    pub fn add(&self, add: impl FnOnce(&mut Adding)) {
        let mut adding = Adding { waiting: lock(&self.waiting) };
        add(&mut adding);
        drop(adding);
        self.arrived.notify_waiters();
    }

    /// Waits for the next event that is due.
    pub async fn next(&self) -> Event {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // From here on a wake-up is not missed, even if it comes before the await.
            arrived.as_mut().enable();
            let wait_ms = {
                let mut waiting = lock(&self.waiting);
                let now_ms = clock::now_ms();
                if let Some(event) = waiting.next(now_ms) {
                    self.counts.in_flight.fetch_add(1, Relaxed);
                    return event;
                }
                waiting.wait_ms(now_ms)
            };
            // Running out of time only means looking again.
            let _ = tokio::time::timeout(Duration::from_millis(wait_ms), arrived).await;
        }
    }

    /// The next event that is due, if there is one.
    pub fn try_next(&self) -> Option<Event> {
        let event = lock(&self.waiting).next(clock::now_ms())?;
        self.counts.in_flight.fetch_add(1, Relaxed);
        Some(event)
    }

    /// How many wait, those held back among them.
    pub fn waiting(&self) -> usize {
        let waiting = lock(&self.waiting);
        waiting.ready.len() + waiting.held.len()
    }

    /// Forgets all waiting events and counts. Those under way are still sent.
    pub fn clear(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.ready.clear();
        waiting.held.clear();
        let counts = &self.counts;
        for count in [
            &counts.published,
            &counts.posted,
            &counts.retried,
            &counts.dropped_4xx,
            &counts.expired,
            &counts.lost,
            &counts.doubled,
            &counts.held_back,
        ] {
            count.store(0, Relaxed);
        }
    }

    /// The counts as JSON. `pending` are those not yet answered by the subscriber.
    pub fn describe(&self) -> Value {
        let waiting = lock(&self.waiting);
        let queued = (waiting.ready.len() + waiting.held.len()) as u64;
        let counts = &self.counts;
        json!({
            "published": counts.published.load(Relaxed),
            "pending": queued + counts.in_flight.load(Relaxed),
            "posted": counts.posted.load(Relaxed),
            "retried": counts.retried.load(Relaxed),
            "dropped_4xx": counts.dropped_4xx.load(Relaxed),
            "expired": counts.expired.load(Relaxed),
            "lost": counts.lost.load(Relaxed),
            "doubled": counts.doubled.load(Relaxed),
            "held_back": counts.held_back.load(Relaxed),
        })
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.due_ms == other.due_ms
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        self.due_ms.cmp(&other.due_ms)
    }
}
