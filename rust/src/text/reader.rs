//! What of the HTML is text, and what the elements around it do to the page.

use std::ops::Range;

use super::page::{Layout, Page};
use crate::entities::{Place, decode};
use crate::scan::{Scan, TagKind};

/// Lays `html` out, while each loop's body is taken to end as `loops` says; the page knows how they ended indeed.
pub(super) fn read(html: &str, scan: &Scan, loops: Vec<Layout>) -> Page {
    let page = Page::new(loops);
    let mut reader = Reader { html, scan, at: 0, page, link: None, in_title: false, trimmed_at: None };
    reader.run();
    reader.page
}

/// An open `<a href>`: its address, and where the page ended before its text.
struct Link {
    address: Range<usize>,
    before: (usize, usize),
}

struct Reader<'h> {
    html: &'h str,
    scan: &'h Scan,
    at: usize,
    page: Page,
    link: Option<Link>,
    in_title: bool,
    /// The end of the last tag that takes away the white space behind it.
    trimmed_at: Option<usize>,
}

impl Reader<'_> {
    fn run(&mut self) {
        while self.at < self.html.len() {
            if let Some(end) = self.region_end() {
                self.at = end;
            } else if let Some((kind, bytes)) = self.tag_here() {
                self.template_tag(kind, bytes);
            } else if self.markup_starts() {
                self.markup();
            } else {
                self.plain();
            }
        }
    }

    fn region_end(&self) -> Option<usize> {
        let index = self.scan.regions.partition_point(|region| region.end <= self.at);
        self.scan.regions.get(index).filter(|region| region.start <= self.at).map(|region| region.end)
    }

    fn tag_here(&self) -> Option<(TagKind, Range<usize>)> {
        let index = self.scan.tags.partition_point(|tag| tag.bytes.start < self.at);
        let tag = self.scan.tags.get(index).filter(|tag| tag.bytes.start == self.at)?;
        Some((tag.kind, tag.bytes.clone()))
    }

    fn template_tag(&mut self, kind: TagKind, bytes: Range<usize>) {
        let text = &self.html[bytes.clone()];
        match kind {
            TagKind::Block => self.page.block_tag(&without_dashes(text)),
            _ if self.in_title => {}
            _ => self.page.print_tag(&without_dashes(text)),
        }
        if dashes(text).1 {
            self.trimmed_at = Some(bytes.end);
        }
        self.at = bytes.end;
    }

    fn markup_starts(&self) -> bool {
        let rest = &self.html.as_bytes()[self.at..];
        match rest {
            [b'<', b'!' | b'?', ..] => true,
            [b'<', b'/', next, ..] => next.is_ascii_alphabetic(),
            [b'<', next, ..] => next.is_ascii_alphabetic(),
            _ => false,
        }
    }

    /// Text up to the next markup or template tag.
    fn plain(&mut self) {
        let start = self.at;
        let tag = self.scan.tags.partition_point(|tag| tag.bytes.start < start);
        let end = self.scan.tags.get(tag).map_or(self.html.len(), |tag| tag.bytes.start);
        // The first character is text even if it is a `<`.
        let from = self.html[start..end].chars().next().map_or(end, |first| start + first.len_utf8());
        self.at = self.html[from..end].find('<').map_or(end, |offset| from + offset);
        if !self.in_title {
            let mut text = &self.html[start..self.at];
            if self.trimmed_at == Some(start) {
                text = text.trim_start();
            }
            if self.tag_here().is_some_and(|(_, bytes)| dashes(&self.html[bytes]).0) {
                text = text.trim_end();
            }
            self.page.text(&decode(text, Place::Text));
        }
    }

    /// One start tag, end tag or declaration, with the template tags inside it.
    fn markup(&mut self) {
        let element = self.read_element();
        for index in element.block_tags.clone() {
            let tag = &self.scan.tags[index];
            if tag.kind == TagKind::Block {
                self.page.block_tag(&without_dashes(&self.html[tag.bytes.clone()]));
            }
        }
        let (name, closes) = (element.name.as_str(), element.closes);
        match name {
            "title" => self.in_title = !closes,
            "br" => self.page.line_break(),
            "hr" => {
                self.page.separate(1);
                self.page.text("---");
                self.page.separate(1);
            }
            "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "ul" | "ol" | "dl" | "table" | "blockquote" | "pre" => {
                self.page.separate(2);
            }
            "li" => {
                self.page.separate(1);
                if !closes {
                    self.page.text("-");
                    self.page.text(" ");
                }
            }
            "td" | "th" => self.page.text(" "),
            "div" | "tr" | "dt" | "dd" | "section" | "article" | "header" | "footer" | "main" | "nav" | "aside"
            | "address" | "figure" | "figcaption" | "form" | "fieldset" | "center" | "body" | "caption" | "thead"
            | "tbody" | "tfoot" | "details" | "summary" | "dialog" | "head" | "html" => self.page.separate(1),
            "img" if !closes => {
                if let Some(alt) = element.alt {
                    self.attribute_text(alt);
                }
            }
            "a" if closes => self.end_link(),
            "a" => self.start_link(element.href),
            _ => {}
        }
    }

    /// Links do not nest: a new one ends one that was left open.
    fn start_link(&mut self, href: Option<Range<usize>>) {
        let shown = href.filter(|address| self.is_shown(address));
        self.link = shown.map(|address| Link { address, before: self.page.end() });
    }

    fn is_shown(&self, address: &Range<usize>) -> bool {
        let tags = self.scan.tags_within(address);
        let raw = self.html[address.clone()].trim_ascii_start().to_ascii_lowercase();
        let begins_with_tag = raw.starts_with("{{") && !tags.is_empty();
        let literal = raw.starts_with("http://") || raw.starts_with("https://");
        (begins_with_tag || literal) && tags.iter().all(|tag| tag.kind == TagKind::Print)
    }

    fn end_link(&mut self) {
        let Some(link) = self.link.take() else { return };
        let label = self.page.since(link.before);
        let address = self.html[link.address.clone()].trim_ascii();
        if label.trim().is_empty() {
            self.attribute_text(link.address);
        } else if label.trim() != decode(address, Place::Attribute) {
            self.page.text(" (");
            self.attribute_text(link.address);
            self.page.text(")");
        }
    }

    /// An attribute's value as text, its `{{ … }}` live.
    fn attribute_text(&mut self, bytes: Range<usize>) {
        let raw = &self.html[bytes.clone()];
        let trimmed_start = bytes.start + (raw.len() - raw.trim_ascii_start().len());
        let trimmed_end = trimmed_start + raw.trim_ascii().len();
        let tags = self.scan.tags_within(&(trimmed_start..trimmed_end));
        if tags.iter().any(|tag| tag.kind == TagKind::Block) {
            return;
        }
        let (mut at, mut trims) = (trimmed_start, false);
        let trim = |text, trims: bool| if trims { str::trim_start(text) } else { text };
        for tag in tags {
            let source = &self.html[tag.bytes.clone()];
            let text = trim(&self.html[at..tag.bytes.start], trims);
            let text = if dashes(source).0 { text.trim_end() } else { text };
            self.page.text(&decode(text, Place::Attribute));
            self.page.print_tag(&without_dashes(source));
            (at, trims) = (tag.bytes.end, dashes(source).1);
        }
        self.page.text(&decode(trim(&self.html[at..trimmed_end], trims), Place::Attribute));
    }

    /// Reads from `<` to `>` (or the end); template tags are skipped, quotes hide `>`.
    fn read_element(&mut self) -> Element {
        let bytes = self.html.as_bytes();
        let start = self.at;
        let closes = bytes.get(start + 1) == Some(&b'/');
        let name_start = start + if closes { 2 } else { 1 };
        let name_end = self.skip(name_start, |byte| !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'>'));
        let mut element = Element {
            name: self.html[name_start..name_end].to_ascii_lowercase(),
            closes,
            href: None,
            alt: None,
            block_tags: 0..0,
        };
        let first_tag = self.scan.tags.partition_point(|tag| tag.bytes.start < start);
        self.at = name_end;
        while self.at < bytes.len() && bytes[self.at] != b'>' {
            match bytes[self.at] {
                b'/' => self.at += 1,
                byte if byte.is_ascii_whitespace() => self.at += 1,
                _ => self.read_attribute(&mut element),
            }
        }
        self.at = (self.at + 1).min(bytes.len());
        let last_tag = self.scan.tags.partition_point(|tag| tag.bytes.start < self.at);
        element.block_tags = first_tag..last_tag.max(first_tag);
        element
    }

    fn read_attribute(&mut self, element: &mut Element) {
        let bytes = self.html.as_bytes();
        let name_start = self.at;
        // A leading `=` belongs to the name, so that every call moves on.
        let name_end = self
            .skip(name_start, |byte| !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'>' | b'='))
            .max(name_start + 1);
        let name = self.html.get(name_start..name_end).unwrap_or_default().to_ascii_lowercase();
        self.at = name_end;
        let equals = self.skip(name_end, |byte| byte.is_ascii_whitespace());
        if bytes.get(equals) != Some(&b'=') {
            return;
        }
        let value_start = self.skip(equals + 1, |byte| byte.is_ascii_whitespace());
        let value = match bytes.get(value_start) {
            Some(quote @ (b'"' | b'\'')) => {
                let end = self.skip(value_start + 1, |byte| byte != *quote);
                self.at = (end + 1).min(bytes.len());
                value_start + 1..end
            }
            _ => {
                let end = self.skip(value_start, |byte| !byte.is_ascii_whitespace() && byte != b'>');
                self.at = end;
                value_start..end
            }
        };
        match name.as_str() {
            "href" => _ = element.href.get_or_insert(value),
            "alt" => _ = element.alt.get_or_insert(value),
            _ => {}
        }
    }

    /// The first position from `from` on whose byte fails `accept`; template tags are passed over whole.
    fn skip(&self, from: usize, accept: impl Fn(u8) -> bool) -> usize {
        let bytes = self.html.as_bytes();
        let mut at = from.min(bytes.len());
        let mut tags = self.scan.tags[self.scan.tags.partition_point(|tag| tag.bytes.start < at)..].iter().peekable();
        while at < bytes.len() {
            if let Some(tag) = tags.next_if(|tag| tag.bytes.start == at) {
                if !accept(b'x') {
                    break;
                }
                at = tag.bytes.end;
            } else if accept(bytes[at]) {
                at += 1;
            } else {
                break;
            }
        }
        at
    }
}

struct Element {
    name: String,
    closes: bool,
    href: Option<Range<usize>>,
    alt: Option<Range<usize>>,
    /// Indices of the live template tags inside.
    block_tags: Range<usize>,
}

/// Whether a template tag takes away the white space before and behind it.
fn dashes(tag: &str) -> (bool, bool) {
    let bytes = tag.as_bytes();
    (bytes.len() > 4 && bytes[2] == b'-', bytes.len() > 4 && bytes[bytes.len() - 3] == b'-')
}

fn without_dashes(tag: &str) -> String {
    let mut tag = tag.to_owned();
    let (before, behind) = dashes(&tag);
    if before {
        tag.replace_range(2..3, " ");
    }
    if behind {
        let at = tag.len() - 3;
        tag.replace_range(at..=at, " ");
    }
    tag
}
