//! One contact as an upload says it: checked like a contact that comes alone, and written as a row.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::FIELD_BYTES_MAX;
use crate::copy::Writer;

const NAME_CHARS_MAX: usize = 200;
const TAG_CHARS_MAX: usize = 100;
const TAGS_MAX: usize = 100;
const FIELDS_MAX: usize = 100;
const FIELDS_BYTES_MAX: usize = 16 * 1024;
const FIELD_NAME_MAX: usize = 64;
/// The renderer keeps this name for itself.
const RESERVED_FIELD: &str = "mailrail";
/// PostgreSQL's number of its type text.
const TEXT_OID: i32 = 25;
const JSONB_VERSION: u8 = 1;

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub code: &'static str,
    pub reason: String,
}

impl Fault {
    pub fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

pub(super) type Checked<T> = std::result::Result<T, Fault>;

/// A customer's word about consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Subscribed,
    Unsubscribed,
}

impl Status {
    /// Reads our own words and those of the exports of listmonk and Mailchimp; blank says nothing.
    pub fn read(text: &str) -> Checked<Option<Self>> {
        match text.trim().to_ascii_lowercase().as_str() {
            "" => Ok(None),
            "subscribed" | "enabled" | "active" | "confirmed" => Ok(Some(Self::Subscribed)),
            "unsubscribed" | "disabled" | "inactive" | "blocklisted" | "blacklisted" | "cleaned" | "bounced"
            | "complained" => Ok(Some(Self::Unsubscribed)),
            _ => Err(Fault::new("value_unknown", "status must be one of subscribed, unsubscribed.")),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Subscribed => "subscribed",
            Self::Unsubscribed => "unsubscribed",
        }
    }
}

/// A person's name, whole and in parts (`Names` in `mailrail/contacts/model.py`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub whole: Option<String>,
    pub first: Option<String>,
    pub last: Option<String>,
}

impl Names {
    /// What the row says and what follows from it: the parts of a whole name, or the whole of the parts.
    fn completed(&self) -> Self {
        let mut completed = self.clone();
        match &self.whole {
            Some(whole) => {
                let mut words = whole.split_whitespace();
                let first = words.next().map(str::to_owned);
                let rest = words.collect::<Vec<_>>().join(" ");
                completed.first = self.first.clone().or(first);
                completed.last = self.last.clone().or((!rest.is_empty()).then_some(rest));
            }
            None => {
                let parts = [&self.first, &self.last].into_iter().flatten().filter(|part| !part.is_empty());
                let joined = parts.map(String::as_str).collect::<Vec<_>>().join(" ");
                completed.whole = (!joined.is_empty()).then_some(joined);
            }
        }
        completed
    }

    /// After a later row said more of the same person.
    fn followed_by(self, later: Self) -> Self {
        if later.whole.is_some() {
            return later;
        }
        if later == Self::default() {
            return self;
        }
        let known = if self.whole.is_some() { self.completed() } else { self.clone() };
        let parts = Self { whole: None, first: later.first.or(known.first), last: later.last.or(known.last) };
        // Whoever had a whole name has all three said now.
        if self.whole.is_some() { Self { whole: parts.completed().whole, ..parts } } else { parts }
    }
}

/// What one row says of a person.
#[derive(Debug, Clone, Default)]
pub(super) struct Contact {
    pub email: String,
    pub names: Names,
    pub status: Option<Status>,
    pub tags: Vec<String>,
    /// A list takes a quarter of the memory of a map, and has few items.
    pub fields: Fields,
    /// Whether opens and clicks may be recorded.
    pub tracking: Option<bool>,
}

