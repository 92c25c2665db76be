//! One part of a mail by itself: what it is called, whether its template is sound, and what it says.

use std::collections::BTreeSet;

use minijinja::{Environment, Value};

use super::MAX_SOURCE_BYTES;
use super::edit::{apply, quote_dead_blocks, with_dead_blocks_quoted};
use super::engine::{environment, explain, install};
use super::survey::Survey;
use crate::error::{Error, Result};
use crate::links;
use crate::recipient::Bindings;
use crate::scan::scan_html;
use crate::slots::Capped;

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

    pub(super) fn of(name: &str) -> Self {
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
pub(super) fn check(part: Part, source: &str) -> Result<Survey> {
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

pub(super) fn check_size(part: Part, source: &str) -> Result<()> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(Error::template(part.name(), None, format!("the source is larger than {MAX_SOURCE_BYTES} bytes")));
    }
    Ok(())
}
