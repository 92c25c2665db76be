//! PostgreSQL's binary COPY format, both ways.
//!
//! The layout is PostgreSQL's own ("COPY", section "Binary Format"): an 11-byte signature, a
//! flags word, a header extension, then per row a field count and length-prefixed fields, at
//! the end a count of -1. All integers are big endian. Fields are read in place, never copied.

use std::marker::PhantomData;

/// The owner of rows that are read in place.
pub use bytes::Bytes;

use crate::error::{Error, Result};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
const NULL_LENGTH: i32 = -1;
const END_OF_ROWS: i16 = -1;
/// Flag bit 16 says that rows carry OIDs; such files are not for us.
const FLAG_OIDS: i32 = 1 << 16;
const JSONB_VERSION: u8 = 1;

/// What a row of one kind consists of.
pub trait Layout {
    /// Number of columns.
    const COLUMNS: i16;
    /// A row, its fields read in place.
    type Row<'a>;

    /// Reads a row, all of whose fields must be taken.
    ///
    /// # Errors
    /// [`Error::data`] for a field that is not as it should be.
    fn read(fields: Fields<'_>) -> Result<Self::Row<'_>>;
}

/// The rows that `submit` takes.
#[derive(Debug, Clone)]
pub enum Recipients {}

/// The rows that `submit_mails` takes.
#[derive(Debug, Clone)]
pub enum Mails {}

/// One recipient's row of a round, as the claim's COPY query selects it:
/// seq int4, attempt int2, skip int2, contact_id int8, email text, name text, first_name text,
/// last_name text, custom_fields jsonb, tracked bool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipientRow<'a> {
    /// Number of the recipient in its stream, from 1.
    pub seq: i32,
    /// Number of the attempt, from 1.
    pub attempt: i16,
    /// An outcome code to pass through without sending.
    pub skip: Option<i16>,
    /// The contact, absent when it is gone.
    pub contact_id: Option<i64>,
    /// The frozen address; empty where the row has NULL (an erased one).
    pub email: &'a str,
    /// The contact's name as stored.
    pub name: Option<&'a str>,
    /// The contact's first name.
    pub first_name: Option<&'a str>,
    /// The contact's last name.
    pub last_name: Option<&'a str>,
    /// The contact's custom fields: the UTF-8 text of a JSON object.
    pub custom_fields: Option<&'a [u8]>,
    /// Whether opens and clicks may be known; a contact can say no.
    pub tracked: bool,
}

/// One copy of a single mail: stream_id int8, seq int4, attempt int2, skip int2, email text, content bytea.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailRow<'a> {
    /// The stream that the mail belongs to.
    pub stream_id: i64,
    /// Number of the copy in its stream, from 1.
    pub seq: i32,
    /// Number of the attempt, from 1.
    pub attempt: i16,
    /// An outcome code to pass through without sending.
    pub skip: Option<i16>,
    /// The one address that this copy goes to; empty where the row has NULL (an erased one).
    pub email: &'a str,
    /// What `prepare_mail` gave; empty where the row has NULL.
    pub content: &'a [u8],
}

/// The rows of one round of recipients.
pub type RecipientRows = Rows<Recipients>;

/// The rows of one round of single mails.
pub type MailRows = Rows<Mails>;

/// The checked rows of one round: the bytes and where each row starts.
#[derive(Debug, Clone)]
pub struct Rows<L> {
    bytes: Bytes,
    starts: Vec<u32>,
    layout: PhantomData<L>,
}

impl<L: Layout> Rows<L> {
    /// Walks all rows once and checks every field, so that nothing is sent from broken input.
    ///
    /// # Errors
    /// [`Error::data`] when the bytes are not a complete binary COPY of the layout above.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(Error::data("a round's rows must stay below 4 GiB"));
        }
        let mut reader = Reader::open(&bytes)?;
        let mut starts = Vec::with_capacity(bytes.len() / 128);
        loop {
            let start = reader.position;
            let Some(fields) = reader.next_row(L::COLUMNS)? else { break };
            L::read(fields)?;
            starts.push(start as u32);
        }
        Ok(Self { bytes, starts, layout: PhantomData })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Row `index`, counted from 0, in input order.
    ///
    /// # Errors
    /// [`Error::data`] when there is no such row.
    pub fn get(&self, index: usize) -> Result<L::Row<'_>> {
        let start = *self.starts.get(index).ok_or_else(|| Error::data(format!("there is no row {index}")))?;
        let mut reader = Reader { bytes: &self.bytes, position: start as usize };
        match reader.next_row(L::COLUMNS)? {
            Some(fields) => L::read(fields),
            None => Err(Error::data(format!("there is no row {index}"))),
        }
    }
}

