//! What the columns or keys of an upload mean, and its pieces read by it.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::address::{Checked as Address, check_address};
use super::contact::{self, Checked, Contact, Fault, Status};
use super::csv::{Record, Records};
use super::json::{Strict, split_value};
use crate::copy::Writer;
use crate::error::{Error, Result};

const CONTACT_COLUMNS: i16 = 9;
const ERROR_COLUMNS: i16 = 4;
/// How much of a refused address its error repeats.
const SHOWN_CHARS_MAX: usize = 254;

/// Where a column or key goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Email,
    Name,
    FirstName,
    LastName,
    Status,
    Tags,
    Tracking,
    /// All custom fields at once, as an object.
    Fields,
    Field(String),
    Nowhere,
}

impl Target {
    fn parse(text: Option<&str>) -> Result<Self> {
        Ok(match text {
            None => Self::Nowhere,
            Some("email") => Self::Email,
            Some("name") => Self::Name,
            Some("firstName") => Self::FirstName,
            Some("lastName") => Self::LastName,
            Some("status") => Self::Status,
            Some("tags") => Self::Tags,
            Some("tracking") => Self::Tracking,
            Some("customFields") => Self::Fields,
            Some(other) => match other.strip_prefix("customFields.") {
                Some(name) if contact::is_field_name(name) => Self::Field(name.to_owned()),
                _ => return Err(Error::data(format!("{other:?} is not a field of a contact"))),
            },
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    format: String,
    delimiter: Option<String>,
    columns: Option<Vec<Option<String>>>,
    mapping: Option<HashMap<String, Option<String>>>,
    #[serde(default)]
    tags: Vec<String>,
    status: Option<String>,
}

/// Addresses with international domains that somebody who has Unicode's tables has judged.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// As written → as stored.
    pub valid: HashMap<String, String>,
    /// As written → why mail cannot be sent to it.
    pub refused: HashMap<String, String>,
}

/// One piece's rows.
#[derive(Debug, Clone)]
pub struct Read {
    /// COPY rows (email text, name text, first_name text, last_name text, name_given bool, status text null, tags
    /// text[], custom_fields jsonb, tracking bool null), one per address, in the order of the folded address.
    pub contacts: Vec<u8>,
    /// COPY rows (row int8, code text, reason text, email text null), in the order of the upload.
    pub errors: Vec<u8>,
    /// Rows in `contacts`.
    pub contact_count: usize,
    /// Rows in `errors`.
    pub error_count: usize,
    /// Rows that a later row of the same piece and address stood in for.
    pub doubled_count: usize,
    /// Names of custom fields that occur, sorted.
    pub field_names: Vec<String>,
    /// Addresses that are not judged yet. Unless there are none, all else here is unfinished: read again, knowing them.
    pub unknown: Vec<String>,
}

/// What the columns or keys of one upload mean.
#[derive(Debug)]
pub struct Plan {
    reading: Reading,
    tags: Vec<String>,
    status: Option<Status>,
}

#[derive(Debug)]
enum Reading {
    Csv { delimiter: u8, columns: Vec<Target> },
    Json { mapping: HashMap<String, Target> },
}

impl Plan {
    /// `{"format": "csv" | "json", "delimiter", "columns": [target | null, …], "mapping": {key: target | null}, "tags",
    /// "status"}`. A target is email, name, firstName, lastName, status, tags, tracking, customFields or customFields.x.
    ///
    /// # Errors
    /// [`Error::data`] for other JSON.
    pub fn from_json(options: &[u8]) -> Result<Self> {
        let options: Options = serde_json::from_slice(options)
            .map_err(|error| Error::data(format!("the plan is not as described: {error}")))?;
        let reading = match options.format.as_str() {
            "csv" => {
                let delimiter = options.delimiter.as_deref().unwrap_or(",").as_bytes();
                let [delimiter] = *delimiter else { return Err(Error::data("the delimiter must be one byte")) };
                let columns = options.columns.unwrap_or_default();
                let columns = columns.iter().map(|target| Target::parse(target.as_deref())).collect::<Result<_>>()?;
                Reading::Csv { delimiter, columns }
            }
            "json" => {
                let mapping = options.mapping.unwrap_or_default().into_iter();
                let parse = |(key, target): (String, Option<String>)| Ok((key, Target::parse(target.as_deref())?));
                Reading::Json { mapping: mapping.map(parse).collect::<Result<_>>()? }
            }
            other => return Err(Error::data(format!("{other:?} is not a format"))),
        };
        let status = options.status.as_deref().map(Status::read).transpose();
        let status = status.map_err(|fault| Error::data(fault.reason))?.flatten();
        Ok(Self { reading, tags: options.tags, status })
    }

    /// Reads one piece, whose first record has the number `first_row`.
    ///
    /// # Errors
    /// [`Error::data`] when the bytes are no piece of such an upload. What is wrong with a record is a row in `errors`.
    pub fn read(&self, piece: &[u8], first_row: u64, known: &Known) -> Result<Read> {
        let mut reader = PieceReader::new(self, known, piece.len());
        let mut row = first_row;
        match &self.reading {
            Reading::Csv { delimiter, columns } => {
                let mut records = Records::new(piece, *delimiter);
                while let Some(record) = records.next() {
                    let mut email = None;
                    let read = reader.read_record(&record, columns, &mut email);
                    reader.take(row, read, email.as_deref());
                    row += 1;
                }
            }
            Reading::Json { mapping } => {
                let mut rest = piece;
                while !rest.is_empty() {
                    let (value, after) = split_value(rest)?;
                    let mut email = None;
                    let read = reader.read_value(value, mapping, &mut email);
                    reader.take(row, read, email.as_deref());
                    (row, rest) = (row + 1, after);
                }
            }
        }
        Ok(reader.finish())
    }
}

struct PieceReader<'a> {
    plan: &'a Plan,
    known: &'a Known,
    contacts: Vec<(String, Contact)>,
    errors: Writer,
    error_count: usize,
    unknown: Vec<String>,
    size: usize,
}

/// A row that waits for its address to be judged.
struct Waits;

impl<'a> PieceReader<'a> {
    fn new(plan: &'a Plan, known: &'a Known, size: usize) -> Self {
        let errors = Writer::new(ERROR_COLUMNS, 0);
        Self { plan, known, contacts: Vec::new(), errors, error_count: 0, unknown: Vec::new(), size }
    }

