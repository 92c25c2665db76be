//! What an answer of Amazon SES means for each recipient, as pure functions.
//!
//! Outside rules: the status and exception names of the Amazon SES API v2 model (and their v1
//! spellings, which the prose of its documentation still uses). SES has no idempotency token, so
//! whatever might have been accepted is `Unknown` and is never sent again from here.

use std::borrow::Cow;

use serde::Deserialize;

/// The outcome codes of a recipient's attempt, as stored in `results.outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum Outcome {
    /// SES took it.
    Accepted = 1,
    /// No byte was written; nothing speaks against trying again at once.
    NotWritten = 2,
    /// Surely not accepted; try again later.
    Deferred = 3,
    /// Surely not accepted, and this recipient never will be.
    Failed = 4,
    /// Surely not accepted; the cause concerns the whole campaign.
    Halted = 5,
    /// Perhaps accepted; only an event or the passing of time can tell.
    Unknown = 6,
}

/// Longest error text in a result, in characters.
const MAX_REASON_CHARS: usize = 200;

/// A grant of the account that an answer says was used up. Such an answer defers: the limiter that all workers share
/// stops in time and resumes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Recipients per second, or calls.
    Rate,
    /// Recipients per 24 hours.
    DailyQuota,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The code.
    pub outcome: Outcome,
    /// The limit that stood in the way, of those deferred.
    pub limit: Option<Limit>,
    /// SES's MessageId, when it was accepted.
    pub ses_message_id: Option<String>,
    /// A short reason without addresses, for all but `Accepted`.
    pub error: Option<Cow<'static, str>>,
}

impl Settled {
    /// Accepted under this id.
    pub fn accepted(ses_message_id: Option<String>) -> Self {
        Self { outcome: Outcome::Accepted, limit: None, ses_message_id, error: None }
    }

    /// Anything but accepted, with its reason made fit for storing.
    pub fn because(outcome: Outcome, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome, limit: None, ses_message_id: None, error: Some(presentable(reason.into())) }
    }

    /// What the words of SES mean, with these words.
    fn meaning(meaning: Meaning, reason: String) -> Self {
        Self { limit: meaning.limit, ..Self::because(meaning.outcome, reason) }
    }

    /// The same for a request that lay still between its signature and its first byte, because the process was frozen:
    /// SES then refuses the age of the signature, which says nothing about the campaign.
    pub fn after_a_stall(self) -> Self {
        let outcome = if self.outcome == Outcome::Halted { Outcome::Deferred } else { self.outcome };
        Self { outcome, ..self }
    }
}

/// What a status, a name or a text of SES means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meaning {
    outcome: Outcome,
    limit: Option<Limit>,
}

impl Meaning {
    const ACCEPTED: Self = Self::of(Outcome::Accepted);
    const DEFERRED: Self = Self::of(Outcome::Deferred);
    const FAILED: Self = Self::of(Outcome::Failed);
    const HALTED: Self = Self::of(Outcome::Halted);
    const UNKNOWN: Self = Self::of(Outcome::Unknown);
    const THROTTLED: Self = Self { limit: Some(Limit::Rate), ..Self::DEFERRED };
    const QUOTA_USED_UP: Self = Self { limit: Some(Limit::DailyQuota), ..Self::DEFERRED };

    const fn of(outcome: Outcome) -> Self {
        Self { outcome, limit: None }
    }
}

/// SES's answer to a call as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The `x-amzn-errortype` header, or empty.
    pub error_type: String,
    /// The body; `None` when it did not arrive whole.
    pub body: Option<bytes::Bytes>,
}

/// The meaning of an answer to `SendBulkEmail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BulkVerdict {
    /// One outcome per entry, in the order of the entries.
    PerEntry(Vec<Settled>),
    /// The same for all.
    All(Settled),
    /// Nothing was accepted because of something in this very request; single mails may pass. What it comes to for those who
    /// are sent no other way.
    Refused(Settled),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BulkReply<'a> {
    #[serde(borrow)]
    bulk_email_entry_results: Vec<EntryReply<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryReply<'a> {
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
    #[serde(default)]
    message_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SimpleReply {
    message_id: String,
}

