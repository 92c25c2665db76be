//! What was accepted: the latest mails in full, and all of them in the accept log.
//!
//! A call is kept as it came, its template once and each entry's data; a mail is put together when somebody reads it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Value, json};

use crate::accept_log::{AcceptLog, Accepted};
use crate::address::{self, Fate};
use crate::clock;
use crate::mime;
use crate::rules::Recipients;
use crate::stats::{Mode, Operation};
use crate::template::{Rendered, Template};

/// The envelope of an accepted call: all that events need, without the bodies.
#[derive(Debug)]
pub struct Call {
    pub operation: Operation,
    pub mode: Mode,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Number of the first mail; the others follow.
    pub first: u64,
    /// From as it was given.
    pub from: Box<str>,
    /// Reply-To addresses as they were given.
    pub reply_to: Box<[Box<str>]>,
    pub configuration_set: Option<Box<str>>,
    /// The subject, where it is known without rendering.
    pub subject: Option<Box<str>>,
    pub mails: Box<[Mail]>,
    /// The text that [`Mail`] points into.
    pub text: Box<str>,
    /// Real addresses that the mail does not simply arrive at, and why.
    pub fates: Box<[(Box<str>, Fate)]>,
}

/// One mail of a call: spans of [`Call::text`], one after the other.
#[derive(Clone, Debug)]
pub struct Mail {
    pub start: u32,
    /// Up to here: bare addresses, one a line, to before cc before bcc.
    pub destination_end: u32,
    /// Up to here: headers as `Name: value` lines.
    pub headers_end: u32,
    /// Up to here: tags as `name=value` lines.
    pub tags_end: u32,
    pub recipients: Recipients,
    /// The slot that had no value: the mail is accepted, but never delivered.
    pub missing_slot: Option<Box<str>>,
    pub headers_fate: HeadersFate,
}

/// What happens to a mail's headers on their way, as far as Amazon's documentation allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadersFate {
    /// The custom headers arrive in the opposite order.
    pub is_reversed: bool,
    /// The signature does not cover the headers of unsubscribing.
    pub is_unsigned: bool,
}

/// What the mails of a call say.
#[derive(Debug)]
pub enum Content {
    /// One template, and the JSON object of each mail, concatenated; `ends` are their ends in `data`.
    Template { template: Arc<Template>, data: Box<str>, ends: Box<[u32]> },
    /// One mail, as it was given.
    Simple(Rendered),
    /// One mail in MIME.
    Raw(Box<[u8]>),
}

impl Call {
    /// What becomes of the mail to one of its addresses.
    pub fn fate(&self, address: &str) -> Fate {
        let own = self.fates.iter().find(|(known, _)| **known == *address);
        own.map_or_else(|| address::fate(address), |(_, fate)| *fate)
    }

    /// Bare addresses of all recipients.
    pub fn destination(&self, mail: &Mail) -> impl Iterator<Item = &str> {
        self.destination_lines(mail).lines()
    }

