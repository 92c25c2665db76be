//! A text part from an HTML source.
//!
//! The result is a template again. Its rules:
//!
//! 1. Comments, `<style>`, `<script>`, `<title>` and markup declarations vanish, with the `{{ … }}` in them.
//! 2. Every live `{% … %}` stays, in its order, so that blocks stay balanced; so do `{{ … }}` in the text.
//!    Those inside tags vanish, except in rules 6 and 7. A `raw` block in the text stays as it is.
//! 3. White space collapses to one space, no-break spaces included, and vanishes at the start of a line.
//! 4. `<br>` ends a line. A block element's start and end each begin a new line; `<p>`, headings, lists,
//!    tables, `<blockquote>` and `<pre>` are set off by one empty line. There are never two empty lines.
//! 5. `<li>` starts with `- `, table cells are separated by a space, `<hr>` is a line `---`.
//! 6. After the text of `<a href>` comes ` (address)`, if the address begins with `http://`, `https://` or a
//!    `{{ … }}` and holds no `{% … %}`; the address stands alone if the text is empty or equal to it.
//! 7. `<img>` is its `alt` text, unless that holds a `{% … %}`.
//! 8. Character references are decoded. A literal brace that would open a template tag is printed by one.
//! 9. Nothing precedes the first and nothing follows the last character.

use std::ops::Range;

use crate::entities::{Place, decode};
use crate::scan::{Scan, TagKind, scan_html};
use crate::template::BRACE;

/// Makes the text part's template from `html`, whose links may already lead through the click redirect.
pub(crate) fn from_html(html: &str) -> String {
    let scan = scan_html(html);
    let mut reader = Reader { html, scan: &scan, at: 0, page: Page::default(), link: None, in_title: false };
    reader.run();
    reader.page.finish()
}

/// A stretch of the resulting template.
#[derive(Debug)]
struct Piece {
    is_tag: bool,
    text: String,
}

/// Lays text out, holding back space until something follows it.
#[derive(Debug, Default)]
struct Page {
    pieces: Vec<Piece>,
    started: bool,
    in_line: bool,
    after_space: bool,
    space: bool,
    /// Line feeds held back, and those already written since the last visible character.
    breaks: usize,
    written_breaks: usize,
}

impl Page {
    fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                ' ' | '\t' | '\n' | '\r' | '\x0C' | '\u{A0}' => self.space |= self.in_line && !self.after_space,
                _ => {
                    self.open();
                    self.literal().push(character);
                }
            }
        }
    }

    fn print_tag(&mut self, tag: &str) {
        self.open();
        self.pieces.push(Piece { is_tag: true, text: tag.to_owned() });
    }

    /// Writes a tag that prints nothing itself: what is held back comes before it, so that it is not lost
    /// when the tag's body is skipped.
    fn block_tag(&mut self, tag: &str) {
        self.flush();
        self.pieces.push(Piece { is_tag: true, text: tag.to_owned() });
    }

    fn line_break(&mut self) {
        self.end_line();
        self.breaks = (self.breaks + 1).min(2usize.saturating_sub(self.written_breaks));
    }

    /// Makes sure that at least `lines` line feeds come before what follows.
    fn separate(&mut self, lines: usize) {
        self.end_line();
        self.breaks = self.breaks.max(lines.saturating_sub(self.written_breaks));
    }

    fn end_line(&mut self) {
        self.in_line = false;
        self.space = false;
    }

    /// Makes ready for something visible.
    fn open(&mut self) {
        self.flush();
        (self.started, self.in_line, self.after_space, self.written_breaks) = (true, true, false, 0);
    }

    fn flush(&mut self) {
        if self.breaks > 0 {
            if self.started {
                let line_feeds = "\n".repeat(self.breaks);
                self.literal().push_str(&line_feeds);
                self.written_breaks += self.breaks;
            }
            (self.breaks, self.after_space) = (0, false);
        } else if self.space {
            self.literal().push(' ');
            self.after_space = true;
        }
        self.space = false;
    }

    fn literal(&mut self) -> &mut String {
        if self.pieces.last().is_none_or(|piece| piece.is_tag) {
            self.pieces.push(Piece { is_tag: false, text: String::new() });
        }
        let last = self.pieces.len() - 1;
        &mut self.pieces[last].text
    }

    /// Where the page ends now: complete pieces, and bytes of a last literal that may still grow.
    fn end(&self) -> (usize, usize) {
        match self.pieces.last() {
            Some(last) if !last.is_tag => (self.pieces.len() - 1, last.text.len()),
            _ => (self.pieces.len(), 0),
        }
    }

    /// What came after `mark`, a former [`Page::end`].
    fn since(&self, (pieces, bytes): (usize, usize)) -> String {
        let mut skipped = bytes;
        self.pieces[pieces..].iter().map(|piece| &piece.text[std::mem::take(&mut skipped)..]).collect()
    }

    fn finish(self) -> String {
        let mut out = String::new();
        for (at, piece) in self.pieces.iter().enumerate() {
            if piece.is_tag {
                out.push_str(&piece.text);
            } else {
                push_literal(&mut out, &piece.text, at + 1 < self.pieces.len());
            }
        }
        // Block tags flush what was held back, so line feeds can precede a last one.
        out.truncate(out.trim_ascii_end().len());
        out
    }
}

