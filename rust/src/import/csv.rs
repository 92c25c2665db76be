//! Where CSV records end, and their fields. Both by the same automaton (csv-core), so that they cannot disagree.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::cutter::Filling;
use super::{COLUMNS_MAX, HEAD_BYTES_MAX};
use crate::error::{Error, Result};

const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

fn reader(delimiter: u8) -> Reader {
    ReaderBuilder::new().delimiter(delimiter).build()
}

fn is_line_break(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// Finds the ends of records.
#[derive(Debug)]
pub(super) struct CsvFrames {
    delimiter: Option<u8>,
    /// Bytes of the header while it is not complete.
    head: Vec<u8>,
    header: Option<Header>,
    output: Vec<u8>,
    ends: Vec<usize>,
}

#[derive(Debug)]
struct Header {
    columns: Vec<String>,
    delimiter: u8,
    reader: Reader,
}

impl CsvFrames {
    pub fn new(delimiter: Option<u8>) -> Self {
        Self { delimiter, head: Vec::new(), header: None, output: vec![0; 64 * 1024], ends: vec![0; COLUMNS_MAX] }
    }

    pub fn columns(&self) -> Option<&[String]> {
        self.header.as_ref().map(|header| &header.columns[..])
    }

    pub fn delimiter(&self) -> Option<u8> {
        self.header.as_ref().map(|header| header.delimiter)
    }

    pub fn take(&mut self, bytes: &[u8], filling: &mut Filling) -> Result<()> {
        if self.header.is_some() {
            return self.scan(bytes, filling);
        }
        self.head.extend_from_slice(bytes);
        match first_line(&self.head) {
            Some((start, end)) => self.open(start, end, filling),
            None if self.head.len() > HEAD_BYTES_MAX => {
                Err(Error::data("The first line has to name the columns, in at most 64 KiB."))
            }
            None => Ok(()),
        }
    }

    pub fn finish(&mut self, filling: &mut Filling) -> Result<()> {
        if self.header.is_none() {
            let start = self.head.iter().position(|&byte| !is_line_break(byte));
            let start = start.ok_or_else(|| Error::data("The file is empty."))?;
            self.open(start, self.head.len(), filling)?;
        }
        let pending = filling.unfinished().iter().any(|&byte| !is_line_break(byte));
        let Some(header) = self.header.as_mut() else { return Ok(()) };
        // A line break ends every record but one within quotation marks.
        let (result, ..) = header.reader.read_record(b"\n", &mut self.output, &mut self.ends);
        match (pending, result) {
            (true, ReadRecordResult::Record) => filling.end_record(),
            (true, _) => {
                let row = filling.row();
                return Err(Error::data(format!("A quotation mark in row {row} is never closed.")));
            }
            (false, _) => filling.drop_unfinished(),
        }
        Ok(())
    }

    fn open(&mut self, start: usize, end: usize, filling: &mut Filling) -> Result<()> {
        let head = std::mem::take(&mut self.head);
        let line = &head[start..end];
        let delimiter = self.delimiter.unwrap_or_else(|| likeliest_delimiter(line));
        let columns = read_columns(line, delimiter)?;
        self.header = Some(Header { columns, delimiter, reader: reader(delimiter) });
        self.scan(&head[end..], filling)
    }

    fn scan(&mut self, bytes: &[u8], filling: &mut Filling) -> Result<()> {
        let Some(header) = self.header.as_mut() else { return Ok(()) };
        let mut at = 0;
        while at < bytes.len() {
            let (result, taken, ..) = header.reader.read_record(&bytes[at..], &mut self.output, &mut self.ends);
            filling.body.extend_from_slice(&bytes[at..at + taken]);
            at += taken;
            if result == ReadRecordResult::Record {
                filling.end_record();
            } else if let Err(error) = filling.check_length(filling.unfinished().len()) {
                if filling.unfinished().iter().any(|&byte| !is_line_break(byte)) {
                    return Err(error);
                }
                filling.drop_unfinished();
            }
        }
        Ok(())
    }
}

/// The first line that is not blank, once its end is in.
fn first_line(head: &[u8]) -> Option<(usize, usize)> {
    let start = head.iter().position(|&byte| !is_line_break(byte))?;
    let mut quoted = false;
    for (index, &byte) in head.iter().enumerate().skip(start) {
        quoted ^= byte == b'"';
        if !quoted && is_line_break(byte) {
            return Some((start, index));
        }
    }
    None
}

fn likeliest_delimiter(line: &[u8]) -> u8 {
    let mut counts = [0; DELIMITERS.len()];
    let mut quoted = false;
    for &byte in line {
        quoted ^= byte == b'"';
        if let Some(index) = DELIMITERS.iter().position(|&delimiter| delimiter == byte && !quoted) {
            counts[index] += 1;
        }
    }
    // The first of the most frequent.
    let best = (0..counts.len()).rev().max_by_key(|&index| counts[index]).unwrap_or(0);
    DELIMITERS[best]
}

fn read_columns(line: &[u8], delimiter: u8) -> Result<Vec<String>> {
    let mut records = Records::new(line, delimiter);
    let record = records.next().ok_or_else(|| Error::data("The first line has to name the columns."))?;
    if record.count > COLUMNS_MAX {
        return Err(Error::data(format!("The file has more than {COLUMNS_MAX} columns.")));
    }
    let mut columns = Vec::new();
    for index in 0..record.count {
        let name = std::str::from_utf8(record.field(index));
        let name =
            name.map_err(|_| Error::data("The first line is not UTF-8. Save the file as UTF-8 and send it again."))?;
        columns.push(name.trim().to_owned());
    }
    Ok(columns)
}

/// Reads the records of a piece, one after the other, into buffers of its own.
#[derive(Debug)]
pub(super) struct Records<'a> {
    rest: &'a [u8],
    reader: Reader,
    output: Vec<u8>,
    ends: Vec<usize>,
    ended: bool,
}