impl Layout for Recipients {
    const COLUMNS: i16 = 10;
    type Row<'a> = RecipientRow<'a>;

    fn read(mut fields: Fields<'_>) -> Result<RecipientRow<'_>> {
        let row = RecipientRow {
            seq: fields.int4("seq")?.ok_or_else(|| null("seq"))?,
            attempt: fields.int2("attempt")?.ok_or_else(|| null("attempt"))?,
            skip: fields.int2("skip")?,
            contact_id: fields.int8("contact_id")?,
            email: fields.text("email")?.unwrap_or_default(),
            name: fields.text("name")?,
            first_name: fields.text("first_name")?,
            last_name: fields.text("last_name")?,
            custom_fields: fields.jsonb("custom_fields")?,
            tracked: fields.bool("tracked")?.unwrap_or(true),
        };
        fields.end()?;
        Ok(row)
    }
}

impl Layout for Mails {
    const COLUMNS: i16 = 6;
    type Row<'a> = MailRow<'a>;

    fn read(mut fields: Fields<'_>) -> Result<MailRow<'_>> {
        let row = MailRow {
            stream_id: fields.int8("stream_id")?.ok_or_else(|| null("stream_id"))?,
            seq: fields.int4("seq")?.ok_or_else(|| null("seq"))?,
            attempt: fields.int2("attempt")?.ok_or_else(|| null("attempt"))?,
            skip: fields.int2("skip")?,
            email: fields.text("email")?.unwrap_or_default(),
            content: fields.raw()?.unwrap_or_default(),
        };
        fields.end()?;
        Ok(row)
    }
}

fn null(column: &str) -> Error {
    Error::data(format!("{column} is NULL"))
}

/// Reads binary COPY bytes row by row.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Checks the header.
    ///
    /// # Errors
    /// [`Error::data`] for a wrong signature, unknown critical flags or a short header.
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Self { bytes, position: 0 };
        if reader.take(SIGNATURE.len())? != SIGNATURE {
            return Err(Error::data("the rows do not begin with PostgreSQL's binary COPY signature"));
        }
        let flags = i32::from_be_bytes(reader.array()?);
        // Bits 16 to 31 change the format: a reader must stop at any that it does not know.
        if flags & !0xffff != 0 {
            let what = if flags & FLAG_OIDS != 0 { "OIDs" } else { "an unknown feature" };
            return Err(Error::data(format!("the COPY header announces {what}")));
        }
        let extension = i32::from_be_bytes(reader.array()?);
        let extension = usize::try_from(extension).map_err(|_| Error::data("negative COPY header length"))?;
        reader.take(extension)?;
        Ok(reader)
    }

    /// The next row's fields, or `None` after the trailer.
    ///
    /// # Errors
    /// [`Error::data`] when the row has another number of columns than `columns`, the trailer
    /// is missing or bytes follow it.
    pub fn next_row(&mut self, columns: i16) -> Result<Option<Fields<'a>>> {
        let count = i16::from_be_bytes(self.array()?);
        if count == END_OF_ROWS {
            return match self.bytes.len() - self.position {
                0 => Ok(None),
                extra => Err(Error::data(format!("{extra} bytes follow the COPY trailer"))),
            };
        }
        if count != columns {
            return Err(Error::data(format!("a row has {count} columns instead of {columns}")));
        }
        let start = self.position;
        for _ in 0..count {
            let length = i32::from_be_bytes(self.array()?);
            match usize::try_from(length) {
                Ok(length) => drop(self.take(length)?),
                Err(_) if length == NULL_LENGTH => {}
                Err(_) => return Err(Error::data(format!("a field has the length {length}"))),
            }
        }
        Ok(Some(Fields { rest: &self.bytes[start..self.position] }))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.position.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| Error::data("the COPY bytes end in the middle"))?;
        let taken = &self.bytes[self.position..end];
        self.position = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Error::data("the COPY bytes end in the middle"))
    }
}