#[derive(Deserialize, Default)]
struct ErrorReply<'a> {
    #[serde(borrow, default, alias = "Message")]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "__type")]
    kind: Option<Cow<'a, str>>,
}

/// Judges the answer to `SendEmail`.
pub fn of_simple(answer: &Answer) -> Settled {
    if answer.status != 200 {
        return refusal(answer).0;
    }
    match answer.body.as_deref().map(serde_json::from_slice::<SimpleReply>) {
        Some(Ok(reply)) if !reply.message_id.is_empty() => Settled::accepted(Some(reply.message_id)),
        _ => Settled::because(Outcome::Unknown, "SES answered 200 without a readable MessageId"),
    }
}

/// Judges the answer to `SendBulkEmail` with `entries` entries.
pub fn of_bulk(answer: &Answer, entries: usize) -> BulkVerdict {
    if answer.status != 200 {
        return match refusal(answer) {
            (settled, Blame::Request) => BulkVerdict::Refused(settled),
            (settled, Blame::Elsewhere) => BulkVerdict::All(settled),
        };
    }
    let Some(Ok(reply)) = answer.body.as_deref().map(serde_json::from_slice::<BulkReply<'_>>) else {
        return BulkVerdict::All(Settled::because(Outcome::Unknown, "SES answered 200 with an unreadable body"));
    };
    let results = reply.bulk_email_entry_results;
    if results.len() != entries {
        // Results are matched by their place alone, so a wrong count says nothing about anyone.
        let reason = format!("SES answered {} results for {entries} entries", results.len());
        return BulkVerdict::All(Settled::because(Outcome::Unknown, reason));
    }
    BulkVerdict::PerEntry(results.into_iter().map(of_entry).collect())
}

fn of_entry(entry: EntryReply<'_>) -> Settled {
    let status = entry.status.unwrap_or_default();
    let text = entry.error.unwrap_or_default();
    let meaning = match of_status(&status) {
        Meaning::ACCEPTED => return Settled::accepted(entry.message_id),
        // FAILED and names that are not listed stay unknown whatever the text says.
        Meaning::UNKNOWN => Meaning::UNKNOWN,
        by_status => of_text(&text).unwrap_or(by_status),
    };
    let status = if status.is_empty() { "no status" } else { &status };
    Settled::meaning(meaning, joined(status, &text))
}

/// The per-entry statuses; case and underscores are dropped, which is all that v1 and v2 names
/// differ by, save for three words.
fn of_status(status: &str) -> Meaning {
    let mut name = status.replace('_', "");
    name.make_ascii_lowercase();
    match name.as_str() {
        "success" => Meaning::ACCEPTED,
        "transientfailure" => Meaning::DEFERRED,
        "accountthrottled" => Meaning::THROTTLED,
        "accountdailyquotaexceeded" => Meaning::QUOTA_USED_UP,
        "messagerejected" | "invalidparameter" | "invalidparametervalue" => Meaning::FAILED,
        "mailfromdomainnotverified"
        | "configurationsetnotfound"
        | "configurationsetdoesnotexist"
        | "templatenotfound"
        | "templatedoesnotexist"
        | "accountsuspended"
        | "invalidsendingpoolname"
        | "accountsendingpaused"
        | "configurationsetsendingpaused" => Meaning::HALTED,
        _ => Meaning::UNKNOWN,
    }
}

/// Where the cause of a refusal lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// In the content of the request: another request may pass.
    Request,
    /// In the account, the credentials, the pace, or it is not known.
    Elsewhere,
}

/// Judges an answer other than 200: what it says first, then its type, then its status.
fn refusal(answer: &Answer) -> (Settled, Blame) {
    let reply: ErrorReply<'_> =
        answer.body.as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
    let text = reply.message.unwrap_or_default();
    let header = exception_name(&answer.error_type);
    let name = if header.is_empty() { exception_name(reply.kind.as_deref().unwrap_or_default()) } else { header };
    // Only the client errors promise that nothing was accepted; 408 is often made by something
    // between us and SES, which knows nothing about that.
    let promised = (400..500).contains(&answer.status) && answer.status != 408;
    let meaning = if !promised {
        Meaning::UNKNOWN
    } else {
        of_text(&text).or_else(|| of_exception(name)).unwrap_or_else(|| of_client_error(answer.status))
    };
    let blame = if meaning == Meaning::FAILED { Blame::Request } else { Blame::Elsewhere };
    let status = format!("{} {name}", answer.status);
    (Settled::meaning(meaning, joined(status.trim_end(), &text)), blame)
}