/// Custom fields, each name once.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Sets a field; the last word counts.
    pub fn set(&mut self, name: String, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.0.push((name, value)),
        }
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.iter().map(|(name, _)| name)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Contact {
    /// The order of the table's unique index, which is that of `lower(email)`; addresses are ASCII.
    pub fn folded(&self) -> String {
        self.email.to_ascii_lowercase()
    }

    /// Adds a tag, once.
    pub fn tag(&mut self, tag: &str) {
        if !self.tags.iter().any(|known| known == tag) {
            self.tags.push(tag.to_owned());
        }
    }

    /// A later row of the same address: its word counts, what it does not say stays. Who left once stays away.
    pub fn follow(&mut self, later: Self) {
        self.names = std::mem::take(&mut self.names).followed_by(later.names);
        if self.status != Some(Status::Unsubscribed) {
            self.status = later.status.or(self.status);
        }
        for tag in &later.tags {
            self.tag(tag);
        }
        for (name, value) in later.fields.0 {
            self.fields.set(name, value);
        }
        self.tracking = later.tracking.or(self.tracking);
    }

    /// What can only be judged of the whole.
    pub fn check(&self, tags_of_all: &[String]) -> Checked<()> {
        if self.tags.len() + self.lacking(tags_of_all).count() > TAGS_MAX {
            return Err(Fault::new("list_too_long", format!("tags has at most {TAGS_MAX} items.")));
        }
        let too_large = self.fields.0.len() > FIELDS_MAX
            || (!self.fields.0.is_empty()
                && serde_json::to_vec(&self.fields).map_or(true, |json| json.len() > FIELDS_BYTES_MAX));
        if too_large {
            let reason = format!("customFields has at most {FIELDS_MAX} fields and {FIELDS_BYTES_MAX} bytes of JSON.");
            return Err(Fault::new("custom_fields_too_large", reason));
        }
        Ok(())
    }

    fn lacking<'a>(&'a self, tags_of_all: &'a [String]) -> impl Iterator<Item = &'a String> {
        tags_of_all.iter().filter(|tag| !self.tags.contains(tag))
    }

    /// The row (email, name, first_name, last_name, name_given, status, tags, custom_fields, tracking).
    pub fn write(&self, rows: &mut Writer, tags_of_all: &[String]) {
        let names = self.names.completed();
        rows.row()
            .text(&self.email)
            .text_or_null(names.whole.as_deref())
            .text_or_null(names.first.as_deref())
            .text_or_null(names.last.as_deref())
            .raw(&[u8::from(self.names.whole.is_some())])
            .text_or_null(self.status.map(Status::word));
        let tags: Vec<&String> = self.tags.iter().chain(self.lacking(tags_of_all)).collect();
        rows.raw(&text_array(&tags));
        let mut json = vec![JSONB_VERSION];
        // Writing a map of values to memory cannot fail.
        if serde_json::to_writer(&mut json, &self.fields).is_err() {
            json = b"\x01{}".to_vec();
        }
        rows.raw(&json).bool_or_null(self.tracking);
    }
}

/// PostgreSQL's binary text[]: dimensions, whether there are NULLs, the type, then length and lower bound of the
/// dimension, then the elements with their lengths (array_send).
fn text_array(texts: &[&String]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + texts.iter().map(|text| text.len() + 4).sum::<usize>());
    for word in [i32::from(!texts.is_empty()), 0, TEXT_OID] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    if !texts.is_empty() {
        for word in [texts.len() as i32, 1] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
    }
    for text in texts {
        bytes.extend_from_slice(&(text.len() as i32).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// A text of one line and limited length.
pub(super) fn one_line(name: &str, text: &str, chars_max: usize) -> Checked<()> {
    if text.len() > chars_max && text.chars().count() > chars_max {
        return Err(Fault::new("text_too_long", format!("{name} has at most {chars_max} characters.")));
    }
    let odd = |c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}';
    if text.contains(odd) {
        let reason = format!("{name} must be one line without control characters.");
        return Err(Fault::new("text_control_character", reason));
    }
    Ok(())
}

/// A name or a part of it.
pub(super) fn person(field: &str, text: &str) -> Checked<String> {
    one_line(field, text, NAME_CHARS_MAX)?;
    Ok(text.to_owned())
}

/// A tag.
pub(super) fn tag(text: &str) -> Checked<&str> {
    if text.trim().is_empty() {
        return Err(Fault::new("field_empty", "A tag must not be empty."));
    }
    one_line("A tag", text, TAG_CHARS_MAX)?;
    Ok(text)
}

/// Whether opens and clicks may be recorded, in the words of people, spreadsheets and PostgreSQL's exports.
pub(super) fn tracking(text: &str) -> Checked<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err(Fault::new(
            "value_unknown",
            "tracking must be one of true, yes, on, 1, false, no, off, 0. If the column says something else, map it to \
             customFields.tracking, or to null.",
        )),
    }
}

