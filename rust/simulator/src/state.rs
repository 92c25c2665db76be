//! Everything one simulator knows, shared by its connections and its event pump.

use std::sync::{Mutex, MutexGuard};

use crate::faults::{FaultDraw, Faults};
use crate::identities::Identities;
use crate::options::Options;
use crate::queue::EventQueue;
use crate::quota::Quota;
use crate::random;
use crate::sigv4::Verifier;
use crate::sns::Topic;
use crate::stats::Stats;
use crate::store::Store;
use crate::template::TemplateCache;

/// The state of one simulator.
pub struct State {
    pub options: Options,
    /// Random bits in every id of this simulator, so that two of them never give the same.
    pub instance: u64,
    pub verifier: Verifier,
    pub topic: Topic,
    pub events: EventQueue,
    pub store: Mutex<Store>,
    pub quota: Mutex<Quota>,
    pub faults: Mutex<FaultDraw>,
    pub identities: Mutex<Identities>,
    pub stats: Mutex<Stats>,
    pub templates: Mutex<TemplateCache>,
}

impl State {
    /// The state at the start.
    pub fn new(options: Options, topic: Topic) -> State {
        let instance = u64::from_le_bytes(random::unguessable());
        State {
            instance,
            verifier: Verifier::new(
                &options.access_key,
                &options.secret_key,
                options.session_token.as_deref(),
                &options.region,
            ),
            topic,
            events: EventQueue::default(),
            store: Mutex::new(empty_store(&options, instance)),
            quota: Mutex::new(full_quota(&options)),
            faults: Mutex::new(FaultDraw::new(Faults::default())),
            identities: Mutex::new(first_identities(&options)),
            stats: Mutex::new(Stats::default()),
            templates: Mutex::new(TemplateCache::default()),
            options,
        }
    }

    /// Back to the start, except that a confirmed subscription stays confirmed.
    pub fn reset(&self) {
        *lock(&self.store) = empty_store(&self.options, self.instance);
        *lock(&self.quota) = full_quota(&self.options);
        *lock(&self.faults) = FaultDraw::new(Faults::default());
        *lock(&self.identities) = first_identities(&self.options);
        *lock(&self.stats) = Stats::default();
        self.events.clear();
    }
}

fn empty_store(options: &Options, instance: u64) -> Store {
    Store::new(instance, options.retain_messages, options.retain_bytes, options.accept_log_bytes)
}

fn full_quota(options: &Options) -> Quota {
    Quota::new(options.max_send_rate, options.burst_seconds, options.max_24_hour_send)
}

fn first_identities(options: &Options) -> Identities {
    Identities::new(&options.verified_identities, options.verification_delay_ms)
}

/// Locks, also after another thread panicked: a counter off by one is better than a simulator that is gone.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
