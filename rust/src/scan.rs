//! One pass over a template's source: where its live template tags are, and where HTML makes `{%` plain text.
//!
//! Mail builders put `{%` and `{#` into style sheets, scripts and conditional comments. There (in a *region*)
//! `{%` is text, while `{{ … }}` stays live. Tag ends are found as the template engine's lexer finds them:
//! outside strings and outside open brackets.

use std::ops::Range;

/// What a live template tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagKind {
    /// `{{ … }}`
    Print,
    /// `{% … %}`
    Block,
    /// A whole `{% raw %} … {% endraw %}`.
    Raw,
}

/// A live template tag with its delimiters, as a byte range of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) kind: TagKind,
    pub(crate) bytes: Range<usize>,
}

/// What a source contains. All ranges and positions are in bytes, ascending, on character boundaries.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) tags: Vec<Tag>,
    /// Comments whole; style and script elements from `<` to before their end tag.
    pub(crate) regions: Vec<Range<usize>>,
    /// Each `{%` that is text because it lies in a region.
    pub(crate) dead: Vec<usize>,
    /// Right after the first `<body …>`.
    pub(crate) body_start: Option<usize>,
    /// At the last `</body`.
    pub(crate) body_end: Option<usize>,
}

/// Scans a template of HTML.
pub(crate) fn scan_html(source: &str) -> Scan {
    Scanner::new(source, true, true).run()
}

/// Scans a template without markup: every tag is live.
pub(crate) fn scan_plain(source: &str) -> Scan {
    Scanner::new(source, false, true).run()
}

/// Scans HTML that is no template: what looks like a tag is text.
pub(crate) fn scan_finished(html: &str) -> Scan {
    Scanner::new(html, true, false).run()
}

impl Scan {
    /// The tags that touch `bytes`.
    pub(crate) fn tags_within(&self, bytes: &Range<usize>) -> &[Tag] {
        let first = self.tags.partition_point(|tag| tag.bytes.end <= bytes.start);
        let last = self.tags.partition_point(|tag| tag.bytes.start < bytes.end);
        self.tags.get(first..last).unwrap_or_default()
    }

    /// Whether a live tag contains `word` between characters that cannot continue an identifier.
    pub(crate) fn mentions(&self, source: &str, word: &str) -> bool {
        self.tags.iter().filter(|tag| tag.kind != TagKind::Raw).any(|tag| {
            let text = &source[tag.bytes.clone()];
            text.match_indices(word).any(|(at, _)| {
                let before = text[..at].bytes().next_back();
                let after = text.as_bytes().get(at + word.len()).copied();
                !before.is_some_and(in_identifier) && !after.is_some_and(in_identifier)
            })
        })
    }

    /// The source with every live tag replaced by as many letters, so that positions stay the same and an
    /// HTML parser sees one plain word.
    pub(crate) fn mask(&self, source: &str) -> Vec<u8> {
        let mut masked = source.as_bytes().to_vec();
        for tag in &self.tags {
            masked[tag.bytes.clone()].fill(b'x');
        }
        masked
    }
}

fn in_identifier(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

#[derive(Clone, Copy)]
enum Region {
    Comment,
    Style,
    Script,
}

struct Scanner<'s> {
    source: &'s [u8],
    html: bool,
    template: bool,
    at: usize,
    scan: Scan,
    /// Per region kind: no end was found once, so none follows. Keeps the scan linear.
    unclosed: [bool; 3],
}

impl<'s> Scanner<'s> {
    fn new(source: &'s str, html: bool, template: bool) -> Self {
        let source = source.as_bytes();
        Self { source, html, template, at: 0, scan: Scan::default(), unclosed: [false; 3] }
    }

    fn run(mut self) -> Scan {
        while self.at < self.source.len() {
            let byte = self.source[self.at];
            match byte {
                b'{' if self.live_tag() => {}
                b'<' if self.html => self.markup(),
                _ => self.at += 1,
            }
        }
        self.scan
    }

    fn rest(&self) -> &[u8] {
        &self.source[self.at..]
    }

    /// Takes the template tag that starts here, if one does.
    fn live_tag(&mut self) -> bool {
        if !self.template {
            return false;
        }
        let start = self.at;
        let (kind, end) = match self.source.get(start + 1) {
            Some(b'{') => (TagKind::Print, tag_end(self.source, start + 2, b"}}")),
            Some(b'%') => match raw_end(self.source, start) {
                Some(end) => (TagKind::Raw, end),
                None => (TagKind::Block, tag_end(self.source, start + 2, b"%}")),
            },
            _ => return false,
        };
        self.scan.tags.push(Tag { kind, bytes: start..end });
        self.at = end;
        true
    }

