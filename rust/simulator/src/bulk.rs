//! SendBulkEmail: one template, up to fifty entries, each accepted or refused by itself.

use std::fmt::Write;

use serde_json::json;

use crate::accept::{Acceptable, Envelopes, Sender, accept, check_template_request_bytes, debit, template};
use crate::clock;
use crate::error::ApiError;
use crate::options::Throttle;
use crate::quota::Exceeded;
use crate::request::{BulkRequest, Entry};
use crate::rules::{self, DestinationError, Recipients};
use crate::send::parse;
use crate::state::{State, lock};
use crate::stats::{Mode, Operation};
use crate::store::{Call, Content, message_id};
use crate::template::{DataError, Template, merge};

/// The status of an entry beyond the rate.
const ACCOUNT_THROTTLED: &str = "ACCOUNT_THROTTLED";

/// The status and reason of an entry that was not accepted.
type EntryRefusal = (&'static str, String);

/// The answer lists one result per entry, in their order. An error refuses the whole call.
pub fn send_bulk(state: &State, body: &[u8]) -> Result<String, ApiError> {
    check_template_request_bytes(body)?;
    let request: BulkRequest = parse(body)?;
    let used = request.default_content.as_ref().ok_or_else(|| ApiError::missing("defaultContent"))?;
    let entries = request.bulk_email_entries.as_deref().ok_or_else(|| ApiError::missing("bulkEmailEntries"))?;
    if entries.is_empty() || entries.len() > rules::MAX_ENTRIES {
        return Err(ApiError::bad_request("The number of bulk email entries must be between 1 and 50."));
    }
    let sender = Sender::check(
        state,
        request.from_email_address.as_deref(),
        request.reply_to_addresses.as_deref(),
        request.configuration_set_name.as_deref(),
        request.tenant_name.as_deref(),
    )?;
    let used = used.template.as_ref().ok_or_else(|| ApiError::bad_request("Default content must be a template."))?;
    let (template, default_data) = template(state, used, "defaultContent.template")?;
    let mut bulk = Bulk {
        state,
        template: &template,
        default_data,
        default_headers: rules::headers(used.headers.as_deref(), "defaultContent.template.headers")?,
        default_tags: rules::tags(request.default_email_tags.as_deref(), "defaultEmailTags")?,
        envelopes: Envelopes::default(),
        data: String::with_capacity(body.len().min(64 << 10)),
        ends: Vec::with_capacity(entries.len()),
        rendered_bytes: 0,
    };
    let mut results = Vec::with_capacity(entries.len());
    for (n, entry) in entries.iter().enumerate() {
        results.push(bulk.add(entry, n + 1)?);
    }
    if state.options.throttle == Throttle::Call {
        debit(state, &bulk.envelopes)?;
    }
    let Bulk { envelopes, data, ends, rendered_bytes, .. } = bulk;
    let call = accept(
        state,
        Acceptable {
            operation: Operation::SendBulkEmail,
            mode: Mode::Slots,
            sender,
            subject: None,
            envelopes,
            content: Content::Template { template, data: data.into(), ends: ends.into() },
            request_bytes: body.len(),
            rendered_bytes,
        },
    )?;
    Ok(bulk_answer(state, &call, &results))
}

fn bulk_answer(state: &State, call: &Call, results: &[Result<(), EntryRefusal>]) -> String {
    let mut out = String::with_capacity(128 * results.len() + 64);
    out.push_str("{\"BulkEmailEntryResults\":[");
    let mut number = call.first;
    for (n, result) in results.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        // Writing to a string cannot fail.
        let _ = match result {
            Ok(()) => {
                number += 1;
                let id = message_id(state.instance, number - 1, call.at_ms);
                write!(out, "{{\"Status\":\"SUCCESS\",\"MessageId\":\"{id}\"}}")
            }
            Err((status, error)) => {
                lock(&state.stats).rejected_entry(status);
                write!(out, "{}", json!({"Status": status, "Error": error}))
            }
        };
    }
    if results.iter().any(|result| matches!(result, Err((ACCOUNT_THROTTLED, _)))) {
        lock(&state.stats).throttled_call();
    }
    out.push_str("]}");
    out
}