/// The name of a custom field, as a template can say it.
pub(super) fn is_field_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.len() <= FIELD_NAME_MAX
        && name != RESERVED_FIELD
}

/// Refuses the custom fields whose name no template can say.
pub(super) fn field_name(name: &str) -> Checked<()> {
    if is_field_name(name) {
        return Ok(());
    }
    Err(Fault::new(
        "custom_field_name_invalid",
        "The name of a custom field has up to 64 letters, digits and underscores, does not begin with a digit, and is not \
         `mailrail`.",
    ))
}

/// The text of a CSV field.
pub(super) fn cell(bytes: &[u8]) -> Checked<&str> {
    if bytes.len() > FIELD_BYTES_MAX {
        return Err(Fault::new("text_too_long", format!("A field has more than {FIELD_BYTES_MAX} bytes.")));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Fault::new("encoding_invalid", "The row is not UTF-8. Save the file as UTF-8."))?;
    if text.contains('\0') {
        return Err(Fault::new("text_control_character", "A field has a NUL character."));
    }
    Ok(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(whole: &str, first: &str, last: &str) -> Names {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Names { whole: given(whole), first: given(first), last: given(last) }
    }

    #[test]
    fn names_are_completed_as_for_one_contact() {
        assert_eq!(names("Ann van Lee", "", "").completed(), names("Ann van Lee", "Ann", "van Lee"));
        assert_eq!(names("Ann Lee", "Annie", "").completed(), names("Ann Lee", "Annie", "Lee"));
        assert_eq!(names("", "", "Lee").completed(), names("Lee", "", "Lee"));
    }

    #[test]
    fn a_later_row_says_more_of_the_same_person() {
        assert_eq!(names("", "Ann", "").followed_by(names("", "", "Lee")), names("", "Ann", "Lee"));
        assert_eq!(names("Ann Lee", "", "").followed_by(names("", "Eve", "")), names("Eve Lee", "Eve", "Lee"));
        assert_eq!(names("", "Ann", "Lee").followed_by(names("Eve", "", "")), names("Eve", "", ""));
        assert_eq!(names("", "Ann", "").followed_by(Names::default()), names("", "Ann", ""));
        let mut contact = Contact { status: Some(Status::Unsubscribed), ..Contact::default() };
        contact.follow(Contact { status: Some(Status::Subscribed), tags: vec!["x".into()], ..Contact::default() });
        assert_eq!((contact.status, contact.tags), (Some(Status::Unsubscribed), vec!["x".to_owned()]));
    }

    #[test]
    fn words_of_other_exports_are_understood() {
        assert_eq!(Status::read("Enabled"), Ok(Some(Status::Subscribed)));
        assert_eq!(Status::read(" blocklisted "), Ok(Some(Status::Unsubscribed)));
        assert_eq!(Status::read(""), Ok(None));
        assert!(Status::read("maybe").is_err());
    }

    #[test]
    fn whether_somebody_is_tracked_is_said_in_few_words() {
        for word in ["true", "TRUE", "t", "Yes", "y", "on", "1"] {
            assert_eq!(tracking(word), Ok(true), "{word}");
        }
        for word in ["false", "False", "f", "no", "N", "off", "0"] {
            assert_eq!(tracking(word), Ok(false), "{word}");
        }
        for word in ["2", "-", "null", "untracked", "truefalse", "\u{2713}"] {
            assert_eq!(tracking(word).unwrap_err().code, "value_unknown", "{word}");
        }
    }
}