fn push_literal(out: &mut String, text: &str, before_tag: bool) {
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let opens = match characters.peek() {
            Some(next) => matches!(next, '{' | '%'),
            None => before_tag,
        };
        match character {
            '{' if opens => out.push_str(BRACE),
            _ => out.push(character),
        }
    }
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
            TagKind::Block => self.page.block_tag(text),
            _ if self.in_title => {}
            _ => self.page.print_tag(text),
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
            self.page.text(&decode(&self.html[start..self.at], Place::Text));
        }
    }

    /// One start tag, end tag or declaration, with the template tags inside it.
    fn markup(&mut self) {
        let element = self.read_element();
        for index in element.block_tags.clone() {
            let tag = &self.scan.tags[index];
            if tag.kind == TagKind::Block {
                self.page.block_tag(&self.html[tag.bytes.clone()]);
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
            | "tbody" | "tfoot" => self.page.separate(1),
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
        let begins_with_tag = raw.starts_with("{{");
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
        let mut at = trimmed_start;
        for tag in tags {
            self.page.text(&decode(&self.html[at..tag.bytes.start], Place::Attribute));
            self.page.print_tag(&self.html[tag.bytes.clone()]);
            at = tag.bytes.end;
        }
        self.page.text(&decode(&self.html[at..trimmed_end], Place::Attribute));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_holds() {
        for (html, text) in [
            // 1
            (
                "<!doctype html><title>T {{ a }}</title><style>p{}{{ b }}</style>a<!-- {{ c }} --><script>d</script>b",
                "ab",
            ),
            // 2
            ("a {% if x %}<b>{{ y }}</b>{% endif %} c", "a {% if x %}{{ y }}{% endif %} c"),
            ("<td {% if x %}class=\"{{ z }}\"{% endif %}>a</td>", "{% if x %}{% endif %}a"),
            ("{% raw %}{{ a }}{% endraw %} b", "{% raw %}{{ a }}{% endraw %} b"),
            // 3
            ("  a \n\t b&nbsp;&nbsp;c  ", "a b c"),
            // 4
            ("<p>a</p>\n<p>b</p><div>c</div><div>d</div>e", "a\n\nb\n\nc\nd\ne"),
            ("a<br>b<br/><br><br>c", "a\nb\n\nc"),
            ("<h1>T</h1>x", "T\n\nx"),
            ("{% for i in l %}<p>{{ i }}</p>{% endfor %}<p>z</p>", "{% for i in l %}{{ i }}\n\n{% endfor %}z"),
            // 5
            ("<ul><li>a<li>b</ul>c", "- a\n- b\n\nc"),
            ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
            ("a<hr>b", "a\n---\nb"),
            // 6
            ("<a href=\"https://a.example/?x=1&amp;y=2\">Go</a>.", "Go (https://a.example/?x=1&y=2)."),
            ("<a href=\"https://a.example/\">https://a.example/</a>", "https://a.example/"),
            ("<a href=\"https://a.example/\"><img></a>", "https://a.example/"),
            ("<a href='{{ u }}'>U</a>", "U ({{ u }})"),
            ("<a href=\"{% if x %}https://a{% endif %}\">U</a>", "{% if x %}{% endif %}U"),
            ("<a href=\"mailto:a@example.com\">M</a> <a href=#x>N</a>", "M N"),
            ("<a href=https://a.example/c/{{ mailrail.t }}/1>x</a>", "x (https://a.example/c/{{ mailrail.t }}/1)"),
            // 7
            ("<img alt=\"Logo {{ n }}\" src=x>!", "Logo {{ n }}!"),
            ("<img alt=\"{% if x %}a{% endif %}\">b", "{% if x %}{% endif %}b"),
            // 8
            ("a &lt;b&gt; &amp;amp; &#123;&#123; x }}", "a <b> &amp; {{ '{' }}{ x }}"),
            ("{<b>%</b> {<i></i>{{ x }} {<i>{</i>", "{{ '{' }}% {{ '{' }}{{ x }} {{ '{' }}{"),
            ("1 < 2 <3", "1 < 2 <3"),
            // 9
            ("<p></p>{% if a %}<p>b</p>{% endif %}<p></p>", "{% if a %}b\n\n{% endif %}"),
            ("", ""),
        ] {
            assert_eq!(from_html(html), text, "{html}");
        }
    }

    #[test]
    fn broken_markup_never_panics() {
        let pieces = ["<a href", "=", "\"", "'", ">", "{{ x }}", "{% if", "é", "<", "</", "<!--", "&#", "<p", "/", "{"];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    for fourth in pieces {
                        from_html(&format!("{first}{second}{third}{fourth}"));
                    }
                }
            }
        }
    }
}
