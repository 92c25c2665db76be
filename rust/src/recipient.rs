//! Who a mail goes to, and the template variables made from it.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use sonic_rs::{JsonValueTrait, LazyValue};

use crate::error::{Error, Result};

/// Custom fields with more open brackets than this are refused, so that reading them cannot exhaust the stack.
const MAX_DEPTH: usize = 64;

/// One recipient of one stream, borrowed from the round's COPY bytes.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// Dense number within the stream, from 1.
    pub seq: i32,
    /// Which attempt this is, from 1.
    pub attempt: i16,
    /// The contact behind the address.
    pub contact_id: i64,
    /// The frozen address, as written.
    pub email: &'a str,
    /// Full name; `name` in templates.
    pub name: Option<&'a str>,
    /// `firstName` in templates.
    pub first_name: Option<&'a str>,
    /// `lastName` in templates.
    pub last_name: Option<&'a str>,
    /// A JSON object (UTF-8) whose members are template variables, below the built-in ones.
    pub custom_fields: Option<&'a [u8]>,
    /// Whether the mail may tell that it was opened and which links were followed.
    pub tracked: bool,
}

/// Where the value of a variable comes from. Built-in names win over custom fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    FirstName,
    LastName,
    Name,
    Email,
    UnsubscribeUrl,
    Mailrail,
    Custom,
}

impl Origin {
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "firstName" => Self::FirstName,
            "lastName" => Self::LastName,
            "name" => Self::Name,
            "email" => Self::Email,
            "unsubscribeUrl" => Self::UnsubscribeUrl,
            "mailrail" => Self::Mailrail,
            _ => Self::Custom,
        }
    }
}

/// The variables that some content mentions; nothing else of a recipient is ever read.
#[derive(Debug, Default)]
pub(crate) struct Names {
    sorted: Vec<(Box<str>, Origin)>,
    any_custom: bool,
}

impl Names {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let sorted: Vec<_> = names
            .into_iter()
            .map(|name| {
                let origin = Origin::of(&name);
                (name.into_boxed_str(), origin)
            })
            .collect();
        let any_custom = sorted.iter().any(|(_, origin)| *origin == Origin::Custom);
        Self { sorted, any_custom }
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.sorted.binary_search_by(|(known, _)| (**known).cmp(name)).ok()
    }
}

/// The two values that depend on the stream and the recipient together.
#[derive(Debug)]
pub(crate) struct Secrets {
    pub(crate) track: String,
    pub(crate) unsubscribe_url: String,
}

/// One recipient's values, in the order of [`Names`].
#[derive(Debug, Clone)]
pub(crate) struct Bindings {
    names: Arc<Names>,
    values: Vec<Value>,
}

impl Bindings {
    /// Reads what `names` mentions. `unsubscribeUrl` is bound as a safe string (for HTML).
    pub(crate) fn read(names: &Arc<Names>, recipient: &Recipient<'_>, secrets: &Secrets) -> Result<Self> {
        let mut values: Vec<Value> =
            names.sorted.iter().map(|(_, origin)| built_in(*origin, recipient, secrets)).collect();
        if let (true, Some(json)) = (names.any_custom, recipient.custom_fields) {
            bind_custom(names, json, &mut values)?;
        }
        Ok(Self { names: Arc::clone(names), values })
    }

    /// What `variables`, a JSON object, give to a template that mentions `names`. There is no recipient behind it,
    /// so every name is one of theirs but the reserved one, which has no value.
    pub(crate) fn of_variables(names: impl IntoIterator<Item = String>, variables: &[u8]) -> Result<Self> {
        let mut names = Names::new(names);
        names.sorted.retain(|(_, origin)| *origin != Origin::Mailrail);
        names.sorted.iter_mut().for_each(|(_, origin)| *origin = Origin::Custom);
        let mut values = vec![Value::UNDEFINED; names.sorted.len()];
        bind_custom(&names, variables, &mut values)?;
        Ok(Self { names: Arc::new(names), values })
    }

    /// The same values with `unsubscribeUrl` as an ordinary string, for parts without escaping.
    pub(crate) fn without_safe_url(&self, secrets: &Secrets) -> Self {
        let mut plain = self.clone();
        if let Some(at) = self.names.position("unsubscribeUrl") {
            plain.values[at] = Value::from(secrets.unsubscribe_url.as_str());
        }
        plain
    }

    pub(crate) fn get(&self, position: usize) -> &Value {
        &self.values[position]
    }
}

impl Object for Bindings {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let value = &self.values[self.names.position(key)?];
        (!value.is_undefined()).then(|| value.clone())
    }
}