    fn take(&mut self, row: u64, read: Checked<std::result::Result<Contact, Waits>>, email: Option<&str>) {
        match read {
            Ok(Ok(contact)) => self.contacts.push((contact.folded(), contact)),
            Ok(Err(Waits)) => {}
            Err(fault) => {
                self.error_count += 1;
                let shown = email.map(|text| text.chars().take(SHOWN_CHARS_MAX).collect::<String>());
                self.errors.row().int8(row as i64).text(fault.code).text(&fault.reason).text_or_null(shown.as_deref());
            }
        }
    }

    fn read_record(
        &mut self,
        record: &Record<'_>,
        columns: &[Target],
        email: &mut Option<String>,
    ) -> Checked<std::result::Result<Contact, Waits>> {
        let place = columns.iter().position(|target| *target == Target::Email);
        if let Some(index) = place.filter(|&index| index < record.count) {
            // First of all, so that what is wrong elsewhere can be told beside the address.
            *email = Some(String::from_utf8_lossy(record.field(index)).trim().to_owned());
        }
        if record.count != columns.len() {
            let reason = format!("The row has {} fields, the header names {}.", record.count, columns.len());
            return Err(Fault::new("row_shape_wrong", reason));
        }
        let mut contact = Contact::default();
        for (index, target) in columns.iter().enumerate() {
            let text = contact::cell(record.field(index))?;
            if !text.is_empty() {
                take_text(&mut contact, target, text)?;
            }
        }
        self.finish_contact(contact, email.as_deref())
    }

