//! Inline templates: literal text and `{{letters}}`, nothing else.
//!
//! Amazon's engine for inline templates is unpublished. Whatever is not known to work there is refused here.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::request::{TemplateContent, Text};

/// Words that mean something to Handlebars, so that a slot of that name is no plain substitution.
const HELPER_WORDS: [&str; 8] = ["if", "each", "with", "unless", "lookup", "log", "this", "else"];
/// How many parsed templates are kept.
const CACHE_ENTRIES: usize = 256;
/// How many bytes of template source are kept.
const CACHE_BYTES: usize = 64 << 20;

/// A parsed inline template.
#[derive(Debug)]
pub struct Template {
    subject: Part,
    html: Part,
    text: Part,
    names: Vec<Box<str>>,
    /// How often each slot is printed, in all parts together.
    uses: Vec<u32>,
    by_name: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    literal_bytes: usize,
}

#[derive(Debug, Default)]
struct Part(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Literal(Box<str>),
    Slot(usize),
}

/// What a mail says, as its reader gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    pub subject: String,
    pub html: String,
    pub text: String,
}

/// Why template data does not give a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataError {
    /// Not a JSON object.
    Malformed,
    /// A slot without a value: SES accepts the mail and later reports a rendering failure. The slot's index.
    Missing(usize),
}

impl Template {
    /// Parses the three parts; the error is Amazon's for a template that does more than substitute.
    pub fn parse(subject: &str, html: &str, text: &str, allow_lone_closing_braces: bool) -> Result<Template, ApiError> {
        let mut template = Template {
            subject: Part::default(),
            html: Part::default(),
            text: Part::default(),
            names: Vec::new(),
            uses: Vec::new(),
            by_name: HashMap::default(),
            literal_bytes: 0,
        };
        template.subject = template.parse_part(subject, allow_lone_closing_braces)?;
        template.html = template.parse_part(html, allow_lone_closing_braces)?;
        template.text = template.parse_part(text, allow_lone_closing_braces)?;
        Ok(template)
    }

    fn parse_part(&mut self, source: &str, allow_lone_closing_braces: bool) -> Result<Part, ApiError> {
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some(open) = rest.find("{{") {
            let literal = &rest[..open];
            // A backslash before a slot escapes it in some engines and not in others.
            if literal.ends_with('\\') {
                return Err(unsupported());
            }
            self.push_literal(literal, allow_lone_closing_braces, &mut pieces)?;
            let after = &rest[open + 2..];
            let length = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (name, after) = after.split_at(length);
            let after = after.strip_prefix("}}").ok_or_else(unsupported)?;
            if name.is_empty() || HELPER_WORDS.contains(&name) || after.starts_with('}') {
                return Err(unsupported());
            }
            pieces.push(Piece::Slot(self.slot(name)));
            rest = after;
        }
        self.push_literal(rest, allow_lone_closing_braces, &mut pieces)?;
        Ok(Part(pieces))
    }

    fn push_literal(
        &mut self,
        literal: &str,
        allow_lone_closing_braces: bool,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), ApiError> {
        if literal.contains("}}") && !allow_lone_closing_braces {
            return Err(unsupported());
        }
        if !literal.is_empty() {
            self.literal_bytes += literal.len();
            pieces.push(Piece::Literal(literal.into()));
        }
        Ok(())
    }

    fn slot(&mut self, name: &str) -> usize {
        let slot = match self.by_name.get(name) {
            Some(slot) => *slot,
            None => {
                let slot = self.names.len();
                self.names.push(name.into());
                self.uses.push(0);
                self.by_name.insert(name.into(), slot);
                slot
            }
        };
        self.uses[slot] += 1;
        slot
    }

    /// The name of a slot by its index.
    pub fn slot_name(&self, slot: usize) -> &str {
        &self.names[slot]
    }

