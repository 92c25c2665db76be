//! What evaluating the content for one recipient writes: static text by its place, dynamic text by its bytes.

use std::fmt::Write as _;
use std::io;

use minijinja::value::ValueKind;
use minijinja::{HtmlEscape, Value};

use super::{BoundStep, Compiled, Content, Roots};
use crate::error::{Error, Result};
use crate::message::clean_subject;
use crate::recipient::{Bindings, Recipient, Secrets};
use crate::template::{MAX_OUTPUT_BYTES, Part, explain, range_in};

impl Content {
    /// Evaluates all parts for one recipient.
    pub(super) fn trace(&self, recipient: &Recipient<'_>) -> Result<Trace> {
        let secrets = self.secrets(recipient);
        let bindings = Bindings::read(&self.names, recipient, &secrets)?;
        let mut roots = None;
        let mut trace = Trace::new(secrets);
        for part in &self.parts {
            let mark = trace.mark();
            let stepped = match &part.steps {
                Some(steps) => trace.follow(part, steps, &bindings)?,
                None => false,
            };
            if !stepped {
                trace.back_to(mark);
                let roots = roots.get_or_insert_with(|| Roots::new(bindings.clone(), &trace.secrets));
                let root = roots.of(part.part);
                self.record(part, root, &mut trace)?;
            }
            if part.part == Part::Subject {
                trace.clean_subject(mark, &part.source);
            }
            trace.pieces.push(Piece::End);
        }
        Ok(trace)
    }

    /// Runs `part` in the engine, telling its static text by where it lies in memory.
    fn record(&self, part: &Compiled, root: Value, trace: &mut Trace) -> Result<()> {
        let template = self.environment.get_template(part.part.name()).map_err(|error| explain(part.part, &error))?;
        let mut recorder = Recorder { source: template.source(), trace, open: None, written_bytes: 0 };
        template.render_captured_to(root, &mut recorder).map_err(|error| explain(part.part, &error))?;
        recorder.close();
        Ok(())
    }
}

/// A stretch of a mail. A list of them is its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    /// Bytes of the part's source, from and to.
    Static(u32, u32),
    /// The next dynamic stretch of the trace.
    Dynamic,
    /// The recipient's track token.
    Track,
    /// The recipient's unsubscribe URL.
    Unsubscribe,
    /// The part ends.
    End,
}

/// What evaluating one recipient wrote.
pub(super) struct Trace {
    pub(super) secrets: Secrets,
    pub(super) pieces: Vec<Piece>,
    /// All dynamic stretches, one after the other.
    dynamic: String,
    /// Where each of them ends.
    ends: Vec<usize>,
}

/// A point in a trace to go back to.
#[derive(Clone, Copy)]
struct Mark {
    pieces: usize,
    dynamic: usize,
    ends: usize,
}

impl Trace {
    fn new(secrets: Secrets) -> Self {
        Self { secrets, pieces: Vec::with_capacity(64), dynamic: String::with_capacity(256), ends: Vec::new() }
    }

    fn mark(&self) -> Mark {
        Mark { pieces: self.pieces.len(), dynamic: self.dynamic.len(), ends: self.ends.len() }
    }

    fn back_to(&mut self, mark: Mark) {
        self.pieces.truncate(mark.pieces);
        self.dynamic.truncate(mark.dynamic);
        self.ends.truncate(mark.ends);
    }

    fn push_static(&mut self, bytes: std::ops::Range<usize>) {
        // Sources are far smaller than 4 GiB.
        let (start, end) = (bytes.start as u32, bytes.end as u32);
        match self.pieces.last_mut() {
            Some(Piece::Static(_, last)) if *last == start => *last = end,
            _ => self.pieces.push(Piece::Static(start, end)),
        }
    }

    /// Ends a dynamic stretch. Where it is one of the recipient's secrets, it is known as that by its value,
    /// so sharing its slot is right whatever wrote it.
    fn end_dynamic(&mut self, start: usize) {
        let text = &self.dynamic[start..];
        let secret = if text == self.secrets.track {
            Some(Piece::Track)
        } else if text == self.secrets.unsubscribe_url {
            Some(Piece::Unsubscribe)
        } else {
            None
        };
        match secret {
            Some(piece) => {
                self.dynamic.truncate(start);
                self.pieces.push(piece);
            }
            // Neighbours are one stretch, so that empty values do not change the shape.
            None => match (self.pieces.last(), self.ends.last_mut()) {
                (Some(Piece::Dynamic), Some(end)) => *end = self.dynamic.len(),
                _ => {
                    self.ends.push(self.dynamic.len());
                    self.pieces.push(Piece::Dynamic);
                }
            },
        }
    }

