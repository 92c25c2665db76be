//! What both sending operations share: the sender, the envelopes, the quotas, and the acceptance itself.

use std::sync::Arc;

use crate::address::{self, Fate};
use crate::clock;
use crate::error::ApiError;
use crate::events;
use crate::options::Options;
use crate::quota::Exceeded;
use crate::request::{Destination, TemplateUse, Text};
use crate::rules::{self, DestinationError, Recipients};
use crate::send::{server_error, too_fast};
use crate::state::{State, lock};
use crate::stats::{CallCount, Mode, Operation};
use crate::store::{Call, Content, HeadersFate, Mail, message_id};
use crate::suppression::Reason;
use crate::template::Template;

/// What all mails of a call share.
pub struct Sender<'a> {
    pub from: &'a str,
    pub reply_to: Vec<&'a str>,
    pub configuration_set: Option<&'a str>,
}

impl<'a> Sender<'a> {
    /// Checks who sends, on whose behalf, and through which configuration set.
    pub fn check(
        state: &State,
        from: Option<&'a str>,
        reply_to: Option<&'a [Text]>,
        configuration_set: Option<&'a str>,
        tenant: Option<&str>,
    ) -> Result<Sender<'a>, ApiError> {
        let from = from.ok_or_else(|| ApiError::bad_request("Missing From address."))?;
        check_from(state, from)?;
        let reply_to: Vec<&str> = reply_to.unwrap_or_default().iter().map(|text| &**text).collect();
        for address in &reply_to {
            address::bare(address).map_err(|reason| ApiError::bad_request(format!("Invalid Reply-To: {reason}")))?;
        }
        if let Some(name) = configuration_set
            && !state.options.configuration_sets.iter().any(|known| known == name)
        {
            return Err(ApiError::not_found(format!("Configuration set <{name}> does not exist.")));
        }
        match tenant {
            Some(name) => Err(ApiError::not_found(format!("Tenant <{name}> does not exist."))),
            None => Ok(Sender { from, reply_to, configuration_set }),
        }
    }
}

/// From must be a plausible address of a verified identity.
pub fn check_from(state: &State, from: &str) -> Result<(), ApiError> {
    let address = address::bare(from).map_err(|reason| ApiError::bad_request(format!("Invalid From: {reason}")))?;
    if lock(&state.identities).may_send(address, clock::now_ms()) {
        return Ok(());
    }
    Err(ApiError::rejected(format!(
        "Email address is not verified. The following identities failed the check in region {}: {address}",
        state.options.region.to_ascii_uppercase()
    )))
}

/// The envelopes of a call while they are collected.
#[derive(Default)]
pub struct Envelopes {
    pub text: String,
    pub mails: Vec<Mail>,
}

type Pairs<'a> = [(&'a str, &'a str)];

impl Envelopes {
    /// Adds a mail. Headers and tags are (defaults, own); an own one replaces the default of its name.
    pub fn add(
        &mut self,
        destination: &Destination,
        headers: (&Pairs, &Pairs),
        tags: (&Pairs, &Pairs),
    ) -> Result<Recipients, DestinationError> {
        let start = self.text.len();
        let recipients =
            rules::write_destination(destination, &mut self.text).inspect_err(|_| self.text.truncate(start))?;
        let destination_end = self.text.len() as u32;
        rules::write_merged(headers.0, headers.1, ": ", &mut self.text);
        let headers_end = self.text.len() as u32;
        rules::write_merged(tags.0, tags.1, "=", &mut self.text);
        let tags_end = self.text.len() as u32;
        let start = start as u32;
        self.mails.push(Mail {
            start,
            destination_end,
            headers_end,
            tags_end,
            recipients,
            missing_slot: None,
            headers_fate: HeadersFate::default(),
        });
        Ok(recipients)
    }

    /// Takes the last mail back.
    pub fn drop_last(&mut self) {
        if let Some(mail) = self.mails.pop() {
            self.text.truncate(mail.start as usize);
        }
    }

    /// Recipients in all, and those that count against the daily quota.
    pub fn recipients(&self) -> (u64, u64) {
        self.mails.iter().fold((0, 0), |(all, counted), mail| {
            (all + u64::from(mail.recipients.all), counted + u64::from(mail.recipients.counted))
        })
    }
}

/// A call that nothing speaks against any more.
pub struct Acceptable<'a> {
    pub operation: Operation,
    pub mode: Mode,
    pub sender: Sender<'a>,
    pub subject: Option<Box<str>>,
    pub envelopes: Envelopes,
    pub content: Content,
    pub request_bytes: usize,
    pub rendered_bytes: usize,
}