    /// About how much memory the template takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.literal_bytes + 64 * self.names.len() + 256
    }

    /// How long subject, HTML and text would be together, in bytes, without making them. `data` is a JSON object.
    pub fn measure(&self, data: &str) -> Result<usize, DataError> {
        const ABSENT: usize = usize::MAX;
        let mut lengths = vec![ABSENT; self.names.len()];
        let mut reader = sonic_rs::Deserializer::from_str(data);
        let mut expected = 0;
        let result = (&mut reader).deserialize_map(EachMember(|name: &str, length: Option<usize>| {
            // Keys mostly come in the order in which the slots first appear, which saves the look-up.
            let slot = match self.names.get(expected) {
                Some(next) if **next == *name => Some(expected),
                _ => self.by_name.get(name).copied(),
            };
            if let Some(slot) = slot {
                lengths[slot] = length.unwrap_or(ABSENT);
                expected = slot + 1;
            }
        }));
        result.and_then(|()| reader.end()).map_err(|_| DataError::Malformed)?;
        let mut total = self.literal_bytes;
        for (slot, length) in lengths.iter().enumerate() {
            if *length == ABSENT {
                return Err(DataError::Missing(slot));
            }
            total += length * self.uses[slot] as usize;
        }
        Ok(total)
    }

    /// Makes the mail from a JSON object.
    pub fn render(&self, data: &str) -> Result<Rendered, DataError> {
        let values: Map<String, Value> = serde_json::from_str(data).map_err(|_| DataError::Malformed)?;
        let mut printed = Vec::with_capacity(self.names.len());
        for (slot, name) in self.names.iter().enumerate() {
            printed.push(values.get(&**name).and_then(print).ok_or(DataError::Missing(slot))?);
        }
        let fill = |part: &Part| {
            let mut out = String::new();
            for piece in &part.0 {
                match piece {
                    Piece::Literal(literal) => out.push_str(literal),
                    Piece::Slot(slot) => out.push_str(&printed[*slot]),
                }
            }
            out
        };
        Ok(Rendered { subject: fill(&self.subject), html: fill(&self.html), text: fill(&self.text) })
    }
}

/// Entry data on top of defaults: key by key, objects recursively, arrays replaced. Both are JSON objects.
///
/// The documentation says that defaults apply only to empty entry data; measured on the real service, they merge
/// (domdomegg/aws-ses-v2-local issues 102 and 103).
pub fn merge(defaults: &str, data: &str) -> Result<String, DataError> {
    let parse = |json| serde_json::from_str::<Map<String, Value>>(json).map_err(|_| DataError::Malformed);
    let mut merged = parse(defaults)?;
    merge_into(&mut merged, parse(data)?);
    Ok(Value::Object(merged).to_string())
}

fn merge_into(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge_into(base, over),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// A value as it stands in a mail, unescaped. Objects, arrays and null give nothing to print.
fn print(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What SES says of a template that does more than it takes.
pub fn unsupported() -> ApiError {
    ApiError::bad_request("Template contains unsupported operations.")
}

/// Calls back with each member's name and printed length (`None`: nothing to print).
struct EachMember<F>(F);

impl<'de, F: FnMut(&str, Option<usize>)> Visitor<'de> for EachMember<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<Text>()? {
            let Length(length) = members.next_value()?;
            (self.0)(&name, length);
        }
        Ok(())
    }
}