/// The fields of one row, taken one after the other.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The next field's bytes, `None` for NULL.
    ///
    /// # Errors
    /// [`Error::data`] when no field is left.
    pub fn raw(&mut self) -> Result<Option<&'a [u8]>> {
        let (length, rest) =
            self.rest.split_first_chunk::<4>().ok_or_else(|| Error::data("a row has too few columns"))?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.rest = rest;
            return Ok(None);
        };
        let (field, rest) =
            rest.split_at_checked(length).ok_or_else(|| Error::data("the COPY bytes end in the middle"))?;
        self.rest = rest;
        Ok(Some(field))
    }

    /// A bool column; `column` is its name for the error text.
    ///
    /// # Errors
    /// [`Error::data`] when the field is not 1 byte long.
    pub fn bool(&mut self, column: &str) -> Result<Option<bool>> {
        Ok(self.fixed(column)?.map(|[byte]: [u8; 1]| byte != 0))
    }

    /// An int2 column.
    ///
    /// # Errors
    /// [`Error::data`] when the field is not 2 bytes long.
    pub fn int2(&mut self, column: &str) -> Result<Option<i16>> {
        Ok(self.fixed(column)?.map(i16::from_be_bytes))
    }

    /// An int4 column.
    ///
    /// # Errors
    /// [`Error::data`] when the field is not 4 bytes long.
    pub fn int4(&mut self, column: &str) -> Result<Option<i32>> {
        Ok(self.fixed(column)?.map(i32::from_be_bytes))
    }

    /// An int8 column.
    ///
    /// # Errors
    /// [`Error::data`] when the field is not 8 bytes long.
    pub fn int8(&mut self, column: &str) -> Result<Option<i64>> {
        Ok(self.fixed(column)?.map(i64::from_be_bytes))
    }

    /// A text column.
    ///
    /// # Errors
    /// [`Error::data`] when the field is not UTF-8.
    pub fn text(&mut self, column: &str) -> Result<Option<&'a str>> {
        match self.raw()? {
            None => Ok(None),
            Some(raw) => match std::str::from_utf8(raw) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(Error::data(format!("{column} is not UTF-8"))),
            },
        }
    }

    /// A jsonb column: the UTF-8 JSON text after the version byte (jsonb_recv, version 1).
    ///
    /// # Errors
    /// [`Error::data`] for another version or text that is not UTF-8. The JSON itself is
    /// parsed by its user.
    pub fn jsonb(&mut self, column: &str) -> Result<Option<&'a [u8]>> {
        match self.raw()? {
            None => Ok(None),
            Some([JSONB_VERSION, json @ ..]) if std::str::from_utf8(json).is_ok() => Ok(Some(json)),
            Some(_) => Err(Error::data(format!("{column} is not jsonb version 1"))),
        }
    }

    /// Checks that no field is left.
    ///
    /// # Errors
    /// [`Error::data`] otherwise.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::data("a row has too many columns")) }
    }

    fn fixed<const N: usize>(&mut self, column: &str) -> Result<Option<[u8; N]>> {
        match self.raw()? {
            None => Ok(None),
            Some(raw) => match raw.try_into() {
                Ok(array) => Ok(Some(array)),
                Err(_) => Err(Error::data(format!("{column} has {} bytes instead of {N}", raw.len()))),
            },
        }
    }
}

/// Writes binary COPY bytes, header to trailer.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    columns: i16,
}