    /// Each mail as the log has it.
    fn accepted(&self) -> impl Iterator<Item = Accepted<'_>> {
        self.mails.iter().zip(self.first..).map(|(mail, number)| {
            let mail_id = self.headers(mail).find(|(name, _)| name.eq_ignore_ascii_case("X-Mailrail-Id"));
            let tag = self.tags(mail).find(|(name, _)| *name == "mr");
            Accepted {
                number,
                at_ms: self.at_ms,
                to: self.destination_lines(mail),
                mail_id: mail_id.map_or("", |(_, value)| value),
                tag: tag.map_or("", |(_, value)| value),
            }
        })
    }

    fn destination_lines(&self, mail: &Mail) -> &str {
        &self.text[mail.start as usize..mail.destination_end as usize]
    }

    /// The custom headers, in the order in which they arrive.
    pub fn headers(&self, mail: &Mail) -> impl Iterator<Item = (&str, &str)> {
        let is_reversed = mail.headers_fate.is_reversed;
        let mut lines = self.text[mail.destination_end as usize..mail.headers_end as usize].lines();
        let arriving = std::iter::from_fn(move || if is_reversed { lines.next_back() } else { lines.next() });
        arriving.filter_map(|line| line.split_once(": "))
    }

    /// What the `h=` of the DKIM signature enumerates: Amazon signs the headers that are there, in their order.
    fn signed_headers(&self, mail: &Mail) -> Vec<&str> {
        let Recipients { to, cc, .. } = mail.recipients;
        let envelope = [
            ("From", true),
            ("Reply-To", !self.reply_to.is_empty()),
            ("To", to > 0),
            ("Cc", cc > 0),
            ("Subject", true),
            ("MIME-Version", true),
            ("Content-Type", true),
        ];
        let present = envelope.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name);
        let is_left_out = |name: &str| {
            let name = name.to_ascii_lowercase();
            // A raw mail brings these itself.
            ["content-type", "message-id", "date"].contains(&&*name)
                || mail.headers_fate.is_unsigned && name.starts_with("list-unsubscribe")
        };
        let custom = self.headers(mail).map(|(name, _)| name).filter(|name| !is_left_out(name));
        present.chain(custom).chain(["Message-ID", "Date"]).collect()
    }

    /// The message tags.
    pub fn tags(&self, mail: &Mail) -> impl Iterator<Item = (&str, &str)> {
        let lines = &self.text[mail.headers_end as usize..mail.tags_end as usize];
        lines.lines().filter_map(|line| line.split_once('='))
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.mails.len() * size_of::<Mail>() + self.from.len() + size_of::<Call>()
    }
}

impl Content {
    /// Bytes of memory, without a shared template.
    fn bytes(&self) -> usize {
        match self {
            Content::Template { data, ends, .. } => data.len() + 4 * ends.len(),
            Content::Simple(rendered) => rendered.subject.len() + rendered.html.len() + rendered.text.len(),
            Content::Raw(mime) => mime.len(),
        }
    }

    /// The `n`th mail as its reader gets it.
    fn render(&self, n: usize) -> Rendered {
        match self {
            Content::Template { template, data, ends } => {
                let start = if n == 0 { 0 } else { ends[n - 1] as usize };
                // Data was measured when it was accepted, so it renders.
                template.render(&data[start..ends[n] as usize]).unwrap_or_default()
            }
            Content::Simple(rendered) => rendered.clone(),
            Content::Raw(bytes) => mime::read(bytes),
        }
    }
}

/// Makes the message id of a mail, in SES's shape, from the simulator's own `instance` number, the mail's number and time.
pub fn message_id(instance: u64, number: u64, at_ms: u64) -> String {
    format!(
        "0100{at_ms:012x}-{:08x}-{:04x}-{:04x}-{:04x}-{number:012x}-000000",
        instance >> 32,
        instance >> 16 & 0xffff,
        instance & 0xffff,
        0x8000 | number >> 48,
    )
}

/// The mails that can be read back.
pub struct Store {
    instance: u64,
    max_mails: usize,
    max_bytes: usize,
    calls: VecDeque<(Arc<Call>, Content)>,
    mails: usize,
    bytes: usize,
    /// How many kept calls use a template, by its address in memory: its bytes count once.
    template_uses: HashMap<usize, usize, foldhash::fast::RandomState>,
    /// Every mail ever accepted.
    pub log: AcceptLog,
    /// Where the same is appended, if anywhere.
    pub log_file: Option<File>,
}

impl Store {
    /// An empty store for `max_mails` mails in at most `max_bytes`, with a log of `log_bytes`.
    pub fn new(instance: u64, max_mails: usize, max_bytes: usize, log_bytes: usize) -> Store {
        Store {
            instance,
            max_mails,
            max_bytes,
            calls: VecDeque::new(),
            mails: 0,
            bytes: 0,
            template_uses: HashMap::default(),
            log: AcceptLog::new(log_bytes),
            log_file: None,
        }
    }

