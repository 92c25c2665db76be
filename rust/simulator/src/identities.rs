//! Which addresses and domains may be sent from.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};

use crate::address;
use crate::error::ApiError;

/// The identities of the account.
pub struct Identities {
    any: bool,
    verified: Vec<String>,
    created: BTreeMap<String, u64>,
    delay_ms: u64,
}

/// What is known of one identity.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// A domain, as opposed to one address.
    pub is_domain: bool,
    /// Whether mail may be sent from it.
    pub is_verified: bool,
    /// The three DKIM tokens of a domain.
    pub tokens: Vec<String>,
}

impl Identities {
    /// `verified` may hold `*` for any; created ones become verified after `delay_ms`.
    pub fn new(verified: &[String], delay_ms: u64) -> Identities {
        Identities {
            any: verified.iter().any(|name| name == "*"),
            verified: verified.iter().map(|name| name.to_ascii_lowercase()).collect(),
            created: BTreeMap::new(),
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
        let is_verified = match self.created.get(&key) {
            Some(verified_at_ms) => now_ms >= *verified_at_ms,
            None if self.verified.contains(&key) => true,
            None if self.any && check_name(name).is_ok() => true,
            None => {
                return Err(ApiError::not_found(format!("Email identity {name} does not exist.")));
            }
        };
        let is_domain = !key.contains('@');
        let tokens = if is_domain { dkim_tokens(&key) } else { Vec::new() };
        Ok(Identity { is_domain, is_verified, tokens })
    }

    /// Whether a bare address may be sent from: it, its domain, or a parent of its domain is verified.
    pub fn may_send(&self, address: &str, now_ms: u64) -> bool {
        if self.any {
            return true;
        }
        let address = address.to_ascii_lowercase();
        let verified = |name: &str| {
            self.verified.iter().any(|known| known == name)
                || self.created.get(name).is_some_and(|at_ms| now_ms >= *at_ms)
        };
        if verified(&address) {
            return true;
        }
        let mut domain = address::domain(&address);
        while !domain.is_empty() {
            if verified(domain) {
                return true;
            }
            domain = domain.split_once('.').map_or("", |(_, parent)| parent);
        }
        false
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
}
