//! The literal links of an HTML source: which there are, and where their bytes lie.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use lol_html::{HtmlRewriter, Settings, element};

use crate::entities::{Place, decode};
use crate::error::{Error, Result};
use crate::scan::Scan;
use crate::template::Edit;

/// An attribute with one of these names keeps the links of its tag as they are.
const NO_TRACK: [&str; 2] = ["data-mailrail-no-track", "ses:no-track"];

/// The tracked links of one source.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// Each distinct address, decoded and trimmed, in the order of first appearance.
    pub(crate) urls: Vec<String>,
    /// Where an address stands in the source, and its number (from 1).
    uses: Vec<(Range<usize>, usize)>,
}

impl Listed {
    /// The replacements that send every use through the click redirect of `base_url`, with `token` in it.
    pub(crate) fn edits(&self, base_url: &str, token: &str) -> Vec<Edit> {
        self.uses
            .iter()
            .map(|(bytes, number)| Edit { bytes: bytes.clone(), with: format!("{base_url}/c/{token}/{number}") })
            .collect()
    }
}

/// Lists the `href` values of `<a>` and `<area>` that are wholly literal http(s) addresses.
///
/// Template tags are opaque words to the HTML parser, so a value that contains one is left alone, and links
/// inside comments, style sheets and scripts are not elements at all.
pub(crate) fn list(source: &str, scan: &Scan) -> Result<Listed> {
    let mut values = hrefs(&scan.mask(source))?;
    values.sort_by_key(|bytes| bytes.start);

    let mut listed = Listed::default();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for bytes in values {
        let Some(raw) = source.get(bytes.clone()) else { continue };
        if !is_http(raw) || !scan.tags_within(&bytes).is_empty() {
            continue;
        }
        let url = decode(raw, Place::Attribute).trim_ascii().to_owned();
        let number = *numbers.entry(url).or_insert_with_key(|url| {
            listed.urls.push(url.clone());
            listed.urls.len()
        });
        listed.uses.push((bytes, number));
    }
    Ok(listed)
}

fn is_http(raw: &str) -> bool {
    let raw = raw.trim_ascii_start().as_bytes();
    ["http://", "https://"]
        .iter()
        .any(|scheme| raw.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme.as_bytes())))
}

/// Where the values of all trackable `href` attributes lie.
fn hrefs(masked: &[u8]) -> Result<Vec<Range<usize>>> {
    let found = RefCell::new(Vec::new());
    let settings = Settings::new().append_element_content_handler(element!("a[href], area[href]", |tag| {
        let attributes = tag.attributes();
        let untracked = attributes.iter().any(|attribute| NO_TRACK.contains(&attribute.name().as_str()));
        if !untracked {
            // Of attributes with one name HTML knows only the first.
            let href = attributes.iter().find(|attribute| attribute.name() == "href");
            found.borrow_mut().extend(href.and_then(|attribute| Some(attribute.value_source_location()?.bytes())));
        }
        Ok(())
    }));
    let settings = settings.with_strict(false);
    let mut parser = HtmlRewriter::new(settings, |_: &[u8]| {});
    parser.write(masked).map_err(|_| unreadable())?;
    parser.end().map_err(|_| unreadable())?;
    Ok(found.into_inner())
}

fn unreadable() -> Error {
    Error::template("html", None, "the HTML cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::scan_html;

    fn listed(source: &str) -> (Vec<String>, Vec<(&str, usize)>) {
        let listed = list(source, &scan_html(source)).unwrap();
        let uses = listed.uses.iter().map(|(bytes, number)| (&source[bytes.clone()], *number)).collect();
        (listed.urls, uses)
    }

    #[test]
    fn every_way_to_quote_is_found() {
        let source = "<a href=\"https://a.example/?x=1&amp;y=2\">1</a><A HREF='HTTP://b.example'>2</A>\
                      <area href=https://c.example/p><a class=x href = \" https://d.example/é \">4</a>";
        let (urls, uses) = listed(source);
        assert_eq!(
            urls,
            ["https://a.example/?x=1&y=2", "HTTP://b.example", "https://c.example/p", "https://d.example/é"]
        );
        let raw: Vec<_> = uses.iter().map(|(raw, _)| *raw).collect();
        assert_eq!(
            raw,
            ["https://a.example/?x=1&amp;y=2", "HTTP://b.example", "https://c.example/p", " https://d.example/é "]
        );
    }

    #[test]
    fn equal_addresses_share_a_number() {
        let source = "<a href=https://a.example/?x&amp;y>1</a><a href=https://b.example>2</a>\
                      <a href='https://a.example/?x&y'>3</a>";
        let (urls, uses) = listed(source);
        assert_eq!(urls, ["https://a.example/?x&y", "https://b.example"]);
        assert_eq!(uses.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [1, 2, 1]);
    }

    #[test]
    fn what_is_no_literal_link_of_an_element_is_left_alone() {
        for source in [
            "<a href=\"https://a.example/{{ id }}\">",
            "<a href=\"{{ url }}\">",
            "<a href=\"/rel\" href=\"https://a.example\">",
            "<a href HREF=https://a.example>",
            "<a href=\"https://a.example/{% if x %}a{% endif %}\">",
            "<a href=mailto:a@example.com><a href=#top><a href=/rel><a href=\"ftp://a\"><a href=><a href>",
            "<!--[if mso]><a href=\"https://a.example\">x</a><![endif]-->",
            "<style>/*<a href=\"https://a.example\">*/</style><script>'<a href=\"https://a.example\">'</script>",
            "<link href=\"https://a.example\"><img src=\"https://a.example\"><base href=https://a.example>",
            "{{ '<a href=\"https://a.example\">' }}",
            "<a href=\"https://a.example\" data-mailrail-no-track>x</a><a ses:no-track href=https://a.example>y</a>",
            "<textarea><a href=\"https://a.example\"></textarea><title><a href=https://a.example></title>",
        ] {
            assert_eq!(listed(source), (vec![], vec![]), "{source}");
        }
    }

    #[test]
    fn of_doubled_attributes_the_first_counts() {
        let (urls, uses) = listed("<a href=https://a.example HREF=https://b.example>x</a>");
        assert_eq!((urls.len(), uses), (1, vec![("https://a.example", 1)]));
    }

    #[test]
    fn template_tags_elsewhere_in_the_tag_do_not_matter() {
        let source = "<a {% if x > 1 %}class=\"{{ y }}\"{% endif %} href=\"https://a.example\" title='{{ \"'>\" }}'>x</a>\
                      {% if z %}<a href=\"https://b.example\">y</a>{% endif %}";
        assert_eq!(listed(source).0, ["https://a.example", "https://b.example"]);
    }

    #[test]
    fn revealed_conditional_comments_show_their_links() {
        let source = "<!--[if !mso]><!--><a href=https://a.example>x</a><!--<![endif]-->";
        assert_eq!(listed(source).0, ["https://a.example"]);
    }
}
