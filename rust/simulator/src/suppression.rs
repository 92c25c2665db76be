//! The suppression list of the account: addresses that bounced or complained, to which mail is accepted and not delivered.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use serde_json::{Value, json};

use crate::address;
use crate::api::parameter;
use crate::clock;
use crate::error::ApiError;
use crate::request::{PutSuppressed, PutSuppressedReasons, Text};
use crate::sigv4::decode;

/// Most entries of one answer, and how many it has unless asked.
const PAGE_MAX: usize = 1000;
const PAGE: usize = 100;

/// Why an address is on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Bounce,
    Complaint,
}

impl Reason {
    const ALL: [Reason; 2] = [Reason::Bounce, Reason::Complaint];

    /// The word of the SES model.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Bounce => "BOUNCE",
            Reason::Complaint => "COMPLAINT",
        }
    }

    fn read(text: &str, path: &str) -> Result<Reason, ApiError> {
        Reason::ALL
            .into_iter()
            .find(|reason| reason.name() == text)
            .ok_or_else(|| ApiError::constraint(path, "Member must satisfy enum value set: [BOUNCE, COMPLAINT]"))
    }
}

struct Entry {
    reason: Reason,
    updated_ms: u64,
    /// The mail that brought the address here; `None` where it was put by hand.
    message_id: Option<String>,
}

/// The list, and which reasons put addresses on it.
pub struct SuppressionList {
    /// By the address as it was given: SES manages them by case.
    entries: BTreeMap<String, Entry>,
    /// How many spellings of an address are listed: for sending, case does not matter.
    folded: HashMap<String, usize>,
    reasons: Vec<Reason>,
}

impl Default for SuppressionList {
    fn default() -> SuppressionList {
        SuppressionList { entries: BTreeMap::new(), folded: HashMap::new(), reasons: Reason::ALL.to_vec() }
    }
}

impl SuppressionList {
    /// Whether nothing is listed, so that nobody has to look.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether mail to the address is not delivered.
    pub fn holds(&self, address: &str) -> bool {
        self.folded.contains_key(&address.to_ascii_lowercase())
    }

    /// Lists a real address that bounced or complained, if the account wants that.
    pub fn note(&mut self, address: &str, reason: Reason, message_id: String) {
        if self.reasons.contains(&reason) {
            self.put(address, reason, Some(message_id));
        }
    }