/// The fields of one record; of more than [`COLUMNS_MAX`] only the number is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    output: &'a [u8],
    ends: &'a [usize],
    pub count: usize,
}

impl<'a> Record<'a> {
    pub fn field(&self, index: usize) -> &'a [u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.output[start..self.ends[index]]
    }
}

impl<'a> Records<'a> {
    pub fn new(rest: &'a [u8], delimiter: u8) -> Self {
        let (output, ends) = (vec![0; 16 * 1024], vec![0; COLUMNS_MAX + 1]);
        Self { rest, reader: reader(delimiter), output, ends, ended: false }
    }

    pub fn next(&mut self) -> Option<Record<'_>> {
        let (mut written, mut fields, mut beyond) = (0, 0, 0);
        while !self.ended {
            let (result, taken, out, ends) =
                self.reader.read_record(self.rest, &mut self.output[written..], &mut self.ends[fields..]);
            // Without input the automaton is told that this was all.
            let at_end = self.rest.is_empty();
            self.rest = &self.rest[taken..];
            written += out;
            fields += ends;
            match result {
                ReadRecordResult::OutputFull => self.output.resize(2 * self.output.len(), 0),
                ReadRecordResult::OutputEndsFull => {
                    beyond += 1;
                    fields = COLUMNS_MAX;
                }
                ReadRecordResult::Record => {
                    let count = fields + beyond;
                    return Some(Record { output: &self.output, ends: &self.ends, count });
                }
                ReadRecordResult::End => self.ended = true,
                ReadRecordResult::InputEmpty => self.ended = at_end,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Vec<String>> {
        let mut records = Records::new(bytes, b',');
        let mut found = Vec::new();
        while let Some(record) = records.next() {
            found.push(
                (0..record.count).map(|index| String::from_utf8_lossy(record.field(index)).into_owned()).collect(),
            );
        }
        found
    }

    #[test]
    fn quotes_line_breaks_and_a_last_line_without_one() {
        assert_eq!(all(b"a,\"b,\"\"c\"\"\nd\"\r\n\r\n,\n\"x\""), [vec!["a", "b,\"c\"\nd"], vec!["", ""], vec!["x"]]);
    }

    #[test]
    fn long_fields_and_many_columns_fit() {
        let long = "x".repeat(100_000);
        assert_eq!(all(format!("{long},y\n").as_bytes()), [vec![long.as_str(), "y"]]);
        let mut records = Records::new(&[b','; 5000], b',');
        assert!(records.next().unwrap().count > COLUMNS_MAX);
        assert!(records.next().is_none());
    }

    #[test]
    fn the_delimiter_is_the_one_of_the_first_line() {
        for (line, delimiter) in
            [("a;b;c,d", b';'), ("a\tb", b'\t'), ("email", b','), ("\"a;b;c\",d", b','), ("a|b", b'|')]
        {
            assert_eq!(likeliest_delimiter(line.as_bytes()), delimiter, "{line}");
        }
    }
}
