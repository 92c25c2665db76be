//! Every accepted mail in a few dozen bytes: to whom, with which id and tag, and when.
//!
//! This is what a judge of "never twice, never missed" reads. It is written on the request path, so it only appends;
//! the work of comparing is done by whoever asks.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::path::Path;

use serde_json::{Value, json};

use crate::clock;
use crate::store::message_id;

/// Bytes per block.
const BLOCK_BYTES: usize = 1 << 20;

/// The log. Mails are numbered from 0 without gaps.
pub struct AcceptLog {
    blocks: VecDeque<Block>,
    next: u64,
    max_bytes: usize,
    is_complete: bool,
}

struct Block {
    first: u64,
    bytes: Vec<u8>,
}

/// One accepted mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// Number of the mail.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Bare addresses of all recipients, one a line.
    pub to: &'a str,
    /// The sender's own id of the mail, from the header `X-Mailrail-Id`; empty if none.
    pub mail_id: &'a str,
    /// The value of the tag `mr`; empty if none.
    pub tag: &'a str,
}

impl Accepted<'_> {
    /// As everybody reads it; `instance` is the simulator's own number.
    pub fn describe(&self, instance: u64) -> Value {
        json!({
            "number": self.number,
            "message_id": message_id(instance, self.number, self.at_ms),
            "to": self.to.lines().collect::<Vec<_>>(),
            "id": self.mail_id,
            "tag": self.tag,
            "at": clock::iso(self.at_ms),
        })
    }
}

/// Opens the file that outlives the simulator, if there shall be one. The error is a sentence.
pub fn open(path: Option<&Path>) -> Result<Option<File>, String> {
    let Some(path) = path else { return Ok(None) };
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map(Some).map_err(|error| format!("cannot open the accept log {}: {error}", path.display()))
}

impl AcceptLog {
    /// An empty log that forgets its oldest mails beyond `max_bytes`.
    pub fn new(max_bytes: usize) -> AcceptLog {
        AcceptLog { blocks: VecDeque::new(), next: 0, max_bytes, is_complete: true }
    }

    /// How many mails were ever accepted; the number of the next one.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// False once the oldest mails were forgotten.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Adds a mail, which must have the next number.
    pub fn push(&mut self, accepted: &Accepted) {
        debug_assert_eq!(accepted.number, self.next, "mails are numbered without gaps");
        let Accepted { at_ms, to, mail_id, tag, .. } = *accepted;
        let parts = [to, mail_id, tag].map(|part| &part.as_bytes()[..part.len().min(usize::from(u16::MAX))]);
        let needed = 8 + parts.iter().map(|part| 2 + part.len()).sum::<usize>();
        let is_full = self.blocks.back().is_none_or(|block| block.bytes.len() + needed > BLOCK_BYTES);
        if is_full {
            self.start_block();
        }
        if let Some(block) = self.blocks.back_mut() {
            block.bytes.extend_from_slice(&at_ms.to_le_bytes());
            for part in parts {
                block.bytes.extend_from_slice(&(part.len() as u16).to_le_bytes());
                block.bytes.extend_from_slice(part);
            }
        }
        self.next += 1;
    }

    fn start_block(&mut self) {
        // The oldest block is used again rather than freed.
        let mut bytes = if self.blocks.len() * BLOCK_BYTES >= self.max_bytes.max(BLOCK_BYTES) {
            self.is_complete = false;
            self.blocks.pop_front().map(|block| block.bytes).unwrap_or_default()
        } else {
            Vec::with_capacity(BLOCK_BYTES)
        };
        bytes.clear();
        self.blocks.push_back(Block { first: self.next, bytes });
    }

