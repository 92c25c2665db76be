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

mod layout;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use minijinja::{Environment, Value};

use crate::error::{Error, Result};
use crate::message::clean_subject;
use crate::recipient::{Bindings, Names, Recipient, Secrets};
use crate::template::{FrozenContent, MAX_OUTPUT_BYTES, Part, Step, Survey, environment, explain, install};
use crate::token::TokenKeys;
use layout::{Layout, SlotNames};
use trace::{Piece, Trace};

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