    /// The words of `GetAccount`.
    pub fn reasons(&self) -> Vec<&'static str> {
        self.reasons.iter().map(|reason| reason.name()).collect()
    }

    /// `PUT /v2/email/account/suppression`
    pub fn choose_reasons(&mut self, request: &PutSuppressedReasons) -> Result<String, ApiError> {
        let wanted = request.suppressed_reasons.as_deref().unwrap_or_default();
        self.reasons =
            wanted.iter().map(|text| Reason::read(text, "suppressedReasons.1.member")).collect::<Result<_, _>>()?;
        Ok("{}".to_owned())
    }

    /// `PUT /v2/email/suppression/addresses`
    pub fn put_request(&mut self, request: &PutSuppressed) -> Result<String, ApiError> {
        refuse_tenant(request.tenant_name.as_deref())?;
        let required = |value: &Option<Text>, path: &str| match value {
            Some(text) => Ok(text.to_string()),
            None => Err(ApiError::missing(path)),
        };
        let name = required(&request.email_address, "emailAddress")?;
        let reason = Reason::read(&required(&request.reason, "reason")?, "reason")?;
        match address::bare(&name) {
            Ok(bare) if bare == name && !address::is_simulator(bare) => {
                self.put(bare, reason, None);
                Ok("{}".to_owned())
            }
            _ => Err(ApiError::bad_request(format!("Invalid email address {name}."))),
        }
    }

    /// `GET /v2/email/suppression/addresses/{EmailAddress}`
    pub fn get(&self, path: &str, query: &str) -> Result<String, ApiError> {
        refuse_tenant(parameter(query, "TenantName").as_deref())?;
        let name = named(path);
        let entry = self.entries.get(&name).ok_or_else(|| unknown(&name))?;
        let mut shown = summary(&name, entry);
        if let Some(message_id) = &entry.message_id {
            shown["Attributes"] = json!({"MessageId": message_id, "FeedbackId": message_id});
        }
        Ok(json!({"SuppressedDestination": shown}).to_string())
    }

    /// `DELETE /v2/email/suppression/addresses/{EmailAddress}`
    pub fn delete(&mut self, path: &str, query: &str) -> Result<String, ApiError> {
        refuse_tenant(parameter(query, "TenantName").as_deref())?;
        let name = named(path);
        self.entries.remove(&name).ok_or_else(|| unknown(&name))?;
        let folded = name.to_ascii_lowercase();
        if let Some(spellings) = self.folded.get_mut(&folded) {
            *spellings -= 1;
            if *spellings == 0 {
                self.folded.remove(&folded);
            }
        }
        Ok("{}".to_owned())
    }

    /// `GET /v2/email/suppression/addresses`
    pub fn page(&self, query: &str) -> Result<String, ApiError> {
        refuse_tenant(parameter(query, "TenantName").as_deref())?;
        let reasons = query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("Reason="))
            .map(|text| Reason::read(text, "reasons.1.member"))
            .collect::<Result<Vec<_>, _>>()?;
        let (start_ms, end_ms) = (moment(query, "StartDate")?, moment(query, "EndDate")?);
        let most = page_size(query)?;
        let after = match parameter(query, "NextToken") {
            None => Unbounded,
            Some(token) => Excluded(read_token(&token)?),
        };
        let mut found = self.entries.range((after, Unbounded)).filter(|(_, entry)| {
            (reasons.is_empty() || reasons.contains(&entry.reason))
                && start_ms.is_none_or(|ms| entry.updated_ms >= ms)
                && end_ms.is_none_or(|ms| entry.updated_ms <= ms)
        });
        let page: Vec<_> = found.by_ref().take(most).collect();
        let mut shown = json!({
            "SuppressedDestinationSummaries": page.iter().map(|(name, entry)| summary(name, entry)).collect::<Vec<_>>(),
        });
        if let (Some((last, _)), true) = (page.last(), found.next().is_some()) {
            shown["NextToken"] = data_encoding::BASE32_NOPAD.encode(last.as_bytes()).into();
        }
        Ok(shown.to_string())
    }

    fn put(&mut self, address: &str, reason: Reason, message_id: Option<String>) {
        let entry = Entry { reason, updated_ms: clock::now_ms(), message_id };
        if self.entries.insert(address.to_owned(), entry).is_none() {
            *self.folded.entry(address.to_ascii_lowercase()).or_default() += 1;
        }
    }
}

fn summary(name: &str, entry: &Entry) -> Value {
    json!({
        "EmailAddress": name,
        "Reason": entry.reason.name(),
        "LastUpdateTime": entry.updated_ms as f64 / 1000.0,
    })
}

fn refuse_tenant(tenant: Option<&str>) -> Result<(), ApiError> {
    match tenant {
        Some(name) => Err(ApiError::not_found(format!("Tenant <{name}> does not exist."))),
        None => Ok(()),
    }
}

fn named(path: &str) -> String {
    let encoded = path.trim_start_matches("/v2/email/suppression/addresses/");
    String::from_utf8_lossy(&decode(encoded)).into_owned()
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!("Email address {name} does not exist on your suppression list."))
}