    /// Accepts a call: numbers its mails, logs and keeps them. `call.first` is set here. Accepts nothing if the file of
    /// the log does not take it.
    pub fn accept(&mut self, mut call: Call, content: Content) -> io::Result<Arc<Call>> {
        call.first = self.log.next_number();
        if let Some(file) = &mut self.log_file {
            // One write a call, so that a reader meets whole lines.
            file.write_all(&lines_of(&call, self.instance))?;
        }
        for accepted in call.accepted() {
            self.log.push(&accepted);
        }
        let call = Arc::new(call);
        if !call.mails.is_empty() {
            self.keep(call.clone(), content);
        }
        Ok(call)
    }

    fn keep(&mut self, call: Arc<Call>, content: Content) {
        self.mails += call.mails.len();
        self.bytes += call.bytes() + content.bytes();
        if let Content::Template { template, .. } = &content {
            let uses = self.template_uses.entry(Arc::as_ptr(template) as usize).or_default();
            if *uses == 0 {
                self.bytes += template.bytes();
            }
            *uses += 1;
        }
        self.calls.push_back((call, content));
        while self.bytes > self.max_bytes
            || self.calls.front().is_some_and(|(oldest, _)| self.mails - oldest.mails.len() >= self.max_mails)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((call, content)) = self.calls.pop_front() else {
            return;
        };
        self.mails -= call.mails.len();
        self.bytes -= call.bytes() + content.bytes();
        if let Content::Template { template, .. } = &content {
            let key = Arc::as_ptr(template) as usize;
            if let Some(uses) = self.template_uses.get_mut(&key) {
                *uses -= 1;
                if *uses == 0 {
                    self.template_uses.remove(&key);
                    self.bytes -= template.bytes();
                }
            }
        }
    }

    /// Forgets the mails kept for reading back; the log stays.
    pub fn forget_mails(&mut self) {
        while !self.calls.is_empty() {
            self.forget_oldest();
        }
    }

    /// The delivered mails as JSON, oldest first: those to `to` (any case), or all; at most the latest `limit`.
    pub fn read(&self, to: Option<&str>, limit: usize) -> Vec<Value> {
        let mut found = Vec::new();
        for (call, content) in self.calls.iter().rev() {
            for (n, mail) in call.mails.iter().enumerate().rev() {
                let is_wanted =
                    to.is_none_or(|to| call.destination(mail).any(|address| address.eq_ignore_ascii_case(to)));
                if found.len() < limit && is_wanted && mail.missing_slot.is_none() {
                    found.push(self.describe(call, content, n));
                }
            }
            if found.len() == limit {
                break;
            }
        }
        found.reverse();
        found
    }

    fn describe(&self, call: &Call, content: &Content, n: usize) -> Value {
        let mail = &call.mails[n];
        let rendered = content.render(n);
        let headers: Vec<Value> =
            call.headers(mail).map(|(name, value)| json!({"name": name, "value": value})).collect();
        let tags: serde_json::Map<String, Value> =
            call.tags(mail).map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        json!({
            "message_id": message_id(self.instance, call.first + n as u64, call.at_ms),
            "accepted_at": clock::iso(call.at_ms),
            "from": call.from,
            "reply_to": call.reply_to,
            "to": call.destination(mail).collect::<Vec<_>>(),
            "configuration_set": call.configuration_set,
            "operation": call.operation.name(),
            "mode": call.mode.name(),
            "headers": headers,
            "signed_headers": call.signed_headers(mail),
            "tags": tags,
            "digest": digest(&rendered),
            "subject": rendered.subject,
            "html": rendered.html,
            "text": rendered.text,
        })
    }
}