fn built_in(origin: Origin, recipient: &Recipient<'_>, secrets: &Secrets) -> Value {
    match origin {
        Origin::FirstName => Value::from(recipient.first_name.unwrap_or_default()),
        Origin::LastName => Value::from(recipient.last_name.unwrap_or_default()),
        Origin::Name => Value::from(recipient.name.unwrap_or_default()),
        Origin::Email => Value::from(recipient.email),
        Origin::UnsubscribeUrl => Value::from_safe_string(secrets.unsubscribe_url.clone()),
        Origin::Mailrail => Value::from_object(Reserved { track: Value::from(secrets.track.as_str()) }),
        Origin::Custom => Value::UNDEFINED,
    }
}

/// The reserved variable `mailrail`: `mailrail.t` is the recipient's track token.
#[derive(Debug)]
struct Reserved {
    track: Value,
}

impl Object for Reserved {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        (key == "t").then(|| self.track.clone())
    }
}

/// Reads only the members that the templates mention; the others are skipped unparsed. The parser recurses
/// even to skip, and trusts its input to be UTF-8, so both are checked first.
fn bind_custom(names: &Names, json: &[u8], values: &mut [Value]) -> Result<()> {
    let json = str::from_utf8(json).map_err(|_| unreadable())?;
    if is_deep(json) {
        return Err(Error::data(format!("custom fields are nested more than {MAX_DEPTH} levels deep")));
    }
    for member in sonic_rs::to_object_iter(json) {
        let (key, raw) = member.map_err(|_| unreadable())?;
        let Some(at) = names.position(&key) else { continue };
        if names.sorted[at].1 == Origin::Custom {
            values[at] = match value_of(&raw)? {
                // A field without a value is as good as none.
                none if none.is_none() => Value::UNDEFINED,
                value => value,
            };
        }
    }
    Ok(())
}

/// Whether more than [`MAX_DEPTH`] brackets are open at once, the object's own included.
fn is_deep(json: &str) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn value_of(raw: &LazyValue<'_>) -> Result<Value> {
    let text = raw.as_raw_str();
    match text.as_bytes().first() {
        Some(b'"') => raw.as_str().map(Value::from).ok_or_else(unreadable),
        Some(b't') => Ok(Value::from(true)),
        Some(b'f') => Ok(Value::from(false)),
        Some(b'n') => Ok(Value::from(())),
        Some(b'[') => list_of(text),
        Some(b'{') => Ok(Value::from_object(Members(members_of(text)?))),
        Some(_) => number_of(text),
        None => Err(unreadable()),
    }
}

fn list_of(text: &str) -> Result<Value> {
    let mut items = Vec::new();
    for item in sonic_rs::to_array_iter(text) {
        items.push(value_of(&item.map_err(|_| unreadable())?)?);
    }
    Ok(Value::from(items))
}

fn members_of(text: &str) -> Result<Vec<(Value, Value)>> {
    let mut members = Vec::new();
    for member in sonic_rs::to_object_iter(text) {
        let (key, raw) = member.map_err(|_| unreadable())?;
        members.push((Value::from(&*key), value_of(&raw)?));
    }
    Ok(members)
}

/// Whole numbers stay exact up to 128 bits, then become floats like in Python's minijinja; numbers too
/// large even for a float keep their digits.
fn number_of(text: &str) -> Result<Value> {
    if text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return text.parse::<f64>().map(Value::from).map_err(|_| unreadable());
    }
    if let Ok(number) = text.parse::<i64>() {
        return Ok(Value::from(number));
    }
    if let Ok(number) = text.parse::<i128>() {
        return Ok(Value::from(number));
    }
    if let Ok(number) = text.parse::<u128>() {
        return Ok(Value::from(number));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Value::from(number)),
        Ok(_) => Ok(Value::from(text)),
        Err(_) => Err(unreadable()),
    }
}

fn unreadable() -> Error {
    Error::data("custom fields are not a JSON object")
}

/// A JSON object that keeps the order of its members, as a Python dict does.
#[derive(Debug)]
struct Members(Vec<(Value, Value)>);