/// The printed length of a value, by the rules of [`print`].
struct Length(Option<usize>);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Length, D::Error> {
        struct LengthVisitor;
        impl<'de> Visitor<'de> for LengthVisitor {
            type Value = Length;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Length, E> {
                Ok(Length(Some(text.len())))
            }
            fn visit_bool<E>(self, truth: bool) -> Result<Length, E> {
                Ok(Length(print(&Value::from(truth)).map(|text| text.len())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Length, E> {
                Ok(Length(print(&Value::from(number)).map(|text| text.len())))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Length, E> {
                Ok(Length(print(&Value::from(number)).map(|text| text.len())))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Length, E> {
                Ok(Length(print(&Value::from(number)).map(|text| text.len())))
            }
            fn visit_unit<E>(self) -> Result<Length, E> {
                Ok(Length(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Length, A::Error> {
                while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Length(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Length, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Length(None))
            }
        }
        deserializer.deserialize_any(LengthVisitor)
    }
}

/// Parsed templates by their JSON text: a campaign sends the same one thousands of times.
#[derive(Default)]
pub struct TemplateCache {
    /// The last used comes last.
    entries: Vec<(Box<str>, Arc<Template>)>,
    bytes: usize,
}

impl TemplateCache {
    /// The template of a `TemplateContent` given as JSON text.
    pub fn get(&mut self, json: &str, allow_lone_closing_braces: bool) -> Result<Arc<Template>, ApiError> {
        if let Some(at) = self.entries.iter().rposition(|(known, _)| **known == *json) {
            let entry = self.entries.remove(at);
            let template = entry.1.clone();
            self.entries.push(entry);
            return Ok(template);
        }
        let content: TemplateContent =
            sonic_rs::from_str(json).map_err(|error| ApiError::serialization(error.to_string()))?;
        let part = |text: &Option<Text>| text.as_ref().map_or(String::new(), |text| text.to_string());
        if content.html.is_none() && content.text.is_none() {
            return Err(ApiError::bad_request("Template must have an HTML or a text part."));
        }
        let template = Arc::new(Template::parse(
            &part(&content.subject),
            &part(&content.html),
            &part(&content.text),
            allow_lone_closing_braces,
        )?);
        self.bytes += json.len();
        self.entries.push((json.into(), template.clone()));
        while self.entries.len() > CACHE_ENTRIES || self.bytes > CACHE_BYTES && self.entries.len() > 1 {
            let (oldest, _) = self.entries.remove(0);
            self.bytes -= oldest.len();
        }
        Ok(template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<Template, ApiError> {
        Template::parse("", source, "", false)
    }

    #[test]
    fn letters_are_substituted_once_and_unescaped() {
        let template = Template::parse("{{a}}!", "<p>{{a}}{{bB}}</p>{ {x} }", "t", false).unwrap();
        let data = r#"{"bB":"{{a}} <&>\"\\","a":"é\n","unused":[1]}"#;
        let rendered = template.render(data).unwrap();
        assert_eq!(rendered.subject, "é\n!");
        assert_eq!(rendered.html, "<p>é\n{{a}} <&>\"\\</p>{ {x} }");
        assert_eq!(rendered.text, "t");
        let length = rendered.subject.len() + rendered.html.len() + rendered.text.len();
        assert_eq!(template.measure(data), Ok(length));
    }

    #[test]
    fn everything_else_is_unsupported() {
        for source in [
            "{{#if a}}x{{/if}}",
            "{{a.b}}",
            "{{a_b}}",
            "{{ a }}",
            "{{a0}}",
            "{{}}",
            "{{a",
            "{{a}",
            "{{{a}}}",
            "{{{a}}",
            "{{a}}}",
            "\\{{a}}",
            "{{this}}",
            "{{else}}",
            "{{é}}",
            "a}}b",
            "{{!x}}",
            "{{>x}}",
            "{{",
        ] {
            let error = parse(source).unwrap_err();
            assert_eq!(error.message, "Template contains unsupported operations.", "{source}");
            assert_eq!((error.status, error.kind), (400, "BadRequestException"));
        }
        assert!(Template::parse("", "@media{a{b:c}}", "", true).is_ok());
        assert!(parse("a } } { b").is_ok());
    }

    #[test]
    fn missing_and_unprintable_values_are_told_apart_from_malformed_data() {
        let template = parse("{{a}}{{b}}").unwrap();
        for (data, expected) in [
            (r#"{"a":""}"#, DataError::Missing(1)),
            (r#"{"b":""}"#, DataError::Missing(0)),
            (r#"{"a":null,"b":""}"#, DataError::Missing(0)),
            (r#"{"a":"","b":{"c":1}}"#, DataError::Missing(1)),
            (r#"{"a":"","b":[]}"#, DataError::Missing(1)),
            ("[]", DataError::Malformed),
            ("", DataError::Malformed),
            (r#"{"a":""} x"#, DataError::Malformed),
            (r#"{"a":"#, DataError::Malformed),
        ] {
            assert_eq!(template.measure(data), Err(expected.clone()), "{data}");
            assert_eq!(template.render(data), Err(expected), "{data}");
        }
        assert_eq!(template.slot_name(1), "b");
    }

    #[test]
    fn numbers_and_booleans_print_as_json_does() {
        let template = parse("{{a}}|{{b}}|{{c}}").unwrap();
        let data = r#"{"a":-12,"b":1.5,"c":true}"#;
        assert_eq!(template.render(data).unwrap().html, "-12|1.5|true");
        assert_eq!(template.measure(data), Ok("-12|1.5|true".len()));
    }

    #[test]
    fn defaults_merge_key_by_key() {
        let merged = merge(r#"{"a":"1","b":{"x":1,"y":2},"c":[1,2]}"#, r#"{"a":"2","b":{"y":3},"c":[9]}"#).unwrap();
        let merged: Value = serde_json::from_str(&merged).unwrap();
        assert_eq!(merged, serde_json::json!({"a":"2","b":{"x":1,"y":3},"c":[9]}));
        assert_eq!(merge("{}", "[]"), Err(DataError::Malformed));
    }

    #[test]
    fn the_cache_parses_a_template_once() {
        let mut cache = TemplateCache::default();
        let json = r#"{"Subject":"\u007b{a}}","Html":"x"}"#;
        let first = cache.get(json, false).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.get(json, false).unwrap()));
        assert_eq!(first.slot_name(0), "a");
        assert!(cache.get(r#"{"Subject":"x"}"#, false).is_err());
        for n in 0..CACHE_ENTRIES {
            cache.get(&format!(r#"{{"Html":"{n}"}}"#), false).unwrap();
        }
        assert_eq!(cache.entries.len(), CACHE_ENTRIES);
        assert!(!Arc::ptr_eq(&first, &cache.get(json, false).unwrap()));
    }
}