    /// Evaluates a part without control flow. False if a value needs the engine's way of printing.
    fn follow(&mut self, part: &Compiled, steps: &[BoundStep], bindings: &Bindings) -> Result<bool> {
        let mut written_bytes = 0;
        for step in steps {
            match step {
                BoundStep::Text(bytes) => {
                    written_bytes += bytes.len();
                    self.push_static(bytes.clone());
                }
                BoundStep::Track => {
                    written_bytes += self.secrets.track.len();
                    self.pieces.push(Piece::Track);
                }
                BoundStep::Variable(position) => {
                    let start = self.dynamic.len();
                    if !print(bindings.get(*position), part.part.escapes_html(), &mut self.dynamic) {
                        return Ok(false);
                    }
                    written_bytes += self.dynamic.len() - start;
                    self.end_dynamic(start);
                }
            }
            if written_bytes > MAX_OUTPUT_BYTES {
                let reason = format!("the output is larger than {MAX_OUTPUT_BYTES} bytes");
                return Err(Error::template(part.part.name(), None, reason));
            }
        }
        Ok(true)
    }

    /// A subject that needs cleaning is one dynamic stretch: cleaning reaches across static and dynamic text.
    fn clean_subject(&mut self, mark: Mark, source: &str) {
        let mut first_dynamic = mark.ends;
        let subject = self.join(&self.pieces[mark.pieces..], source, &mut first_dynamic);
        let clean = clean_subject(&subject);
        if clean.len() != subject.len() || clean != subject {
            self.back_to(mark);
            self.dynamic.push_str(&clean);
            self.end_dynamic(mark.dynamic);
        }
    }

    pub(super) fn dynamic(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.dynamic[start..self.ends[index]]
    }

    /// The text of `pieces`, whose first dynamic stretch is `first_dynamic`, which moves past them.
    pub(super) fn join(&self, pieces: &[Piece], source: &str, first_dynamic: &mut usize) -> String {
        let mut out = String::new();
        for piece in pieces {
            match *piece {
                Piece::Static(start, end) => out.push_str(&source[start as usize..end as usize]),
                Piece::Track => out.push_str(&self.secrets.track),
                Piece::Unsubscribe => out.push_str(&self.secrets.unsubscribe_url),
                Piece::Dynamic => {
                    out.push_str(self.dynamic(*first_dynamic));
                    *first_dynamic += 1;
                }
                Piece::End => {}
            }
        }
        out
    }
}

/// Prints a simple value as the engine does. False for lists, maps and the like, which only it can print.
fn print(value: &Value, escapes_html: bool, out: &mut String) -> bool {
    let written = match value.as_str() {
        Some(text) if escapes_html && !value.is_safe() => write!(out, "{}", HtmlEscape(text)),
        Some(text) => out.write_str(text),
        None => match value.kind() {
            ValueKind::Undefined | ValueKind::None | ValueKind::Bool | ValueKind::Number => write!(out, "{value}"),
            _ => return false,
        },
    };
    written.is_ok()
}

/// The engine's output, recorded. An empty write from outside the source says that an expression begins.
struct Recorder<'t> {
    source: &'t str,
    trace: &'t mut Trace,
    /// Where the dynamic stretch being written began.
    open: Option<usize>,
    written_bytes: usize,
}

impl Recorder<'_> {
    fn close(&mut self) {
        if let Some(start) = self.open.take() {
            self.trace.end_dynamic(start);
        }
    }
}

impl io::Write for Recorder<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written_bytes += bytes.len();
        if self.written_bytes > MAX_OUTPUT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if let Some(range) = range_in(self.source.as_bytes(), bytes) {
            if !range.is_empty() {
                self.close();
                self.trace.push_static(range);
            }
            return Ok(());
        }
        if bytes.is_empty() {
            self.close();
        }
        self.open.get_or_insert(self.trace.dynamic.len());
        self.trace.dynamic.push_str(str::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
