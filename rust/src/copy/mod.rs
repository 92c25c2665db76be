//! PostgreSQL's binary COPY format, both ways.
//!
//! The layout is PostgreSQL's own ("COPY", section "Binary Format"): an 11-byte signature, a
//! flags word, a header extension, then per row a field count and length-prefixed fields, at
//! the end a count of -1. All integers are big endian. Fields are read in place, never copied.

mod rounds;

/// The owner of rows that are read in place.
pub use bytes::Bytes;

pub use rounds::{Layout, MailRow, MailRows, Mails, RecipientRow, RecipientRows, Recipients, Rows};

use crate::error::{Error, Result};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
const NULL_LENGTH: i32 = -1;
const END_OF_ROWS: i16 = -1;
/// Flag bit 16 says that rows carry OIDs; such files are not for us.
const FLAG_OIDS: i32 = 1 << 16;
const JSONB_VERSION: u8 = 1;

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
        match self.next_count()? {
            Some(count) if count == columns => self.fields(count).map(Some),
            Some(count) => Err(Error::data(format!("a row has {count} columns instead of {columns}"))),
            None => Ok(None),
        }
    }

    /// How many fields the next row says it has, or `None` after the trailer.
    fn next_count(&mut self) -> Result<Option<i16>> {
        let count = i16::from_be_bytes(self.array()?);
        if count != END_OF_ROWS {
            return Ok(Some(count));
        }
        match self.bytes.len() - self.position {
            0 => Ok(None),
            extra => Err(Error::data(format!("{extra} bytes follow the COPY trailer"))),
        }
    }

    /// The fields of a row whose count was read.
    fn fields(&mut self, count: i16) -> Result<Fields<'a>> {
        let start = self.position;
        for _ in 0..count {
            let length = i32::from_be_bytes(self.array()?);
            match usize::try_from(length) {
                Ok(length) => drop(self.take(length)?),
                Err(_) if length == NULL_LENGTH => {}
                Err(_) => return Err(Error::data(format!("a field has the length {length}"))),
            }
        }
        Ok(Fields { rest: &self.bytes[start..self.position] })
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

    /// An int2 field that may be NULL.
    pub fn int2_or_null(&mut self, value: Option<i16>) -> &mut Self {
        match value {
            Some(value) => self.int2(value),
            None => self.null(),
        }
    }

    /// An int4 field.
    pub fn int4(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// An int8 field. A timestamptz is one too: microseconds since 2000-01-01 UTC.
    pub fn int8(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// An int8 field that may be NULL.
    pub fn int8_or_null(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(value) => self.int8(value),
            None => self.null(),
        }
    }

    /// A bool field.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.raw(&[u8::from(value)])
    }

    /// A bool field that may be NULL.
    pub fn bool_or_null(&mut self, value: Option<bool>) -> &mut Self {
        match value {
            Some(value) => self.bool(value),
            None => self.null(),
        }
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

    /// A jsonb field that may be NULL: the UTF-8 text of the JSON.
    pub fn jsonb_or_null(&mut self, json: Option<&[u8]>) -> &mut Self {
        let Some(json) = json else { return self.null() };
        self.bytes.extend_from_slice(&(json.len() as i32 + 1).to_be_bytes());
        self.bytes.push(JSONB_VERSION);
        self.bytes.extend_from_slice(json);
        self
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
