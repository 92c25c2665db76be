//! An upload cut into pieces at the ends of records, in constant memory.

use super::csv::CsvFrames;
use super::json::JsonFrames;
use super::{PIECE_BYTES, RECORD_BYTES_MAX};
use crate::error::{Error, Result};

/// Records after which a piece is cut even where they are short: a row that cannot be read costs more than its bytes.
const PIECE_ROWS: u32 = 20_000;
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// What an upload is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header (RFC 4180), whatever the delimiter.
    Csv,
    /// A list of objects, an object that has one under `contacts`, or objects one after the other.
    Json,
    /// Objects one after the other, as in newline-delimited JSON.
    JsonLines,
}

/// Whole records in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// For [`super::Plan::read`]: CSV lines, or JSON values with their length as four bytes before each.
    pub body: Vec<u8>,
    /// The number of the first record. In CSV the header is 1; JSON counts from 1.
    pub first_row: u64,
    /// How many records there are.
    pub rows: u32,
}

/// The piece that is being filled.
#[derive(Debug)]
pub(super) struct Filling {
    pub body: Vec<u8>,
    /// Where the last whole record ends.
    end: usize,
    next_row: u64,
    rows: u32,
    done: Vec<Piece>,
}

impl Filling {
    pub fn new(first_row: u64) -> Self {
        Self { body: Vec::new(), end: 0, next_row: first_row, rows: 0, done: Vec::new() }
    }

    /// The number of the record under way.
    pub fn row(&self) -> u64 {
        self.next_row
    }

    /// Bytes of the record under way.
    pub fn unfinished(&self) -> &[u8] {
        &self.body[self.end..]
    }

    /// Drops the bytes of the record under way.
    pub fn drop_unfinished(&mut self) {
        self.body.truncate(self.end);
    }

    /// The bytes so far end a record.
    pub fn end_record(&mut self) {
        self.end = self.body.len();
        self.next_row += 1;
        self.rows += 1;
        if self.end >= PIECE_BYTES || self.rows >= PIECE_ROWS {
            self.cut();
        }
    }

    pub fn cut(&mut self) {
        if self.rows > 0 {
            let rest = self.body.split_off(self.end);
            let body = std::mem::replace(&mut self.body, rest);
            self.done.push(Piece { body, first_row: self.next_row - u64::from(self.rows), rows: self.rows });
        }
        (self.end, self.rows) = (0, 0);
    }

    pub fn check_length(&self, bytes: usize) -> Result<()> {
        if bytes <= RECORD_BYTES_MAX {
            return Ok(());
        }
        Err(Error::data(format!(
            "Row {} is longer than 1 MiB. Perhaps a quotation mark in it or before it is not closed.",
            self.next_row
        )))
    }
}

#[derive(Debug)]
enum Frames {
    Csv(Box<CsvFrames>),
    Json(JsonFrames),
}

/// Cuts one upload. Errors are about the whole upload and say what to do; after one, nothing more may be fed.
#[derive(Debug)]
pub struct Cutter {
    frames: Frames,
    filling: Filling,
    /// The first bytes, until there are enough to know what they are.
    opening: Option<Vec<u8>>,
}

impl Cutter {
    /// Without a `delimiter`, CSV is read with whichever of comma, semicolon, tab and bar its first line has most of.
    pub fn new(format: Format, delimiter: Option<u8>) -> Self {
        let (frames, first_row) = match format {
            Format::Csv => (Frames::Csv(Box::new(CsvFrames::new(delimiter))), 2),
            Format::Json => (Frames::Json(JsonFrames::new(false)), 1),
            Format::JsonLines => (Frames::Json(JsonFrames::new(true)), 1),
        };
        Self { frames, filling: Filling::new(first_row), opening: Some(Vec::new()) }
    }

