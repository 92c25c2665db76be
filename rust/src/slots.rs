//! Compiled content, and partial evaluation: what all recipients share goes over the wire once.
//!
//! A template's static text reaches the output as slices of the template's own source. The recording output
//! ([`Trace`]) tells them apart by their place in memory and keeps them as byte ranges; everything else that
//! is written is dynamic and kept as bytes. The two together are the plain output by construction, whatever
//! the template does: a captured block, a filter over it or a macro simply arrives as dynamic text. Nothing
//! marks the output, so nothing in a recipient's data can look like a mark.
//!
//! Recipients whose traces have the same shape share a [`Skeleton`]: an inline SES template that holds the
//! static text and a slot for each dynamic stretch, within the limits of what SES substitutes safely.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use minijinja::value::ValueKind;
use minijinja::{Environment, HtmlEscape, Value};

use crate::error::{Error, Result};
use crate::message::clean_subject;
use crate::recipient::{Bindings, Names, Recipient, Secrets};
use crate::ses::json::push_string;
use crate::template::{FrozenContent, MAX_OUTPUT_BYTES, Part, Step, Survey, environment, explain, install, range_in};
use crate::token::TokenKeys;

/// Skeletons that one content may have. Recipients beyond them are sent one by one.
pub const MAX_SKELETONS: usize = 256;

/// What tokens and URLs of a stream's mail are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamIdentity {
    /// The stream.
    pub stream_id: i64,
    /// The account that sends it.
    pub account_id: i64,
    /// The list it goes to; 0 = none.
    pub list_id: i64,
    /// Start of tracking and unsubscribe URLs, without a trailing slash.
    pub base_url: String,
}

/// A mail's parts for one recipient, as the reader shall see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Free of control characters, trimmed.
    pub subject: String,
    /// The HTML part.
    pub html: String,
    /// The text part.
    pub text: String,
}

/// A recipient's mail, split for the wire where that is possible.
#[derive(Debug, Clone)]
pub enum Evaluated {
    /// The skeleton, and its slots' values in the order of [`Skeleton::slot_names`].
    Slots {
        /// Shared by all recipients whose mail has this shape.
        skeleton: Arc<Skeleton>,
        /// One value per slot name.
        values: Vec<String>,
    },
    /// The whole mail: too many shapes already.
    Plain(Rendered),
}

/// The static text of a group of mails, with named slots.
#[derive(Debug, PartialEq, Eq)]
pub struct Skeleton {
    /// Dense number within its content, and no other's of its stream.
    pub id: u32,
    /// ASCII letters only, none twice.
    pub slot_names: Vec<String>,
    /// `{"Subject":"…","Text":"…","Html":"…"}`: the JSON of SES's `TemplateContent`, in UTF-8.
    pub template_json: Box<[u8]>,
}

