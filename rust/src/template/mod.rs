//! The template language, and freezing: from what a customer wrote to what every recipient's mail is made of.
//!
//! The language is minijinja 3.1 with these rules: HTML is autoescaped, the other parts are not; an unknown
//! variable prints nothing; `{#` opens no comment; trailing newlines stay; there is no loader, so `include`
//! and `extends` do not exist. In HTML, `{%` inside `<style>`, `<script>` and comments is text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use minijinja::machinery::{Token, ast, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, State, UndefinedBehavior, Value, escape_formatter};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipient::{Bindings, Origin};
use crate::scan::{Scan, scan_finished, scan_html, scan_plain};
use crate::slots::Capped;
use crate::{bounds, links, text};

/// Largest source of one part, in bytes.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// Largest rendered part, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 1024 * 1024;
/// Work that rendering one part may cost, in minijinja's units of fuel.
pub const MAX_FUEL: u64 = 100_000;
/// How deeply blocks, loops and macro calls may nest while rendering.
pub const MAX_RECURSION: usize = 50;
/// Tokens in one template tag. The engine's compiler recurses per operator, so this bounds its stack.
const MAX_TAG_TOKENS: usize = 1_000;
/// `elif` tags in one part; the compiler nests each in the one before.
const MAX_ELIFS: usize = 200;
/// Names of attributes that one part may set on namespaces.
const MAX_SET_ATTRIBUTES: usize = 32;
/// Room that freezing may add to a part: link replacements, preheader, footer.
const MAX_FROZEN_BYTES: usize = 8 * MAX_SOURCE_BYTES;

/// Content as the customer wrote it, with what freezing needs to know.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Source {
    /// Template of the subject.
    pub subject: String,
    /// Template of the HTML part.
    pub html: String,
    /// Template of the text part; made from the HTML when absent.
    #[serde(default)]
    pub text: Option<String>,
    /// Template of the preheader, inserted as hidden HTML.
    #[serde(default)]
    pub preheader: Option<String>,
    /// Start of tracking and unsubscribe URLs, without a trailing slash.
    pub base_url: String,
    /// Whether to add the open pixel.
    #[serde(default)]
    pub track_opens: bool,
    /// Whether links lead through the click redirect.
    #[serde(default)]
    pub track_clicks: bool,
    /// Plain text for the footer.
    #[serde(default)]
    pub postal_address: Option<String>,
}

/// Frozen content: three templates that are the same for every recipient, and what they refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenContent {
    /// Template of the subject.
    pub subject: String,
    /// Template of the HTML part, with tracked links, preheader, footer and pixel.
    pub html: String,
    /// Template of the text part, with its footer.
    pub text: String,
    /// The literal http(s) addresses of the HTML; link `n` of `/c/{token}/{n}` is at index `n - 1`.
    pub links: Vec<String>,
    /// The custom fields that the templates mention, sorted.
    pub variables: Vec<String>,
    /// What a recipient gets who is not tracked, if that is anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untracked: Option<Untracked>,
}

/// The parts of a frozen content that track, as they are without: no pixel, links as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untracked {
    /// Template of the HTML part.
    pub html: String,
    /// Template of the text part.
    pub text: String,
}

impl FrozenContent {
    /// The content for recipients who are not tracked, if it is another.
    pub fn without_tracking(&self) -> Option<Self> {
        let Untracked { html, text } = self.untracked.clone()?;
        Some(Self { html, text, untracked: None, ..self.clone() })
    }
}

/// Freezes `source`. Errors name the part and line of the source as it was given.
pub fn freeze(source: &Source) -> Result<FrozenContent> {
    let scan = scan_html(&source.html);
    let preheader = source.preheader.as_deref().filter(|text| !text.is_empty()).map(with_dead_blocks_quoted);

    check(Part::Subject, &source.subject)?;
    if let Some(preheader) = &preheader {
        check(Part::Preheader, preheader)?;
    }
    check_size(Part::Html, &source.html)?;
    check(Part::Html, &apply(&source.html, quote_dead_blocks(&scan)))?;
    if let Some(text) = &source.text {
        check(Part::Text, text)?;
    }

    let listed = links::list(&source.html, &scan)?;
    let tracked: Vec<Edit> = if source.track_clicks { listed.edits(&source.base_url, TRACK_TAG) } else { Vec::new() };

    let text = match &source.text {
        Some(text) => text.clone(),
        None => text::from_html(&apply(&source.html, tracked.clone())),
    };
    let mut edits = tracked;
    edits.extend(quote_dead_blocks(&scan));
    edits.extend(insertions(source, preheader.as_deref(), &scan));

    let mut frozen = FrozenContent {
        subject: source.subject.clone(),
        html: apply(&source.html, edits),
        text: with_text_footer(text, source.postal_address.as_deref()),
        links: listed.urls,
        variables: Vec::new(),
        untracked: None,
    };
    frozen.variables = custom_variables(&frozen)?;
    if source.track_opens || source.track_clicks {
        let plain = freeze(&Source { track_opens: false, track_clicks: false, ..source.clone() })?;
        frozen.untracked = Some(Untracked { html: plain.html, text: plain.text })
            .filter(|plain| plain.html != frozen.html || plain.text != frozen.text);
    }
    Ok(frozen)
}

