//! What can be set from outside, each with a default.

use std::path::PathBuf;

use serde::Deserialize;

use crate::account;

/// The settings of one simulator. Unknown members are an error, so that a typing mistake cannot pass.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Address to listen on. Default `127.0.0.1`.
    pub host: String,
    /// Port to listen on; 0 lets the system choose. Default 0.
    pub port: u16,
    /// Directory of `ca.pem` and the keys; made if absent, its contents are reused. Default `simulator`.
    pub directory: PathBuf,
    /// The one accepted access key. Default `mailrail-simulator`.
    pub access_key: String,
    /// Its secret key. Default `mailrail-simulator-secret`.
    pub secret_key: String,
    /// The session token that must come along, if any. Default none, and then a request with one is refused.
    pub session_token: Option<String>,
    /// Region of the signature scope and the ARNs. Default `us-east-1`.
    pub region: String,
    /// Twelve digits, used in ARNs and events. Default `123456789012`.
    pub account_id: String,
    /// Recipients per second. Default 1,000,000.
    pub max_send_rate: f64,
    /// How many seconds' worth of recipients a burst may take. Default 1.
    pub burst_seconds: f64,
    /// Recipients per rolling 24 hours, -1 for no limit. Default -1.
    pub max_24_hour_send: f64,
    /// Whether an exceeded quota refuses the whole call or, in a bulk call, each entry beyond it. Default `call`.
    pub throttle: Throttle,
    /// Verified addresses and domains; `*` means any. Default `["*"]`.
    pub verified_identities: Vec<String>,
    /// How far a signature's time may be from ours, in milliseconds, until the faults say otherwise. Default 300,000, as
    /// Amazon documents it.
    pub signature_max_age_ms: u64,
    /// Milliseconds until a created identity is verified. Default 0.
    pub verification_delay_ms: u64,
    /// Names of the configuration sets that exist. Default `["mailrail"]`.
    pub configuration_sets: Vec<String>,
    /// Where SNS posts, `http://…`; null publishes nothing. Default null.
    pub events_url: Option<String>,
    /// Name of the SQS queue that is subscribed to the topic, instead of an `events_url`; null means none. Default null.
    pub event_queue: Option<String>,
    /// How long a message that was received stays hidden, in milliseconds. Default 30,000.
    pub queue_visibility_ms: u64,
    /// The topic that every configuration set publishes to. Default `arn:aws:sns:us-east-1:123456789012:mailrail`.
    pub topic_arn: String,
    /// How long the subscriber may take to answer a notification, in milliseconds. Default 15,000, as with SNS.
    pub events_timeout_ms: u64,
    /// The longest pause before a notification is tried again, in milliseconds. Default 5,000.
    pub events_pause_max_ms: u64,
    /// The event types published. Default DELIVERY, BOUNCE, COMPLAINT and RENDERING_FAILURE.
    pub event_types: Vec<EventType>,
    /// Domains that real addresses of bounce at, and that they complain from. Default none.
    pub bouncing_domains: Vec<String>,
    pub complaining_domains: Vec<String>,
    /// How many of the latest mails can be read back. Default 50,000.
    pub retain_messages: usize,
    /// The most bytes that mails kept for reading back may take. Default 256 MiB.
    pub retain_bytes: usize,
    /// The most bytes of the log of accepted mails; the oldest go first. Default 1 GiB, about ten million mails.
    pub accept_log_bytes: usize,
    /// A file to which every accepted mail is appended as a line of JSON before its call is answered. A reset starts the
    /// numbers in it anew. Default none.
    pub accept_log_file: Option<PathBuf>,
    /// Whether a lone `}}` in an inline template passes. Amazon documents nothing, so the default is to refuse it.
    pub allow_lone_closing_braces: bool,
    /// Connections that stay silent this long are closed, in milliseconds. Default 60,000, as Amazon does.
    pub idle_timeout_ms: u64,
    /// Threads that serve requests. Default 1.
    pub threads: usize,
}

/// What an exceeded quota refuses.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Throttle {
    /// The whole call, with status 429 or 400.
    Call,
    /// Each bulk entry beyond the quota, with its status in the answer.
    Entry,
}