/// Keeps, counts and publishes a call. The error is ours: the accept log could not be written, and nothing is accepted.
pub fn accept(state: &State, acceptable: Acceptable) -> Result<Arc<Call>, ApiError> {
    let (recipients, _) = acceptable.envelopes.recipients();
    let Acceptable { sender, mut envelopes, .. } = acceptable;
    draw_fates(state, &mut envelopes.mails);
    let count = CallCount {
        operation: acceptable.operation,
        mode: acceptable.mode,
        messages: envelopes.mails.len() as u64,
        recipients,
        request_bytes: acceptable.request_bytes as u64,
        rendered_bytes: acceptable.rendered_bytes as u64,
    };
    let fates = fates(state, &envelopes);
    let call = Call {
        operation: acceptable.operation,
        mode: acceptable.mode,
        at_ms: clock::now_ms(),
        first: 0,
        from: sender.from.into(),
        reply_to: sender.reply_to.iter().map(|address| (*address).into()).collect(),
        configuration_set: sender.configuration_set.map(Into::into),
        subject: acceptable.subject,
        mails: envelopes.mails.into(),
        text: envelopes.text.into(),
        fates,
    };
    let call = lock(&state.store).accept(call, acceptable.content).map_err(|_| server_error())?;
    lock(&state.stats).accepted(&count);
    list_bad_addresses(state, &call);
    events::publish(state, &call);
    Ok(call)
}

/// Real addresses to which mail does not simply go: those on the list of now, and those of domains that bounce or complain.
fn fates(state: &State, envelopes: &Envelopes) -> Box<[(Box<str>, Fate)]> {
    let Options { bouncing_domains, complaining_domains, .. } = &state.options;
    let list = lock(&state.suppressed);
    if list.is_empty() && bouncing_domains.is_empty() && complaining_domains.is_empty() {
        return Box::default();
    }
    let is_of = |domains: &[String], address: &str| {
        domains.iter().any(|domain| domain.eq_ignore_ascii_case(address::domain(address)))
    };
    let fate_of = |address: &str| match address {
        _ if list.holds(address) => Some(Fate::OnAccountList),
        _ if is_of(bouncing_domains, address) => Some(Fate::Bounced),
        _ if is_of(complaining_domains, address) => Some(Fate::Complained),
        _ => None,
    };
    let addresses = envelopes
        .mails
        .iter()
        .flat_map(|mail| envelopes.text[mail.start as usize..mail.destination_end as usize].lines());
    addresses.filter_map(|address| Some((address.into(), fate_of(address)?))).collect()
}

/// Puts real addresses that bounce or complain on the account's list, as SES does.
fn list_bad_addresses(state: &State, call: &Call) {
    if call.fates.is_empty() {
        return;
    }
    let mut list = lock(&state.suppressed);
    for (mail, number) in call.mails.iter().zip(call.first..) {
        for address in call.destination(mail) {
            let reason = match call.fate(address) {
                Fate::Bounced => Reason::Bounce,
                Fate::Complained => Reason::Complaint,
                _ => continue,
            };
            if !address::is_simulator(address) {
                list.note(address, reason, message_id(state.instance, number, call.at_ms));
            }
        }
    }
}

/// What happens to the headers of each mail.
fn draw_fates(state: &State, mails: &mut [Mail]) {
    let mut faults = lock(&state.faults);
    if !faults.touches_headers() {
        return;
    }
    for mail in mails.iter_mut() {
        mail.headers_fate = faults.headers();
    }
    drop(faults);
    let mut stats = lock(&state.stats);
    for HeadersFate { is_reversed, is_unsigned } in mails.iter().map(|mail| mail.headers_fate) {
        for name in [is_reversed.then_some("reorder_headers"), is_unsigned.then_some("unsigned_headers")] {
            name.into_iter().for_each(|name| stats.fault(name));
        }
    }
}

/// Debits the quotas for a whole call.
pub fn debit(state: &State, envelopes: &Envelopes) -> Result<(), ApiError> {
    let (recipients, counted) = envelopes.recipients();
    let taken = lock(&state.quota).take(recipients, counted, clock::now_ms());
    taken.map_err(|exceeded| match exceeded {
        Exceeded::Rate => too_fast(),
        Exceeded::Daily => ApiError::new(400, "LimitExceededException", "Daily message quota exceeded."),
    })
}

/// The template that a call names or brings along, and its default data.
pub fn template<'a>(state: &State, used: &'a TemplateUse, path: &str) -> Result<(Arc<Template>, &'a str), ApiError> {
    if let Some(name) = used.template_name.as_deref().or(used.template_arn.as_deref()) {
        return Err(ApiError::not_found(format!("Template {name} does not exist.")));
    }
    let content = used
        .template_content
        .as_ref()
        .ok_or_else(|| ApiError::bad_request("A template must have a name, an ARN or content."))?;
    let template = lock(&state.templates).get(content.as_raw_str(), state.options.allow_lone_closing_braces)?;
    let data = used.template_data.as_deref().ok_or_else(invalid_data)?;
    let data = rules::template_data(data, &format!("{path}.templateData"))?;
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(data) {
        Ok(_) => Ok((template, data)),
        Err(_) => Err(invalid_data()),
    }
}

/// Template data that is no JSON object.
pub fn invalid_data() -> ApiError {
    ApiError::bad_request("The template data is invalid.")
}

/// A request with an inline template has at most 1 MB.
pub fn check_template_request_bytes(body: &[u8]) -> Result<(), ApiError> {
    if body.len() > rules::MAX_TEMPLATE_REQUEST_BYTES {
        return Err(ApiError::bad_request(format!(
            "Request with an inline template must have at most {} bytes.",
            rules::MAX_TEMPLATE_REQUEST_BYTES
        )));
    }
    Ok(())
}