    /// All mails from number `from` on, oldest first.
    pub fn since(&self, from: u64) -> impl Iterator<Item = Accepted<'_>> {
        // Blocks that end before `from` are skipped whole.
        let skipped = self.blocks.partition_point(|block| block.first <= from).saturating_sub(1);
        self.blocks
            .iter()
            .skip(skipped)
            .flat_map(|block| Records { number: block.first, rest: &block.bytes })
            .filter(move |accepted| accepted.number >= from)
    }

    /// Groups of mails that carry the same id, ordered by id, and how many mails have no id.
    pub fn duplicates(&self) -> (Vec<Vec<Accepted<'_>>>, u64) {
        let mut counts: HashMap<&str, u32, foldhash::fast::RandomState> = HashMap::default();
        let mut without_id = 0;
        for accepted in self.since(0) {
            if accepted.mail_id.is_empty() {
                without_id += 1;
            } else {
                *counts.entry(accepted.mail_id).or_default() += 1;
            }
        }
        counts.retain(|_, count| *count > 1);
        let mut groups: HashMap<&str, Vec<Accepted>> = HashMap::new();
        if !counts.is_empty() {
            for accepted in self.since(0).filter(|accepted| counts.contains_key(accepted.mail_id)) {
                groups.entry(accepted.mail_id).or_default().push(accepted);
            }
        }
        let mut groups: Vec<Vec<Accepted>> = groups.into_values().collect();
        groups.sort_by_key(|group| group[0].number);
        (groups, without_id)
    }
}

struct Records<'a> {
    number: u64,
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    fn part(&mut self) -> Option<&'a str> {
        let (length, rest) = self.rest.split_first_chunk::<2>()?;
        let (part, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        self.rest = rest;
        std::str::from_utf8(part).ok()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Accepted<'a>;

    fn next(&mut self) -> Option<Accepted<'a>> {
        let (at_ms, rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        let at_ms = u64::from_le_bytes(*at_ms);
        let (to, mail_id, tag) = (self.part()?, self.part()?, self.part()?);
        self.number += 1;
        Some(Accepted { number: self.number - 1, at_ms, to, mail_id, tag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(log: &mut AcceptLog, at_ms: u64, to: &str, mail_id: &str, tag: &str) {
        let number = log.next_number();
        log.push(&Accepted { number, at_ms, to, mail_id, tag });
    }

    #[test]
    fn mails_are_read_back_in_order_and_from_a_number() {
        let mut log = AcceptLog::new(1 << 30);
        for n in 0..40_000 {
            push(&mut log, 1000 + n, &format!("a{n}@b.co\n"), &format!("eml_{n}"), "t");
        }
        assert!(log.blocks.len() > 1 && log.is_complete());
        assert_eq!(log.since(0).count(), 40_000);
        let last = log.since(39_999).collect::<Vec<_>>();
        let expected = Accepted { number: 39_999, at_ms: 40_999, to: "a39999@b.co\n", mail_id: "eml_39999", tag: "t" };
        assert_eq!(last, [expected]);
        assert_eq!(log.since(40_000).count(), 0);
    }

    #[test]
    fn the_same_id_twice_is_a_duplicate() {
        let mut log = AcceptLog::new(1 << 30);
        push(&mut log, 1, "a@b.co\n", "eml_1", "t1");
        push(&mut log, 2, "b@b.co\n", "", "");
        push(&mut log, 3, "c@b.co\n", "eml_2", "t2");
        push(&mut log, 4, "a@b.co\n", "eml_1", "t3");
        let (groups, without_id) = log.duplicates();
        assert_eq!(without_id, 1);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].iter().map(|accepted| accepted.number).collect::<Vec<_>>(), [0, 3]);
    }

    #[test]
    fn the_oldest_are_forgotten_beyond_the_limit() {
        let mut log = AcceptLog::new(2 * BLOCK_BYTES);
        for _ in 0..100_000 {
            push(&mut log, 1, "someone@example.com\n", "eml_aaaaaaaaaaaaaaaaaaaaaaaaaa", "");
        }
        assert!(!log.is_complete());
        assert!(log.blocks.len() <= 2);
        assert_eq!(log.since(0).last().map(|accepted| accepted.number), Some(99_999));
    }
}
