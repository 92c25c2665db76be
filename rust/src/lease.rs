//! The deadline after which nothing may be written any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Now, in nanoseconds of CLOCK_BOOTTIME (of CLOCK_MONOTONIC where a system lacks it), moved on by every jump that the
/// wall clock made ahead of it: a virtual machine that its host paused wakes with a boot clock that stood still, and only
/// the wall clock, once it is set right, tells how long. A jump that was none merely ends a lease early.
pub fn now_ns() -> u64 {
    static JUMPS: Mutex<Jumps> = Mutex::new(Jumps::NONE);
    #[cfg(target_os = "linux")]
    const BOOT: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const BOOT: libc::clockid_t = libc::CLOCK_MONOTONIC;
    // An unreadable clock must look like a lease that has ended.
    let (Some(boot_ns), Some(wall_ns)) = (read(BOOT), read(libc::CLOCK_REALTIME)) else { return u64::MAX };
    let mut jumps = JUMPS.lock().unwrap_or_else(PoisonError::into_inner);
    boot_ns.saturating_add(jumps.seen(boot_ns, wall_ns))
}

fn read(clock: libc::clockid_t) -> Option<u64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which the call only fills.
    let status = unsafe { libc::clock_gettime(clock, &mut now) };
    (status == 0).then_some(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

/// What two reads of the clocks may differ by without anything having jumped: slewing, and a thread that waited in between.
const JUMP_MIN_NS: u64 = 1_000_000_000;

/// How far the wall clock has jumped ahead of the boot clock, in all.
struct Jumps {
    /// Wall minus boot when they were looked at last; `None` before.
    offset_ns: Option<u64>,
    total_ns: u64,
}

impl Jumps {
    const NONE: Self = Self { offset_ns: None, total_ns: 0 };

    /// All jumps up to this look.
    fn seen(&mut self, boot_ns: u64, wall_ns: u64) -> u64 {
        let offset_ns = wall_ns.saturating_sub(boot_ns);
        let before_ns = self.offset_ns.unwrap_or(offset_ns);
        match offset_ns.checked_sub(before_ns) {
            Some(jump_ns) if jump_ns > JUMP_MIN_NS => {
                self.total_ns = self.total_ns.saturating_add(jump_ns);
                self.offset_ns = Some(offset_ns);
            }
            // A small step ahead is kept in mind, so that many of them add up; one back is where jumps count from now on.
            Some(_) => self.offset_ns = Some(before_ns),
            None => self.offset_ns = Some(offset_ns),
        }
        self.total_ns
    }
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
    fn a_machine_that_stood_still_has_lost_its_leases() {
        const SECOND: u64 = 1_000_000_000;
        let mut jumps = Jumps::NONE;
        assert_eq!(jumps.seen(100 * SECOND, 5_000 * SECOND), 0);
        assert_eq!(jumps.seen(110 * SECOND, 5_010 * SECOND), 0);
        // An hour passes outside, a moment inside.
        assert_eq!(jumps.seen(111 * SECOND, 8_611 * SECOND), 3_600 * SECOND);
        assert_eq!(jumps.seen(120 * SECOND, 8_620 * SECOND), 3_600 * SECOND);
        // The wall clock is set back, and ahead again: no time was lost by the first, some may have been by the second.
        assert_eq!(jumps.seen(121 * SECOND, 8_600 * SECOND), 3_600 * SECOND);
        assert_eq!(jumps.seen(122 * SECOND, 8_631 * SECOND), 3_630 * SECOND);
    }

    #[test]
    fn a_clock_that_is_slewed_jumps_in_the_end() {
        let mut jumps = Jumps::NONE;
        let total = (0..50).map(|step| jumps.seen(0, 1_000_000_000_000 + step * 100_000_000)).last();
        assert!(total.unwrap() >= 4_000_000_000 - JUMP_MIN_NS);
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
