//! What the account may do, and how that changes while the simulator runs.

use serde::{Deserialize, Serialize};

/// What `GET` and `PUT /_simulator/account` speak of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Account {
    /// Recipients per second.
    pub max_send_rate: f64,
    /// Recipients per rolling 24 hours, -1 for no limit.
    pub max_24_hour_send: f64,
    /// Off refuses every send, as Amazon does when it or its customer pauses the account.
    pub sending_enabled: bool,
}

/// The members to change; the others stay.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    max_send_rate: Option<f64>,
    max_24_hour_send: Option<f64>,
    sending_enabled: Option<bool>,
}

impl Account {
    /// The account after a change in JSON. The error is a sentence.
    pub fn changed(self, json: &[u8]) -> Result<Account, String> {
        let change: Change = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let changed = Account {
            max_send_rate: change.max_send_rate.unwrap_or(self.max_send_rate),
            max_24_hour_send: change.max_24_hour_send.unwrap_or(self.max_24_hour_send),
            sending_enabled: change.sending_enabled.unwrap_or(self.sending_enabled),
        };
        match problem_of(changed.max_send_rate, changed.max_24_hour_send) {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(changed),
        }
    }
}

/// Why an account cannot have these quotas.
pub fn problem_of(max_send_rate: f64, max_24_hour_send: f64) -> Option<&'static str> {
    if max_send_rate.is_nan() || max_send_rate <= 0.0 {
        Some("max_send_rate must be above 0")
    } else if max_24_hour_send != -1.0 && (max_24_hour_send.is_nan() || max_24_hour_send < 0.0) {
        Some("max_24_hour_send must be -1 or at least 0")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_what_it_changes() {
        let account = Account { max_send_rate: 14.0, max_24_hour_send: -1.0, sending_enabled: true };
        assert_eq!(account.changed(b"{}"), Ok(account));
        let paused = Account { sending_enabled: false, ..account };
        assert_eq!(account.changed(br#"{"sending_enabled":false}"#), Ok(paused));
        let granted = Account { max_send_rate: 100.0, max_24_hour_send: 50_000.0, ..paused };
        assert_eq!(paused.changed(br#"{"max_send_rate":100,"max_24_hour_send":50000}"#), Ok(granted));
        for bad in ["", r#"{"max_send_rate":0}"#, r#"{"max_24_hour_send":-0.5}"#, r#"{"sending":true}"#] {
            assert!(account.changed(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
