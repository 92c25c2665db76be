//! A text part from an HTML source.
//!
//! The result is a template again. Its rules:
//!
//! 1. Comments, `<style>`, `<script>`, `<title>` and markup declarations vanish, with the `{{ … }}` in them.
//! 2. Every live `{% … %}` stays, in its order, so that blocks stay balanced; so do `{{ … }}` in the text.
//!    Those inside tags vanish, except in rules 6 and 7. A `raw` block in the text stays as it is.
//!    White space that their dashes take away is taken away here, from the HTML, and the dashes are dropped:
//!    they must not take away the line breaks written here.
//! 3. White space collapses to one space, no-break spaces included, and vanishes at the start of a line.
//! 4. `<br>` ends a line. A block element's start and end each begin a new line; `<p>`, headings, lists,
//!    tables, `<blockquote>` and `<pre>` are set off by one empty line. There are never two empty lines.
//! 5. `<li>` starts with `- `, table cells are separated by a space, `<hr>` is a line `---`.
//! 6. After the text of `<a href>` comes ` (address)`, if the address begins with `http://`, `https://` or a
//!    `{{ … }}` and holds no `{% … %}`; the address stands alone if the text is empty or equal to it.
//! 7. `<img>` is its `alt` text, unless that holds a `{% … %}`.
//! 8. Character references are decoded. A literal brace that would open a template tag is printed by one.
//! 9. Nothing precedes the first and nothing follows the last character.
//! 10. Whichever blocks run, however often, words that the HTML sets apart stay apart. Where the ways to a
//!     place differ in the white space written last, the place is laid out for the one that wrote least, at
//!     worst with too many line feeds.

use std::ops::Range;

use crate::entities::{Place, decode};
use crate::scan::{Scan, TagKind, scan_finished, scan_html};
use crate::template::BRACE;

/// Makes the text part's template from `html`, whose links may already lead through the click redirect.
pub(crate) fn from_html(html: &str) -> String {
    let scan = scan_html(html);
    settled_page(html, &scan).finish()
}

/// Makes the text part itself from `html` that is no template, by the same rules.
pub(crate) fn from_finished(html: &str) -> String {
    // Without template tags there is only one way to every place.
    let page = read(html, &scan_finished(html), Vec::new());
    let mut out: String = page.pieces.into_iter().map(|piece| piece.text).collect();
    out.truncate(out.trim_ascii_end().len());
    out
}

/// The page whose assumptions about how loops end hold.
fn settled_page(html: &str, scan: &Scan) -> Page {
    let mut loops = Vec::new();
    for _ in 0..MAX_PASSES {
        let page = read(html, scan, loops.clone());
        if page.loops == loops {
            return page;
        }
        loops = page.loops;
    }
    // No assumption about any loop holds always.
    loops.fill(Layout::UNKNOWN);
    read(html, scan, loops)
}

/// Passes that may look for how each loop's body ends, which is how its next round begins.
const MAX_PASSES: usize = 4;

fn read(html: &str, scan: &Scan, loops: Vec<Layout>) -> Page {
    let page = Page { loops, ..Page::default() };
    let mut reader = Reader { html, scan, at: 0, page, link: None, in_title: false, trimmed_at: None };
    reader.run();
    reader.page
}

/// What the white space before a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    started: bool,
    in_line: bool,
    after_space: bool,
    breaks: usize,
}

impl Layout {
    /// Anything may have been written: all that is needed must be written again.
    const UNKNOWN: Self = Self { started: true, in_line: true, after_space: false, breaks: 0 };

    /// What holds on both ways to a place.
    fn or(self, other: Self) -> Self {
        Self {
            started: self.started || other.started,
            in_line: self.in_line || other.in_line,
            after_space: self.after_space && other.after_space,
            breaks: self.breaks.min(other.breaks),
        }
    }
}

