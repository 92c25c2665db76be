//! Which addresses and domains may be sent from.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::address;
use crate::error::ApiError;

/// The identities of the account.
pub struct Identities {
    any: bool,
    verified: Vec<String>,
    created: BTreeMap<String, u64>,
    mail_from: BTreeMap<String, MailFrom>,
    steered: BTreeMap<String, Steering>,
    delay_ms: u64,
}

/// What is known of one identity.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// A domain, as opposed to one address.
    pub is_domain: bool,
    /// Whether mail may be sent from it.
    pub is_verified: bool,
    /// Where the search for its DNS records stands.
    pub status: Status,
    /// Why the last search failed.
    pub error: Option<String>,
    /// The three DKIM tokens of a domain.
    pub tokens: Vec<String>,
    /// Its own MAIL FROM, if it has one.
    pub mail_from: Option<MailFrom>,
}

/// The domain in MAIL FROM of an identity's mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailFrom {
    pub domain: String,
    pub status: Status,
    /// `USE_DEFAULT_VALUE` or `REJECT_MESSAGE`.
    pub on_mx_failure: String,
    ready_at_ms: u64,
}

/// Where a search for DNS records stands.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Pending,
    Success,
    Failed,
    TemporaryFailure,
    NotStarted,
}

/// What becomes of an identity, instead of what time brings about.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Steering {
    identity: String,
    dkim: Option<Status>,
    error: Option<String>,
    mail_from: Option<Status>,
}

impl Identities {
    /// `verified` may hold `*` for any; created ones become verified after `delay_ms`.
    pub fn new(verified: &[String], delay_ms: u64) -> Identities {
        Identities {
            any: verified.iter().any(|name| name == "*"),
            verified: verified.iter().map(|name| name.to_ascii_lowercase()).collect(),
            created: BTreeMap::new(),
            mail_from: BTreeMap::new(),
            steered: BTreeMap::new(),
            delay_ms,
        }
    }

    /// Adds an identity that is not there yet.
    pub fn create(&mut self, name: &str, now_ms: u64) -> Result<Identity, ApiError> {
        check_name(name)?;
        let key = name.to_ascii_lowercase();
        if self.created.contains_key(&key) || self.verified.contains(&key) {
            return Err(ApiError::new(400, "AlreadyExistsException", format!("Email identity {name} already exist.")));
        }
        self.created.insert(key, now_ms + self.delay_ms);
        self.get(name, now_ms)
    }

    /// Looks one up; with `*` every well-formed one exists.
    pub fn get(&self, name: &str, now_ms: u64) -> Result<Identity, ApiError> {
        let key = name.to_ascii_lowercase();
        let Some(is_verified) =
            self.is_verified(&key, now_ms).or((self.any && check_name(name).is_ok()).then_some(true))
        else {
            return Err(ApiError::not_found(format!("Email identity {name} does not exist.")));
        };
        let steering = self.steered.get(&key);
        let status = if is_verified { Status::Success } else { Status::Pending };
        let mail_from = self.mail_from.get(&key).map(|known| {
            let by_time = if now_ms >= known.ready_at_ms { Status::Success } else { Status::Pending };
            MailFrom { status: steering.and_then(|steering| steering.mail_from).unwrap_or(by_time), ..known.clone() }
        });
        let is_domain = !key.contains('@');
        Ok(Identity {
            is_domain,
            is_verified,
            status: steering.and_then(|steering| steering.dkim).unwrap_or(status),
            error: steering.and_then(|steering| steering.error.clone()),
            tokens: if is_domain { dkim_tokens(&key) } else { Vec::new() },
            mail_from,
        })
    }

