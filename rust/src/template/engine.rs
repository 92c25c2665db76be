//! minijinja with the rules of this language.

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, State, UndefinedBehavior, Value, escape_formatter};

use super::edit::apply;
use super::part::Part;
use super::survey::{Survey, survey};
use super::{MAX_FUEL, MAX_OUTPUT_BYTES, MAX_RECURSION, MAX_SOURCE_BYTES};
use crate::bounds;
use crate::error::{Error, Result};

/// Room that freezing may add to a part: link replacements, preheader, footer.
const MAX_FROZEN_BYTES: usize = 8 * MAX_SOURCE_BYTES;

/// The syntax of every part. Comment delimiters cannot be switched off, so they are strings that no source
/// holds: PostgreSQL text and our JSON have no NUL.
pub(super) static SYNTAX: LazyLock<SyntaxConfig> = LazyLock::new(|| {
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
