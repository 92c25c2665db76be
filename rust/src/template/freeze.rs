//! Freezing: from what a customer wrote to the templates that are the same for every recipient.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::edit::{BRACE, Edit, apply, literal, quote_dead_blocks, with_dead_blocks_quoted};
use super::part::{Part, check, check_size};
use super::survey::survey;
use crate::error::Result;
use crate::scan::{Scan, scan_finished, scan_html, scan_plain};
use crate::{links, text};

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

fn custom_variables(frozen: &FrozenContent) -> Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for (part, source) in [(Part::Subject, &frozen.subject), (Part::Html, &frozen.html), (Part::Text, &frozen.text)] {
        names.extend(survey(part, source)?.undeclared());
    }
    Ok(names.into_iter().collect())
}