impl Object for Members {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        // The last of doubled keys wins, as it does in Python.
        self.0.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(key, _)| key.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(custom_fields: Option<&[u8]>) -> Recipient<'_> {
        Recipient {
            seq: 1,
            attempt: 1,
            contact_id: 7,
            email: "ada@example.com",
            name: Some("Ada Lovelace"),
            first_name: Some("Ada"),
            last_name: None,
            custom_fields,
            tracked: true,
        }
    }

    fn print(json: &str, name: &str) -> String {
        let names = Arc::new(Names::new([name.to_owned()]));
        let secrets = Secrets { track: "T".to_owned(), unsubscribe_url: "U".to_owned() };
        match Bindings::read(&names, &recipient(Some(json.as_bytes())), &secrets) {
            Ok(bindings) => bindings.get(0).to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn built_in_names_win_and_missing_ones_are_empty() {
        assert_eq!(print(r#"{"firstName":"X"}"#, "firstName"), "Ada");
        assert_eq!(print(r#"{"lastName":"X"}"#, "lastName"), "");
        assert_eq!(print(r#"{"mailrail":"X","email":"y"}"#, "email"), "ada@example.com");
        assert_eq!(print(r#"{"plan":"pro"}"#, "plan"), "pro");
        assert_eq!(print("{}", "plan"), "");
    }

    /// The right-hand sides were printed by the PyPI package 3.1.0 from `json.loads` of the left.
    #[test]
    fn values_print_as_they_do_in_python() {
        let huge = format!("1{}", "0".repeat(400));
        for (json, printed) in [
            ("1", "1"),
            ("-0", "0"),
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("1e3", "1000.0"),
            ("1e22", "10000000000000000000000.0"),
            ("1e-7", "0.0000001"),
            ("1e400", "inf"),
            ("9223372036854775808", "9223372036854775808"),
            ("-9223372036854775809", "-9223372036854775809"),
            ("340282366920938463463374607431768211455", "340282366920938463463374607431768211455"),
            (
                "100000000000000000000000000000000000000000000000000",
                "100000000000000000000000000000000000000000000000000.0",
            ),
            (&huge, &huge),
            ("true", "True"),
            ("null", ""),
            (r#"{"b":1,"a":[1,"x",null,true,1.5]}"#, "{'b': 1, 'a': [1, 'x', None, True, 1.5]}"),
            (r#"["it's \"q\" \n é\u0000"]"#, "['it\\'s \"q\" \\n é\\x00']"),
            ("{}", "{}"),
            ("[]", "[]"),
        ] {
            assert_eq!(print(&format!(r#"{{"x": {json}, "y": 1}}"#), "x"), printed, "{json}");
        }
    }

    #[test]
    fn bad_custom_fields_are_an_error_and_never_a_panic() {
        for json in ["", "[", "{\"x\":", "{\"x\":tru}", "nope", "{\"x\":\"\\ud800\"}", "{\"x\":1"] {
            let names = Arc::new(Names::new(["x".to_owned()]));
            let secrets = Secrets { track: "T".to_owned(), unsubscribe_url: "U".to_owned() };
            let _ = Bindings::read(&names, &recipient(Some(json.as_bytes())), &secrets);
        }
    }

    #[test]
    fn deep_fields_are_an_error_even_where_no_template_reads_them() {
        let nested = |levels: usize| {
            [("[", "]", "1"), ("{\"a\":", "}", "1"), ("[{\"]}\":", "}]", "\"\\\"[\"")]
                .map(|(open, close, core)| format!("{}{core}{}", open.repeat(levels), close.repeat(levels)))
        };
        for levels in [MAX_DEPTH, 10_000, 1_000_000] {
            for value in nested(levels) {
                for (json, name) in [(format!(r#"{{"x":{value}}}"#), "x"), (format!(r#"{{"y":{value},"x":1}}"#), "x")] {
                    let printed = print(&json, name);
                    assert!(printed.starts_with("error: custom fields are nested"), "{levels}: {}", &printed[..40]);
                }
            }
        }
        assert_eq!(print(&format!(r#"{{"y":{},"x":1}}"#, nested(MAX_DEPTH - 1)[0]), "x"), "1");
        assert_eq!(print(&format!(r#"{{"x":{}}}"#, nested(MAX_DEPTH - 1)[0]), "x").len(), 2 * MAX_DEPTH - 1);
        let brackets_in_text = format!(r#"{{"x":"\\\"{}"}}"#, "[".repeat(1_000));
        assert_eq!(print(&brackets_in_text, "x"), format!("\\\"{}", "[".repeat(1_000)));
    }

    #[test]
    fn fields_that_are_no_utf8_are_an_error() {
        let names = Arc::new(Names::new(["x".to_owned()]));
        let secrets = Secrets { track: "T".to_owned(), unsubscribe_url: "U".to_owned() };
        for json in [&b"{\"x\":\"\xff\"}"[..], b"{\"y\":\"\xc3\",\"x\":1}", b"{\"\xed\xa0\x80\":1}"] {
            let error = Bindings::read(&names, &recipient(Some(json)), &secrets).unwrap_err();
            assert_eq!(error.detail, "custom fields are not a JSON object");
        }
    }
}
