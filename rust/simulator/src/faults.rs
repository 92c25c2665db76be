//! A menu of things that go wrong, each with its probability.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::store::HeadersFate;

/// Probabilities between 0 and 1. Calls: sends only; other operations always work.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Milliseconds every send takes before it is looked at.
    pub latency_ms: u64,
    /// A call is refused with 429.
    pub throttle_429: f64,
    /// A call is answered 500 and nothing is accepted.
    pub server_error_before: f64,
    /// A call is accepted, then answered 500.
    pub server_error_after_accept: f64,
    /// A call is accepted, then the connection closes without an answer.
    pub drop_reply_after_accept: f64,
    /// The connection closes without an answer, and nothing is accepted.
    pub drop_request: f64,
    /// A call is accepted and never answered; the connection stays open for `idle_timeout_ms`.
    pub hang_after_accept: f64,
    /// An entry of a bulk call is not accepted, with status FAILED.
    pub per_entry_failed: f64,
    /// An entry of a bulk call is not accepted, with status TRANSIENT_FAILURE.
    pub per_entry_transient: f64,
    /// A bulk call is refused with 400, as SES refuses a template that it does not take.
    pub refuse_bulk: f64,
    /// Bulk calls beyond so many a second are refused with 429; 0 for no such limit.
    pub bulk_calls_per_s: f64,
    /// An entry of a bulk call is accepted, and its template cannot be filled later.
    pub rendering_failure: f64,
    /// An event is never published.
    pub lose_events: f64,
    /// An event is published twice.
    pub duplicate_events: f64,
    /// An event is held back for up to three seconds.
    pub reorder_events: f64,
    /// A mail's custom headers arrive in the opposite order.
    pub reorder_headers: f64,
    /// The DKIM signature of a mail does not cover its headers of unsubscribing.
    pub unsigned_headers: f64,
    /// Off lets signatures of any age pass.
    pub skew_check: bool,
    /// How far a signature's time may be from ours, in milliseconds, instead of what the options say.
    pub signature_max_age_ms: Option<u64>,
    /// Where chance begins; the same seed and the same calls give the same faults.
    pub seed: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            latency_ms: 0,
            throttle_429: 0.0,
            server_error_before: 0.0,
            server_error_after_accept: 0.0,
            drop_reply_after_accept: 0.0,
            drop_request: 0.0,
            hang_after_accept: 0.0,
            per_entry_failed: 0.0,
            per_entry_transient: 0.0,
            refuse_bulk: 0.0,
            bulk_calls_per_s: 0.0,
            rendering_failure: 0.0,
            lose_events: 0.0,
            duplicate_events: 0.0,
            reorder_events: 0.0,
            reorder_headers: 0.0,
            unsigned_headers: 0.0,
            skew_check: true,
            signature_max_age_ms: None,
            seed: 0,
        }
    }
}

impl Faults {
    /// Reads a menu; what it does not name is off. The error is a sentence.
    pub fn read(json: &[u8]) -> Result<Faults, String> {
        let faults: Faults = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let rates = [
            ("throttle_429", faults.throttle_429),
            ("server_error_before", faults.server_error_before),
            ("server_error_after_accept", faults.server_error_after_accept),
            ("drop_reply_after_accept", faults.drop_reply_after_accept),
            ("drop_request", faults.drop_request),
            ("hang_after_accept", faults.hang_after_accept),
            ("per_entry_failed", faults.per_entry_failed),
            ("per_entry_transient", faults.per_entry_transient),
            ("refuse_bulk", faults.refuse_bulk),
            ("rendering_failure", faults.rendering_failure),
            ("lose_events", faults.lose_events),
            ("duplicate_events", faults.duplicate_events),
            ("reorder_events", faults.reorder_events),
            ("reorder_headers", faults.reorder_headers),
            ("unsigned_headers", faults.unsigned_headers),
        ];
        match rates.iter().find(|(_, rate)| !(0.0..=1.0).contains(rate)) {
            Some((name, _)) => Err(format!("{name} must be between 0 and 1")),
            None if faults.bulk_calls_per_s.is_nan() || faults.bulk_calls_per_s < 0.0 => {
                Err("bulk_calls_per_s must be at least 0".to_owned())
            }
            None => Ok(faults),
        }
    }
}

