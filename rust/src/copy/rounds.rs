//! The rows of rounds: what `submit` and `submit_mails` take, read and written.
//!
//! The claim's COPY queries select these columns in this order; whoever has no table to select from encodes here.

use std::marker::PhantomData;

use super::{Bytes, Fields, Reader, Writer};
use crate::error::{Error, Result};

/// What a row of one kind consists of.
pub trait Layout {
    /// Names of the columns, in order.
    const COLUMNS: &[&str];
    /// A row, its fields read in place.
    type Row<'a>;

    /// Reads a row, all of whose fields must be taken.
    ///
    /// # Errors
    /// [`Error::data`] for a field that is not as it should be.
    fn read(fields: Fields<'_>) -> Result<Self::Row<'_>>;

    /// Writes the fields of a row that was begun.
    fn write(row: &Self::Row<'_>, fields: &mut Writer);
}

/// The rows that `submit` takes.
#[derive(Debug, Clone)]
pub enum Recipients {}

/// The rows that `submit_mails` takes.
#[derive(Debug, Clone)]
pub enum Mails {}

/// One recipient's row of a round: seq int4, attempt int2, skip int2, contact_id int8, email text, name text,
/// first_name text, last_name text, custom_fields jsonb, tracked bool.
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
    /// The COPY bytes of `rows`, as [`Self::parse`] reads them; `capacity_bytes` is a guess of their size.
    pub fn encode<'a>(rows: impl IntoIterator<Item = L::Row<'a>>, capacity_bytes: usize) -> Vec<u8> {
        let mut writer = Writer::new(L::COLUMNS.len() as i16, capacity_bytes);
        for row in rows {
            L::write(&row, writer.row());
        }
        writer.finish()
    }

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
            if next_of::<L>(&mut reader)?.is_none() {
                break;
            }
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
        let none = || Error::data(format!("there is no row {index}"));
        let start = *self.starts.get(index).ok_or_else(none)?;
        next_of::<L>(&mut Reader { bytes: &self.bytes, position: start as usize })?.ok_or_else(none)
    }
}

/// The next row, or `None` after the trailer.
fn next_of<'a, L: Layout>(reader: &mut Reader<'a>) -> Result<Option<L::Row<'a>>> {
    let Some(count) = reader.next_count()? else { return Ok(None) };
    if usize::try_from(count) != Ok(L::COLUMNS.len()) {
        let (expected, names) = (L::COLUMNS.len(), L::COLUMNS.join(", "));
        return Err(Error::data(format!("a row has {count} columns instead of these {expected}: {names}")));
    }
    L::read(reader.fields(count)?).map(Some)
}

impl Layout for Recipients {
    const COLUMNS: &[&str] = &[
        "seq",
        "attempt",
        "skip",
        "contact_id",
        "email",
        "name",
        "first_name",
        "last_name",
        "custom_fields",
        "tracked",
    ];
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

    fn write(row: &RecipientRow<'_>, fields: &mut Writer) {
        fields.int4(row.seq).int2(row.attempt).int2_or_null(row.skip).int8_or_null(row.contact_id);
        fields.text(row.email).text_or_null(row.name).text_or_null(row.first_name).text_or_null(row.last_name);
        fields.jsonb_or_null(row.custom_fields).bool(row.tracked);
    }
}

impl Layout for Mails {
    const COLUMNS: &[&str] = &["stream_id", "seq", "attempt", "skip", "email", "content"];
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

    fn write(row: &MailRow<'_>, fields: &mut Writer) {
        fields.int8(row.stream_id).int4(row.seq).int2(row.attempt).int2_or_null(row.skip);
        fields.text(row.email).raw(row.content);
    }
}