    /// Sets or clears the domain in MAIL FROM; its records are looked for anew.
    pub fn set_mail_from(
        &mut self,
        name: &str,
        domain: Option<&str>,
        on_mx_failure: &str,
        now_ms: u64,
    ) -> Result<(), ApiError> {
        self.get(name, now_ms)?;
        if !["USE_DEFAULT_VALUE", "REJECT_MESSAGE"].contains(&on_mx_failure) {
            return Err(ApiError::bad_request(format!("Invalid BehaviorOnMxFailure {on_mx_failure}.")));
        }
        let key = name.to_ascii_lowercase();
        let Some(domain) = domain else {
            self.mail_from.remove(&key);
            return Ok(());
        };
        let domain = domain.to_ascii_lowercase();
        let parent = if key.contains('@') { address::domain(&key) } else { &key };
        check_name(&domain)?;
        if domain.contains('@') || !domain.strip_suffix(parent).is_some_and(|label| label.ends_with('.')) {
            return Err(ApiError::bad_request(format!(
                "Provided MAIL-FROM domain {domain} is not subdomain of {parent}."
            )));
        }
        if let Some(steering) = self.steered.get_mut(&key) {
            steering.mail_from = None;
        }
        let on_mx_failure = on_mx_failure.to_owned();
        let ready_at_ms = now_ms + self.delay_ms;
        self.mail_from.insert(key, MailFrom { domain, status: Status::Pending, on_mx_failure, ready_at_ms });
        Ok(())
    }

    /// Sets Easy DKIM up anew, which has the same tokens; the records of an identity that failed are looked for once more.
    pub fn look_again(&mut self, name: &str, now_ms: u64) -> Result<Identity, ApiError> {
        let identity = self.get(name, now_ms)?;
        if !identity.is_domain {
            return Err(ApiError::bad_request(format!("{name} is not a domain.")));
        }
        let key = name.to_ascii_lowercase();
        if identity.status == Status::Failed {
            if let Some(steering) = self.steered.get_mut(&key) {
                (steering.dkim, steering.error) = (None, None);
            }
            self.created.insert(key, now_ms + self.delay_ms);
        }
        self.get(name, now_ms)
    }

    /// Lets a test say what becomes of an identity; what it does not name is left to time.
    pub fn steer(&mut self, json: &[u8], now_ms: u64) -> Result<Steering, String> {
        let steering: Steering = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        self.get(&steering.identity, now_ms).map_err(|error| error.message)?;
        self.steered.insert(steering.identity.to_ascii_lowercase(), steering.clone());
        Ok(steering)
    }

    /// Whether a bare address may be sent from: it, its domain, or a parent of its domain is verified.
    pub fn may_send(&self, address: &str, now_ms: u64) -> bool {
        if self.any && self.steered.is_empty() {
            return true;
        }
        let address = address.to_ascii_lowercase();
        let verified = |name: &str| self.is_verified(name, now_ms);
        let mut known = verified(&address);
        let mut domain = address::domain(&address);
        while known != Some(true) && !domain.is_empty() {
            known = verified(domain).or(known);
            domain = domain.split_once('.').map_or("", |(_, parent)| parent);
        }
        known.unwrap_or(self.any)
    }

