//! A template looked at as a whole, before any mail is made of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::fields::{Errors, check_body, check_subject};
use crate::error::{Error, ErrorKind, Result};
use crate::template::{self, Part, Source};

/// A template and the values to try it with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    preheader: Option<String>,
    #[serde(default)]
    html: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    variables: Option<Box<RawValue>>,
}

impl Given {
    fn parts(&self) -> impl Iterator<Item = (Part, &str)> {
        [
            (Part::Subject, &self.subject),
            (Part::Preheader, &self.preheader),
            (Part::Html, &self.html),
            (Part::Text, &self.text),
        ]
        .into_iter()
        .filter_map(|(part, source)| Some((part, source.as_deref()?)))
    }
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Inspection {
    variables: BTreeSet<String>,
    errors: Vec<Blame>,
    failures: Vec<Blame>,
    subject: Option<String>,
    html: Option<String>,
    text: Option<String>,
}

/// What is wrong with one part.
#[derive(Debug, Serialize)]
struct Blame {
    part: String,
    line: Option<u32>,
    reason: String,
}

/// Checks all parts, and renders them if they can be: JSON in and out, as `_core.pyi` has it.
///
/// # Errors
/// A data error for other JSON. What is wrong with the template is data.
pub fn inspect(template: &[u8]) -> Result<Vec<u8>> {
    let given: Given =
        serde_json::from_slice(template).map_err(|error| Error::data(format!("the template JSON: {error}")))?;
    let variables = given.variables.as_deref().map_or("{}", RawValue::get);
    if !variables.starts_with('{') {
        return Err(Error::data("the template JSON: variables is not an object"));
    }
    let mut found = Inspection::default();
    let mut asking = Vec::new();
    for (part, source) in given.parts() {
        match template::names_in(part, source) {
            Ok(names) if names.is_empty() => {}
            Ok(names) => {
                asking.push(part.name());
                found.variables.extend(names);
            }
            Err(error) => found.errors.push(blame(error)?),
        }
    }
    if found.errors.is_empty() {
        render(&given, variables.as_bytes(), &mut found)?;
        // A part that asks for nothing renders the same for everybody.
        let (failures, errors) = found.failures.into_iter().partition(|blame| asking.contains(&blame.part.as_str()));
        (found.failures, found.errors) = (failures, errors);
    }
    serde_json::to_vec(&found).map_err(|error| Error::data(format!("the result cannot be JSON: {error}")))
}

/// The mail that these values make of it.
fn render(given: &Given, variables: &[u8], found: &mut Inspection) -> Result<()> {
    let mut rendered: [Option<String>; 4] = Default::default();
    for (part, source) in given.parts() {
        match template::render_once(part, source, variables) {
            Ok(text) => rendered[part as usize] = Some(text),
            Err(error) => found.failures.push(blame(error)?),
        }
    }
    let [subject, preheader, html, text] = rendered;
    let mut errors = Errors::default();
    let subject = subject.map(|subject| check_subject(&subject, &mut errors));
    for (param, part) in [("html", &html), ("text", &text)] {
        if let Some(part) = part {
            check_body(param, part, &mut errors);
        }
    }
    let refused = errors.0.into_iter().map(|error| Blame { part: error.param, line: None, reason: error.message });
    found.failures.extend(refused);
    if !found.failures.is_empty() {
        return Ok(());
    }
    (found.subject, found.text) = (subject, text.clone());
    if let Some(html) = html {
        let finished = template::decorate(&Source { html, text, preheader, ..Source::default() }, "")?;
        (found.html, found.text) = (Some(finished.html), Some(finished.text));
    }
    Ok(())
}

/// A template's error as data; others concern the whole call.
fn blame(error: Error) -> Result<Blame> {
    match error.kind {
        ErrorKind::Template => Ok(Blame { part: error.part.to_owned(), line: error.line, reason: error.detail }),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn inspected(template: Value) -> Value {
        serde_json::from_slice(&inspect(&serde_json::to_vec(&template).unwrap()).unwrap()).unwrap()
    }

    fn blamed(list: &Value) -> Vec<(String, Option<u64>)> {
        let items = list.as_array().unwrap().iter();
        items.map(|item| (item["part"].as_str().unwrap().to_owned(), item["line"].as_u64())).collect()
    }

    #[test]
    fn names_are_those_that_come_from_outside() {
        let found = inspected(json!({
            "subject": "Hi {{ firstName }}", "text": "{{ range(2) }} {{ mailrail.t }}",
            "html": "<p>{% for item in items %}{{ item.name }}{% endfor %}{% set a = b %}{{ a }}</p>",
        }));
        assert_eq!(found["variables"], json!(["b", "firstName", "items"]));
        assert_eq!(found["errors"], json!([]));
    }

    #[test]
    fn every_part_that_is_wrong_is_told() {
        let found = inspected(json!({
            "subject": "{{ a", "preheader": "{{ 1 | nothing }}", "html": "<p>\n{% include 'x' %}</p>", "text": "{% if %}",
        }));
        let expected = [("subject", Some(1)), ("preheader", Some(1)), ("html", Some(2)), ("text", Some(1))];
        assert_eq!(blamed(&found["errors"]), expected.map(|(part, line)| (part.to_owned(), line)));
        assert_eq!((&found["failures"], &found["text"]), (&json!([]), &Value::Null));
    }

    #[test]
    fn nothing_is_loaded_from_anywhere() {
        for tag in ["include 'a'", "extends 'a'", "import 'a' as a", "from 'a' import b"] {
            let found = inspected(json!({"html": format!("{{% {tag} %}}")}));
            assert_eq!(blamed(&found["errors"]), [("html".to_owned(), Some(1))], "{tag}");
        }
    }

    #[test]
    fn what_fails_with_these_values_may_do_with_others() {
        let template = |price: Value| json!({"html": "<p>\n{{ price + 1 }}</p>", "variables": {"price": price}});
        let found = inspected(template(json!("a")));
        assert_eq!((blamed(&found["failures"]), &found["html"]), (vec![("html".to_owned(), Some(2))], &Value::Null));
        assert_eq!(inspected(template(json!(2)))["html"], "<p>\n3</p>");
    }

    #[test]
    fn what_fails_without_asking_for_anything_always_fails() {
        let found = inspected(json!({"subject": "{{ a }}", "html": "\n{{ 1 + 'x' }}", "variables": {"a": "a\nb"}}));
        assert_eq!(blamed(&found["errors"]), [("html".to_owned(), Some(2))]);
        assert_eq!(blamed(&found["failures"]), [("subject".to_owned(), None)]);
    }

    #[test]
    fn a_value_that_breaks_the_subject_is_a_failure() {
        let found = inspected(json!({"subject": "{{ a }}", "text": "x", "variables": {"a": "x\r\nBcc: b@c.d"}}));
        assert_eq!(blamed(&found["failures"]), [("subject".to_owned(), None)]);
    }

    #[test]
    fn the_mail_is_made_as_others_are() {
        let found = inspected(json!({
            "subject": "Hi {{ who }}", "preheader": "{{ who }}", "variables": {"who": "<Ann>"},
            "html": "<body><p>{{ who }}</p><a href=\"https://example.com/\">A</a></body>",
        }));
        assert_eq!(found["subject"], "Hi <Ann>");
        let html = found["html"].as_str().unwrap();
        assert!(html.contains("display:none") && html.contains("<p>&lt;Ann&gt;</p>"), "{html}");
        assert!(html.contains("href=\"https://example.com/\""), "{html}");
        assert!(found["text"].as_str().unwrap().contains("https://example.com/"));
        assert_eq!(inspected(json!({"text": "only"}))["html"], Value::Null);
    }

    #[test]
    fn only_the_shape_of_the_json_fails_the_call() {
        for json in [&b"{"[..], br#"{"htm":"x"}"#, br#"{"variables":[]}"#, br#"{"html":1}"#] {
            assert!(inspect(json).is_err());
        }
    }
}