/// Words by which SES tells causes of different reach apart that share an exception, in the
/// order in which they are looked for.
const KNOWN_WORDS: [(&str, Meaning); 15] = [
    ("daily message quota", Meaning::QUOTA_USED_UP),
    ("daily sending quota", Meaning::QUOTA_USED_UP),
    ("maximum sending rate", Meaning::THROTTLED),
    ("rate exceeded", Meaning::THROTTLED),
    ("throttl", Meaning::THROTTLED),
    ("sending paused", Meaning::HALTED),
    ("sending is paused", Meaning::HALTED),
    ("sending is disabled", Meaning::HALTED),
    ("account is suspended", Meaning::HALTED),
    ("account has been suspended", Meaning::HALTED),
    ("is not verified", Meaning::HALTED),
    ("failed the check in region", Meaning::HALTED),
    ("request signature", Meaning::HALTED),
    ("signature expired", Meaning::HALTED),
    ("security token", Meaning::HALTED),
];

fn of_text(text: &str) -> Option<Meaning> {
    let text = text.to_ascii_lowercase();
    KNOWN_WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, meaning)| *meaning)
}

fn of_exception(name: &str) -> Option<Meaning> {
    match name {
        "TooManyRequestsException" | "ThrottlingException" | "Throttling" | "RequestThrottled" => {
            Some(Meaning::THROTTLED)
        }
        "LimitExceededException"
        | "AccountSuspendedException"
        | "SendingPausedException"
        | "MailFromDomainNotVerifiedException"
        | "NotFoundException"
        | "AccessDeniedException"
        | "ExpiredTokenException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException" => Some(Meaning::HALTED),
        "BadRequestException" | "MessageRejected" => Some(Meaning::FAILED),
        _ => None,
    }
}

fn of_client_error(status: u16) -> Meaning {
    match status {
        429 => Meaning::THROTTLED,
        // The content of this one request is at fault.
        400 | 413 => Meaning::FAILED,
        // Credentials, address of the endpoint, method: no other mail would fare better.
        _ => Meaning::HALTED,
    }
}

/// `Name` out of `Name`, `Name:http://…` or `prefix#Name`.
fn exception_name(raw: &str) -> &str {
    let name = raw.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default().trim()
}

fn joined(status: &str, text: &str) -> String {
    if text.is_empty() { status.to_owned() } else { format!("{status}: {text}") }
}

