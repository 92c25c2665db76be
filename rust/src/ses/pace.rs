//! How fast recipients may go out: a token bucket.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};

/// A bulk call never has more entries (Amazon SES quotas: 50 destinations), so a larger burst
/// would buy nothing.
const LARGEST_BURST: f64 = 50.0;

/// Recipients per second and how many may go at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    per_second: f64,
    burst: f64,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { per_second: f64::INFINITY, burst: LARGEST_BURST };

    /// `recipients_per_second` with a burst of min(50, rate), at least 1.
    ///
    /// # Errors
    /// [`Error::config`] unless the rate is above 0; infinity means no limit.
    pub fn new(recipients_per_second: f64) -> Result<Self> {
        if recipients_per_second > 0.0 {
            let burst = recipients_per_second.clamp(1.0, LARGEST_BURST);
            return Ok(Self { per_second: recipients_per_second, burst });
        }
        Err(Error::config("the send rate must be above 0 recipients per second"))
    }
}

/// The bucket: tokens at a time. Below zero it holds the debt of those who wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket at time zero.
    pub fn full(rate: Rate) -> Self {
        Self { tokens: rate.burst, at: Duration::ZERO }
    }

    /// The bucket after `recipients` more have been let in, and how long they wait from `now`.
    ///
    /// Whoever comes takes its tokens at once and pays by waiting, so the order is that of
    /// arrival and no one starves.
    pub fn take(self, rate: Rate, recipients: u32, now: Duration) -> (Self, Duration) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * rate.per_second;
        let tokens = (self.tokens + gained).min(rate.burst) - f64::from(recipients);
        let wait = if tokens < 0.0 { -tokens / rate.per_second } else { 0.0 };
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
        (Self { tokens, at: self.at.max(now) }, wait)
    }

    /// The bucket after `recipients` that never went out are given back.
    pub fn give_back(self, rate: Rate, recipients: u32) -> Self {
        Self { tokens: (self.tokens + f64::from(recipients)).min(rate.burst), ..self }
    }
}

/// A bucket on the real clock, shared by all calls of a sender.
#[derive(Debug)]
pub struct Pace {
    started: Instant,
    state: Mutex<(Rate, Bucket)>,
}

impl Pace {
    /// A full bucket for `rate`.
    pub fn new(rate: Rate) -> Self {
        Self { started: Instant::now(), state: Mutex::new((rate, Bucket::full(rate))) }
    }

    /// Changes the rate for those who come from now on.
    pub fn set_rate(&self, rate: Rate) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, bucket) = *state;
        let tokens = bucket.tokens.min(rate.burst);
        *state = (rate, Bucket { tokens, ..bucket });
    }

    /// The most recipients that one call should carry: the burst, so a call never has to save
    /// up for longer than a second.
    pub fn largest_call(&self) -> usize {
        let (rate, _) = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        rate.burst as usize
    }

    /// Waits until `recipients` may go.
    pub async fn take(&self, recipients: u32) {
        let wait = self.reserve(recipients);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Gives back the tokens of recipients that never went out.
    pub fn give_back(&self, recipients: u32) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate, bucket) = *state;
        state.1 = bucket.give_back(rate, recipients);
    }

    fn reserve(&self, recipients: u32) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate, bucket) = *state;
        if rate.per_second.is_infinite() {
            return Duration::ZERO;
        }
        let (bucket, wait) = bucket.take(rate, recipients, self.started.elapsed());
        state.1 = bucket;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(value: f64) -> Duration {
        Duration::from_secs_f64(value)
    }

    #[test]
    fn a_full_bucket_lets_the_burst_through_and_then_paces() {
        let rate = Rate::new(100.0).unwrap();
        let (bucket, wait) = Bucket::full(rate).take(rate, 50, seconds(0.0));
        assert_eq!(wait, Duration::ZERO);
        let (bucket, wait) = bucket.take(rate, 50, seconds(0.0));
        assert_eq!(wait, seconds(0.5));
        let (_, wait) = bucket.take(rate, 50, seconds(0.5));
        assert_eq!(wait, seconds(0.5));
    }

    #[test]
    fn low_rates_have_small_bursts() {
        assert_eq!(Pace::new(Rate::new(14.0).unwrap()).largest_call(), 14);
        assert_eq!(Pace::new(Rate::new(0.5).unwrap()).largest_call(), 1);
        assert_eq!(Pace::new(Rate::new(10_000.0).unwrap()).largest_call(), 50);
        assert_eq!(Pace::new(Rate::UNLIMITED).largest_call(), 50);
    }

    #[test]
    fn no_window_lets_more_through_than_rate_and_burst_allow() {
        let rate = Rate::new(700.0).unwrap();
        let mut bucket = Bucket::full(rate);
        let mut now = Duration::ZERO;
        let mut sent: Vec<(Duration, u32)> = Vec::new();
        for step in 0..2_000_u32 {
            let recipients = 1 + step * 7 % 50;
            let (next, wait) = bucket.take(rate, recipients, now);
            bucket = next;
            sent.push((now + wait, recipients));
            // Some come early and queue up, some come after a pause.
            now += Duration::from_millis(u64::from(step % 11) * 8);
        }
        for start in (0..sent.len()).step_by(37) {
            let mut count = 0.0;
            for (at, recipients) in &sent[start..] {
                count += f64::from(*recipients);
                let window_s = at.saturating_sub(sent[start].0).as_secs_f64();
                assert!(count <= 50.0 + 50.0 + 700.0 * window_s + 1e-3, "{count} in {window_s} s");
            }
        }
    }

    #[test]
    fn no_limit_means_no_wait() {
        let pace = Pace::new(Rate::UNLIMITED);
        assert!((0..10_000).all(|_| pace.reserve(50).is_zero()));
    }

    #[test]
    fn tokens_given_back_can_be_taken_again() {
        let rate = Rate::new(10.0).unwrap();
        let (bucket, _) = Bucket::full(rate).take(rate, 10, seconds(0.0));
        let (_, wait) = bucket.give_back(rate, 10).take(rate, 10, seconds(0.0));
        assert_eq!(wait, Duration::ZERO);
    }

    #[test]
    fn a_rate_must_be_above_zero() {
        assert!(Rate::new(0.0).is_err());
        assert!(Rate::new(-1.0).is_err());
        assert!(Rate::new(f64::NAN).is_err());
        assert!(Rate::new(f64::INFINITY).is_ok());
    }
}