    fn markup(&mut self) {
        let rest = self.rest();
        let region = if rest.starts_with(b"<!--") {
            Some(Region::Comment)
        } else if opens(rest, b"<style") {
            Some(Region::Style)
        } else if opens(rest, b"<script") {
            Some(Region::Script)
        } else {
            None
        };
        if region.is_some_and(|region| self.region(region)) {
            return;
        }
        if opens(self.rest(), b"<body") && self.scan.body_start.is_none() {
            self.body();
            return;
        }
        // A source may end within its last tag.
        if opens(self.rest(), b"</body") || self.rest().eq_ignore_ascii_case(b"</body") {
            self.scan.body_end = Some(self.at);
        }
        self.at += 1;
    }

    /// Takes the region that starts here. One without an end is none: its tags stay live.
    fn region(&mut self, region: Region) -> bool {
        if self.unclosed[region as usize] {
            return false;
        }
        let (start, tags, dead) = (self.at, self.scan.tags.len(), self.scan.dead.len());
        // Two bytes, so that "<!-->" ends at once, as in a browser.
        self.at += 2;
        while self.at < self.source.len() {
            let rest = self.rest();
            let end_bytes = match region {
                Region::Comment if rest.starts_with(b"-->") => Some(3),
                Region::Style if opens(rest, b"</style") => Some(0),
                Region::Script if opens(rest, b"</script") => Some(0),
                _ => None,
            };
            if let Some(bytes) = end_bytes {
                self.at += bytes;
                self.scan.regions.push(start..self.at);
                return true;
            }
            match (rest[0], rest.get(1).copied()) {
                (b'{', Some(b'{')) if self.live_tag() => {}
                (b'{', Some(b'%')) if self.template => {
                    self.scan.dead.push(self.at);
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        self.unclosed[region as usize] = true;
        self.scan.tags.truncate(tags);
        self.scan.dead.truncate(dead);
        self.at = start;
        false
    }

    fn body(&mut self) {
        let mut quote = None;
        while self.at < self.source.len() {
            let byte = self.source[self.at];
            match (byte, quote) {
                (b'{', _) if self.live_tag() => continue,
                (byte, Some(open)) if byte == open => quote = None,
                (byte @ (b'"' | b'\''), None) => quote = Some(byte),
                (b'>', None) => {
                    self.at += 1;
                    self.scan.body_start = Some(self.at);
                    return;
                }
                _ => {}
            }
            self.at += 1;
        }
    }
}

/// Whether `text` starts with a tag name that ends there.
fn opens(text: &[u8], tag: &[u8]) -> bool {
    starts_ignoring_case(text, tag)
        && matches!(text.get(tag.len()), Some(b'>' | b'/' | b' ' | b'\t' | b'\n' | b'\r' | b'\x0C'))
}

fn starts_ignoring_case(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

/// The end of the tag whose inside starts at `at`; the end of the source if it has none.
fn tag_end(source: &[u8], mut at: usize, close: &[u8; 2]) -> usize {
    let mut open_brackets = 0_i32;
    while at < source.len() {
        if open_brackets == 0 && source[at..].starts_with(close) {
            return at + close.len();
        }
        match source[at] {
            b'(' | b'[' | b'{' => open_brackets += 1,
            b')' | b']' | b'}' => open_brackets -= 1,
            quote @ (b'"' | b'\'') => at = string_end(source, at + 1, quote),
            _ => {}
        }
        at += 1;
    }
    source.len()
}

/// The position of the closing quote.
fn string_end(source: &[u8], mut at: usize, quote: u8) -> usize {
    while at < source.len() && source[at] != quote {
        at += if source[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// If a `raw` block starts at `start`, where its `endraw` tag ends (or the end of the source).
fn raw_end(source: &[u8], start: usize) -> Option<usize> {
    let mut at = bare_tag(source, start, b"raw")?;
    while at < source.len() {
        if let Some(end) = bare_tag(source, at, b"endraw") {
            return Some(end);
        }
        at += 1;
    }
    Some(source.len())
}

/// The end of a block tag at `at` that consists of `word` alone.
fn bare_tag(source: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    let inside = source.get(at..)?.strip_prefix(b"{%")?;
    let inside = inside.strip_prefix(b"-").or_else(|| inside.strip_prefix(b"+")).unwrap_or(inside);
    let inside = inside.trim_ascii_start().strip_prefix(word)?.trim_ascii_start();
    let inside = inside.strip_prefix(b"-").or_else(|| inside.strip_prefix(b"+")).unwrap_or(inside);
    inside.strip_prefix(b"%}").map(|rest| source.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(source: &str) -> Vec<&str> {
        scan_html(source).tags.iter().map(|tag| &source[tag.bytes.clone()]).collect()
    }

    #[test]
    fn tag_ends_are_found_like_the_lexer_does() {
        assert_eq!(tags("a {{ x }} b {% if y %}c"), ["{{ x }}", "{% if y %}"]);
        assert_eq!(tags("{{ '}}' }}|"), ["{{ '}}' }}"]);
        assert_eq!(tags(r#"{{ "\"}}" }}|"#), [r#"{{ "\"}}" }}"#]);
        assert_eq!(tags("{{ {'a': {'b': 1}} }}|"), ["{{ {'a': {'b': 1}} }}"]);
        assert_eq!(tags("{% set x = '%}' %}|"), ["{% set x = '%}' %}"]);
        assert_eq!(tags("{% raw %}{{ a }}{% if %}{% endraw %}b"), ["{% raw %}{{ a }}{% if %}{% endraw %}"]);
        assert_eq!(tags("{%- raw -%}{{ a }}{%+ endraw -%}{{ b }}"), ["{%- raw -%}{{ a }}{%+ endraw -%}", "{{ b }}"]);
        assert_eq!(tags("{{ never closed"), ["{{ never closed"]);
        assert_eq!(tags("{# {{ x }} #}"), ["{{ x }}"]);
        assert_eq!(tags("{"), Vec::<&str>::new());
        assert_eq!(tags("{{ 'x\\"), ["{{ 'x\\"]);
    }

    #[test]
    fn regions_make_blocks_text_and_leave_prints_live() {
        let source = "<STYLE type=x>{% a %}{{ b }}</Style ><script>{% c</script><!-- {% d %} {{ '{%' }} -->{% if e %}";
        let scan = scan_html(source);
        assert_eq!(tags(source), ["{{ b }}", "{{ '{%' }}", "{% if e %}"]);
        assert_eq!(scan.dead.len(), 3);
        assert_eq!(scan.regions.len(), 3);
    }

    #[test]
    fn unclosed_regions_are_none() {
        assert_eq!(tags("<style>{% if a %}"), ["{% if a %}"]);
        assert_eq!(tags("<!-- {% if a %} <!-- <!-- {{ b }}"), ["{% if a %}", "{{ b }}"]);
        assert_eq!(tags("<!-->{% if a %}<!-- {% -->"), ["{% if a %}"]);
        assert_eq!(tags("<styles>{% if a %}</style>"), ["{% if a %}"]);
    }

    #[test]
    fn body_is_found_outside_regions_and_tags() {
        let source = "<!--<body>-->{{ '<body>' }}<body title=\"a>b\" {{ x }}>hi</body><!--</body>-->";
        let scan = scan_html(source);
        assert!(scan.body_start.is_some_and(|at| source[at..].starts_with("hi")));
        assert!(scan.body_end.is_some_and(|at| source[..at].ends_with("hi")));
    }

    #[test]
    fn a_longer_name_is_no_end_of_the_body() {
        for (source, at) in [
            ("a</body></bodyx>", Some(1)),
            ("a</BODY\t></body-x></body1>", Some(1)),
            ("a</body></body/>", Some(8)),
            ("a</body", Some(1)),
            ("a</bodyx>", None),
            ("a</body{{ x }}>", None),
        ] {
            assert_eq!(scan_html(source).body_end, at, "{source}");
        }
    }

    #[test]
    fn words_are_matched_whole() {
        let mentions = |source: &str| scan_html(source).mentions(source, "unsubscribeUrl");
        assert!(mentions("{{unsubscribeUrl}}"));
        assert!(mentions("{% if unsubscribeUrl|length %}{% endif %}"));
        assert!(!mentions("{{ my_unsubscribeUrl }} unsubscribeUrl"));
        assert!(!mentions("{{ éunsubscribeUrl }}{{ unsubscribeUrlé }}"));
        assert!(!mentions("{% raw %}{{ unsubscribeUrl }}{% endraw %}"));
    }

    #[test]
    fn hostile_sources_are_linear() {
        for piece in ["<!--", "<style ", "{{", "{%", "{% raw %}", "<body", "{{'", "</body"] {
            let started = std::time::Instant::now();
            scan_html(&piece.repeat(262_144 / piece.len()));
            assert!(started.elapsed().as_millis() < 2_000, "{piece}");
        }
    }
}
