//! Where the values of a JSON upload end, without looking into them, and one value read strictly.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::HEAD_BYTES_MAX;
use super::cutter::Filling;
use crate::error::{Error, Result};

const LENGTH_BYTES: usize = 4;
const DEPTH_MAX: usize = 32;
const NO_CONTACTS: &str = "The body must be a JSON list of contacts, or an object that has one under `contacts`.";

/// Finds the ends of values.
#[derive(Debug)]
pub(super) struct JsonFrames {
    place: Place,
    scan: Scan,
    /// The value under way.
    value: Vec<u8>,
    /// What stands around the contacts.
    head: Vec<u8>,
    key: Vec<u8>,
    /// Whether the contacts stand in an object.
    enveloped: bool,
    /// Whether the body began with an object that had no contacts in it.
    bare: bool,
    empty: bool,
}

/// What must or may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Lines,
    LineValue,
    FirstItem,
    NextItem,
    Item,
    AfterItem,
    FirstMember,
    NextMember,
    Key,
    Colon,
    BeforeMember,
    Member,
    AfterMember,
    Done,
}

/// Looks for the end of one value.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    plain: bool,
}

impl Scan {
    fn begin(first: u8) -> Self {
        let (depth, in_string) = (usize::from(first == b'{' || first == b'['), first == b'"');
        Self { depth, in_string, escaped: false, plain: depth == 0 && !in_string }
    }

    /// How many of the bytes belong to the value, if it ends among them.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return Some(index + 1);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n' if self.plain => return Some(index),
                b'"' => self.in_string = !self.plain,
                b'{' | b'[' if !self.plain => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(index + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

impl JsonFrames {
    pub fn new(lines: bool) -> Self {
        let place = if lines { Place::Lines } else { Place::Start };
        let (value, head, key) = (Vec::new(), Vec::new(), Vec::new());
        Self { place, scan: Scan::default(), value, head, key, enveloped: false, bare: false, empty: true }
    }

    pub fn envelope(&self) -> &[u8] {
        &self.head
    }

    pub fn take(&mut self, bytes: &[u8], filling: &mut Filling) -> Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            at += match self.place {
                Place::Item | Place::LineValue | Place::Key | Place::Member => self.go_on(&bytes[at..], filling)?,
                _ => self.step(bytes[at], filling)?,
            };
        }
        Ok(())
    }

    pub fn finish(&mut self, filling: &mut Filling) -> Result<()> {
        if self.place == Place::LineValue && self.scan.plain {
            self.end_value(filling);
        }
        match self.place {
            Place::Done => Ok(()),
            // Alone it may as well be an envelope whose contacts were forgotten, options and all.
            Place::Lines if self.bare && filling.row() == 2 => Err(Error::data(NO_CONTACTS)),
            Place::Lines if !self.empty => Ok(()),
            Place::Start | Place::Lines => Err(Error::data("The body is empty.")),
            _ => Err(Error::data(format!("The JSON ends in the middle, after {} whole contacts.", filling.row() - 1))),
        }
    }