/// A bulk call while its entries are looked at.
struct Bulk<'a> {
    state: &'a State,
    template: &'a Template,
    default_data: &'a str,
    default_headers: Vec<(&'a str, &'a str)>,
    default_tags: Vec<(&'a str, &'a str)>,
    envelopes: Envelopes,
    data: String,
    ends: Vec<u32>,
    rendered_bytes: usize,
}

impl Bulk<'_> {
    /// Looks at entry number `n` (from 1). The outer error refuses the call, the inner one the entry.
    fn add(&mut self, entry: &Entry, n: usize) -> Result<Result<(), EntryRefusal>, ApiError> {
        let path = |member: &str| format!("bulkEmailEntries.{n}.member.{member}");
        let destination = entry.destination.as_ref().ok_or_else(|| ApiError::missing(&path("destination")))?;
        let headers = rules::headers(entry.replacement_headers.as_deref(), "replacementHeaders")?;
        let tags = rules::tags(entry.replacement_tags.as_deref(), "replacementTags")?;
        let data = entry
            .replacement_email_content
            .as_ref()
            .and_then(|content| content.replacement_template.as_ref())
            .and_then(|replacement| replacement.replacement_template_data.as_deref())
            .unwrap_or("{}");
        let data = rules::template_data(data, "replacementTemplateData")?;
        if let Some(status) = self.fault() {
            return Ok(Err((status, "Unknown error occurred. Please try again later".into())));
        }
        let added = self.envelopes.add(destination, (&self.default_headers, &headers), (&self.default_tags, &tags));
        let recipients = match added {
            Ok(recipients) => recipients,
            Err(DestinationError::Call(error)) => return Err(error),
            Err(DestinationError::Address(reason)) => {
                return Ok(Err(("INVALID_PARAMETER", reason)));
            }
        };
        let finished = self.add_data(data).and_then(|()| self.debit(recipients));
        if finished.is_err() {
            self.envelopes.drop_last();
            self.data.truncate(self.ends.last().map_or(0, |end| *end as usize));
        } else {
            self.ends.push(self.data.len() as u32);
        }
        Ok(finished)
    }

    fn fault(&self) -> Option<&'static str> {
        let status = lock(&self.state.faults).entry()?;
        let name = if status == "FAILED" { "per_entry_failed" } else { "per_entry_transient" };
        lock(&self.state.stats).fault(name);
        Some(status)
    }

    /// Has the last mail fail as if a slot of its had no value, if that fault is on.
    fn spoil_rendering(&mut self) {
        if !lock(&self.state.faults).spoils_rendering() {
            return;
        }
        lock(&self.state.stats).fault("rendering_failure");
        if let Some(mail) = self.envelopes.mails.last_mut() {
            mail.missing_slot = Some("spoiled".into());
        }
    }

    fn add_data(&mut self, data: &str) -> Result<(), EntryRefusal> {
        let start = self.data.len();
        let invalid = |_| ("INVALID_PARAMETER", "The template data is invalid.".to_owned());
        if self.default_data.trim() == "{}" {
            self.data.push_str(data);
        } else {
            self.data.push_str(&merge(self.default_data, data).map_err(invalid)?);
        }
        match self.template.measure(&self.data[start..]) {
            Ok(bytes) => {
                self.rendered_bytes += bytes;
                self.spoil_rendering();
            }
            Err(DataError::Missing(slot)) => {
                // Accepted all the same: SES finds out when it renders.
                if let Some(mail) = self.envelopes.mails.last_mut() {
                    mail.missing_slot = Some(self.template.slot_name(slot).into());
                }
            }
            Err(DataError::Malformed) => return Err(invalid(DataError::Malformed)),
        }
        Ok(())
    }

    fn debit(&self, recipients: Recipients) -> Result<(), EntryRefusal> {
        if self.state.options.throttle == Throttle::Call {
            return Ok(());
        }
        let taken = lock(&self.state.quota).take(recipients.all.into(), recipients.counted.into(), clock::now_ms());
        taken.map_err(|exceeded| match exceeded {
            Exceeded::Rate => (ACCOUNT_THROTTLED, "Maximum sending rate exceeded.".to_owned()),
            Exceeded::Daily => ("ACCOUNT_DAILY_QUOTA_EXCEEDED", "Daily message quota exceeded.".to_owned()),
        })
    }
}