/// The tag that prints a recipient's track token.
const TRACK_TAG: &str = "{{ mailrail.t }}";

/// HTML that is no template, as [`decorate`] finished it.
#[derive(Debug, Default)]
pub(crate) struct Decorated {
    pub(crate) html: String,
    /// The text as given, or else made from the HTML, its links as they are tracked.
    pub(crate) text: String,
    /// As [`FrozenContent::links`]; empty where clicks are not tracked.
    pub(crate) links: Vec<String>,
}

/// What [`freeze`] does, for HTML that is no template: tracked links, preheader and pixel, with `token` for the track
/// token; no footer. The subject is not touched.
pub(crate) fn decorate(source: &Source, token: &str) -> Result<Decorated> {
    let scan = scan_finished(&source.html);
    let listed = if source.track_clicks { links::list(&source.html, &scan)? } else { links::Listed::default() };
    let text = match &source.text {
        Some(text) => text.clone(),
        None => text::from_finished(&apply(&source.html, listed.edits(&source.base_url, token))),
    };
    let preheader = source.preheader.as_deref().filter(|text| !text.is_empty());
    let mut edits = listed.edits(&source.base_url, token);
    edits.extend(preheader.map(|preheader| preheader_edit(&scan, preheader)));
    edits.extend(source.track_opens.then(|| pixel_edit(source, &scan, token)));
    Ok(Decorated { html: apply(&source.html, edits), text, links: listed.urls })
}

/// Renders one part for good. `variables`, a JSON object, fill it; nothing else has a value.
pub(crate) fn render_once(part: Part, source: &str, variables: &[u8]) -> Result<String> {
    check_size(part, source)?;
    let source = if part.escapes_html() { with_dead_blocks_quoted(source) } else { source.to_owned() };
    let mut environment = environment();
    let (_, survey) = install(&mut environment, part, &source)?;
    refuse_unknown(&environment, part, &survey)?;
    let bindings = Bindings::of_variables(survey.names, variables)?;
    let template = environment.get_template(part.name()).map_err(|error| explain(part, &error))?;
    let mut out = Capped::default();
    template.render_captured_to(Value::from_object(bindings), &mut out).map_err(|error| explain(part, &error))?;
    String::from_utf8(out.bytes).map_err(|_| Error::template(part.name(), None, "the output is not UTF-8"))
}

/// A part of a mail, by its name in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Subject,
    Preheader,
    Html,
    Text,
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Preheader => "preheader",
            Self::Html => "html",
            Self::Text => "text",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "subject" => Self::Subject,
            "preheader" => Self::Preheader,
            "html" => Self::Html,
            _ => Self::Text,
        }
    }

    pub(crate) fn escapes_html(self) -> bool {
        matches!(self, Self::Preheader | Self::Html)
    }
}

/// A replacement of a byte range of a source.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    pub(crate) bytes: std::ops::Range<usize>,
    pub(crate) with: String,
}

impl Edit {
    fn insert(at: usize, with: String) -> Self {
        Self { bytes: at..at, with }
    }
}

/// Splices `edits` into `source`; everything else keeps its bytes. Of edits at one place the earlier in the
/// list comes first. In broken HTML an address can swallow another edit's place: an insertion moves behind the
/// address, a replacement has lost its object.
fn apply(source: &str, mut edits: Vec<Edit>) -> String {
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
fn quote_dead_blocks(scan: &Scan) -> Vec<Edit> {
    scan.dead.iter().map(|at| Edit { bytes: *at..at + 2, with: "{% raw %}{%{% endraw %}".to_owned() }).collect()
}

fn with_dead_blocks_quoted(html: &str) -> String {
    apply(html, quote_dead_blocks(&scan_html(html)))
}

/// Preheader, footer and pixel, in this order where two fall on one place.
fn insertions(source: &Source, preheader: Option<&str>, scan: &Scan) -> Vec<Edit> {
    let mut edits = Vec::new();
    edits.extend(preheader.map(|preheader| preheader_edit(scan, preheader)));
    if !scan.mentions(&source.html, "unsubscribeUrl") {
        edits.push(Edit::insert(end_of(source, scan), html_footer(source.postal_address.as_deref())));
    }
    edits.extend(source.track_opens.then(|| pixel_edit(source, scan, TRACK_TAG)));
    edits
}

fn preheader_edit(scan: &Scan, preheader: &str) -> Edit {
    let hidden = format!("<div style=\"display:none;max-height:0;overflow:hidden;mso-hide:all\">{preheader}</div>");
    Edit::insert(scan.body_start.unwrap_or(0), hidden)
}

fn pixel_edit(source: &Source, scan: &Scan, token: &str) -> Edit {
    let base_url = &source.base_url;
    let pixel = format!("<img src=\"{base_url}/o/{token}\" width=\"1\" height=\"1\" alt=\"\" style=\"display:block\">");
    Edit::insert(end_of(source, scan), pixel)
}

fn end_of(source: &Source, scan: &Scan) -> usize {
    scan.body_end.unwrap_or(source.html.len())
}

fn html_footer(postal_address: Option<&str>) -> String {
    let address = postal_address
        .filter(|address| !address.is_empty())
        .map(|address| format!("{}<br>", literal(&escape_html(address))))
        .unwrap_or_default();
    format!(
        "<div style=\"padding:16px;text-align:center;font:12px sans-serif;color:#666666\">{address}\
         <a href=\"{{{{ unsubscribeUrl }}}}\" style=\"color:#666666\">Unsubscribe</a></div>"
    )
}

fn with_text_footer(mut text: String, postal_address: Option<&str>) -> String {
    if scan_plain(&text).mentions(&text, "unsubscribeUrl") {
        return text;
    }
    // The footer begins with a tag, before which a last brace would be one of the tag's.
    if text.ends_with('{') {
        text.pop();
        text.push_str(BRACE);
    }
    // A tag before the footer may eat the white space behind it, but not that of a raw block.
    text.push_str("{% raw %}\n\n-- \n{% endraw %}");
    if let Some(address) = postal_address.filter(|address| !address.is_empty()) {
        text.push_str(&literal(address));
        text.push('\n');
    }
    text.push_str("Unsubscribe: {{ unsubscribeUrl }}\n");
    text
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#x27;"),
            _ => out.push(character),
        }
    }
    out
}

