//! The two sending quotas, both counted in recipients.

use std::collections::VecDeque;

/// Minutes in the rolling day.
const DAY_MINUTES: u64 = 24 * 60;

/// Recipients per second with a small burst, and recipients per rolling 24 hours.
pub struct Quota {
    rate: f64,
    burst: f64,
    daily: f64,
    tokens: f64,
    refilled_ms: u64,
    minutes: VecDeque<(u64, u64)>,
    sent: u64,
}

/// Which quota a send would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// Recipients per second.
    Rate,
    /// Recipients per 24 hours.
    Daily,
}

impl Quota {
    /// `rate` in recipients per second, `burst_seconds` of it at once, `daily` recipients (-1 for no limit).
    pub fn new(rate: f64, burst_seconds: f64, daily: f64) -> Quota {
        let burst = (rate * burst_seconds).max(1.0);
        Quota { rate, burst, daily, tokens: burst, refilled_ms: 0, minutes: VecDeque::new(), sent: 0 }
    }

    /// Other grants from now on; what was sent stays sent.
    pub fn grant(&mut self, rate: f64, burst_seconds: f64, daily: f64, now_ms: u64) {
        self.refill(now_ms);
        (self.rate, self.daily) = (rate, daily);
        self.burst = (rate * burst_seconds).max(1.0);
        self.tokens = self.tokens.min(self.burst);
    }

    /// Takes `recipients`, of which `counted` (all but the mailbox simulator's) debit the day. All or nothing.
    pub fn take(&mut self, recipients: u64, counted: u64, now_ms: u64) -> Result<(), Exceeded> {
        self.refill(now_ms);
        self.expire(now_ms);
        if self.daily >= 0.0 && (self.sent + counted) as f64 > self.daily {
            return Err(Exceeded::Daily);
        }
        if self.tokens < recipients as f64 {
            return Err(Exceeded::Rate);
        }
        self.tokens -= recipients as f64;
        self.record(counted, now_ms / 60_000);
        Ok(())
    }

    /// Recipients counted in the last 24 hours.
    pub fn sent_last_24_hours(&mut self, now_ms: u64) -> u64 {
        self.expire(now_ms);
        self.sent
    }

    fn refill(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.refilled_ms);
        self.tokens = (self.tokens + self.rate * elapsed_ms as f64 / 1000.0).min(self.burst);
        self.refilled_ms = now_ms;
    }

    fn record(&mut self, counted: u64, minute: u64) {
        self.sent += counted;
        match self.minutes.back_mut() {
            Some((last, count)) if *last == minute => *count += counted,
            _ => self.minutes.push_back((minute, counted)),
        }
    }

    fn expire(&mut self, now_ms: u64) {
        let minute = now_ms / 60_000;
        while let Some((first, count)) = self.minutes.front().copied() {
            if first + DAY_MINUTES > minute {
                break;
            }
            self.minutes.pop_front();
            self.sent -= count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_allows_a_burst_and_then_refills() {
        let mut quota = Quota::new(10.0, 1.0, -1.0);
        assert_eq!(quota.take(10, 10, 1_000_000), Ok(()));
        assert_eq!(quota.take(1, 1, 1_000_000), Err(Exceeded::Rate));
        assert_eq!(quota.take(5, 5, 1_000_500), Ok(()));
        assert_eq!(quota.take(1, 1, 1_000_500), Err(Exceeded::Rate));
        assert_eq!(quota.take(11, 11, 9_000_000), Err(Exceeded::Rate), "more than a burst never passes");
        assert_eq!(quota.take(10, 10, 9_000_000), Ok(()));
    }

    #[test]
    fn a_new_grant_holds_at_once_and_forgets_nothing() {
        let mut quota = Quota::new(10.0, 1.0, -1.0);
        assert_eq!(quota.take(10, 10, 1_000_000), Ok(()));
        quota.grant(100.0, 1.0, 30.0, 1_000_000);
        assert_eq!(quota.take(1, 1, 1_000_000), Err(Exceeded::Rate));
        assert_eq!(quota.take(20, 20, 1_000_200), Ok(()));
        assert_eq!(quota.take(1, 1, 1_001_000), Err(Exceeded::Daily));
        quota.grant(5.0, 1.0, -1.0, 2_000_000);
        assert_eq!(quota.take(6, 6, 2_000_000), Err(Exceeded::Rate));
        assert_eq!(quota.take(5, 5, 2_000_000), Ok(()));
    }

    #[test]
    fn the_day_rolls_and_spares_the_mailbox_simulator() {
        let mut quota = Quota::new(1000.0, 1.0, 20.0);
        assert_eq!(quota.take(20, 20, 0), Ok(()));
        assert_eq!(quota.take(1, 1, 60_000), Err(Exceeded::Daily));
        assert_eq!(quota.take(5, 0, 60_000), Ok(()));
        assert_eq!(quota.sent_last_24_hours(60_000), 20);
        assert_eq!(quota.sent_last_24_hours(86_400_000), 0);
        assert_eq!(quota.take(20, 20, 86_400_000), Ok(()));
    }
}