/// One line of at most 200 characters in which no word is an address.
fn presentable(reason: Cow<'static, str>) -> Cow<'static, str> {
    let harmless = |text: &str| {
        text.len() <= MAX_REASON_CHARS && !text.contains(['@', '%']) && !text.chars().any(char::is_control)
    };
    if harmless(&reason) {
        return reason;
    }
    let mut line = String::with_capacity(MAX_REASON_CHARS);
    // A reason may be a page of HTML; far more words than fit need not be looked at.
    for word in reason.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).take(400) {
        if !line.is_empty() {
            line.push(' ');
        }
        let hides_address = word.contains('@') || word.contains("%40");
        line.push_str(if hides_address { "[address]" } else { word });
    }
    line.chars().take(MAX_REASON_CHARS).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, error_type: &str, body: &str) -> Answer {
        Answer { status, error_type: error_type.into(), body: Some(body.to_owned().into()) }
    }

    fn bulk_of(statuses: &[&str]) -> Vec<Outcome> {
        let results: Vec<_> = statuses.iter().map(|s| format!(r#"{{"Status":"{s}"}}"#)).collect();
        let body = format!(r#"{{"BulkEmailEntryResults":[{}]}}"#, results.join(","));
        match of_bulk(&answer(200, "", &body), statuses.len()) {
            BulkVerdict::PerEntry(all) => all.into_iter().map(|s| s.outcome).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn statuses_of_both_versions_are_known() {
        use Outcome::{Accepted, Deferred, Failed, Halted, Unknown};
        for (names, outcome) in [
            (&["SUCCESS", "Success"][..], Accepted),
            (&["TRANSIENT_FAILURE", "TransientFailure", "ACCOUNT_THROTTLED", "AccountThrottled"], Deferred),
            (&["ACCOUNT_DAILY_QUOTA_EXCEEDED", "AccountDailyQuotaExceeded"], Deferred),
            (&["MESSAGE_REJECTED", "MessageRejected", "INVALID_PARAMETER", "INVALID_PARAMETER_VALUE"], Failed),
            (&["MAIL_FROM_DOMAIN_NOT_VERIFIED", "CONFIGURATION_SET_NOT_FOUND", "ConfigurationSetDoesNotExist"], Halted),
            (&["TEMPLATE_NOT_FOUND", "TEMPLATE_DOES_NOT_EXIST", "ACCOUNT_SUSPENDED"], Halted),
            (&["INVALID_SENDING_POOL_NAME", "ACCOUNT_SENDING_PAUSED"], Halted),
            (&["CONFIGURATION_SET_SENDING_PAUSED", "ConfigurationSetSendingPaused"], Halted),
            (&["FAILED", "Failed", "SOMETHING_NEW", ""], Unknown),
        ] {
            assert_eq!(bulk_of(names), vec![outcome; names.len()], "{names:?}");
        }
    }

    #[test]
    fn an_accepted_entry_has_its_id_and_others_their_reason() {
        let body = r#"{"BulkEmailEntryResults":[{"Status":"SUCCESS","MessageId":"m-1"},
            {"Status":"MESSAGE_REJECTED","Error":"Bad thing about ann@example.com here"},
            {"Status":"MESSAGE_REJECTED","Error":"Email address is not verified."},
            {"Status":"FAILED","Error":"Maximum sending rate exceeded."}]}"#;
        let BulkVerdict::PerEntry(all) = of_bulk(&answer(200, "", body), 4) else { panic!() };
        assert_eq!(all[0], Settled::accepted(Some("m-1".into())));
        assert_eq!(all[1], Settled::because(Outcome::Failed, "MESSAGE_REJECTED: Bad thing about [address] here"));
        assert_eq!(all[2].outcome, Outcome::Halted);
        assert_eq!(all[3].outcome, Outcome::Unknown);
    }

    #[test]
    fn a_wrong_count_or_an_unreadable_body_leaves_all_unknown() {
        let one = r#"{"BulkEmailEntryResults":[{"Status":"SUCCESS","MessageId":"m"}]}"#;
        let cut = Answer { body: None, ..answer(200, "", "") };
        for answer in [answer(200, "", one), answer(200, "", "{}"), answer(200, "", "<html>"), cut] {
            let BulkVerdict::All(settled) = of_bulk(&answer, 2) else { panic!() };
            assert_eq!(settled.outcome, Outcome::Unknown);
        }
    }

    #[test]
    fn a_bad_request_refuses_the_batch_but_not_its_members() {
        let bad = answer(400, "BadRequestException", r#"{"message":"Template contains unsupported operations."}"#);
        let BulkVerdict::Refused(settled) = of_bulk(&bad, 50) else { panic!() };
        assert_eq!(settled, of_simple(&bad));
        assert_eq!(of_simple(&bad).outcome, Outcome::Failed);
        assert!(matches!(of_bulk(&answer(413, "", ""), 50), BulkVerdict::Refused(_)));
    }

    #[test]
    fn the_text_outranks_the_type_and_the_type_the_status() {
        for (status, kind, body, outcome) in [
            (429, "TooManyRequestsException", r#"{"message":"Maximum sending rate exceeded."}"#, Outcome::Deferred),
            (429, "TooManyRequestsException", r#"{"message":"Daily message quota exceeded."}"#, Outcome::Deferred),
            (400, "ThrottlingException", r#"{"message":"Daily message quota exceeded."}"#, Outcome::Deferred),
            (400, "LimitExceededException", r#"{"message":"Maximum sending rate exceeded."}"#, Outcome::Deferred),
            (400, "LimitExceededException", "{}", Outcome::Halted),
            (400, "ThrottlingException:http://internal/", "{}", Outcome::Deferred),
            (400, "", r#"{"__type":"com.amazonaws.ses#SendingPausedException"}"#, Outcome::Halted),
            (400, "MessageRejected", r#"{"message":"Email address is not verified."}"#, Outcome::Halted),
            (400, "MessageRejected", r#"{"message":"Address blacklisted."}"#, Outcome::Failed),
            (404, "NotFoundException", "{}", Outcome::Halted),
            (403, "", r#"{"Message":"The request signature we calculated does not match"}"#, Outcome::Halted),
            (403, "", "not json", Outcome::Halted),
            (405, "", "", Outcome::Halted),
            (429, "", "", Outcome::Deferred),
            (408, "", "", Outcome::Unknown),
            (500, "InternalServiceErrorException", "{}", Outcome::Unknown),
            (503, "ThrottlingException", r#"{"message":"Maximum sending rate exceeded."}"#, Outcome::Unknown),
            (204, "", "", Outcome::Unknown),
            (302, "", "", Outcome::Unknown),
        ] {
            let settled = of_simple(&answer(status, kind, body));
            assert_eq!(settled.outcome, outcome, "{status} {kind} {body}");
            assert!(settled.error.is_some());
        }
    }

    #[test]
    fn a_limit_is_told_from_other_reasons_to_wait() {
        use Limit::{DailyQuota, Rate};
        for (status, kind, body, limit) in [
            (429, "TooManyRequestsException", "{}", Some(Rate)),
            (429, "", "", Some(Rate)),
            (400, "ThrottlingException", "{}", Some(Rate)),
            (400, "LimitExceededException", r#"{"message":"Maximum sending rate exceeded."}"#, Some(Rate)),
            (429, "TooManyRequestsException", r#"{"message":"Daily message quota exceeded."}"#, Some(DailyQuota)),
            (400, "LimitExceededException", r#"{"message":"Daily sending quota exceeded."}"#, Some(DailyQuota)),
            (400, "LimitExceededException", "{}", None),
            (503, "ThrottlingException", r#"{"message":"Maximum sending rate exceeded."}"#, None),
            (400, "SendingPausedException", "{}", None),
        ] {
            assert_eq!(of_simple(&answer(status, kind, body)).limit, limit, "{status} {kind} {body}");
        }
        let body = r#"{"BulkEmailEntryResults":[{"Status":"ACCOUNT_THROTTLED"},{"Status":"TRANSIENT_FAILURE"},
            {"Status":"ACCOUNT_DAILY_QUOTA_EXCEEDED"},{"Status":"TRANSIENT_FAILURE","Error":"Throttling"}]}"#;
        let BulkVerdict::PerEntry(all) = of_bulk(&answer(200, "", body), 4) else { panic!() };
        let limits: Vec<_> = all.iter().map(|settled| settled.limit).collect();
        assert_eq!(limits, [Some(Rate), None, Some(DailyQuota), Some(Rate)]);
    }

    #[test]
    fn a_stall_takes_the_blame_off_the_campaign() {
        for (before, after) in [(Outcome::Halted, Outcome::Deferred), (Outcome::Unknown, Outcome::Unknown)] {
            assert_eq!(Settled::because(before, "x").after_a_stall(), Settled::because(after, "x"));
        }
    }

    #[test]
    fn a_simple_mail_is_accepted_only_with_an_id() {
        assert_eq!(of_simple(&answer(200, "", r#"{"MessageId":"m-1"}"#)), Settled::accepted(Some("m-1".into())));
        assert_eq!(of_simple(&answer(200, "", "{}")).outcome, Outcome::Unknown);
        assert_eq!(of_simple(&answer(200, "", r#"{"MessageId":""}"#)).outcome, Outcome::Unknown);
    }

    #[test]
    fn reasons_are_one_short_line_without_addresses() {
        let long = format!("{} <ann@example.com>,\n\tbob%40example.com {}", "ä".repeat(150), "x".repeat(300));
        let reason = Settled::because(Outcome::Failed, long).error.unwrap();
        assert_eq!(reason.chars().count(), MAX_REASON_CHARS);
        assert!(!reason.contains("example.com"));
        assert!(reason.contains("ä [address] [address] x"));
    }
}