/// `text` as template source that prints it unchanged: a brace that would open a tag is printed by one.
pub(crate) fn literal(text: &str) -> String {
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

fn custom_variables(frozen: &FrozenContent) -> Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for (part, source) in [(Part::Subject, &frozen.subject), (Part::Html, &frozen.html), (Part::Text, &frozen.text)] {
        names.extend(survey(part, source)?.undeclared());
    }
    Ok(names.into_iter().collect())
}

fn check_size(part: Part, source: &str) -> Result<()> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(Error::template(part.name(), None, format!("the source is larger than {MAX_SOURCE_BYTES} bytes")));
    }
    Ok(())
}

/// Checks one part as [`freeze`] does; the names that it asks for and does not declare itself.
pub(crate) fn names_in(part: Part, source: &str) -> Result<BTreeSet<String>> {
    check_size(part, source)?;
    if !part.escapes_html() {
        return Ok(check(part, source)?.asked());
    }
    let scan = scan_html(source);
    links::list(source, &scan)?;
    Ok(check(part, &apply(source, quote_dead_blocks(&scan)))?.asked())
}

/// Compiles `source` and throws the result away; refuses what could only fail for every recipient.
fn check(part: Part, source: &str) -> Result<Survey> {
    if !part.escapes_html() {
        check_size(part, source)?;
    }
    let mut environment = environment();
    let (_, survey) = install(&mut environment, part, source)?;
    refuse_unknown(&environment, part, &survey)?;
    Ok(survey)
}

/// Refuses filters and tests that do not exist, also where no branch that runs has them.
fn refuse_unknown(environment: &Environment<'_>, part: Part, survey: &Survey) -> Result<()> {
    let template = environment.get_template(part.name()).map_err(|error| explain(part, &error))?;
    let mut state = template.new_state();
    for (name, line) in &survey.filters {
        let known = state.apply_filter(name, &[]);
        if known.is_err_and(|error| error.kind() == minijinja::ErrorKind::UnknownFilter) {
            return Err(Error::template(part.name(), Some(*line), format!("unknown filter: {name}")));
        }
    }
    for (name, line) in &survey.tests {
        let known = state.perform_test(name, &[]);
        if known.is_err_and(|error| error.kind() == minijinja::ErrorKind::UnknownTest) {
            return Err(Error::template(part.name(), Some(*line), format!("unknown test: {name}")));
        }
    }
    Ok(())
}

/// The syntax of every part. Comment delimiters cannot be switched off, so they are strings that no source
/// holds: PostgreSQL text and our JSON have no NUL.
static SYNTAX: LazyLock<SyntaxConfig> = LazyLock::new(|| {
    SyntaxConfig::builder()
        .comment_delimiters("\0mailrail\0{", "}\0mailrail\0")
        .keep_trailing_newline(true)
        .build()
        .unwrap_or_default()
});

/// The engine with the rules of this language and no templates yet. Templates are named after their part.
pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(SYNTAX.clone());
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_fuel(Some(MAX_FUEL));
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_debug(false);
    // It would print every variable, the reserved one included.
    environment.remove_global("debug");
    environment.set_auto_escape_callback(|name| {
        if Part::of(name).escapes_html() { AutoEscape::Html } else { AutoEscape::None }
    });
    environment.add_filter(bounds::FILTER, bounds::bounded);
    environment.add_filter(bounds::STORED_FILTER, bounds::stored);
    environment.add_function("dict", |state: &State, value: Option<Value>, fields: Kwargs| {
        bounds::bounded(state, minijinja::functions::dict(value, fields)?)
    });
    environment.add_function("namespace", |state: &State, fields: Option<ValueOrKwargs>| {
        bounds::bounded(state, minijinja::functions::namespace(fields)?)
    });
    // The empty write tells a recording output that an expression starts here, even one that prints nothing.
    environment.set_formatter(|out, state, value| {
        out.write_str("").map_err(minijinja::Error::from)?;
        bounds::check(state, value)?;
        // Nobody wants to read "None" in a mail.
        if value.is_none() { Ok(()) } else { escape_formatter(out, state, value) }
    });
    environment
}