    fn read_value(
        &mut self,
        value: &[u8],
        mapping: &HashMap<String, Target>,
        email: &mut Option<String>,
    ) -> Checked<std::result::Result<Contact, Waits>> {
        let value = Strict::parse(value).map_err(|reason| Fault::new("row_unreadable", reason))?;
        let Value::Object(members) = value else {
            return Err(Fault::new("type_wrong", "A contact must be an object."));
        };
        let mut contact = Contact::default();
        let mut wrong = None;
        for (key, value) in members {
            let target = match mapping.get(&key) {
                Some(target) => target.clone(),
                None if key.starts_with("customFields.") => return Err(unknown_key(&key)),
                None => Target::parse(Some(&key)).map_err(|_| unknown_key(&key))?,
            };
            if let (Target::Email, Value::String(text)) = (&target, &value) {
                *email = Some(text.clone());
            }
            if !value.is_null()
                && let Err(fault) = take_value(&mut contact, &target, value)
            {
                wrong.get_or_insert(fault);
            }
        }
        match wrong {
            Some(fault) => Err(fault),
            None => self.finish_contact(contact, email.as_deref()),
        }
    }

    fn finish_contact(
        &mut self,
        mut contact: Contact,
        email: Option<&str>,
    ) -> Checked<std::result::Result<Contact, Waits>> {
        let written = email.filter(|text| !text.is_empty());
        let written = written.ok_or_else(|| Fault::new("field_missing", "email is required."))?;
        contact.status = contact.status.or(self.plan.status);
        contact.check(&self.plan.tags)?;
        contact.email = match check_address(written) {
            Address::Valid(address) => address,
            Address::Refused(reason) => return Err(Fault::new("email_invalid", reason)),
            Address::Ask => match (self.known.valid.get(written), self.known.refused.get(written)) {
                (Some(address), _) => address.clone(),
                (None, Some(reason)) => return Err(Fault::new("email_invalid", reason.clone())),
                (None, None) => {
                    self.unknown.push(written.to_owned());
                    return Ok(Err(Waits));
                }
            },
        };
        Ok(Ok(contact))
    }

    fn finish(mut self) -> Read {
        let row_count = self.contacts.len();
        // Stable, so that rows of one address stay in the order of the upload.
        self.contacts.sort_by(|(left, _), (right, _)| left.cmp(right));
        let mut merged: Vec<(String, Contact)> = Vec::with_capacity(row_count);
        for (folded, contact) in self.contacts {
            match merged.last_mut() {
                Some((last, known)) if *last == folded => known.follow(contact),
                _ => merged.push((folded, contact)),
            }
        }
        let contact_count = merged.len();
        let mut rows = Writer::new(CONTACT_COLUMNS, 2 * self.size);
        let mut field_names: Vec<String> = Vec::new();
        for (_, contact) in merged.drain(..) {
            contact.write(&mut rows, &self.plan.tags);
            for name in contact.fields.names() {
                if let Err(place) = field_names.binary_search(name) {
                    field_names.insert(place, name.clone());
                }
            }
        }
        self.unknown.sort_unstable();
        self.unknown.dedup();
        Read {
            contacts: rows.finish(),
            errors: self.errors.finish(),
            contact_count,
            error_count: self.error_count,
            doubled_count: row_count - contact_count,
            field_names,
            unknown: self.unknown,
        }
    }
}

fn unknown_key(key: &str) -> Fault {
    let key: String = key.chars().take(80).collect();
    Fault::new("field_unknown", format!("{key} is not a field of a contact. Put it under customFields, or map it."))
}

/// A CSV field that is not blank.
fn take_text(contact: &mut Contact, target: &Target, text: &str) -> Checked<()> {
    match target {
        // The address was taken before.
        Target::Email | Target::Nowhere => {}
        Target::Name => contact.names.whole = Some(contact::person("name", text)?),
        Target::FirstName => contact.names.first = Some(contact::person("firstName", text)?),
        Target::LastName => contact.names.last = Some(contact::person("lastName", text)?),
        Target::Status => contact.status = Status::read(text)?,
        Target::Tags => {
            // Mailchimp's exports quote each tag.
            let tags = text.split([',', ';']).map(|tag| tag.trim().trim_matches('"').trim());
            for tag in tags.filter(|tag| !tag.is_empty()) {
                contact.tag(contact::tag(tag)?);
            }
        }
        Target::Tracking => contact.tracking = Some(contact::tracking(text)?),
        Target::Fields => {
            let value = Strict::parse(text.as_bytes()).map_err(|reason| Fault::new("row_unreadable", reason))?;
            take_value(contact, target, value)?;
        }
        Target::Field(name) => contact.fields.set(name.clone(), Value::from(text)),
    }
    Ok(())
}

/// A JSON value that is not null.
fn take_value(contact: &mut Contact, target: &Target, value: Value) -> Checked<()> {
    match (target, value) {
        (Target::Nowhere, _) | (Target::Email, Value::String(_)) => {}
        (Target::Name, Value::String(text)) => contact.names.whole = Some(contact::person("name", &text)?),
        (Target::FirstName, Value::String(text)) => contact.names.first = Some(contact::person("firstName", &text)?),
        (Target::LastName, Value::String(text)) => contact.names.last = Some(contact::person("lastName", &text)?),
        (Target::Status, Value::String(text)) => contact.status = Status::read(&text)?,
        (Target::Tags, Value::Array(tags)) => {
            for tag in tags {
                let Value::String(tag) = tag else { return Err(type_wrong("tags", "a list of strings")) };
                contact.tag(contact::tag(&tag)?);
            }
        }
        (Target::Tracking, Value::Bool(tracking)) => contact.tracking = Some(tracking),
        (Target::Fields, Value::Object(fields)) => take_fields(contact, fields)?,
        (Target::Field(name), value) => contact.fields.set(name.clone(), value),
        (Target::Tags, _) => return Err(type_wrong("tags", "a list of strings")),
        (Target::Tracking, _) => return Err(type_wrong("tracking", "true or false")),
        (Target::Fields, _) => return Err(type_wrong("customFields", "an object")),
        (target, _) => return Err(type_wrong(name_of(target), "a string")),
    }
    Ok(())
}

fn take_fields(contact: &mut Contact, fields: Map<String, Value>) -> Checked<()> {
    for (name, value) in fields {
        contact::field_name(&name)?;
        contact.fields.set(name, value);
    }
    Ok(())
}

fn type_wrong(name: &str, wanted: &str) -> Fault {
    Fault::new("type_wrong", format!("{name} must be {wanted}."))
}

fn name_of(target: &Target) -> &'static str {
    match target {
        Target::Email => "email",
        Target::Name => "name",
        Target::FirstName => "firstName",
        Target::LastName => "lastName",
        _ => "status",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cutter, Format};
    use super::*;
    use crate::copy::Reader;

