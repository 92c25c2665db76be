//! What may stand in a mail's fields, and everything that is wrong with them at once.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::round::check_address;

/// SES takes 50 recipients (To, Cc and Bcc) per message.
const MAX_RECIPIENTS: usize = 50;
/// Addresses that replies go to; SES names no limit of its own.
const MAX_REPLY_TO: usize = 50;
/// As in the forms of the API.
const MAX_NAME_CHARS: usize = 200;
/// RFC 5322 allows 998 characters in a line; no client shows more of a subject.
const MAX_SUBJECT_CHARS: usize = 998;

/// An address and the name shown for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Display name, if any.
    #[serde(default)]
    pub name: Option<String>,
    /// The address.
    pub email: String,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Its path, as `attachments[0].filename`.
    pub param: String,
    /// A word to branch on.
    pub code: &'static str,
    /// One sentence that says what to do.
    pub message: String,
}

/// The errors found so far.
#[derive(Debug, Default)]
pub(super) struct Errors(pub(super) Vec<FieldError>);

impl Errors {
    pub(super) fn add(&mut self, param: impl Into<String>, code: &'static str, message: impl Into<String>) {
        self.0.push(FieldError { param: param.into(), code, message: message.into() });
    }

    /// Notes characters that could end a header or do not belong into a line: C0, C1, DEL and Unicode's line breaks.
    pub(super) fn check_line(&mut self, param: &str, text: &str) -> bool {
        let is_line = !text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
        if !is_line {
            self.add(param, "text_control_character", format!("{param} must be one line without control characters."));
        }
        is_line
    }

    pub(super) fn check_chars(&mut self, param: &str, text: &str, max_chars: usize) {
        // Counting is only worth it where bytes already exceed the limit.
        if text.len() > max_chars && text.chars().count() > max_chars {
            self.add(param, "text_too_long", format!("{param} has at most {max_chars} characters."));
        }
    }
}

/// The recipients as they are shown: trimmed names, none where they are empty.
pub(super) fn check_recipients([to, cc, bcc]: [Vec<Mailbox>; 3], errors: &mut Errors) -> [Vec<Mailbox>; 3] {
    let count = to.len() + cc.len() + bcc.len();
    if to.is_empty() {
        errors.add("to", "field_missing", "to is required.");
    }
    if count > MAX_RECIPIENTS {
        let message = format!("A mail has at most {MAX_RECIPIENTS} recipients (to, cc and bcc), this one has {count}.");
        errors.add("to", "list_too_long", message);
        // Fifty errors are enough, so nothing more is said of them.
        return [to, cc, bcc];
    }
    let mut known = HashSet::new();
    [("to", to), ("cc", cc), ("bcc", bcc)].map(|(list, mailboxes)| {
        let check = |(index, mailbox): (usize, Mailbox)| {
            let param = format!("{list}[{index}]");
            if !known.insert(mailbox.email.to_lowercase()) {
                let message = format!("{param} is an address that this mail has already.");
                errors.add(format!("{param}.email"), "recipient_repeated", message);
            }
            check_mailbox(&param, mailbox, errors)
        };
        mailboxes.into_iter().enumerate().map(check).collect()
    })
}

/// Where replies go.
pub(super) fn check_reply_to(mailboxes: Vec<Mailbox>, errors: &mut Errors) -> Vec<Mailbox> {
    if mailboxes.len() > MAX_REPLY_TO {
        errors.add("reply_to", "list_too_long", format!("reply_to has at most {MAX_REPLY_TO} items."));
        return mailboxes;
    }
    let check = |(index, mailbox)| check_mailbox(&format!("reply_to[{index}]"), mailbox, errors);
    mailboxes.into_iter().enumerate().map(check).collect()
}

/// One mailbox, its name trimmed.
pub(super) fn check_mailbox(param: &str, mailbox: Mailbox, errors: &mut Errors) -> Mailbox {
    let Mailbox { name, email } = mailbox;
    if check_address(&email).is_err() {
        let message = format!("{param}.email must be an address of the form name@domain in plain ASCII.");
        errors.add(format!("{param}.email"), "email_invalid", message);
    }
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    if let Some(name) = &name {
        let param = format!("{param}.name");
        errors.check_line(&param, name);
        errors.check_chars(&param, name, MAX_NAME_CHARS);
    }
    Mailbox { name, email }
}

/// The subject without outer white space. It is checked after rendering: a value may bring what no template has.
pub(super) fn check_subject(subject: &str, errors: &mut Errors) -> String {
    let subject = subject.trim_matches(' ');
    if errors.check_line("subject", subject) && subject.trim().is_empty() {
        errors.add("subject", "field_empty", "subject must not be empty.");
    }
    errors.check_chars("subject", subject, MAX_SUBJECT_CHARS);
    subject.trim().to_owned()
}

/// A body part, which may have lines but no NUL: no mail can carry one.
pub(super) fn check_body(param: &str, text: &str, errors: &mut Errors) {
    if text.contains('\0') {
        errors.add(param, "text_control_character", format!("{param} must not have NUL characters."));
    }
}