/// What happens to a call instead of its being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Throttle,
    RefuseTemplate,
    ServerError,
    Drop,
}

/// What happens to a call instead of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    ServerError,
    Drop,
    Hang,
}

/// What happens to an event instead of its being published once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFate {
    pub is_lost: bool,
    /// A second copy; `Some(true)`: as a new notification, `Some(false)`: as the same one again.
    pub copy: Option<bool>,
    /// Held back, in milliseconds.
    pub delay_ms: u64,
}

/// The menu, and the chance that draws from it.
pub struct FaultDraw {
    pub menu: Faults,
    random: Random,
    /// When the last bulk calls came that were not refused for their rate, in milliseconds; those of the last second.
    bulk_calls_ms: VecDeque<u64>,
}

impl FaultDraw {
    /// Starts drawing from the menu's seed.
    pub fn new(menu: Faults) -> FaultDraw {
        FaultDraw { random: Random::new(menu.seed), menu, bulk_calls_ms: VecDeque::new() }
    }

    /// The fault before a call, if any.
    pub fn before(&mut self) -> Option<Before> {
        let menu = [
            (self.menu.drop_request, Before::Drop),
            (self.menu.throttle_429, Before::Throttle),
            (self.menu.server_error_before, Before::ServerError),
        ];
        self.first(menu)
    }

    /// The fault before a bulk call, if any; nothing is drawn for what is off.
    pub fn before_bulk(&mut self, now_ms: u64) -> Option<Before> {
        if self.is_beyond_bulk_rate(now_ms) {
            return Some(Before::Throttle);
        }
        self.happens(self.menu.refuse_bulk).then_some(Before::RefuseTemplate)
    }

    /// Whether the next bulk entry cannot be rendered, though it is accepted.
    pub fn spoils_rendering(&mut self) -> bool {
        self.happens(self.menu.rendering_failure)
    }

    fn is_beyond_bulk_rate(&mut self, now_ms: u64) -> bool {
        if self.menu.bulk_calls_per_s == 0.0 {
            return false;
        }
        while self.bulk_calls_ms.front().is_some_and(|at_ms| at_ms + 1000 <= now_ms) {
            self.bulk_calls_ms.pop_front();
        }
        if self.bulk_calls_ms.len() as f64 >= self.menu.bulk_calls_per_s {
            return true;
        }
        self.bulk_calls_ms.push_back(now_ms);
        false
    }

    fn happens(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.random.happens(rate)
    }

    /// The fault after a call was accepted, if any.
    pub fn after(&mut self) -> Option<After> {
        let menu = [
            (self.menu.server_error_after_accept, After::ServerError),
            (self.menu.drop_reply_after_accept, After::Drop),
            (self.menu.hang_after_accept, After::Hang),
        ];
        self.first(menu)
    }