fn null(column: &str) -> Error {
    Error::data(format!("{column} is NULL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: RecipientRow<'_> = RecipientRow {
        seq: 7,
        attempt: 1,
        skip: None,
        contact_id: Some(42),
        email: "ann@example.com",
        name: Some("Ann Bü"),
        first_name: Some("Ann"),
        last_name: None,
        custom_fields: Some(b"{\"city\": \"Bern\"}"),
        tracked: false,
    };

    fn one_row() -> Vec<u8> {
        RecipientRows::encode([ANN], 0)
    }

    /// The bytes are those of the manual, not of this crate.
    #[test]
    fn a_row_is_what_postgresql_writes() {
        let fields: [&[u8]; 10] = [
            b"\0\0\0\x04\0\0\0\x07",
            b"\0\0\0\x02\0\x01",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x08\0\0\0\0\0\0\0\x2a",
            b"\0\0\0\x0fann@example.com",
            "\0\0\0\x07Ann Bü".as_bytes(),
            b"\0\0\0\x03Ann",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x11\x01{\"city\": \"Bern\"}",
            b"\0\0\0\x01\0",
        ];
        let row = [&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x0a"[..], &fields.concat(), b"\xff\xff"].concat();
        assert_eq!(one_row(), row);
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let mut state = 11_u64;
        let mut pick = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        let texts = ["", "Ann", "李 O'Neil", "\\N\t\n", "{{a}}"];
        let json: [Option<&[u8]>; 3] = [None, Some(b"{}"), Some("{\"größe\": [1, null]}".as_bytes())];
        for count in 0..200 {
            let recipients: Vec<_> = (0..count)
                .map(|_| RecipientRow {
                    seq: [1, 7, i32::MAX][pick(3)],
                    attempt: [1, 2, i16::MAX][pick(3)],
                    skip: [None, Some(0), Some(12)][pick(3)],
                    contact_id: [None, Some(1), Some(i64::MAX)][pick(3)],
                    email: texts[pick(5)],
                    name: [None, Some(texts[pick(5)])][pick(2)],
                    first_name: [None, Some(texts[pick(5)])][pick(2)],
                    last_name: [None, Some(texts[pick(5)])][pick(2)],
                    custom_fields: json[pick(3)],
                    tracked: pick(2) == 1,
                })
                .collect();
            let rows = RecipientRows::parse(RecipientRows::encode(recipients.clone(), 0).into()).unwrap();
            assert_eq!((0..rows.len()).map(|index| rows.get(index).unwrap()).collect::<Vec<_>>(), recipients);
            assert!(rows.get(recipients.len()).is_err());
            let mails: Vec<_> = (0..count)
                .map(|_| MailRow {
                    stream_id: [0, i64::MAX][pick(2)],
                    seq: [1, 7, i32::MAX][pick(3)],
                    attempt: [1, 2, i16::MAX][pick(3)],
                    skip: [None, Some(0), Some(12)][pick(3)],
                    email: texts[pick(5)],
                    content: [&b""[..], b"{}", b"\0\xff"][pick(3)],
                })
                .collect();
            let rows = MailRows::parse(MailRows::encode(mails.clone(), 0).into()).unwrap();
            assert_eq!((0..rows.len()).map(|index| rows.get(index).unwrap()).collect::<Vec<_>>(), mails);
        }
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
        assert_eq!(
            detail(narrow.finish()),
            "a row has 2 columns instead of these 10: seq, attempt, skip, contact_id, email, name, first_name, \
             last_name, custom_fields, tracked"
        );
        let mut wide_seq = Writer::new(10, 0);
        wide_seq.row().int8(1).int2(1).null().null().text("a@b").null().null().null().null().null();
        assert!(detail(wide_seq.finish()).contains("seq has 8 bytes"));
        let mut text_json = Writer::new(10, 0);
        text_json.row().int4(1).int2(1).null().null().text("a@b").null().null().null().text("{}").null();
        assert!(detail(text_json.finish()).contains("jsonb version 1"));
    }

    #[test]
    fn a_null_address_is_an_empty_one_and_a_null_consent_is_one() {
        let mut gone = Writer::new(10, 0);
        gone.row().int4(1).int2(1).int2(11).null().null().null().null().null().null().null();
        let rows = RecipientRows::parse(gone.finish().into()).unwrap();
        let row = rows.get(0).unwrap();
        assert_eq!((row.email, row.contact_id, row.tracked), ("", None, true));
    }
}
