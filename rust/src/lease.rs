//! The deadline after which nothing may be written any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A deadline in nanoseconds of CLOCK_BOOTTIME, shared with whoever renews the lease.
///
/// CLOCK_BOOTTIME counts time in suspend, so a worker that slept through its lease knows it.
#[derive(Debug, Clone)]
pub struct Lease {
    deadline_ns: Arc<AtomicU64>,
}

impl Lease {
    /// A lease until `deadline_ns`.
    pub fn new(deadline_ns: u64) -> Self {
        Self { deadline_ns: Arc::new(AtomicU64::new(deadline_ns)) }
    }

    /// A renewal: moves the deadline later, never earlier.
    pub fn extend(&self, deadline_ns: u64) {
        self.deadline_ns.fetch_max(deadline_ns, Ordering::SeqCst);
    }

    /// Whether something that takes at most `duration` from now ends before the deadline.
    pub fn covers(&self, duration: Duration) -> bool {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        now_ns().saturating_add(duration_ns) < self.deadline_ns.load(Ordering::SeqCst)
    }
}

/// Now, in nanoseconds of CLOCK_BOOTTIME (of CLOCK_MONOTONIC where a system lacks it).
pub fn now_ns() -> u64 {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which the call only fills.
    let status = unsafe { libc::clock_gettime(CLOCK, &mut now) };
    // An unreadable clock must look like a lease that has ended.
    if status == 0 { now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64 } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_covers_what_ends_before_it() {
        let lease = Lease::new(now_ns() + 1_000_000_000);
        assert!(lease.covers(Duration::from_millis(100)));
        assert!(!lease.covers(Duration::from_secs(2)));
    }

    #[test]
    fn renewal_only_raises_and_is_shared() {
        let lease = Lease::new(now_ns() + 1_000_000_000);
        lease.clone().extend(now_ns() + 60_000_000_000);
        assert!(lease.covers(Duration::from_secs(50)));
        lease.extend(0);
        assert!(lease.covers(Duration::from_secs(50)));
        assert!(!lease.covers(Duration::MAX));
    }
}