    fn read(format: Format, plan: &str, upload: &[u8], known: &Known) -> Read {
        let mut cutter = Cutter::new(format, None);
        let mut pieces = cutter.feed(upload).unwrap();
        pieces.extend(cutter.finish().unwrap());
        let plan = Plan::from_json(plan.as_bytes()).unwrap();
        assert_eq!(pieces.len(), 1);
        plan.read(&pieces[0].body, pieces[0].first_row, known).unwrap()
    }

    fn emails(read: &Read) -> Vec<String> {
        let mut reader = Reader::open(&read.contacts).unwrap();
        let mut found = Vec::new();
        while let Some(mut fields) = reader.next_row(CONTACT_COLUMNS).unwrap() {
            found.push(fields.text("email").unwrap().unwrap().to_owned());
        }
        found
    }

    fn trackings(read: &Read) -> Vec<Option<bool>> {
        let mut reader = Reader::open(&read.contacts).unwrap();
        let mut found = Vec::new();
        while let Some(mut fields) = reader.next_row(CONTACT_COLUMNS).unwrap() {
            for _ in 1..CONTACT_COLUMNS {
                fields.raw().unwrap();
            }
            found.push(fields.bool("tracking").unwrap());
        }
        found
    }

    fn errors(read: &Read) -> Vec<(i64, String)> {
        let mut reader = Reader::open(&read.errors).unwrap();
        let mut found = Vec::new();
        while let Some(mut fields) = reader.next_row(ERROR_COLUMNS).unwrap() {
            found.push((fields.int8("row").unwrap().unwrap(), fields.text("code").unwrap().unwrap().to_owned()));
        }
        found
    }

    const COLUMNS: &str =
        r#"{"format": "csv", "columns": ["email", "name", "tags", "customFields.city", null], "tags": ["all"]}"#;