/// Frozen content, compiled for one stream. Shared by all threads.
pub struct Content {
    environment: Environment<'static>,
    parts: [Compiled; 3],
    names: Arc<Names>,
    identity: StreamIdentity,
    keys: TokenKeys,
    first_skeleton: u32,
    layouts: RwLock<HashMap<Box<[Piece]>, Arc<Layout>, foldhash::fast::RandomState>>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Content {
    /// Compiles `frozen` for the stream of `identity`.
    pub fn compile(frozen: FrozenContent, identity: StreamIdentity, keys: TokenKeys) -> Result<Self> {
        let mut environment = environment();
        let mut install = |part, source: &str| -> Result<(Part, String, Survey)> {
            let (source, survey) = install(&mut environment, part, source)?;
            Ok((part, source, survey))
        };
        let parts = [
            install(Part::Subject, &frozen.subject)?,
            install(Part::Html, &frozen.html)?,
            install(Part::Text, &frozen.text)?,
        ];
        let names = Arc::new(Names::new(parts.iter().flat_map(|(_, _, survey)| survey.names.iter().cloned())));
        let parts = parts.map(|(part, source, survey)| Compiled {
            part,
            source: source.into_boxed_str(),
            steps: bind(survey.steps, &names),
        });
        Ok(Self { environment, parts, names, identity, keys, first_skeleton: 0, layouts: RwLock::default() })
    }

    /// The same, its skeletons numbered behind those of another content of its stream.
    #[must_use]
    pub fn beside_another(self) -> Self {
        Self { first_skeleton: MAX_SKELETONS as u32, ..self }
    }

    /// Renders every part by itself, without slots: the reference that [`Self::evaluate`] must agree with.
    pub fn render(&self, recipient: &Recipient<'_>) -> Result<Rendered> {
        let secrets = self.secrets(recipient);
        let roots = Roots::new(Bindings::read(&self.names, recipient, &secrets)?, &secrets);
        let [subject, html, text] = self.parts.each_ref().map(|part| {
            let mut out = Capped::default();
            self.run(part, roots.of(part.part), &mut out)?;
            String::from_utf8(out.bytes).map_err(|_| Error::template(part.part.name(), None, "the output is not UTF-8"))
        });
        Ok(Rendered { subject: clean_subject(&subject?).into_owned(), html: html?, text: text? })
    }

    /// Evaluates the content for `recipient` and splits off what it shares with others.
    pub fn evaluate(&self, recipient: &Recipient<'_>) -> Result<Evaluated> {
        let trace = self.trace(recipient)?;
        Ok(match self.layout(&trace.pieces) {
            Some(layout) => Evaluated::Slots { skeleton: Arc::clone(&layout.skeleton), values: layout.values(&trace) },
            None => Evaluated::Plain(self.join(&trace)),
        })
    }

    /// The address behind the recipient's unsubscribe links and its `List-Unsubscribe` header.
    pub fn unsubscribe_url(&self, recipient: &Recipient<'_>) -> String {
        let StreamIdentity { stream_id, account_id, list_id, base_url } = &self.identity;
        let token = self.keys.unsubscribe_token(*account_id, recipient.contact_id, *list_id, *stream_id, recipient.seq);
        format!("{base_url}/u/{token}")
    }

    fn secrets(&self, recipient: &Recipient<'_>) -> Secrets {
        Secrets {
            track: self.keys.track_token(self.identity.stream_id, recipient.seq),
            unsubscribe_url: self.unsubscribe_url(recipient),
        }
    }

    fn run(&self, part: &Compiled, root: Value, out: impl io::Write) -> Result<()> {
        let template = self.environment.get_template(part.part.name()).map_err(|error| explain(part.part, &error))?;
        template.render_captured_to(root, out).map_err(|error| explain(part.part, &error))?;
        Ok(())
    }

    fn trace(&self, recipient: &Recipient<'_>) -> Result<Trace> {
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

    /// The layout of a shape: a known one, or a new one while there is room.
    fn layout(&self, shape: &[Piece]) -> Option<Arc<Layout>> {
        let known = self.layouts.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = known.get(shape) {
            return Some(Arc::clone(layout));
        }
        let full = known.len() >= MAX_SKELETONS;
        drop(known);
        if full {
            return None;
        }
        let (recipes, template_json) = self.lay_out(shape);
        let mut known = self.layouts.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = known.get(shape) {
            return Some(Arc::clone(layout));
        }
        if known.len() >= MAX_SKELETONS {
            return None;
        }
        let id = self.first_skeleton + u32::try_from(known.len()).ok()?;
        let slot_names = SlotNames::default().take(recipes.len()).collect();
        let layout = Arc::new(Layout { skeleton: Arc::new(Skeleton { id, slot_names, template_json }), recipes });
        known.insert(shape.into(), Arc::clone(&layout));
        Some(layout)
    }

    /// The recipes of a shape's slots, and the template that names them.
    fn lay_out(&self, shape: &[Piece]) -> (Vec<Recipe>, Box<[u8]>) {
        let mut slots = Slots::default();
        let mut first_dynamic = 0;
        let mut shapes = shape.split(|piece| *piece == Piece::End);
        let [subject, html, text] = self.parts.each_ref().map(|part| {
            let nodes = nodes_of(shapes.next().unwrap_or_default(), &part.source, &mut first_dynamic);
            slots.template_of(separate(split_braces(nodes)))
        });
        let mut json = Vec::with_capacity(subject.len() + html.len() + text.len() + 64);
        for (name, template) in [("{\"Subject\":", subject), (",\"Text\":", text), (",\"Html\":", html)] {
            json.extend_from_slice(name.as_bytes());
            push_string(&mut json, &template);
        }
        json.push(b'}');
        (slots.recipes, json.into_boxed_slice())
    }

    fn join(&self, trace: &Trace) -> Rendered {
        let mut first_dynamic = 0;
        let mut shapes = trace.pieces.split(|piece| *piece == Piece::End);
        let [subject, html, text] = self
            .parts
            .each_ref()
            .map(|part| trace.join(shapes.next().unwrap_or_default(), &part.source, &mut first_dynamic));
        Rendered { subject, html, text }
    }
}

/// A part of the content.
struct Compiled {
    part: Part,
    source: Box<str>,
    /// If the part has no control flow: what to do without the engine.
    steps: Option<Vec<BoundStep>>,
}

/// A [`Step`] whose variable is known by its position in [`Names`].
#[derive(Debug)]
enum BoundStep {
    Text(std::ops::Range<usize>),
    Variable(usize),
    Track,
}

fn bind(steps: Option<Vec<Step>>, names: &Names) -> Option<Vec<BoundStep>> {
    let bound = steps?.into_iter().map(|step| match step {
        Step::Text(bytes) => Some(BoundStep::Text(bytes)),
        Step::Variable(name) => names.position(&name).map(BoundStep::Variable),
        Step::Track => Some(BoundStep::Track),
    });
    bound.collect()
}

/// The variables as the engine wants them; `unsubscribeUrl` is safe only where HTML is escaped.
struct Roots {
    html: Value,
    plain: Value,
}

impl Roots {
    fn new(bindings: Bindings, secrets: &Secrets) -> Self {
        let plain = Value::from_object(bindings.without_safe_url(secrets));
        Self { html: Value::from_object(bindings), plain }
    }

    fn of(&self, part: Part) -> Value {
        if part.escapes_html() { self.html.clone() } else { self.plain.clone() }
    }
}

/// An output that refuses to grow past the limit.
#[derive(Default)]
pub(crate) struct Capped {
    pub(crate) bytes: Vec<u8>,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stretch of a mail. A list of them is its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Piece {
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
struct Trace {
    secrets: Secrets,
    pieces: Vec<Piece>,
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

    fn dynamic(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.dynamic[start..self.ends[index]]
    }

    /// The text of `pieces`, whose first dynamic stretch is `first_dynamic`, which moves past them.
    fn join(&self, pieces: &[Piece], source: &str, first_dynamic: &mut usize) -> String {
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

/// How to make the values of a shape's slots.
struct Layout {
    skeleton: Arc<Skeleton>,
    recipes: Vec<Recipe>,
}

impl Layout {
    fn values(&self, trace: &Trace) -> Vec<String> {
        self.recipes.iter().map(|recipe| value_of(recipe, trace)).collect()
    }
}

/// A slot's value: these, joined.
type Recipe = Vec<Ingredient>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Ingredient {
    Constant(String),
    /// A dynamic stretch by its index. No two are alike, so no two slots with one are merged.
    Dynamic(usize),
    Track,
    Unsubscribe,
}

fn value_of(recipe: &[Ingredient], trace: &Trace) -> String {
    let mut value = String::new();
    for ingredient in recipe {
        value.push_str(match ingredient {
            Ingredient::Constant(text) => text,
            Ingredient::Dynamic(index) => trace.dynamic(*index),
            Ingredient::Track => &trace.secrets.track,
            Ingredient::Unsubscribe => &trace.secrets.unsubscribe_url,
        });
    }
    value
}

/// A stretch of a skeleton in the making.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    Text(String),
    Slot(Recipe),
}

/// Static text and dynamic ingredients, each joined with its like.
fn nodes_of(pieces: &[Piece], source: &str, first_dynamic: &mut usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    for piece in pieces {
        match *piece {
            Piece::Static(start, end) => push_text(&mut nodes, &source[start as usize..end as usize]),
            Piece::Track => push_ingredient(&mut nodes, Ingredient::Track),
            Piece::Unsubscribe => push_ingredient(&mut nodes, Ingredient::Unsubscribe),
            Piece::Dynamic => {
                push_ingredient(&mut nodes, Ingredient::Dynamic(*first_dynamic));
                *first_dynamic += 1;
            }
            Piece::End => {}
        }
    }
    nodes
}

fn push_text(nodes: &mut Vec<Node>, text: &str) {
    match nodes.last_mut() {
        Some(Node::Text(last)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => nodes.push(Node::Text(text.to_owned())),
    }
}

fn push_ingredient(nodes: &mut Vec<Node>, ingredient: Ingredient) {
    let Some(Node::Slot(recipe)) = nodes.last_mut() else {
        nodes.push(Node::Slot(vec![ingredient]));
        return;
    };
    match (recipe.last_mut(), ingredient) {
        (Some(Ingredient::Constant(last)), Ingredient::Constant(text)) => last.push_str(&text),
        (_, ingredient) => recipe.push(ingredient),
    }
}

/// Moves every run of braces that holds `{{` or `}}` from the text into a slot: SES would read the first as a
/// slot's start, and whether its checker bears the second is unknown.
fn split_braces(nodes: Vec<Node>) -> Vec<Node> {
    let mut out = Vec::with_capacity(nodes.len());
    for node in nodes {
        match node {
            Node::Slot(recipe) => recipe.into_iter().for_each(|ingredient| push_ingredient(&mut out, ingredient)),
            Node::Text(text) => {
                let mut rest = text.as_str();
                while let Some(run) = next_run(rest) {
                    push_text(&mut out, &rest[..run.start]);
                    push_ingredient(&mut out, Ingredient::Constant(rest[run.clone()].to_owned()));
                    rest = &rest[run.end..];
                }
                push_text(&mut out, rest);
            }
        }
    }
    out
}

/// The first run of braces in `text` with a doubled one.
fn next_run(text: &str) -> Option<std::ops::Range<usize>> {
    let bytes = text.as_bytes();
    let doubled = bytes.windows(2).position(|pair| pair == b"{{" || pair == b"}}")?;
    let is_brace = |byte: &u8| matches!(byte, b'{' | b'}');
    let start = bytes[..doubled].iter().rposition(|byte| !is_brace(byte)).map_or(0, |before| before + 1);
    let end = bytes[doubled..].iter().position(|byte| !is_brace(byte)).map_or(bytes.len(), |after| doubled + after);
    Some(start..end)
}

/// Moves what must not touch a slot's braces into the slot: `{` and `\` before it, `}` after it. Slots that
/// come to touch each other become one.
fn separate(nodes: Vec<Node>) -> Vec<Node> {
    let mut out = Vec::with_capacity(nodes.len());
    for node in nodes {
        match node {
            Node::Text(text) => {
                let kept = match out.last() {
                    Some(Node::Slot(_)) => text.trim_start_matches('}'),
                    _ => text.as_str(),
                };
                let moved = &text[..text.len() - kept.len()];
                if !moved.is_empty() {
                    push_ingredient(&mut out, Ingredient::Constant(moved.to_owned()));
                }
                push_text(&mut out, kept);
            }
            Node::Slot(recipe) => {
                if let Some(moved) = take_unsafe_end(&mut out) {
                    push_ingredient(&mut out, Ingredient::Constant(moved));
                }
                recipe.into_iter().for_each(|ingredient| push_ingredient(&mut out, ingredient));
            }
        }
    }
    out
}

fn take_unsafe_end(nodes: &mut Vec<Node>) -> Option<String> {
    let Some(Node::Text(text)) = nodes.last_mut() else { return None };
    let kept_bytes = text.trim_end_matches(['{', '\\']).len();
    let moved = text.split_off(kept_bytes);
    if text.is_empty() {
        nodes.pop();
    }
    (!moved.is_empty()).then_some(moved)
}

/// The slots of a skeleton in the making. Those with one recipe share one name, across all parts.
#[derive(Default)]
struct Slots {
    recipes: Vec<Recipe>,
    names: Vec<String>,
    known: HashMap<Recipe, usize>,
    unused: SlotNames,
}

impl Slots {
    fn template_of(&mut self, nodes: Vec<Node>) -> String {
        let mut template = String::new();
        for node in nodes {
            match node {
                Node::Text(text) => template.push_str(&text),
                Node::Slot(recipe) => {
                    template.push_str("{{");
                    template.push_str(self.name(recipe));
                    template.push_str("}}");
                }
            }
        }
        template
    }

    fn name(&mut self, recipe: Recipe) -> &str {
        let index = *self.known.entry(recipe).or_insert_with_key(|recipe| {
            self.recipes.push(recipe.clone());
            self.names.extend(self.unused.next());
            self.recipes.len() - 1
        });
        &self.names[index]
    }
}

/// `a`, `b`, … `z`, `aa`, …: letters only, without the words that template engines know.
#[derive(Default)]
struct SlotNames {
    next: usize,
}

const RESERVED_WORDS: [&str; 13] =
    ["if", "each", "with", "unless", "lookup", "log", "this", "as", "else", "null", "true", "false", "undefined"];

impl Iterator for SlotNames {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            let name = letters(self.next);
            self.next += 1;
            if !RESERVED_WORDS.contains(&name.as_str()) {
                return Some(name);
            }
        }
    }
}

/// `number` in bijective base 26.
fn letters(mut number: usize) -> String {
    let mut reversed = Vec::new();
    loop {
        reversed.push(char::from(b'a' + (number % 26) as u8));
        match number / 26 {
            0 => return reversed.into_iter().rev().collect(),
            quotient => number = quotient - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Source, freeze};
    use std::time::Instant;

    fn recipient<'a>(seq: i32, first_name: Option<&'a str>, fields: Option<&'a str>) -> Recipient<'a> {
        Recipient {
            seq,
            attempt: 1,
            contact_id: 40 + i64::from(seq),
            email: "ada@example.com",
            name: Some("Ada \"L\" <b>"),
            first_name,
            last_name: None,
            custom_fields: fields.map(str::as_bytes),
            tracked: true,
        }
    }

    fn content_of(frozen: FrozenContent) -> Content {
        let identity = StreamIdentity {
            stream_id: (2_700 << 35) | 1,
            account_id: 1,
            list_id: 2,
            base_url: "https://t.example".to_owned(),
        };
        Content::compile(frozen, identity, TokenKeys::derive(b"test secret")).unwrap()
    }

    /// Content whose parts are exactly these templates.
    fn bare(subject: &str, html: &str, text: &str) -> Content {
        let (subject, html, text) = (subject.to_owned(), html.to_owned(), text.to_owned());
        content_of(FrozenContent { subject, html, text, ..FrozenContent::default() })
    }

    /// Puts values into slots as SES does: one pass, values not read again. Asserts the rules that keep SES's
    /// engine from misreading the template.
    fn assemble(skeleton: &Skeleton, values: &[String]) -> Rendered {
        assert_eq!(skeleton.slot_names.len(), values.len());
        let parts: serde_json::Value = serde_json::from_slice(&skeleton.template_json).unwrap();
        let fill = |part: &str| {
            let template = parts[part].as_str().unwrap();
            let (mut out, mut rest) = (String::new(), template);
            while let Some(at) = rest.find("{{") {
                let before = &rest[..at];
                assert!(!before.ends_with('\\') && !before.contains("}}"), "{template}");
                out.push_str(before);
                let (name, after) = rest[at + 2..].split_once("}}").expect("a slot ends");
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()) && !name.is_empty(), "{template}");
                assert!(!after.starts_with('}') && !after.starts_with("{{"), "{template}");
                let index = skeleton.slot_names.iter().position(|known| known == name).expect("a known slot");
                out.push_str(&values[index]);
                rest = after;
            }
            assert!(!rest.contains("}}"), "{template}");
            out.push_str(rest);
            out
        };
        Rendered { subject: fill("Subject"), html: fill("Html"), text: fill("Text") }
    }

    /// Evaluates, checks against the plain renderer, and returns the shape.
    fn checked(content: &Content, recipient: &Recipient<'_>) -> (Arc<Skeleton>, Vec<String>) {
        let Evaluated::Slots { skeleton, values } = content.evaluate(recipient).unwrap() else {
            panic!("expected slots");
        };
        assert_eq!(assemble(&skeleton, &values), content.render(recipient).unwrap());
        (skeleton, values)
    }

    fn template(skeleton: &Skeleton, part: &str) -> String {
        let parts: serde_json::Value = serde_json::from_slice(&skeleton.template_json).unwrap();
        parts[part].as_str().unwrap().to_owned()
    }

    #[test]
    fn static_text_is_shared_and_values_are_not() {
        let content = bare("{{ firstName }}, hi", "<p>{{ name }} & {{ plan }}</p>", "{{ name }}");
        let (first, values) = checked(&content, &recipient(1, Some("Ada"), Some(r#"{"plan":"a<b"}"#)));
        let (second, _) = checked(&content, &recipient(2, None, None));
        assert!(Arc::ptr_eq(&first, &second), "missing fields do not change the shape");
        assert_eq!(
            std::str::from_utf8(&first.template_json).unwrap(),
            r#"{"Subject":"{{a}}, hi","Text":"{{d}}","Html":"<p>{{b}} & {{c}}</p>"}"#
        );
        assert_eq!(values, ["Ada", "Ada &quot;L&quot; &lt;b&gt;", "a&lt;b", "Ada \"L\" <b>"]);
    }

    #[test]
    fn the_engine_and_the_step_list_agree() {
        let fields = r#"{"s":"<é'/&\">","i":5,"f":1.0,"t":true,"n":null,"big":18446744073709551615,"e":"","l":[1,"<"],"m":{"k":"<"}}"#;
        for name in [
            "s",
            "i",
            "f",
            "t",
            "n",
            "big",
            "e",
            "l",
            "m",
            "missing",
            "firstName",
            "email",
            "unsubscribeUrl",
            "mailrail.t",
            "mailrail",
            "range",
        ] {
            let stepped = bare("x", &format!("<{{{{ {name} }}}}>"), &format!("<{{{{ {name} }}}}>"));
            let forced =
                bare("x", &format!("<{{{{ {name} }}}}>{{% if 0 %}}{{% endif %}}"), &format!("<{{{{ {name} }}}}>"));
            let recipient = recipient(1, Some("A&B"), Some(fields));
            let (skeleton, values) = checked(&stepped, &recipient);
            let (other_skeleton, other_values) = checked(&forced, &recipient);
            assert_eq!((skeleton, values), (other_skeleton, other_values), "{name}");
        }
    }

    #[test]
    fn the_track_token_and_the_unsubscribe_address_travel_once() {
        let source = Source {
            subject: "s".to_owned(),
            html: "<a href=https://a.example>a</a><a href=https://b.example>b</a><a href=https://a.example>c</a>"
                .to_owned(),
            base_url: "https://t.example".to_owned(),
            track_opens: true,
            track_clicks: true,
            ..Source::default()
        };
        let content = content_of(freeze(&source).unwrap());
        let recipient = recipient(7, None, None);
        let (skeleton, values) = checked(&content, &recipient);
        assert_eq!(values.len(), 2);
        assert_eq!(values[1], content.unsubscribe_url(&recipient));
        assert_eq!(template(&skeleton, "Html").matches("{{a}}").count(), 4);
        assert_eq!(template(&skeleton, "Text").matches("{{a}}").count(), 3);
        assert_eq!(template(&skeleton, "Text").matches("{{b}}").count(), 1);
    }

    #[test]
    fn neighbouring_braces_make_an_occurrence_its_own_slot() {
        let content = bare("s", "{{ mailrail.t }}|{{ '' }}{ {{ mailrail.t }}}|\\{{ mailrail.t }}|{{ mailrail.t }}", "");
        let (skeleton, values) = checked(&content, &recipient(1, None, None));
        assert_eq!(template(&skeleton, "Html"), "{{a}}|{{b}}{ {{c}}|{{d}}|{{a}}");
        assert!(values[2].ends_with('}') && values[3].starts_with('\\'));
    }

    #[test]
    fn braces_in_static_text_become_values() {
        for html in [
            "@media screen{#id{color:red}}{{ firstName }}",
            "{{ '{{' }} a {{ '}}' }} b {% raw %}{{ code }} {{{x}}} \\{{ y }}{% endraw %}",
            "a{ {{ firstName }} }b",
            "a{{ '{' }}{{ firstName }}{{ '}' }}b",
            "a\\{{ firstName }}}b",
            "}}{{ firstName }}}}}{{ firstName }}\\\\{{ firstName }}",
            "{% raw %}{{% endraw %}{% if firstName %}{{ firstName }}{% endif %}{% raw %}{{% endraw %}",
            "{% raw %}{{% endraw %}{% if 1 %}{% endif %}{% raw %}{{% endraw %}x",
            "}{{ firstName }}}\\{{ name }}",
            "{ { } } }{ {} {a}}",
            "{",
            "\\",
            "}}",
        ] {
            let content = bare(html, html, html);
            for name in [None, Some("}"), Some("{{a}}"), Some("{"), Some("\\"), Some("}}")] {
                checked(&content, &recipient(1, name, None));
            }
        }
    }

    #[test]
    fn equal_constants_share_a_slot() {
        let content = bare("s", "a{b{c:d}} e{f{g:h}} i{j{k:l}}", "");
        let (skeleton, values) = checked(&content, &recipient(1, None, None));
        assert_eq!(template(&skeleton, "Html"), "a{b{c:d{{a}} e{f{g:h{{a}} i{j{k:l{{a}}");
        assert_eq!(values, ["}}"]);
    }

    #[test]
    fn captured_output_is_dynamic_text() {
        for html in [
            "{% set cap %}Hello {{ firstName }}{% endset %}{{ cap|length }} {{ cap }}",
            "{% filter upper %}Hello {{ firstName }}{% endfilter %}!",
            "{% macro m(x) %}<b>{{ x }}</b>{% endmacro %}{{ m(firstName) }}{{ m('x')|length }}",
            "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in {{ firstName }}{% endcall %}",
            "{% set cap %}{{ mailrail.t }}{% endset %}{{ cap }}|{{ cap[:3] }}",
            "{% for x in [1, [2, [3]]] recursive %}({% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}){% endfor %}",
            "{% autoescape false %}{{ name }}{% endautoescape %}{{ name|safe }}{{ name ~ 'x' }}{{ name|e|e }}",
            "{{ unsubscribeUrl|e }} {{ unsubscribeUrl ~ '<' }} {{ unsubscribeUrl|upper }}",
            "{{ last }}{{ firstName }}{{ last }}|{{ mailrail.t }}{{ firstName }}|{{ firstName }}{{ mailrail.t }}{% if 0 %}{% endif %}",
            "{%- if firstName -%}  a  {%- else -%} b {%- endif -%}  c",
        ] {
            let content = bare("s", html, html);
            for name in [None, Some("Ada"), Some("<Ada>"), Some("firstName")] {
                checked(&content, &recipient(1, name, None));
            }
        }
    }

    #[test]
    fn loops_of_different_lengths_have_different_skeletons() {
        let content = bare("s", "{% for i in items %}<li>{{ i }}</li>{% else %}none{% endfor %}", "");
        let shape = |fields| checked(&content, &recipient(1, None, Some(fields))).0.id;
        assert_eq!(shape(r#"{"items":[1,2]}"#), 0);
        assert_eq!(shape(r#"{"items":[1,2,3]}"#), 1);
        assert_eq!(shape("{}"), 2);
        assert_eq!(shape(r#"{"items":["a","<b>"]}"#), 0);
    }

    #[test]
    fn too_many_skeletons_fall_back_to_the_whole_mail() {
        let content = bare("s", "{% for i in range(n) %}<li>{{ i }}{% endfor %}{{ firstName }}", "t");
        for n in 0..MAX_SKELETONS + 20 {
            let fields = format!(r#"{{"n":{n}}}"#);
            let recipient = recipient(1, Some("x"), Some(&fields));
            match content.evaluate(&recipient).unwrap() {
                Evaluated::Slots { skeleton, values } => {
                    assert!(n < MAX_SKELETONS && skeleton.id as usize == n);
                    assert_eq!(assemble(&skeleton, &values), content.render(&recipient).unwrap());
                }
                Evaluated::Plain(rendered) => {
                    assert!(n >= MAX_SKELETONS);
                    assert_eq!(rendered, content.render(&recipient).unwrap());
                }
            }
        }
        let known = recipient(1, None, Some(r#"{"n":3}"#));
        assert!(matches!(content.evaluate(&known).unwrap(), Evaluated::Slots { .. }), "known shapes stay");
    }

    #[test]
    fn any_value_arrives_unchanged() {
        let content =
            bare("{{ firstName }}", "<p title=\"{{ firstName }}\">é{{ firstName }}\n", "\"{{ firstName }}\"\t\u{1}");
        for value in [
            "",
            "{{a}}",
            "}}{{",
            "\"quoted\" \\ 'single'",
            "line\nfeed\r\n",
            "👩‍🚀 emoji",
            "\u{202b}שלום\u{202c}",
            "\u{2028}\u{feff}\u{fffe}\u{10ffff}",
            "\0\u{7f}\u{85}",
            "<script>&amp;",
            "{% if %}{#",
            "  spaced  ",
        ] {
            checked(&content, &recipient(1, Some(value), None));
        }
    }

    #[test]
    fn subjects_are_cleaned_as_a_whole() {
        let content = bare("Hi\n{{ firstName }}\n", "x", "y");
        let (_, values) = checked(&content, &recipient(1, Some("\r\nBcc: x"), None));
        assert_eq!(values, ["Hi Bcc: x"]);
        let content = bare("Hi {{ firstName }}", "x", "y");
        let (plain, _) = checked(&content, &recipient(1, Some("Ada"), None));
        assert_eq!(template(&plain, "Subject"), "Hi {{a}}");
        let (cleaned, values) = checked(&content, &recipient(1, Some("A\u{85}\nda"), None));
        assert_eq!((template(&cleaned, "Subject").as_str(), values[0].as_str()), ("{{a}}", "Hi A da"));
        checked(&content, &recipient(1, None, None));
    }

    #[test]
    fn bombs_end_quickly_with_an_error() {
        for bomb in [
            "{% for i in range(1000000000) %}x{% endfor %}",
            "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
            "{{ 'x' * 1000000000 }}",
            "{{ ['x'] * 1000000000 }}",
            "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ ('x' * 900000) }}{{ ('x' * 900000) }}",
            "{{ '%1000000000d'|format(1) }}",
            "{{ 'a'|indent(1000000000) }}",
            "{{ range(100000)|list|join('xxxxxxxxxxxxxxxxxxxxxxxxx') }}",
            "{% for a in [[[1]]] recursive %}{{ loop([[[1]]]) }}{% endfor %}",
        ] {
            let content = bare("s", bomb, "");
            let started = Instant::now();
            let result = content.evaluate(&recipient(1, None, None));
            let elapsed = started.elapsed();
            assert!(result.is_err(), "{bomb}");
            assert!(content.render(&recipient(1, None, None)).is_err(), "{bomb}");
            // In release these take up to 20 ms; the rest is room for a busy machine.
            assert!(elapsed.as_millis() < 1_000, "{bomb}: {elapsed:?}");
        }
    }

    /// Lists in lists: without bounds these would fill the memory, run for hours or exhaust the stack, whose
    /// size here is the least that the core's threads have.
    #[test]
    fn structural_bombs_end_quickly() {
        let double = |step: &str, times: usize| format!("{{% set x = [1] %}}{{% set y = [1] %}}{}", step.repeat(times));
        let looped =
            |step: &str| format!("{{% set ns = namespace(a=1) %}}{{% for i in range(9000) %}}{step}{{% endfor %}}");
        let mut bombs = Vec::new();
        for walk in [
            "",
            "{{ x }}",
            "{{ x|tojson }}",
            "{{ x|pprint }}",
            "{{ x|string }}",
            "{{ x == y }}",
            "{{ x ~ y }}",
            "{{ x|join }}",
        ] {
            for (step, times) in [
                ("{% set x = [x, x] %}{% set y = [y, y] %}", 60),
                ("{% set x = {1: x, 2: x} %}", 60),
                ("{% set x = (x, x) %}", 60),
                ("{% set x = x, x %}", 60),
                ("{% set x = x|zip(x) %}", 60),
                ("{% set x = x|zip(x)|list %}", 60),
                ("{% set x = x|chain(x) %}", 60),
                ("{% set x = x + x %}", 60),
                ("{% set x = x * 8 %}", 60),
                ("{% set x = dict(a=x, b=x) %}", 60),
                ("{% set x = x|batch(1000, x) %}", 60),
                ("{% set x = [x] %}{% set y = [y] %}", 8_000),
                ("{% set x = {1: x} %}", 10_000),
                ("{% set x = x|batch(1) %}", 10_000),
                ("{% set x = [1]|chain(x) %}", 9_000),
                ("{% set x = x[:] %}", 12_000),
                ("{% set x = x[:]|map('int') %}", 7_000),
            ] {
                bombs.push(double(step, times) + walk);
            }
            bombs.push(looped("{% set ns.a = [ns.a] %}") + "{% set x = ns.a %}" + walk);
            bombs.push(looped("{% set ns.a = [ns.a, ns.a] %}") + "{% set x = ns.a %}" + walk);
            bombs.push(looped("{% set ns.a = namespace(b=ns.a) %}") + walk);
        }
        bombs.push(
            "{% for a in [[1,1]] %}".to_owned()
                + &"{% for a in [[a, a]] %}".repeat(40)
                + "{{ a }}"
                + &"{% endfor %}".repeat(41),
        );
        bombs.push(
            "{% with x = [1] %}".to_owned()
                + &"{% with x = [x, x] %}".repeat(40)
                + "{{ x }}"
                + &"{% endwith %}".repeat(41),
        );
        bombs.push("{% macro m(x) %}{{ m([x, x, x, x]) }}{% endmacro %}{{ m([1]) }}".to_owned());
        bombs.push("{% set x = [1]|batch(9000, 1) %}{{ [1]|batch(9000, x) }}".to_owned());
        let run = move || {
            for bomb in bombs {
                let content = bare("s", &bomb, "");
                let started = Instant::now();
                assert!(content.evaluate(&recipient(1, None, None)).is_err(), "{}", head(&bomb));
                let elapsed = started.elapsed();
                // In release these take up to 50 ms; the rest is room for a busy machine.
                assert!(elapsed.as_millis() < 1_000, "{}: {elapsed:?}", head(&bomb));
            }
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
    }

    fn head(text: &str) -> &str {
        &text[..text.len().min(120)]
    }

    #[test]
    fn the_output_limit_holds_with_and_without_the_engine() {
        let field = "x".repeat(MAX_OUTPUT_BYTES / 2 + 1);
        let fields = format!(r#"{{"big":"{field}"}}"#);
        for html in ["{{ big }}{{ big }}", "{{ big }}{{ big }}{% if 0 %}{% endif %}"] {
            let content = bare("s", html, "");
            let recipient = recipient(1, None, Some(&fields));
            assert_eq!(content.evaluate(&recipient).unwrap_err().part, "html");
            assert!(content.render(&recipient).is_err());
        }
    }

    #[test]
    fn bad_fields_and_bad_operations_are_errors_of_the_recipient() {
        let content = bare("s", "{{ a + 1 }}", "");
        let error = content.evaluate(&recipient(1, None, Some(r#"{"a":"x"}"#))).unwrap_err();
        assert_eq!((error.part, error.line), ("html", Some(1)));
        assert!(content.evaluate(&recipient(1, None, Some(r#"{"a":"#))).is_err());
        checked(&content, &recipient(1, None, Some(r#"{"a":1}"#)));
    }

    #[test]
    fn slot_names_are_letters_and_no_helper_words() {
        let names: Vec<String> = SlotNames::default().take(30_000).collect();
        assert_eq!(names[..3], ["a", "b", "c"]);
        assert_eq!(names[26..29], ["aa", "ab", "ac"]);
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase())));
        assert!(RESERVED_WORDS.iter().all(|word| !names.iter().any(|name| name == word)));
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), names.len());
    }

    #[test]
    fn threads_share_skeletons() {
        let content = bare("s", "{% if n %}a{{ n }}{% else %}b{% endif %}", "");
        let ids: Vec<u32> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| checked(&content, &recipient(1, None, Some(r#"{"n":1}"#))).0.id))
                .collect();
            handles.into_iter().map(|handle| handle.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == 0));
    }

    /// A small language of templates and values, all combinations of which must agree with the renderer.
    #[test]
    fn random_templates_agree_with_the_renderer() {
        let pieces = [
            "a",
            "{",
            "}",
            "\\",
            " ",
            "{{ firstName }}",
            "{{ name }}",
            "{{ mailrail.t }}",
            "{{ unsubscribeUrl }}",
            "{{ x }}",
            "{% if x %}",
            "{% else %}",
            "{% endif %}",
            "{% for i in x %}",
            "{% endfor %}",
            "{{ i }}",
            "{{ x|upper }}",
            "{% set c %}",
            "{% endset %}",
            "{{ c }}",
            "é\n",
            "{% raw %}{{{% endraw %}",
            "{% raw %}}}{% endraw %}",
            "{{ '{' }}",
        ];
        let mut state = 7_u64;
        let mut pick = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        let mut compiled = 0;
        for _ in 0..8_000 {
            let html: String = (0..1 + pick(9)).map(|_| pieces[pick(pieces.len())]).collect();
            let Ok(frozen) =
                freeze(&Source { subject: html.clone(), html: html.clone(), text: Some(html), ..Source::default() })
            else {
                continue;
            };
            compiled += 1;
            let content = content_of(frozen);
            for fields in [None, Some(r#"{"x":"ab{"}"#), Some(r#"{"x":["}",2]}"#)] {
                for first_name in [None, Some("{{a}}")] {
                    let recipient = recipient(1, first_name, fields);
                    match content.render(&recipient) {
                        Ok(_) => _ = checked(&content, &recipient),
                        Err(_) => assert!(content.evaluate(&recipient).is_err()),
                    }
                }
            }
        }
        assert!(compiled > 1_000, "{compiled}");
    }
}