impl Writer {
    /// A writer of rows with `columns` columns each; `capacity_bytes` is a guess of the size.
    pub fn new(columns: i16, capacity_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity_bytes + 32);
        bytes.extend_from_slice(SIGNATURE);
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, columns }
    }

    /// Begins a row; exactly the announced number of fields must follow.
    pub fn row(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(&self.columns.to_be_bytes());
        self
    }

    /// An int2 field.
    pub fn int2(&mut self, value: i16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// An int4 field.
    pub fn int4(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// An int8 field. A timestamptz is one too: microseconds since 2000-01-01 UTC.
    pub fn int8(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// A text field. PostgreSQL's text cannot hold NUL, so such a character becomes a space.
    pub fn text(&mut self, value: &str) -> &mut Self {
        if value.contains('\0') {
            return self.raw(value.replace('\0', " ").as_bytes());
        }
        self.raw(value.as_bytes())
    }

    /// A text field that may be NULL.
    pub fn text_or_null(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    /// A bool field that may be NULL.
    pub fn bool_or_null(&mut self, value: Option<bool>) -> &mut Self {
        match value {
            Some(value) => self.raw(&[u8::from(value)]),
            None => self.null(),
        }
    }

    /// A NULL field.
    pub fn null(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(&NULL_LENGTH.to_be_bytes());
        self
    }

    /// A field of raw bytes (bytea).
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        // PostgreSQL itself refuses fields above 1 GiB, far below what an i32 can say.
        self.bytes.extend_from_slice(&(value.len() as i32).to_be_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    /// Appends the trailer and gives the bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&END_OF_ROWS.to_be_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_row() -> Vec<u8> {
        let mut writer = Writer::new(Recipients::COLUMNS, 0);
        writer.row().int4(7).int2(1).null().int8(42).text("ann@example.com").text("Ann Bü").text("Ann").null();
        writer.raw(b"\x01{\"city\": \"Bern\"}").raw(b"\0");
        writer.finish()
    }

    #[test]
    fn a_written_row_is_read_back() {
        let rows = RecipientRows::parse(one_row().into()).unwrap();
        assert_eq!(rows.len(), 1);
        let row = rows.get(0).unwrap();
        assert_eq!((row.seq, row.attempt, row.skip, row.contact_id), (7, 1, None, Some(42)));
        assert_eq!((row.email, row.name, row.first_name), ("ann@example.com", Some("Ann Bü"), Some("Ann")));
        assert_eq!((row.last_name, row.custom_fields), (None, Some(&b"{\"city\": \"Bern\"}"[..])));
        assert!(!row.tracked);
        assert!(rows.get(1).is_err());
    }

    #[test]
    fn no_rows_are_fine() {
        let rows = RecipientRows::parse(Writer::new(Recipients::COLUMNS, 0).finish().into()).unwrap();
        assert!(rows.is_empty());
    }

    #[test]
    fn every_cut_is_an_error_and_never_a_panic() {
        let whole = one_row();
        for end in 0..whole.len() {
            assert!(RecipientRows::parse(Bytes::copy_from_slice(&whole[..end])).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn every_flipped_byte_is_an_error_or_other_data() {
        let whole = one_row();
        for index in 0..whole.len() {
            for bit in 0..8 {
                let mut broken = whole.clone();
                broken[index] ^= 1 << bit;
                if let Ok(rows) = RecipientRows::parse(broken.into()) {
                    assert_eq!(rows.len(), 1);
                    rows.get(0).unwrap();
                }
            }
        }
    }

    #[test]
    fn wrong_shapes_say_what_is_wrong() {
        let detail = |bytes: Vec<u8>| RecipientRows::parse(bytes.into()).unwrap_err().detail;
        let mut extra = one_row();
        extra.push(0);
        assert!(detail(extra).contains("follow the COPY trailer"));
        let mut oids = one_row();
        oids[12] = 1;
        assert!(detail(oids).contains("OIDs"));
        let mut narrow = Writer::new(2, 0);
        narrow.row().int4(1).int2(1);
        assert!(detail(narrow.finish()).contains("2 columns instead of 10"));
        let mut wide_seq = Writer::new(Recipients::COLUMNS, 0);
        wide_seq.row().int8(1).int2(1).null().null().text("a@b").null().null().null().null().null();
        assert!(detail(wide_seq.finish()).contains("seq has 8 bytes"));
        let mut text_json = Writer::new(Recipients::COLUMNS, 0);
        text_json.row().int4(1).int2(1).null().null().text("a@b").null().null().null().text("{}").null();
        assert!(detail(text_json.finish()).contains("jsonb version 1"));
    }
}