    /// The status that a bulk entry gets instead of being looked at, if any.
    pub fn entry(&mut self) -> Option<&'static str> {
        let menu = [(self.menu.per_entry_failed, "FAILED"), (self.menu.per_entry_transient, "TRANSIENT_FAILURE")];
        self.first(menu)
    }

    /// Whether any mail's headers may come out otherwise.
    pub fn touches_headers(&self) -> bool {
        self.menu.reorder_headers + self.menu.unsigned_headers > 0.0
    }

    /// What happens to the headers of the next mail.
    pub fn headers(&mut self) -> HeadersFate {
        let is_reversed = self.random.happens(self.menu.reorder_headers);
        HeadersFate { is_reversed, is_unsigned: self.random.happens(self.menu.unsigned_headers) }
    }

    /// Whether any event may be lost, doubled or held back.
    pub fn touches_events(&self) -> bool {
        self.menu.lose_events + self.menu.duplicate_events + self.menu.reorder_events > 0.0
    }

    /// What happens to the next event.
    pub fn event(&mut self) -> EventFate {
        let is_lost = self.random.happens(self.menu.lose_events);
        let copy = self.random.happens(self.menu.duplicate_events).then(|| self.random.happens(0.5));
        let is_late = self.random.happens(self.menu.reorder_events);
        let delay_ms = if is_late { 1 + self.random.below(3000) } else { 0 };
        EventFate { is_lost, copy, delay_ms }
    }

    fn first<T: Copy, const N: usize>(&mut self, menu: [(f64, T); N]) -> Option<T> {
        // Every line is drawn, so that switching one fault off does not shift the rest of its kind.
        let drawn = menu.map(|(rate, fault)| self.random.happens(rate).then_some(fault));
        drawn.into_iter().flatten().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_is_off_by_default_and_strict_about_names_and_ranges() {
        assert_eq!(Faults::read(b"{}"), Ok(Faults::default()));
        assert!(Faults::read(br#"{"throtle":1}"#).is_err());
        assert!(Faults::read(br#"{"lose_events":1.5}"#).unwrap_err().contains("lose_events"));
        assert!(Faults::read(br#"{"drop_request":-0.1}"#).is_err());
        let mut draw = FaultDraw::new(Faults::default());
        assert_eq!((draw.before(), draw.after(), draw.entry()), (None, None, None));
        assert!(!draw.touches_events());
        assert!(!draw.touches_headers());
        assert_eq!(draw.event(), EventFate::default());
    }

    #[test]
    fn certain_faults_happen() {
        let with = |json: &str| FaultDraw::new(Faults::read(json.as_bytes()).unwrap());
        assert_eq!(with(r#"{"throttle_429":1}"#).before(), Some(Before::Throttle));
        assert_eq!(with(r#"{"server_error_before":1}"#).before(), Some(Before::ServerError));
        assert_eq!(with(r#"{"drop_request":1}"#).before(), Some(Before::Drop));
        assert_eq!(with(r#"{"server_error_after_accept":1}"#).after(), Some(After::ServerError));
        assert_eq!(with(r#"{"drop_reply_after_accept":1}"#).after(), Some(After::Drop));
        assert_eq!(with(r#"{"hang_after_accept":1}"#).after(), Some(After::Hang));
        assert_eq!(with(r#"{"per_entry_failed":1}"#).entry(), Some("FAILED"));
        assert_eq!(with(r#"{"per_entry_transient":1}"#).entry(), Some("TRANSIENT_FAILURE"));
        assert!(with(r#"{"lose_events":1}"#).event().is_lost);
        assert!(with(r#"{"duplicate_events":1}"#).event().copy.is_some());
        assert!(with(r#"{"reorder_events":1}"#).event().delay_ms > 0);
        assert!(with(r#"{"reorder_headers":1}"#).headers().is_reversed);
        assert!(with(r#"{"unsigned_headers":1}"#).headers().is_unsigned);
        assert_eq!(with(r#"{"refuse_bulk":1}"#).before_bulk(0), Some(Before::RefuseTemplate));
        assert!(with(r#"{"rendering_failure":1}"#).spoils_rendering());
    }

    #[test]
    fn bulk_calls_beyond_their_rate_are_throttled() {
        let mut draw = FaultDraw::new(Faults::read(br#"{"bulk_calls_per_s":2}"#).unwrap());
        let fates = [0, 10, 20, 999, 1000, 1001, 1010].map(|now_ms| draw.before_bulk(now_ms));
        let refused = Some(Before::Throttle);
        assert_eq!(fates, [None, None, refused, refused, None, refused, None]);
        assert!(Faults::read(br#"{"bulk_calls_per_s":-1}"#).unwrap_err().contains("bulk_calls_per_s"));
    }
}