    #[test]
    fn good_rows_are_sorted_and_bad_ones_told_with_their_number() {
        let upload = b"e,n,t,c,x\nz@b.de,Z,\"a;b\",Bern,\nnone,N,,,\nA@b.de,,,,\nq@b.de,Q\ny@b.de,\"two\nlines\",,,\n\
                       a@b.de,Ann,c,,\nu@b.de,\xff,,,\n";
        let read = read(Format::Csv, COLUMNS, upload, &Known::default());
        assert_eq!(emails(&read), ["A@b.de", "z@b.de"]);
        assert_eq!((read.contact_count, read.doubled_count, read.error_count), (2, 1, 4));
        let codes = errors(&read);
        let codes: Vec<(i64, &str)> = codes.iter().map(|(row, code)| (*row, code.as_str())).collect();
        let expected =
            [(3, "email_invalid"), (5, "row_shape_wrong"), (6, "text_control_character"), (8, "encoding_invalid")];
        assert_eq!(codes, expected);
        assert_eq!(read.field_names, ["city"]);
    }

    #[test]
    fn json_rows_are_as_strict_as_single_contacts() {
        let upload = br#"[{"email": "a@b.de", "tags": ["x"], "customFields": {"n": 1}}, {"email": "b@b.de", "nmae": "B"},
            {"email": 7}, {"mail": "c@b.de", "old": 1}, 5, {"email": "d@b.de", "customFields": {"0": 1}}, {"email": null}]"#;
        let plan = r#"{"format": "json", "mapping": {"mail": "email", "old": "customFields.old"}}"#;
        let read = read(Format::Json, plan, upload, &Known::default());
        assert_eq!(emails(&read), ["a@b.de", "c@b.de"]);
        let rows: Vec<i64> = errors(&read).into_iter().map(|(row, _)| row).collect();
        assert_eq!(rows, [2, 3, 5, 6, 7]);
        assert_eq!(read.field_names, ["n", "old"]);
    }

    #[test]
    fn tracking_is_true_false_or_not_said() {
        let upload = b"email,tracking\na@b.de,FALSE\nb@b.de, yes \nc@b.de,\nd@b.de,maybe\na@b.de,\nb@b.de,0\n";
        let csv =
            read(Format::Csv, r#"{"format": "csv", "columns": ["email", "tracking"]}"#, upload, &Known::default());
        assert_eq!(trackings(&csv), [Some(false), Some(false), None]);
        assert_eq!(errors(&csv), [(5, "value_unknown".to_owned())]);
        let upload = br#"[{"email": "a@b.de", "tracking": false}, {"email": "b@b.de", "tracking": null},
            {"email": "c@b.de", "tracking": true}, {"email": "d@b.de", "tracking": "false"}, {"email": "e@b.de", "tracking": 0}]"#;
        let json = read(Format::Json, r#"{"format": "json"}"#, upload, &Known::default());
        assert_eq!(trackings(&json), [Some(false), None, Some(true)]);
        assert_eq!(errors(&json), [(4, "type_wrong".to_owned()), (5, "type_wrong".to_owned())]);
    }

    #[test]
    fn international_domains_are_asked_for() {
        let upload = "email\nx@b\u{fc}cher.example\ny@xn--.example\nz@b.de\n";
        let plan = r#"{"format": "csv", "columns": ["email"]}"#;
        let asked = read(Format::Csv, plan, upload.as_bytes(), &Known::default());
        assert_eq!(asked.unknown, ["x@b\u{fc}cher.example", "y@xn--.example"]);
        let mut known = Known::default();
        known.valid.insert(asked.unknown[0].clone(), "x@xn--bcher-kva.example".to_owned());
        known.refused.insert(asked.unknown[1].clone(), "no".to_owned());
        let told = read(Format::Csv, plan, upload.as_bytes(), &known);
        assert!(told.unknown.is_empty());
        assert_eq!(emails(&told), ["x@xn--bcher-kva.example", "z@b.de"]);
        assert_eq!(errors(&told), [(3, "email_invalid".to_owned())]);
    }

    #[test]
    fn broken_plans_and_pieces_are_errors() {
        for plan in ["", "{}", r#"{"format": "xml"}"#, r#"{"format": "csv", "columns": ["mailrail"]}"#] {
            assert!(Plan::from_json(plan.as_bytes()).is_err(), "{plan}");
        }
        let plan = Plan::from_json(br#"{"format": "json"}"#).unwrap();
        assert!(plan.read(&[0, 0, 1, 0, b'x'], 1, &Known::default()).is_err());
    }
}
