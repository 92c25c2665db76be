//! Where text stands on the page: line breaks and spaces, whichever blocks run.

use crate::template::BRACE;

/// What the white space before a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    started: bool,
    in_line: bool,
    after_space: bool,
    breaks: usize,
}

impl Layout {
    /// Anything may have been written: all that is needed must be written again.
    pub(super) const UNKNOWN: Self = Self { started: true, in_line: true, after_space: false, breaks: 0 };

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
pub(super) struct Piece {
    is_tag: bool,
    pub(super) text: String,
}

/// Lays text out, holding back space until something follows it.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) pieces: Vec<Piece>,
    started: bool,
    in_line: bool,
    after_space: bool,
    space: bool,
    /// Line feeds held back, and those already written since the last visible character.
    breaks: usize,
    written_breaks: usize,
    blocks: Vec<Block>,
    /// How the body of each loop may end, by the loop's number in the order of appearance.
    pub(super) loops: Vec<Layout>,
    loops_begun: usize,
}

impl Page {
    pub(super) fn new(loops: Vec<Layout>) -> Self {
        Self { loops, ..Self::default() }
    }

    pub(super) fn text(&mut self, text: &str) {
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

    pub(super) fn print_tag(&mut self, tag: &str) {
        self.open();
        self.pieces.push(Piece { is_tag: true, text: tag.to_owned() });
    }

    /// Writes a tag that prints nothing itself: what is held back comes before it, so that it is not lost
    /// when the tag's body is skipped.
    pub(super) fn block_tag(&mut self, tag: &str) {
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

    pub(super) fn line_break(&mut self) {
        self.end_line();
        self.breaks = (self.breaks + 1).min(2usize.saturating_sub(self.written_breaks));
    }

    /// Makes sure that at least `lines` line feeds come before what follows.
    pub(super) fn separate(&mut self, lines: usize) {
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
    pub(super) fn end(&self) -> (usize, usize) {
        match self.pieces.last() {
            Some(last) if !last.is_tag => (self.pieces.len() - 1, last.text.len()),
            _ => (self.pieces.len(), 0),
        }
    }

    /// What came after `mark`, a former [`Page::end`].
    pub(super) fn since(&self, (pieces, bytes): (usize, usize)) -> String {
        let mut skipped = bytes;
        self.pieces[pieces..].iter().map(|piece| &piece.text[std::mem::take(&mut skipped)..]).collect()
    }

    pub(super) fn finish(self) -> String {
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
