//! Everything one simulator knows, shared by its connections and its event pump.

use std::fs::File;
use std::sync::{Mutex, MutexGuard};

use crate::accept_log;
use crate::account::Account;
use crate::clock;
use crate::faults::{FaultDraw, Faults};
use crate::identities::Identities;
use crate::options::Options;
use crate::queue::EventQueue;
use crate::quota::Quota;
use crate::random;
use crate::sigv4::{self, Verifier};
use crate::sns::Topic;
use crate::sqs::Received;
use crate::stats::Stats;
use crate::store::Store;
use crate::suppression::SuppressionList;
use crate::template::TemplateCache;

/// The state of one simulator.
pub struct State {
    pub options: Options,
    /// Random bits in every id of this simulator, so that two of them never give the same.
    pub instance: u64,
    pub verifier: Verifier,
    /// The same for requests to SQS.
    pub queue_verifier: Verifier,
    pub topic: Topic,
    pub events: EventQueue,
    pub received: Received,
    pub store: Mutex<Store>,
    account: Mutex<Account>,
    pub quota: Mutex<Quota>,
    pub faults: Mutex<FaultDraw>,
    pub identities: Mutex<Identities>,
    pub stats: Mutex<Stats>,
    pub templates: Mutex<TemplateCache>,
    pub suppressed: Mutex<SuppressionList>,
}

impl State {
    /// The state at the start. The error is a sentence: the file of the accept log cannot be opened.
    pub fn new(options: Options, topic: Topic) -> Result<State, String> {
        let instance = u64::from_le_bytes(random::unguessable());
        let verifier = |service| {
            let token = options.session_token.as_deref();
            Verifier::new(&options.access_key, &options.secret_key, token, &options.region, service)
        };
        Ok(State {
            instance,
            verifier: verifier(sigv4::SES),
            queue_verifier: verifier(sigv4::SQS),
            topic,
            events: EventQueue::default(),
            received: Received::default(),
            store: Mutex::new(empty_store(&options, instance, accept_log::open(options.accept_log_file.as_deref())?)),
            account: Mutex::new(first_account(&options)),
            quota: Mutex::new(full_quota(&options)),
            faults: Mutex::new(FaultDraw::new(Faults::default())),
            identities: Mutex::new(first_identities(&options)),
            stats: Mutex::new(Stats::default()),
            templates: Mutex::new(TemplateCache::default()),
            suppressed: Mutex::new(SuppressionList::default()),
            options,
        })
    }

    /// What the account may do now.
    pub fn account(&self) -> Account {
        *lock(&self.account)
    }

    /// Changes what the account may do from now on. The error is a sentence.
    pub fn change_account(&self, json: &[u8]) -> Result<Account, String> {
        let mut account = lock(&self.account);
        *account = account.changed(json)?;
        let Account { max_send_rate, max_24_hour_send, .. } = *account;
        lock(&self.quota).grant(max_send_rate, self.options.burst_seconds, max_24_hour_send, clock::now_ms());
        Ok(*account)
    }

    /// How far a signature's time may be from ours, if that matters.
    pub fn signature_max_age_ms(&self) -> Option<u64> {
        let faults = lock(&self.faults);
        let max_age_ms = faults.menu.signature_max_age_ms.unwrap_or(self.options.signature_max_age_ms);
        faults.menu.skew_check.then_some(max_age_ms)
    }

    /// Back to the start, except that a confirmed subscription stays confirmed.
    pub fn reset(&self) {
        let mut store = lock(&self.store);
        let file = store.log_file.take();
        *store = empty_store(&self.options, self.instance, file);
        drop(store);
        *lock(&self.account) = first_account(&self.options);
        *lock(&self.quota) = full_quota(&self.options);
        *lock(&self.faults) = FaultDraw::new(Faults::default());
        *lock(&self.identities) = first_identities(&self.options);
        *lock(&self.stats) = Stats::default();
        *lock(&self.suppressed) = SuppressionList::default();
        self.received.clear(&self.events);
        self.events.clear();
    }
}

fn empty_store(options: &Options, instance: u64, log_file: Option<File>) -> Store {
    let mut store = Store::new(instance, options.retain_messages, options.retain_bytes, options.accept_log_bytes);
    store.log_file = log_file;
    store
}

fn first_account(options: &Options) -> Account {
    let Options { max_send_rate, max_24_hour_send, .. } = *options;
    Account { max_send_rate, max_24_hour_send, sending_enabled: true }
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