/// The names of the SES event types, as a configuration set's event destination spells them.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventType {
    Send,
    Reject,
    Bounce,
    Complaint,
    Delivery,
    Open,
    Click,
    RenderingFailure,
    DeliveryDelay,
    Subscription,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            host: "127.0.0.1".into(),
            port: 0,
            directory: "simulator".into(),
            access_key: "mailrail-simulator".into(),
            secret_key: "mailrail-simulator-secret".into(),
            session_token: None,
            region: "us-east-1".into(),
            account_id: "123456789012".into(),
            max_send_rate: 1_000_000.0,
            burst_seconds: 1.0,
            max_24_hour_send: -1.0,
            throttle: Throttle::Call,
            verified_identities: vec!["*".into()],
            signature_max_age_ms: 300_000,
            verification_delay_ms: 0,
            configuration_sets: vec!["mailrail".into()],
            events_url: None,
            event_queue: None,
            queue_visibility_ms: 30_000,
            events_timeout_ms: 15_000,
            events_pause_max_ms: 5_000,
            topic_arn: "arn:aws:sns:us-east-1:123456789012:mailrail".into(),
            event_types: vec![
                EventType::Delivery,
                EventType::Bounce,
                EventType::Complaint,
                EventType::RenderingFailure,
            ],
            bouncing_domains: Vec::new(),
            complaining_domains: Vec::new(),
            retain_messages: 50_000,
            retain_bytes: 256 << 20,
            accept_log_bytes: 1 << 30,
            accept_log_file: None,
            allow_lone_closing_braces: false,
            idle_timeout_ms: 60_000,
            threads: 1,
        }
    }
}

impl Options {
    /// Reads options from JSON bytes; an empty slice gives the defaults. The error names the bad member.
    pub fn read(json: &[u8]) -> Result<Options, String> {
        let json = if json.is_empty() { b"{}" } else { json };
        let options: Options = serde_json::from_slice(json).map_err(|error| format!("simulator options: {error}"))?;
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), String> {
        let problem = if let Some(problem) = account::problem_of(self.max_send_rate, self.max_24_hour_send) {
            problem
        } else if self.burst_seconds.is_nan() || self.burst_seconds <= 0.0 {
            "burst_seconds must be above 0"
        } else if self.account_id.len() != 12 || !self.account_id.bytes().all(|b| b.is_ascii_digit()) {
            "account_id must have twelve digits"
        } else if !self.topic_arn.starts_with("arn:aws") {
            "topic_arn must be an ARN"
        } else if self.events_url.as_ref().is_some_and(|url| !url.starts_with("http://")) {
            "events_url must start with http://"
        } else if self.events_url.is_some() && self.event_queue.is_some() {
            "events_url and event_queue exclude each other"
        } else if self.threads == 0 {
            "threads must be at least 1"
        } else if self.idle_timeout_ms == 0 {
            "idle_timeout_ms must be above 0"
        } else if self.events_timeout_ms == 0 || self.events_pause_max_ms == 0 {
            "events_timeout_ms and events_pause_max_ms must be above 0"
        } else {
            return Ok(());
        };
        Err(format!("simulator options: {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_default() {
        let options = Options::read(b"").unwrap();
        assert_eq!(options.configuration_sets, ["mailrail"]);
        assert_eq!(options.retain_messages, 50_000);
    }

    #[test]
    fn the_options_of_the_supervisor_are_known() {
        let json =
            br#"{"host":"127.0.0.1","port":1,"directory":"d","access_key":"a","secret_key":"s","region":"eu-west-1",
            "max_send_rate":10.5,"max_24_hour_send":-1,"verified_identities":["*"],"configuration_sets":["mailrail"],
            "events_url":null,"topic_arn":"arn:aws:sns:eu-west-1:123456789012:t",
            "event_types":["DELIVERY","BOUNCE","COMPLAINT","RENDERING_FAILURE"],"retain_messages":5}"#;
        assert_eq!(Options::read(json).unwrap().max_send_rate, 10.5);
    }

    #[test]
    fn unknown_and_impossible_options_are_errors() {
        assert!(Options::read(br#"{"prot":1}"#).unwrap_err().contains("prot"));
        for bad in [
            r#"{"max_send_rate":0}"#,
            r#"{"burst_seconds":0}"#,
            r#"{"max_24_hour_send":-2}"#,
            r#"{"account_id":"1"}"#,
            r#"{"topic_arn":"x"}"#,
            r#"{"events_url":"ftp://x"}"#,
            r#"{"threads":0}"#,
            r#"{"idle_timeout_ms":0}"#,
            r#"{"events_timeout_ms":0}"#,
            r#"{"events_url":"http://127.0.0.1:1","event_queue":"events"}"#,
            r#"{"events_pause_max_ms":0}"#,
            r#"{"event_types":["SNEEZE"]}"#,
            r#"{"throttle":"sometimes"}"#,
        ] {
            assert!(Options::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