    /// Of an identity that is known by name.
    fn is_verified(&self, key: &str, now_ms: u64) -> Option<bool> {
        match self.steered.get(key).and_then(|steering| steering.dkim) {
            // Who was verified stays so while the records cannot be looked for.
            Some(status) => Some(matches!(status, Status::Success | Status::TemporaryFailure)),
            None => match self.created.get(key) {
                Some(verified_at_ms) => Some(now_ms >= *verified_at_ms),
                None => self.verified.iter().any(|known| known == key).then_some(true),
            },
        }
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    // A domain is checked as the domain of a made-up address: the rules are the same.
    let as_address = if name.contains('@') { name.to_owned() } else { format!("a@{name}") };
    match address::bare(&as_address) {
        Ok(bare) if bare == as_address => Ok(()),
        _ => Err(ApiError::bad_request(format!("Invalid email identity {name}."))),
    }
}

fn dkim_tokens(domain: &str) -> Vec<String> {
    let token = |n: u8| {
        let hash = digest(&SHA256, format!("{n}.{domain}").as_bytes());
        data_encoding::BASE32_NOPAD.encode(&hash.as_ref()[..20]).to_ascii_lowercase()
    };
    (1..=3).map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities(verified: &[&str]) -> Identities {
        let verified: Vec<String> = verified.iter().map(|name| (*name).to_owned()).collect();
        Identities::new(&verified, 50)
    }

    #[test]
    fn an_address_is_covered_by_itself_its_domain_and_parents() {
        let known = identities(&["example.com", "one@other.org"]);
        assert!(known.may_send("a@example.com", 0));
        assert!(known.may_send("a@News.Example.com", 0));
        assert!(known.may_send("one@other.org", 0));
        assert!(!known.may_send("two@other.org", 0));
        assert!(!known.may_send("a@notexample.com", 0));
        assert!(identities(&["*"]).may_send("a@anything.org", 0));
    }

    #[test]
    fn a_created_identity_is_verified_after_the_delay() {
        let mut known = identities(&[]);
        assert_eq!(known.get("new.org", 0).unwrap_err().status, 404);
        let identity = known.create("new.org", 1000).unwrap();
        assert!(identity.is_domain && !identity.is_verified && identity.tokens.len() == 3);
        assert!(!known.may_send("a@new.org", 1049));
        assert!(known.may_send("a@new.org", 1050));
        assert!(known.get("new.org", 1050).unwrap().is_verified);
        assert_eq!(known.create("NEW.org", 2000).unwrap_err().kind, "AlreadyExistsException");
        assert_eq!(known.create("no domain", 0).unwrap_err().status, 400);
    }

    #[test]
    fn mail_from_lies_below_its_identity_and_takes_time() {
        let mut known = identities(&["example.com"]);
        known.set_mail_from("example.com", Some("Bounce.example.com"), "USE_DEFAULT_VALUE", 0).unwrap();
        let state = |known: &Identities, now_ms| known.get("example.com", now_ms).unwrap().mail_from.unwrap().status;
        assert_eq!((state(&known, 49), state(&known, 50)), (Status::Pending, Status::Success));
        for bad in ["example.com", "bounce.other.com", "notexample.com", "a b.example.com", "a@example.com"] {
            let refused = known.set_mail_from("example.com", Some(bad), "USE_DEFAULT_VALUE", 0).unwrap_err();
            assert_eq!(refused.status, 400, "{bad}");
        }
        assert_eq!(known.set_mail_from("example.com", None, "SHRUG", 0).unwrap_err().status, 400);
        assert_eq!(known.set_mail_from("other.com", None, "REJECT_MESSAGE", 0).unwrap_err().status, 404);
        known.set_mail_from("example.com", None, "USE_DEFAULT_VALUE", 0).unwrap();
        assert_eq!(known.get("example.com", 0).unwrap().mail_from, None);
    }

    #[test]
    fn a_test_may_say_what_becomes_of_an_identity() {
        let mut known = identities(&["example.com"]);
        known.steer(br#"{"identity":"Example.com","dkim":"FAILED","error":"HOST_NOT_FOUND"}"#, 0).unwrap();
        let failed = known.get("example.com", 0).unwrap();
        assert_eq!((failed.is_verified, failed.status), (false, Status::Failed));
        assert_eq!(failed.error.as_deref(), Some("HOST_NOT_FOUND"));
        assert!(!known.may_send("a@news.example.com", 0));
        known.look_again("example.com", 100).unwrap();
        assert_eq!(known.get("example.com", 149).unwrap().status, Status::Pending);
        assert!(known.may_send("a@example.com", 150));
        known.steer(br#"{"identity":"example.com","dkim":"TEMPORARY_FAILURE"}"#, 150).unwrap();
        assert!(known.may_send("a@example.com", 150));
        assert!(known.steer(br#"{"identity":"other.com","dkim":"FAILED"}"#, 0).is_err());
        assert!(known.steer(br#"{"identity":"example.com","dkim":"BROKEN"}"#, 0).is_err());
    }
}