/// An open block.
#[derive(Debug)]
enum Block {
    /// An `if` or `for`: the layout before it, that of the ways out so far, and which loop it is. After its
    /// `else` there is no way past it.
    Choice { before: Layout, after: Option<Layout>, number: Option<usize>, has_else: bool },
    /// A macro or a captured text, which prints nothing where it stands.
    Captured { before: Layout },
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
    blocks: Vec<Block>,
    /// How the body of each loop may end, by the loop's number in the order of appearance.
    loops: Vec<Layout>,
    loops_begun: usize,
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
        self.follow(tag);
    }

    /// Continues with what is known about the layout behind a block tag.
    fn follow(&mut self, tag: &str) {
        let inside = tag.trim_start_matches(['{', '%', '+', ' ', '\t', '\n', '\r', '\x0C']);
        let keyword_end = inside.find(|next: char| !next.is_ascii_alphanumeric()).unwrap_or(inside.len());
        let (keyword, rest) = inside.split_at(keyword_end);
        match keyword {
            "if" => self.begin_choice(None),
            "for" => self.begin_loop(rest.contains("recursive")),
            "elif" | "else" => self.begin_branch(keyword == "else"),
            "endif" | "endfor" => self.end_choice(),
            "break" | "continue" => self.leave_round(),
            "set" if assigns(rest) => {}
            "set" | "macro" => {
                self.blocks.push(Block::Captured { before: self.layout() });
                self.resume(Layout::UNKNOWN);
            }
            "endset" | "endmacro" => {
                if let Some(Block::Captured { before }) = self.blocks.pop() {
                    self.resume(before);
                }
            }
            "do" | "with" | "endwith" | "autoescape" | "endautoescape" | "filter" => {}
            _ => self.resume(Layout::UNKNOWN),
        }
    }

    /// The layout here, while nothing is held back.
    fn layout(&self) -> Layout {
        Layout {
            started: self.started,
            in_line: self.in_line,
            after_space: self.after_space || !self.in_line,
            // Before the first character no line feed is missing.
            breaks: if self.started { self.written_breaks } else { 2 },
        }
    }

    fn resume(&mut self, layout: Layout) {
        (self.started, self.in_line) = (layout.started, layout.in_line);
        (self.after_space, self.written_breaks) = (layout.after_space, layout.breaks);
    }

    fn begin_choice(&mut self, number: Option<usize>) {
        self.blocks.push(Block::Choice { before: self.layout(), after: None, number, has_else: false });
    }

    fn begin_loop(&mut self, is_recursive: bool) {
        let number = self.loops_begun;
        self.loops_begun += 1;
        self.begin_choice(Some(number));
        if number == self.loops.len() {
            self.loops.push(self.layout());
        }
        let next_round = if is_recursive { Layout::UNKNOWN } else { self.loops[number] };
        self.resume(self.layout().or(next_round));
    }

    fn begin_branch(&mut self, is_last: bool) {
        let end = self.layout();
        if let Some(Block::Choice { before, after, number, has_else }) = self.blocks.last_mut() {
            *after = Some(after.map_or(end, |after| after.or(end)));
            *has_else |= is_last;
            let before = *before;
            if let Some(number) = *number {
                self.loops[number] = self.loops[number].or(end);
            }
            self.resume(before);
        }
    }

    fn end_choice(&mut self) {
        let end = self.layout();
        if let Some(Block::Choice { before, after, number, has_else }) = self.blocks.pop() {
            let ends = after.map_or(end, |after| after.or(end));
            if let (Some(number), false) = (number, has_else) {
                self.loops[number] = self.loops[number].or(end);
            }
            self.resume(if has_else { ends } else { ends.or(before) });
        }
    }

    /// From here the loop may go on or end.
    fn leave_round(&mut self) {
        let end = self.layout();
        for block in self.blocks.iter_mut().rev() {
            if let Block::Choice { after, number: Some(number), .. } = block {
                *after = Some(after.map_or(end, |after| after.or(end)));
                self.loops[*number] = self.loops[*number].or(end);
                return;
            }
        }
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

/// Whether a `set` tag, of which `rest` follows the keyword, assigns a value rather than captures a text.
fn assigns(rest: &str) -> bool {
    let target = |next: char| next.is_alphanumeric() || next.is_whitespace() || "_.,()".contains(next);
    rest.trim_start_matches(target).starts_with('=')
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

    fn printed(html: &str, x: bool) -> String {
        let source = from_html(html);
        minijinja::Environment::new()
            .render_str(&source, minijinja::context! { x => x, b => "b", l => [1, 2] })
            .unwrap()
    }

    /// Which branches run must not decide whether words are apart.
    #[test]
    fn blocks_glue_no_words() {
        for (html, with, without) in [
            ("A{% if x %} B</p>{% endif %}<p>C</p>", "A B C", "A C"),
            ("A{% if x %} B {% endif %}<td>C</td>", "A B C", "A C"),
            ("<ul>{% for i in range(3) %}<li>i{{ i }}{% endfor %}</ul>", "- i0 - i1 - i2", "- i0 - i1 - i2"),
            ("{% for i in l %}<p>{{ i }}{% endfor %}", "1 2", "1 2"),
            ("{% for i in l %} {{ i }}{% endfor %}", "1 2", "1 2"),
            ("{% for i in l %}{% if x %}</p>{% endif %}{{ i }}{% endfor %}", "1 2", "12"),
            ("{% if x %}<p>A{% else %}B{% endif %}<p>C", "A C", "B C"),
            ("A<p>{%- if x -%}B{%- endif -%}</p>C", "A B C", "A C"),
            ("A<br>{{- b -}}<br>C", "A b C", "A b C"),
            ("A {{- b -}} C {%- if x %} D{% endif %}", "AbC D", "AbC"),
            ("A{{ b -}} &nbsp;C", "Ab C", "Ab C"),
            ("<p>A</p>{% set c %} B{% endset %}C{{ c }}", "A C B", "A C B"),
            ("A{% set c %}<p>B{% endset %}<p>C{{ c }}", "A C B", "A C B"),
            ("{% macro m() %}<p>B</p>{% endmacro %}A{{ m() }}C", "A B C", "A B C"),
            ("A{% filter upper %}<p>b</p>{% endfilter %}<p>C", "A B C", "A B C"),
            ("{% for i in l %}{{ i }}{% if x %}{% continue %}{% endif %}</p>{% endfor %}", "12", "1 2"),
            ("A{% for i in [] %} B</p>{% else %} D{% endfor %}<p>C", "A D C", "A D C"),
            ("<p>A {{ '{' -}} { {%- if x %}{ {% endif %}", "A {{{", "A {{"),
        ] {
            for (x, words) in [(true, with), (false, without)] {
                let text = printed(html, x);
                assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), words, "{html}: {text:?}");
            }
        }
    }

    #[test]
    fn balanced_blocks_leave_no_extra_blank_lines() {
        for (html, with, without) in [
            ("<p>A</p>{% if x %}<p>B</p>{% endif %}<p>C</p>", "A\n\nB\n\nC", "A\n\nC"),
            ("<p>A</p>\n{% for i in l %}\n<p>{{ i }}</p>\n{% endfor %}\n<p>C", "A\n\n1\n\n2\n\nC", "A\n\n1\n\n2\n\nC"),
            ("<ul>{% for i in l %}<li>{{ i }}</li>{% endfor %}</ul>", "- 1\n- 2\n", "- 1\n- 2\n"),
            ("<ul><li>A</li>{% if x %}<li>B</li>{% endif %}<li>C</ul>", "- A\n- B\n- C", "- A\n- C"),
            ("<p>{% set y = 1 %}A</p>{% set y = 2 %}<p>B", "A\n\nB", "A\n\nB"),
            ("<p>A {% if x %}B {% endif %}C", "A B C", "A C"),
        ] {
            assert_eq!((printed(html, true).as_str(), printed(html, false).as_str()), (with, without), "{html}");
        }
    }

    #[test]
    fn many_loops_are_read_in_few_passes() {
        let started = std::time::Instant::now();
        from_html(&"{% for i in l %}<p>a".repeat(12_000));
        from_html(&format!("{}{}", "{% for i in l %}<p>a".repeat(6_000), "b{% endfor %}".repeat(6_000)));
        assert!(started.elapsed().as_secs() < 2);
    }

    #[test]
    fn broken_markup_never_panics() {
        let pieces = [
            "<a href", "=", "\"", "'", ">", "{{ x }}", "{% if", "é", "<", "</", "<!--", "&#", "<p", "/", "{", "{{-}}",
            "{%-%}",
        ];
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