/// `2026-01-02T03:04:05Z` or `2026-01-02T03:04:05.678901Z`, to the second.
fn moment(query: &str, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = parameter(query, name) else { return Ok(None) };
    let whole = match text.split_once('.') {
        Some((seconds, fraction)) if fraction.strip_suffix('Z').is_some_and(is_digits) => format!("{seconds}Z"),
        _ => text,
    };
    let basic: String = whole.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    match clock::parse_basic(&basic) {
        Some(ms) => Ok(Some(ms)),
        None => Err(ApiError::serialization(format!("{name} is not a timestamp"))),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn page_size(query: &str) -> Result<usize, ApiError> {
    match parameter(query, "PageSize") {
        None => Ok(PAGE),
        Some(text) => match text.parse() {
            Ok(size @ 1..=PAGE_MAX) => Ok(size),
            _ => Err(ApiError::bad_request(format!("PageSize must be from 1 to {PAGE_MAX}."))),
        },
    }
}

fn read_token(token: &str) -> Result<String, ApiError> {
    let bytes = data_encoding::BASE32_NOPAD.decode(token.as_bytes()).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| ApiError::new(400, "InvalidNextTokenException", "The specified token is not valid."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(list: &mut SuppressionList, name: &str, reason: &str) -> Result<String, ApiError> {
        let body = json!({"EmailAddress": name, "Reason": reason}).to_string();
        list.put_request(&crate::send::parse(body.as_bytes())?)
    }

    #[test]
    fn case_matters_for_managing_and_not_for_sending() {
        let mut list = SuppressionList::default();
        put(&mut list, "Ann@example.com", "BOUNCE").unwrap();
        put(&mut list, "ann@example.com", "COMPLAINT").unwrap();
        assert!(list.holds("ANN@EXAMPLE.COM"));
        assert_eq!(list.delete("/v2/email/suppression/addresses/ANN%40example.com", "").unwrap_err().status, 404);
        list.delete("/v2/email/suppression/addresses/Ann%40example.com", "").unwrap();
        assert!(list.holds("ann@example.com"), "the other spelling is listed still");
        list.delete("/v2/email/suppression/addresses/ann%40example.com", "").unwrap();
        assert!(!list.holds("ann@example.com") && list.is_empty());
    }

    #[test]
    fn what_cannot_be_listed_is_refused() {
        let mut list = SuppressionList::default();
        for (name, reason) in [
            ("bounce@simulator.amazonses.com", "BOUNCE"),
            ("no address", "BOUNCE"),
            ("Ann <ann@example.com>", "BOUNCE"),
            ("ann@example.com", "BOREDOM"),
        ] {
            assert_eq!(put(&mut list, name, reason).unwrap_err().kind, "BadRequestException", "{name} {reason}");
        }
        assert!(list.is_empty());
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let mut list = SuppressionList::default();
        for n in 0..5 {
            put(&mut list, &format!("p{n}@example.com"), if n == 2 { "COMPLAINT" } else { "BOUNCE" }).unwrap();
        }
        let mut names = Vec::new();
        let mut query = "PageSize=2&Reason=BOUNCE".to_owned();
        loop {
            let page: Value = serde_json::from_str(&list.page(&query).unwrap()).unwrap();
            let entries = page["SuppressedDestinationSummaries"].as_array().unwrap();
            assert!(entries.len() <= 2);
            names.extend(entries.iter().map(|entry| entry["EmailAddress"].as_str().unwrap().to_owned()));
            let Some(token) = page["NextToken"].as_str() else { break };
            query = format!("PageSize=2&Reason=BOUNCE&NextToken={token}");
        }
        assert_eq!(names, ["p0@example.com", "p1@example.com", "p3@example.com", "p4@example.com"]);
        assert_eq!(list.page("NextToken=x").unwrap_err().kind, "InvalidNextTokenException");
        for bad in ["PageSize=0", "PageSize=1001", "Reason=x", "StartDate=yesterday"] {
            assert_eq!(list.page(bad).unwrap_err().status, 400, "{bad}");
        }
        for (start, count) in [("2100-01-01T00:00:00Z", 0), ("2020-01-01T00:00:00.123456Z", 5)] {
            let page: Value = serde_json::from_str(&list.page(&format!("StartDate={start}")).unwrap()).unwrap();
            assert_eq!(page["SuppressedDestinationSummaries"].as_array().unwrap().len(), count, "{start}");
        }
    }

    #[test]
    fn the_account_chooses_what_is_listed_by_itself() {
        let mut list = SuppressionList::default();
        list.choose_reasons(&crate::send::parse(br#"{"SuppressedReasons":["COMPLAINT"]}"#).unwrap()).unwrap();
        list.note("a@example.com", Reason::Bounce, "m".into());
        list.note("b@example.com", Reason::Complaint, "m".into());
        assert!(!list.holds("a@example.com") && list.holds("b@example.com"));
        assert_eq!(list.reasons(), ["COMPLAINT"]);
    }
}
