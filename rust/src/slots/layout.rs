//! From a shape to its skeleton: which text all its mails share, and what goes into which slot.
//!
//! SES reads the skeleton as a template, so no static text may look like a slot, nor touch one such that it is misread.

use std::collections::HashMap;
use std::sync::Arc;

use super::trace::{Piece, Trace};
use super::{Content, Skeleton};
use crate::ses::json::push_string;

/// How to make the values of a shape's slots.
pub(super) struct Layout {
    pub(super) skeleton: Arc<Skeleton>,
    pub(super) recipes: Vec<Recipe>,
}

impl Layout {
    /// One value per slot.
    pub(super) fn values(&self, trace: &Trace) -> Vec<String> {
        self.recipes.iter().map(|recipe| value_of(recipe, trace)).collect()
    }
}

/// A slot's value: these, joined.
pub(super) type Recipe = Vec<Ingredient>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Ingredient {
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

impl Content {
    /// The recipes of a shape's slots, and the template that names them.
    pub(super) fn lay_out(&self, shape: &[Piece]) -> (Vec<Recipe>, Box<[u8]>) {
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
pub(super) struct SlotNames {
    next: usize,
}

pub(super) const RESERVED_WORDS: [&str; 13] =
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