    /// Takes the next bytes; gives the pieces that they complete.
    ///
    /// # Errors
    /// [`Error::data`] when the upload cannot be read, with a sentence for who sent it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Piece>> {
        match self.opening.take() {
            None => self.take(bytes)?,
            Some(mut opening) => {
                opening.extend_from_slice(bytes);
                if opening.len() < 4 {
                    self.opening = Some(opening);
                } else {
                    self.open(&opening)?;
                }
            }
        }
        Ok(std::mem::take(&mut self.filling.done))
    }

    /// The upload is complete; gives the last pieces.
    ///
    /// # Errors
    /// As [`Self::feed`], and when the upload ends in the middle or is empty.
    pub fn finish(&mut self) -> Result<Vec<Piece>> {
        if let Some(opening) = self.opening.take() {
            self.open(&opening)?;
        }
        match &mut self.frames {
            Frames::Csv(frames) => frames.finish(&mut self.filling)?,
            Frames::Json(frames) => frames.finish(&mut self.filling)?,
        }
        self.filling.cut();
        Ok(std::mem::take(&mut self.filling.done))
    }

    /// The columns of a CSV upload, once its header is in.
    pub fn columns(&self) -> Option<&[String]> {
        match &self.frames {
            Frames::Csv(frames) => frames.columns(),
            Frames::Json(_) => None,
        }
    }

    /// The delimiter of a CSV upload, once its header is in.
    pub fn delimiter(&self) -> Option<u8> {
        match &self.frames {
            Frames::Csv(frames) => frames.delimiter(),
            Frames::Json(_) => None,
        }
    }

    /// What stood around the contacts of a JSON upload, with `null` in their place; empty where nothing did.
    pub fn envelope(&self) -> &[u8] {
        match &self.frames {
            Frames::Csv(_) => b"",
            Frames::Json(frames) => frames.envelope(),
        }
    }

    fn open(&mut self, opening: &[u8]) -> Result<()> {
        let opening = opening.strip_prefix(UTF8_MARK).unwrap_or(opening);
        match opening {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..] => {
                Err(Error::data("The file is not UTF-8 but UTF-16 or binary. Save it as UTF-8 and send it again."))
            }
            [b'P', b'K', 3, 4, ..] => {
                Err(Error::data("This is a ZIP file or an Excel workbook. Save it as CSV in UTF-8 and send that."))
            }
            [0x1f, 0x8b, ..] => Err(Error::data("The file is compressed by gzip. Send it uncompressed.")),
            _ => self.take(opening),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.frames {
            Frames::Csv(frames) => frames.take(bytes, &mut self.filling),
            Frames::Json(frames) => frames.take(bytes, &mut self.filling),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(format: Format, upload: &[u8], step: usize) -> Result<(Vec<Piece>, Cutter)> {
        let mut cutter = Cutter::new(format, None);
        let mut pieces = Vec::new();
        for bytes in upload.chunks(step.max(1)) {
            pieces.extend(cutter.feed(bytes)?);
        }
        pieces.extend(cutter.finish()?);
        Ok((pieces, cutter))
    }

    fn rows(format: Format, upload: &[u8], step: usize) -> u32 {
        cut(format, upload, step).unwrap().0.iter().map(|piece| piece.rows).sum()
    }

    #[test]
    fn any_step_gives_the_same_records() {
        let csv = b"\xef\xbb\xbfemail;name\r\n\r\na@b.de;\"A\r\n\"\"B\"\r\nc@d.de;x\n\ne@f.de;";
        let json = br#" {"listId": "x", "contacts": [ {"email": "a]},\"b"}, 7 , [1,[2]] ], "tags": ["t"]} "#;
        let lines = b"{\"email\": \"a\"}\n\n{\"email\": \"}\"}\n12";
        for step in 1..csv.len() {
            let (pieces, cutter) = cut(Format::Csv, csv, step).unwrap();
            assert_eq!(cutter.columns().unwrap(), ["email", "name"]);
            assert_eq!(cutter.delimiter(), Some(b';'));
            assert_eq!((pieces.len(), pieces[0].rows, pieces[0].first_row), (1, 3, 2));
        }
        for step in 1..json.len() {
            let (pieces, cutter) = cut(Format::Json, json, step).unwrap();
            assert_eq!(pieces[0].rows, 3);
            assert_eq!(pieces[0].body, cut(Format::Json, json, 1).unwrap().0[0].body);
            let envelope: serde_json::Value = serde_json::from_slice(cutter.envelope()).unwrap();
            assert_eq!(envelope, serde_json::json!({"listId": "x", "contacts": null, "tags": ["t"]}));
            assert_eq!(rows(Format::JsonLines, lines, step), 3);
            assert_eq!(rows(Format::Json, lines, step), 3);
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let reason = |format, upload: &[u8]| cut(format, upload, 7).unwrap_err().detail;
        assert!(reason(Format::Csv, b"").contains("empty"));
        assert!(reason(Format::Csv, b"\xff\xfee\0m\0").contains("UTF-16"));
        assert!(reason(Format::Csv, b"PK\x03\x04....").contains("Excel"));
        assert!(reason(Format::Csv, b"email\n\"never closed\nx\n").contains("row 2"));
        assert!(reason(Format::Csv, b"em\xffail\nx\n").contains("UTF-8"));
        assert!(reason(Format::Json, b"").contains("empty"));
        assert!(reason(Format::Json, b"nonsense").contains("list"));
        for broken in
            [&b"[1"[..], b"[1,]", b"[1 2]", b"{\"contacts\": 1}", b"{\"contacts\": []} x", b"{\"a\" 1}", b"[\"x"]
        {
            assert!(cut(Format::Json, broken, 3).is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }

    #[test]
    fn one_endless_row_ends_the_upload_and_not_the_memory() {
        for (format, opening) in [(Format::Csv, &b"email\n\""[..]), (Format::Json, b"[\""), (Format::JsonLines, b"{\"")]
        {
            let mut cutter = Cutter::new(format, None);
            cutter.feed(opening).unwrap();
            let fed = (0..).find(|_| cutter.feed(&[b'x'; 65536]).is_err()).unwrap();
            assert!(fed < 20, "{format:?}: {fed}");
        }
    }

    #[test]
    fn blank_lines_are_no_row_however_many() {
        let mut upload = b"email\n".to_vec();
        upload.resize(3 * RECORD_BYTES_MAX, b'\n');
        upload.extend_from_slice(b"a@b.de");
        assert_eq!(rows(Format::Csv, &upload, 65536), 1);
    }

    #[test]
    fn pieces_are_cut_and_numbered() {
        let mut upload = b"email,note\n".to_vec();
        for n in 0..30_000 {
            upload.extend_from_slice(format!("a{n}@example.com,{}\n", "x".repeat(60)).as_bytes());
        }
        let (pieces, _) = cut(Format::Csv, &upload, 65_536).unwrap();
        assert!(pieces.len() > 2);
        let mut next = 2;
        for piece in &pieces {
            assert_eq!(piece.first_row, next);
            assert!(piece.rows <= PIECE_ROWS && piece.body.len() < PIECE_BYTES + 200);
            next += u64::from(piece.rows);
        }
        assert_eq!(next, 30_002);
    }
}
