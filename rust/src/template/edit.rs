//! The source of a template, edited in place: splices, and text quoted such that the engine prints it unchanged.

use crate::scan::{Scan, scan_html};

/// A replacement of a byte range of a source.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    pub(crate) bytes: std::ops::Range<usize>,
    pub(crate) with: String,
}

impl Edit {
    pub(super) fn insert(at: usize, with: String) -> Self {
        Self { bytes: at..at, with }
    }
}

/// Splices `edits` into `source`; everything else keeps its bytes. Of edits at one place the earlier in the
/// list comes first. In broken HTML an address can swallow another edit's place: an insertion moves behind the
/// address, a replacement has lost its object.
pub(super) fn apply(source: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.bytes.start);
    let mut out = String::with_capacity(source.len() + edits.iter().map(|edit| edit.with.len()).sum::<usize>());
    let mut copied = 0;
    for edit in edits {
        if edit.bytes.start < copied && !edit.bytes.is_empty() {
            continue;
        }
        out.push_str(&source[copied..edit.bytes.start.max(copied)]);
        out.push_str(&edit.with);
        copied = edit.bytes.end.max(copied);
    }
    out.push_str(&source[copied..]);
    out
}

/// Each `{%` that HTML makes text, quoted for the template engine.
pub(super) fn quote_dead_blocks(scan: &Scan) -> Vec<Edit> {
    scan.dead.iter().map(|at| Edit { bytes: *at..at + 2, with: "{% raw %}{%{% endraw %}".to_owned() }).collect()
}

pub(super) fn with_dead_blocks_quoted(html: &str) -> String {
    apply(html, quote_dead_blocks(&scan_html(html)))
}

/// `text` as template source that prints it unchanged: a brace that would open a tag is printed by one.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        let next = text.as_bytes().get(at + 1);
        if character == '{' && matches!(next, Some(b'{' | b'%')) {
            out.push_str(BRACE);
        } else {
            out.push(character);
        }
    }
    out
}

/// A tag that prints one opening brace.
pub(crate) const BRACE: &str = "{{ '{' }}";