/// Adds a part to `environment`, and reports what it mentions and the source as the engine has it: with its
/// values measured, otherwise the same.
pub(crate) fn install(environment: &mut Environment<'static>, part: Part, source: &str) -> Result<(String, Survey)> {
    if source.len() > MAX_FROZEN_BYTES {
        return Err(Error::template(part.name(), None, "the frozen source is too large"));
    }
    let survey = survey(part, source)?;
    let measured = apply(source, survey.measurements.clone());
    environment.add_template_owned(part.name(), measured.clone()).map_err(|error| explain(part, &error))?;
    Ok((measured, survey))
}

/// The engine's error in our terms.
pub(crate) fn explain(part: Part, error: &minijinja::Error) -> Error {
    let line = error.line().and_then(|line| u32::try_from(line).ok());
    let reason = match error.kind() {
        minijinja::ErrorKind::OutOfFuel => "rendering takes too much work".to_owned(),
        minijinja::ErrorKind::WriteFailure => format!("the output is larger than {MAX_OUTPUT_BYTES} bytes"),
        kind => match error.detail() {
            // Details can quote values; an address must not get into an error.
            Some(detail) if !detail.contains('@') => format!("{kind}: {}", head(detail, 200)),
            _ => kind.to_string(),
        },
    };
    Error::template(part.name(), line, reason)
}

fn head(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

/// What a template mentions, found without running it.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Every name that a lookup may ask for.
    pub(crate) names: BTreeSet<String>,
    /// Filters and tests, with the line of their first use.
    filters: BTreeMap<String, u32>,
    tests: BTreeMap<String, u32>,
    assigned: BTreeSet<String>,
    set_attributes: BTreeSet<String>,
    undeclared: BTreeSet<String>,
    /// The template as a list of steps, if it is only text and plain variables.
    pub(crate) steps: Option<Vec<Step>>,
    /// Where the engine's source gets the measuring filter.
    measurements: Vec<Edit>,
}

/// One step of a template without control flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A byte range of the source, written as it is.
    Text(std::ops::Range<usize>),
    /// A variable, escaped as the part demands.
    Variable(String),
    /// `mailrail.t`.
    Track,
}

impl Survey {
    /// The names that have to come from outside.
    fn asked(&self) -> BTreeSet<String> {
        let globals: BTreeSet<String> = environment().globals().map(|(name, _)| name.to_owned()).collect();
        let mentioned = self.names.iter().filter(|name| !self.assigned.contains(*name));
        let mut names: BTreeSet<String> = mentioned.chain(&self.undeclared).cloned().collect();
        names.retain(|name| Origin::of(name) != Origin::Mailrail && !globals.contains(name));
        names
    }

    /// Those that only a recipient's custom fields can fill.
    fn undeclared(&self) -> impl Iterator<Item = String> {
        self.asked().into_iter().filter(|name| Origin::of(name) == Origin::Custom)
    }
}

/// Parses `source`, after refusing shapes whose compilation would need an unbounded stack.
fn survey(part: Part, source: &str) -> Result<Survey> {
    refuse_deep_shapes(part, source)?;
    let tree = parse(source, part.name(), SYNTAX.clone()).map_err(|error| explain(part, &error))?;
    let mut survey = Survey::default();
    survey.statement(&tree);
    survey.steps = steps(&tree, source);
    survey.measurements = bounds::measurements(&tree, source);
    refuse_many_attributes(part, &survey)?;
    let mut environment = environment();
    environment.add_template_owned(part.name(), source.to_owned()).map_err(|error| explain(part, &error))?;
    if let Ok(template) = environment.get_template(part.name()) {
        survey.undeclared = template.undeclared_variables(false).into_iter().collect();
        let printed_globals = survey.steps.iter().flatten().any(
            |step| matches!(step, Step::Variable(name) if environment.globals().any(|(global, _)| global == name)),
        );
        if printed_globals {
            survey.steps = None;
        }
    }
    Ok(survey)
}

fn refuse_deep_shapes(part: Part, source: &str) -> Result<()> {
    let (mut in_tag, mut elifs, mut after_start) = (0, 0, false);
    for token in tokenize(source, false, SYNTAX.clone()) {
        let (token, span) = token.map_err(|error| explain(part, &error))?;
        match token {
            Token::BlockStart | Token::VariableStart => in_tag = 0,
            Token::Ident("elif") if after_start => elifs += 1,
            _ => in_tag += 1,
        }
        after_start = matches!(token, Token::BlockStart);
        if in_tag > MAX_TAG_TOKENS || elifs > MAX_ELIFS {
            let line = Some(u32::from(span.start_line));
            return Err(Error::template(part.name(), line, "this tag is too long"));
        }
    }
    Ok(())
}