    /// One byte between values; how many bytes were used.
    fn step(&mut self, byte: u8, filling: &mut Filling) -> Result<usize> {
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            return Ok(1);
        }
        self.empty = false;
        match (self.place, byte) {
            (Place::Start, b'[') => self.place = Place::FirstItem,
            (Place::Start, b'{') => self.note(b"{", Place::FirstMember)?,
            (Place::Lines, _) => return Ok(self.begin(byte, Place::LineValue)),
            (Place::FirstItem, b']') | (Place::AfterItem, b']') => {
                self.place = if self.enveloped { Place::AfterMember } else { Place::Done };
            }
            (Place::AfterItem, b',') => self.place = Place::NextItem,
            (Place::FirstItem | Place::NextItem, _) if byte != b',' && byte != b']' => {
                return Ok(self.begin(byte, Place::Item));
            }
            (Place::FirstMember | Place::NextMember, b'"') => {
                self.key.clear();
                return Ok(self.begin(byte, Place::Key));
            }
            (Place::Colon, b':') => self.note(b":", Place::BeforeMember)?,
            (Place::BeforeMember, b'[') if self.key == b"\"contacts\"" && !self.enveloped => {
                self.enveloped = true;
                self.note(b"null", Place::FirstItem)?;
            }
            (Place::BeforeMember, _) if self.key == b"\"contacts\"" => {
                return Err(Error::data("`contacts` must be one list of objects."));
            }
            (Place::BeforeMember, _) if !matches!(byte, b',' | b'}' | b']') => {
                return Ok(self.begin(byte, Place::Member));
            }
            (Place::AfterMember, b',') => self.note(b",", Place::NextMember)?,
            (Place::FirstMember | Place::AfterMember, b'}') => {
                self.note(b"}", Place::Done)?;
                if !self.enveloped {
                    // It was no envelope but the first of several contacts, one after the other.
                    self.bare = true;
                    std::mem::swap(&mut self.value, &mut self.head);
                    self.place = Place::LineValue;
                    self.end_value(filling);
                }
            }
            (Place::Start, _) => {
                return Err(Error::data(NO_CONTACTS));
            }
            _ => {
                let row = filling.row();
                return Err(Error::data(format!(
                    "The body is not JSON: there is something unexpected at contact {row}."
                )));
            }
        }
        Ok(1)
    }

    fn note(&mut self, text: &[u8], place: Place) -> Result<()> {
        self.head.extend_from_slice(text);
        self.place = place;
        if self.head.len() > HEAD_BYTES_MAX {
            return Err(Error::data("What stands beside `contacts` has more than 64 KiB."));
        }
        Ok(())
    }

    fn begin(&mut self, first: u8, place: Place) -> usize {
        self.scan = Scan::begin(first);
        self.place = place;
        self.value.push(first);
        1
    }

    /// Bytes within a value; how many of them were used.
    fn go_on(&mut self, bytes: &[u8], filling: &mut Filling) -> Result<usize> {
        let end = self.scan.end(bytes);
        let taken = end.unwrap_or(bytes.len());
        self.value.extend_from_slice(&bytes[..taken]);
        filling.check_length(self.value.len())?;
        if end.is_some() {
            match self.place {
                Place::Key | Place::Member => {
                    let value = std::mem::take(&mut self.value);
                    let next = if self.place == Place::Key { Place::Colon } else { Place::AfterMember };
                    self.note(&value, next)?;
                    if next == Place::Colon {
                        self.key = value;
                    }
                }
                _ => self.end_value(filling),
            }
        }
        Ok(taken)
    }

    fn end_value(&mut self, filling: &mut Filling) {
        // check_length keeps it far below what four bytes can say.
        filling.body.extend_from_slice(&(self.value.len() as u32).to_be_bytes());
        filling.body.extend_from_slice(&self.value);
        self.value.clear();
        filling.end_record();
        self.place = if self.place == Place::LineValue { Place::Lines } else { Place::AfterItem };
    }
}

/// The next value of a piece and what follows it.
///
/// # Errors
/// [`Error::data`] when the bytes are no piece.
pub(super) fn split_value(piece: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = piece.split_first_chunk::<LENGTH_BYTES>().ok_or_else(not_a_piece)?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(not_a_piece)
}

fn not_a_piece() -> Error {
    Error::data("the piece ends in the middle")
}

/// JSON read as `mailrail/web/body.py` reads it: no key twice, integers of 64 bits, limited nesting, no NUL in a text.
#[derive(Debug)]
pub(super) struct Strict(pub Value);

impl Strict {
    /// The value, or what is wrong with it.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Value, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "It is not UTF-8.".to_owned())?;
        let Strict(value) = serde_json::from_str(text).map_err(|error| format!("It is not JSON: {error}."))?;
        if depth(&value) > DEPTH_MAX {
            return Err(format!("It is nested deeper than {DEPTH_MAX} levels."));
        }
        Ok(value)
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Value, E> {
        i64::try_from(value).map(Value::from).map_err(|_| E::custom("an integer is outside of 64 bits"))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> std::result::Result<Value, E> {
        if value.contains('\0') {
            return Err(E::custom("a text has a NUL character"));
        }
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> std::result::Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((key, Strict(value))) = members.next_entry::<String, Strict>()? {
            if key.contains('\0') {
                return Err(de::Error::custom("a key has a NUL character"));
            }
            if values.insert(key, value).is_some() {
                return Err(de::Error::custom("a key stands twice in one object"));
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_strictly() {
        assert!(Strict::parse(br#"{"a": [1, -2.5, "x", null, {"b": true}]}"#).is_ok());
        let deep = [vec![b'['; 40], vec![b']'; 40]].concat();
        for broken in [
            &br#"{"a": 1, "a": 2}"#[..],
            b"9223372036854775808",
            br#""\u0000""#,
            br#""\ud800""#,
            b"1e999",
            b"NaN",
            b"{} x",
            b"\"\xff\"",
            &deep,
        ] {
            assert!(Strict::parse(broken).is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }
}