/// The mails of a call as lines of JSON.
fn lines_of(call: &Call, instance: u64) -> Vec<u8> {
    let mut lines = Vec::with_capacity(256 * call.mails.len());
    for accepted in call.accepted() {
        lines.extend_from_slice(accepted.describe(instance).to_string().as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// SHA-256 of subject, HTML and text with a NUL between them, in lower-case hexadecimal.
fn digest(rendered: &Rendered) -> String {
    let mut context = Context::new(&SHA256);
    for (n, part) in [&rendered.subject, &rendered.html, &rendered.text].into_iter().enumerate() {
        if n > 0 {
            context.update(b"\0");
        }
        context.update(part.as_bytes());
    }
    data_encoding::HEXLOWER.encode(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(addresses: &[&str]) -> Call {
        let mut text = String::new();
        let mut mails = Vec::new();
        for address in addresses {
            let start = text.len() as u32;
            text.push_str(address);
            text.push('\n');
            let destination_end = text.len() as u32;
            text.push_str("X-Mailrail-Id: eml_1\n");
            let headers_end = text.len() as u32;
            text.push_str("mr=tag\n");
            let recipients = Recipients { to: 1, cc: 0, all: 1, counted: 1 };
            let tags_end = text.len() as u32;
            let headers_fate = HeadersFate::default();
            mails.push(Mail {
                start,
                destination_end,
                headers_end,
                tags_end,
                recipients,
                missing_slot: None,
                headers_fate,
            });
        }
        Call {
            operation: Operation::SendBulkEmail,
            mode: Mode::Slots,
            at_ms: 1_767_323_045_000,
            first: 0,
            from: "a@b.co".into(),
            reply_to: [].into(),
            configuration_set: None,
            subject: None,
            mails: mails.into(),
            text: text.into(),
            fates: Box::default(),
        }
    }

    fn slots(template: &Arc<Template>, mails: usize) -> Content {
        let data = r#"{"a":"x"}"#;
        let ends = (1..=mails).map(|n| (n * data.len()) as u32).collect();
        Content::Template { template: template.clone(), data: data.repeat(mails).into(), ends }
    }

    fn template() -> Arc<Template> {
        Arc::new(Template::parse("S{{a}}", "H{{a}}", "T", false).unwrap())
    }

    #[test]
    fn mails_are_put_together_when_read() {
        let mut store = Store::new(7, 10, 1 << 20, 1 << 20);
        let accepted = store.accept(call(&["one@x.co", "two@x.co"]), slots(&template(), 2)).unwrap();
        assert_eq!(accepted.first, 0);
        let found = store.read(Some("TWO@x.co"), 100);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["subject"], "Sx");
        assert_eq!(found[0]["html"], "Hx");
        assert_eq!(found[0]["text"], "T");
        assert_eq!(found[0]["tags"]["mr"], "tag");
        assert_eq!(found[0]["headers"][0]["name"], "X-Mailrail-Id");
        assert_eq!(found[0]["message_id"], message_id(7, 1, 1_767_323_045_000));
        // printf 'Sx\0Hx\0T' | sha256sum
        assert_eq!(found[0]["digest"], "9383ccaf23120444320b482044b84e48f7c26dc988c82d65286a24c788f3ea16");
        assert_eq!(store.read(None, 1)[0]["to"][0], "two@x.co");
        assert_eq!(store.log.duplicates().0.len(), 1);
    }

    #[test]
    fn a_ring_keeps_at_least_the_latest_and_its_books_balance() {
        let mut store = Store::new(7, 10, 1 << 20, 1 << 20);
        let shared = template();
        for n in 0..100 {
            let address = format!("{n}@x.co");
            let template = if n % 2 == 0 { shared.clone() } else { template() };
            store.accept(call(&[&address, &address]), slots(&template, 2)).unwrap();
        }
        assert_eq!(store.mails, 10);
        assert_eq!(store.read(None, 100).len(), 10);
        assert_eq!(store.log.next_number(), 200);
        store.forget_mails();
        assert_eq!((store.mails, store.bytes, store.template_uses.len()), (0, 0, 0));
        assert_eq!(store.log.since(0).count(), 200);
    }

    #[test]
    fn the_byte_ceiling_holds() {
        let mut store = Store::new(7, 1000, 10_000, 1 << 20);
        for _ in 0..100 {
            let body = Rendered { html: "x".repeat(3000), ..Rendered::default() };
            store.accept(call(&["a@x.co"]), Content::Simple(body)).unwrap();
            assert!(store.bytes <= 10_000);
        }
        assert!(store.mails > 0);
    }
}