/// A namespace can share one large value among all its attributes, so their number is bounded too.
fn refuse_many_attributes(part: Part, survey: &Survey) -> Result<()> {
    if survey.set_attributes.len() > MAX_SET_ATTRIBUTES {
        return Err(Error::template(part.name(), None, "too many attributes are set on namespaces"));
    }
    Ok(())
}

/// The step list of a template that is only text and plain variables. Its length is bounded such that the
/// fuel of [`MAX_FUEL`] cannot run out: a step costs at most 4 units and a byte of output 1/64.
fn steps(tree: &ast::Stmt<'_>, source: &str) -> Option<Vec<Step>> {
    const MAX_STEPS: usize = 10_000;
    let ast::Stmt::Template(template) = tree else { return None };
    if template.children.len() > MAX_STEPS {
        return None;
    }
    template.children.iter().map(|child| step(child, source)).collect()
}

fn step(statement: &ast::Stmt<'_>, source: &str) -> Option<Step> {
    match statement {
        ast::Stmt::EmitRaw(raw) => range_in(source.as_bytes(), raw.raw.as_bytes()).map(Step::Text),
        ast::Stmt::EmitExpr(emit) => match &emit.expr {
            ast::Expr::Var(variable) => Some(Step::Variable(variable.id.to_owned())),
            ast::Expr::GetAttr(get) => match &get.expr {
                ast::Expr::Var(variable) if variable.id == "mailrail" && get.name == "t" => Some(Step::Track),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Where `piece` lies in `whole`, if it is a slice of it.
pub(crate) fn range_in(whole: &[u8], piece: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = (piece.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(piece.len())?;
    (end <= whole.len()).then_some(start..end)
}

/// The walk over the syntax tree. It over-approximates: a name may be listed although a block declares it.
impl Survey {
    fn statements(&mut self, statements: &[ast::Stmt<'_>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &ast::Stmt<'_>) {
        match statement {
            ast::Stmt::Template(template) => self.statements(&template.children),
            ast::Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            ast::Stmt::EmitRaw(_) | ast::Stmt::Continue(_) | ast::Stmt::Break(_) => {}
            ast::Stmt::ForLoop(node) => {
                self.target(&node.target);
                self.assigned.insert("loop".to_owned());
                self.expression(&node.iter);
                self.optional(node.filter_expr.as_ref());
                self.statements(&node.body);
                self.statements(&node.else_body);
            }
            ast::Stmt::IfCond(node) => {
                self.expression(&node.expr);
                self.statements(&node.true_body);
                self.statements(&node.false_body);
            }
            ast::Stmt::WithBlock(node) => {
                for (target, expression) in &node.assignments {
                    self.target(target);
                    self.expression(expression);
                }
                self.statements(&node.body);
            }
            ast::Stmt::Set(node) => {
                self.target(&node.target);
                self.expression(&node.expr);
            }
            ast::Stmt::SetBlock(node) => {
                self.target(&node.target);
                self.optional(node.filter.as_ref());
                self.statements(&node.body);
            }
            ast::Stmt::AutoEscape(node) => {
                self.expression(&node.enabled);
                self.statements(&node.body);
            }
            ast::Stmt::FilterBlock(node) => {
                self.expression(&node.filter);
                self.statements(&node.body);
            }
            ast::Stmt::Macro(node) => self.macro_declaration(node),
            ast::Stmt::CallBlock(node) => {
                self.call(&node.call);
                self.macro_declaration(&node.macro_decl);
            }
            ast::Stmt::Do(node) => self.call(&node.call),
        }
    }

    fn macro_declaration(&mut self, node: &ast::Macro<'_>) {
        self.assigned.extend([node.name.to_owned(), "caller".to_owned()]);
        for argument in &node.args {
            self.target(argument);
        }
        for default in &node.defaults {
            self.expression(default);
        }
        self.statements(&node.body);
    }

    /// An assignment's left side. Names in it are declared by the template.
    fn target(&mut self, target: &ast::Expr<'_>) {
        match target {
            ast::Expr::Var(variable) => _ = self.assigned.insert(variable.id.to_owned()),
            ast::Expr::List(list) => list.items.iter().for_each(|item| self.target(item)),
            ast::Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.target(item)),
            ast::Expr::GetAttr(get) => {
                self.set_attributes.insert(get.name.to_owned());
                self.expression(&get.expr);
            }
            other => self.expression(other),
        }
    }

    fn optional(&mut self, expression: Option<&ast::Expr<'_>>) {
        if let Some(expression) = expression {
            self.expression(expression);
        }
    }

    fn expression(&mut self, expression: &ast::Expr<'_>) {
        match expression {
            ast::Expr::Var(variable) => _ = self.names.insert(variable.id.to_owned()),
            ast::Expr::Const(_) => {}
            ast::Expr::Slice(node) => {
                self.expression(&node.expr);
                for bound in [&node.start, &node.stop, &node.step] {
                    self.optional(bound.as_ref());
                }
            }
            ast::Expr::UnaryOp(node) => self.expression(&node.expr),
            ast::Expr::BinOp(node) => {
                self.expression(&node.left);
                self.expression(&node.right);
            }
            ast::Expr::Compare(node) => {
                self.expression(&node.expr);
                node.ops.iter().for_each(|operand| self.expression(&operand.expr));
            }
            ast::Expr::IfExpr(node) => {
                self.expression(&node.test_expr);
                self.expression(&node.true_expr);
                self.optional(node.false_expr.as_ref());
            }
            ast::Expr::Filter(node) => {
                let line = u32::from(node.span().start_line);
                self.filters.entry(without_whitespace(node.name)).or_insert(line);
                self.optional(node.expr.as_ref());
                self.arguments(&node.args);
            }
            ast::Expr::Test(node) => {
                let line = u32::from(node.span().start_line);
                self.tests.entry(without_whitespace(node.name)).or_insert(line);
                self.expression(&node.expr);
                self.arguments(&node.args);
            }
            ast::Expr::GetAttr(node) => self.expression(&node.expr),
            ast::Expr::GetItem(node) => {
                self.expression(&node.expr);
                self.expression(&node.subscript_expr);
            }
            ast::Expr::Call(node) => self.call(node),
            ast::Expr::List(node) => node.items.iter().for_each(|item| self.expression(item)),
            ast::Expr::Tuple(node) => node.items.iter().for_each(|item| self.expression(item)),
            ast::Expr::Map(node) => {
                node.keys.iter().chain(&node.values).for_each(|item| self.expression(item));
            }
        }
    }

    fn call(&mut self, call: &ast::Call<'_>) {
        self.expression(&call.expr);
        self.arguments(&call.args);
    }

    fn arguments(&mut self, arguments: &[ast::CallArg<'_>]) {
        for argument in arguments {
            match argument {
                ast::CallArg::Pos(expression)
                | ast::CallArg::Kwarg(_, expression)
                | ast::CallArg::PosSplat(expression)
                | ast::CallArg::KwargSplat(expression) => self.expression(expression),
            }
        }
    }
}

/// The engine looks filters and tests up without the blanks that its grammar allows in their names.
fn without_whitespace(name: &str) -> String {
    name.chars().filter(|character| !character.is_ascii_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(html: &str) -> Source {
        Source { subject: "s".into(), html: html.into(), base_url: "https://t.example".into(), ..Source::default() }
    }

    #[test]
    fn who_is_not_tracked_gets_links_as_they_were_written() {
        let page = "<body><a href=\"https://a.example/?x&amp;y\">A</a></body>";
        for (track_opens, track_clicks) in [(true, true), (true, false), (false, true)] {
            let frozen = frozen(&Source { track_opens, track_clicks, ..html(page) });
            let plain = frozen.without_tracking().unwrap();
            assert!(plain.html.contains("href=\"https://a.example/?x&amp;y\"") && !plain.html.contains("/o/"));
            assert!(plain.text.contains("https://a.example/?x&y"));
            assert_eq!((plain.untracked, &plain.links), (None, &frozen.links));
        }
        assert_eq!(frozen(&html(page)).untracked, None);
        // Nothing to follow, so nothing else to send.
        assert_eq!(frozen(&Source { track_clicks: true, ..html("<p>A</p>") }).untracked, None);
    }

    fn frozen(source: &Source) -> FrozenContent {
        freeze(source).unwrap()
    }

    const FOOTER: &str = "<div style=\"padding:16px;text-align:center;font:12px sans-serif;color:#666666\">\
        <a href=\"{{ unsubscribeUrl }}\" style=\"color:#666666\">Unsubscribe</a></div>";

    #[test]
    fn everything_is_inserted_in_its_place() {
        let source = Source {
            preheader: Some("Hi {{ firstName }}".into()),
            track_opens: true,
            track_clicks: true,
            postal_address: Some("A & B, {{ 1 }} St".into()),
            ..html("<html><body class=x><a href=\"https://a.example/\">a</a></body></html>")
        };
        let frozen = frozen(&source);
        assert_eq!(
            frozen.html,
            "<html><body class=x><div style=\"display:none;max-height:0;overflow:hidden;mso-hide:all\">\
             Hi {{ firstName }}</div><a href=\"https://t.example/c/{{ mailrail.t }}/1\">a</a>\
             <div style=\"padding:16px;text-align:center;font:12px sans-serif;color:#666666\">\
             A &amp; B, {{ '{' }}{ 1 }} St<br>\
             <a href=\"{{ unsubscribeUrl }}\" style=\"color:#666666\">Unsubscribe</a></div>\
             <img src=\"https://t.example/o/{{ mailrail.t }}\" width=\"1\" height=\"1\" alt=\"\" \
             style=\"display:block\"></body></html>"
        );
        assert_eq!(
            frozen.text,
            "a (https://t.example/c/{{ mailrail.t }}/1){% raw %}\n\n-- \n{% endraw %}A & B, {{ '{' }}{ 1 }} St\n\
             Unsubscribe: {{ unsubscribeUrl }}\n"
        );
        assert_eq!(frozen.links, ["https://a.example/"]);
        assert_eq!(frozen.variables, Vec::<String>::new());
    }

    #[test]
    fn without_body_the_ends_of_the_source_serve() {
        let source = Source { preheader: Some("p".into()), track_opens: true, ..html("x") };
        let html = frozen(&source).html;
        assert!(html.starts_with("<div style=\"display:none") && html.contains("p</div>x"));
        assert!(html.contains(&format!("x{FOOTER}<img src=")));
    }

    #[test]
    fn links_stay_when_clicks_are_not_tracked() {
        let frozen = frozen(&html("<a href='https://a.example/?a&amp;b'>x</a>{{ unsubscribeUrl }}"));
        assert_eq!(frozen.html, "<a href='https://a.example/?a&amp;b'>x</a>{{ unsubscribeUrl }}");
        assert_eq!(frozen.links, ["https://a.example/?a&b"]);
    }

    #[test]
    fn bytes_outside_the_splices_are_untouched() {
        let before = "<!DOCTYPE html PUBLIC '-//W3C'>\r\n<!--[if mso]><a href=\"https://m.example\">m</a><![endif]-->\
                      <TABLE CellPadding=0><tr><td nowrap>é&nbsp;<br/></td></TABLE  ><a  href = 'https://a.example'  >";
        let source = Source { track_clicks: true, ..html(&format!("{before}{{{{ unsubscribeUrl }}}}")) };
        let expected = before.replace("https://a.example", "https://t.example/c/{{ mailrail.t }}/1");
        assert_eq!(frozen(&source).html, format!("{expected}{{{{ unsubscribeUrl }}}}"));
    }

    #[test]
    fn a_given_text_part_gets_a_footer_only_if_it_needs_one() {
        let text = |text: &str| frozen(&Source { text: Some(text.into()), ..html("x") }).text;
        assert_eq!(text("t {{ unsubscribeUrl }}"), "t {{ unsubscribeUrl }}");
        assert_eq!(text("t\n"), "t\n{% raw %}\n\n-- \n{% endraw %}Unsubscribe: {{ unsubscribeUrl }}\n");
    }

    #[test]
    fn nothing_eats_the_text_footers_line_feeds() {
        for (source, printed) in [
            ("Hi {{ name -}}", "Hi Ada"),
            ("Hi {{ name -}} \n", "Hi Ada"),
            ("Hi{% if name %}{% endif -%}", "Hi"),
            ("Hi {", "Hi {"),
            ("Hi {{ name -}} {", "Hi Ada{"),
            ("Hi {{ '{' }}", "Hi {"),
            ("Hi {% raw %}{{% endraw %}", "Hi {"),
        ] {
            let frozen = frozen(&Source { text: Some(source.into()), ..html("x") });
            let mut environment = environment();
            install(&mut environment, Part::Text, &frozen.text).unwrap();
            let context = minijinja::context! { name => "Ada", unsubscribeUrl => "U" };
            let text = environment.get_template("text").unwrap().render(context).unwrap();
            assert_eq!(text, format!("{printed}\n\n-- \nUnsubscribe: U\n"), "{source}");
        }
        let survey = install(&mut environment(), Part::Text, &frozen(&html("Hi {{ name }}")).text).unwrap().1;
        assert!(survey.steps.is_some_and(|steps| steps.len() > 3), "the footer keeps the part free of the engine");
    }

    #[test]
    fn the_engine_knows_urlencode_and_letters_of_all_scripts() {
        let mut environment = environment();
        install(&mut environment, Part::Html, "{{ 'a b/é&'|urlencode }} {{ größe }}").unwrap();
        let printed = environment.get_template("html").unwrap().render(minijinja::context! { größe => 7 }).unwrap();
        assert_eq!(printed, "a%20b&#x2f;%C3%A9%26 7");
    }

    #[test]
    fn blocks_in_styles_scripts_and_comments_are_text() {
        let source = "<style>@media screen{#id{color:red}} a{width:10{%}</style><script>{% x</script>\
                      <!-- {% if %} {{ plan }} -->{{ unsubscribeUrl }}";
        let mut environment = environment();
        install(&mut environment, Part::Html, &frozen(&html(source)).html).unwrap();
        let context = minijinja::context! { plan => "pro", unsubscribeUrl => "U" };
        let printed = environment.get_template("html").unwrap().render(context).unwrap();
        assert_eq!(printed, source.replace("{{ plan }}", "pro").replace("{{ unsubscribeUrl }}", "U"));
    }

    #[test]
    fn comments_are_text_and_trailing_newlines_stay() {
        let source = "{# {{ plan }} #}#{{{ unsubscribeUrl }}\n\n";
        assert!(freeze(&html(source)).is_err(), "three braces open a print tag");
        let mut environment = environment();
        install(&mut environment, Part::Text, "{# {{ plan }} #}\n\n").unwrap();
        let printed = environment.get_template("text").unwrap().render(minijinja::context! { plan => 1 }).unwrap();
        assert_eq!(printed, "{# 1 #}\n\n");
    }

    #[test]
    fn errors_name_the_part_and_the_line_of_the_source() {
        let fail = |source: Source| {
            let error = freeze(&source).unwrap_err();
            (error.part, error.line)
        };
        let broken = "a\nb{% style %}".to_owned();
        assert_eq!(fail(Source { subject: broken.clone(), ..html("") }), ("subject", Some(2)));
        assert_eq!(fail(Source { text: Some(broken.clone()), ..html("") }), ("text", Some(2)));
        assert_eq!(fail(Source { preheader: Some(broken.clone()), ..html("") }), ("preheader", Some(2)));
        let pushed_down = Source { preheader: Some("1\n2\n3".into()), ..html("<body>\n{{ x|nope }}") };
        assert_eq!(fail(pushed_down), ("html", Some(2)));
        assert_eq!(fail(html("<style>\n{% a %}\n</style>\n{% if %}")), ("html", Some(4)));
        assert_eq!(fail(html("{{ x is nope }}")), ("html", Some(1)));
        assert_eq!(fail(html("{% include 'x' %}")), ("html", Some(1)));
        assert_eq!(fail(html("{% extends 'x' %}")), ("html", Some(1)));
        assert_eq!(fail(html("{{ unclosed")), ("html", Some(1)));
        assert_eq!(fail(html(&"x".repeat(MAX_SOURCE_BYTES + 1))), ("html", None));
    }

    #[test]
    fn variables_are_the_custom_fields_that_are_mentioned() {
        let source = Source {
            subject: "{{ firstName }} {{ city }}".into(),
            text: Some("{% set x = plan %}{{ x }}{% for i in items %}{{ i.y }}{{ loop.index }}{% endfor %}".into()),
            ..html(
                "{% filter replace(from, 'b') %}{{ name[start:] }}{% endfilter %}{{ range(2) }}{{ email }}{{ mailrail.t }}",
            )
        };
        assert_eq!(frozen(&source).variables, ["city", "from", "items", "plan", "start"]);
    }

    #[test]
    fn generated_text_compiles_whatever_the_html() {
        for source in [
            "<td {% if x %}class=a{% else %}class=b{% endif %}>c</td>",
            "<head>{% set a = 1 %}<title>{{ a }}</title></head>{% for i in l %}<li>{{ i }}{% endfor %}",
            "<a href=\"{{ u }}\">{% macro m(x) %}<b>{{ x }}</b>{% endmacro %}</a>{{ m(1) }}",
            "&#123;% if &#123;{ x } {<b>{</b>{{ y }}",
        ] {
            frozen(&html(source));
        }
    }

    /// Sources that would make a naive compiler recurse once per byte. The thread's stack is as small as
    /// any that the core runs on.
    #[test]
    fn hostile_shapes_end_in_an_error() {
        let shapes: Vec<String> = vec![
            format!("{{{{ {}1 }}}}", "1+".repeat(60_000)),
            format!("{{{{ a{} }}}}", "|e".repeat(60_000)),
            format!("{{{{ a{} }}}}", ".b".repeat(60_000)),
            format!("{{{{ {}a }}}}", "not ".repeat(60_000)),
            format!("{{{{ {}1 }}}}", "-".repeat(200_000)),
            format!("{{{{ {}1{} }}}}", "(".repeat(60_000), ")".repeat(60_000)),
            format!("{{{{ {}1{} }}}}", "[".repeat(60_000), "]".repeat(60_000)),
            format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(20_000)),
            "{% if a %}".repeat(25_000),
            format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(20_000)),
            format!("{{{{ a{} }}}}", "(1)".repeat(60_000)),
            format!("{{{{ a{} }}}}", " is odd".repeat(30_000)),
        ];
        let run = move || {
            for shape in shapes {
                assert!(freeze(&html(&shape)).is_err(), "{}", &shape[..40]);
            }
            // The same shapes just within the limits must compile.
            for shape in [
                format!("{{{{ {}1 }}}}", "1+".repeat(MAX_TAG_TOKENS / 2 - 5)),
                format!("{{{{ a{} }}}}", "|e".repeat(MAX_TAG_TOKENS / 2 - 5)),
                format!("{{{{ {}a }}}}", "not ".repeat(MAX_TAG_TOKENS - 5)),
                format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(MAX_ELIFS)),
            ] {
                freeze(&html(&shape)).unwrap();
            }
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
    }

    #[test]
    fn arbitrary_sources_never_panic() {
        let pieces = [
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "<style>",
            "</style>",
            "<!--",
            "-->",
            "<body>",
            "</body>",
            "<a href=",
            "\"",
            "'",
            "https://a.example",
            " x ",
            "raw",
            "endraw",
            "é",
            "\n",
            "if x",
            "endif",
        ];
        let mut state = 1_u64;
        for _ in 0..6_000 {
            let mut text = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let _ = freeze(&Source { track_clicks: true, preheader: Some(text.clone()), ..html(&text) });
        }
    }
}
