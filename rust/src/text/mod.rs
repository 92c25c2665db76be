//! A text part from an HTML source.
//!
//! The result is a template again. Its rules:
//!
//! 1. Comments, `<style>`, `<script>`, `<title>` and markup declarations vanish, with the `{{ … }}` in them.
//! 2. Every live `{% … %}` stays, in its order, so that blocks stay balanced; so do `{{ … }}` in the text.
//!    Those inside tags vanish, except in rules 6 and 7. A `raw` block in the text stays as it is.
//!    White space that their dashes take away is taken away here, from the HTML, and the dashes are dropped:
//!    they must not take away the line breaks written here.
//! 3. White space collapses to one space, no-break spaces included, and vanishes at the start of a line.
//! 4. `<br>` ends a line. A block element's start and end each begin a new line; `<p>`, headings, lists,
//!    tables, `<blockquote>` and `<pre>` are set off by one empty line. There are never two empty lines.
//! 5. `<li>` starts with `- `, table cells are separated by a space, `<hr>` is a line `---`.
//! 6. After the text of `<a href>` comes ` (address)`, if the address begins with `http://`, `https://` or a
//!    `{{ … }}` and holds no `{% … %}`; the address stands alone if the text is empty or equal to it.
//! 7. `<img>` is its `alt` text, unless that holds a `{% … %}`.
//! 8. Character references are decoded. A literal brace that would open a template tag is printed by one.
//! 9. Nothing precedes the first and nothing follows the last character.
//! 10. Whichever blocks run, however often, words that the HTML sets apart stay apart. Where the ways to a
//!     place differ in the white space written last, the place is laid out for the one that wrote least, at
//!     worst with too many line feeds.

mod page;
mod reader;
#[cfg(test)]
mod tests;

use crate::scan::{Scan, scan_finished, scan_html};
use page::{Layout, Page};
use reader::read;

/// Makes the text part's template from `html`, whose links may already lead through the click redirect.
pub(crate) fn from_html(html: &str) -> String {
    let scan = scan_html(html);
    settled_page(html, &scan).finish()
}

/// Makes the text part itself from `html` that is no template, by the same rules.
pub(crate) fn from_finished(html: &str) -> String {
    // Without template tags there is only one way to every place.
    let page = read(html, &scan_finished(html), Vec::new());
    let mut out: String = page.pieces.into_iter().map(|piece| piece.text).collect();
    out.truncate(out.trim_ascii_end().len());
    out
}

/// The page whose assumptions about how loops end hold.
fn settled_page(html: &str, scan: &Scan) -> Page {
    let mut loops = Vec::new();
    for _ in 0..MAX_PASSES {
        let page = read(html, scan, loops.clone());
        if page.loops == loops {
            return page;
        }
        loops = page.loops;
    }
    // No assumption about any loop holds always.
    loops.fill(Layout::UNKNOWN);
    read(html, scan, loops)
}

/// Passes that may look for how each loop's body ends, which is how its next round begins.
const MAX_PASSES: usize = 4;
