//! HTML character references, as far as mail uses them.
//!
//! Known are all numeric references and the 252 names of HTML 4.01 (section 24), `apos` and the upper-case
//! spellings of HTML 5's legacy set. Anything else stays as written.

use std::borrow::Cow;

/// Where a reference stands; the HTML standard (section 13.2.5.73) is stricter inside attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Attribute,
    Text,
}

/// `text` with its character references replaced.
pub(crate) fn decode(text: &str, place: Place) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (character, taken_bytes) = reference(rest, place).unwrap_or(('&', 1));
        out.push(character);
        rest = &rest[taken_bytes..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The character that the reference at the start of `text` (an `&`) stands for, and the reference's length.
fn reference(text: &str, place: Place) -> Option<(char, usize)> {
    match text.strip_prefix("&#") {
        Some(digits) => numeric(digits).map(|(character, bytes)| (character, bytes + 2)),
        None => named(&text[1..], place).map(|(character, bytes)| (character, bytes + 1)),
    }
}

fn numeric(text: &str) -> Option<(char, usize)> {
    let (digits, radix, prefix_bytes) = match text.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16, 1),
        None => (text, 10, 0),
    };
    let count = digits.bytes().take_while(|byte| char::from(*byte).is_digit(radix)).count();
    if count == 0 {
        return None;
    }
    let code = u32::from_str_radix(&digits[..count], radix).unwrap_or(u32::MAX);
    let semicolon = usize::from(digits[count..].starts_with(';'));
    Some((character(code), prefix_bytes + count + semicolon))
}

/// Zero, surrogates and numbers past Unicode become the replacement character, as the standard says.
fn character(code: u32) -> char {
    match code {
        0 => char::REPLACEMENT_CHARACTER,
        0x80..=0x9F => WINDOWS_1252[(code - 0x80) as usize],
        _ => char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

fn named(text: &str, place: Place) -> Option<(char, usize)> {
    let length = text.bytes().take(LONGEST_NAME).take_while(u8::is_ascii_alphanumeric).count();
    if text[length..].starts_with(';') {
        return lookup(&text[..length]).map(|code| (character_of(code), length + 1));
    }
    let next = text.as_bytes().get(length);
    // "?a=1&copy=2" is a query string, not a copyright sign.
    if place == Place::Attribute && (next == Some(&b'=') || length == LONGEST_NAME) {
        return None;
    }
    let shortest = if place == Place::Attribute { length.max(1) } else { 1 };
    (shortest..=length).rev().find_map(|end| {
        let code = lookup(&text[..end]).filter(|code| *code <= 0xFF && &text[..end] != "apos")?;
        Some((character_of(code), end))
    })
}

fn lookup(name: &str) -> Option<u32> {
    NAMES.binary_search_by_key(&name, |(known, _)| known).ok().map(|at| NAMES[at].1)
}

fn character_of(code: u32) -> char {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

const LONGEST_NAME: usize = 8;

/// What browsers read for the references 128 to 159 (HTML standard, section 13.2.5.80).
const WINDOWS_1252: [char; 32] = [
    '\u{20AC}', '\u{81}', '\u{201A}', '\u{192}', '\u{201E}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2C6}', '\u{2030}',
    '\u{160}', '\u{2039}', '\u{152}', '\u{8D}', '\u{17D}', '\u{8F}', '\u{90}', '\u{2018}', '\u{2019}', '\u{201C}',
    '\u{201D}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2DC}', '\u{2122}', '\u{161}', '\u{203A}', '\u{153}', '\u{9D}',
    '\u{17E}', '\u{178}',
];

/// Sorted by name for the binary search. Names up to U+00FF, except `apos`, may lack their semicolon.
#[rustfmt::skip]
const NAMES: &[(&str, u32)] = &[
    ("AElig", 0xC6), ("AMP", 0x26), ("Aacute", 0xC1), ("Acirc", 0xC2), ("Agrave", 0xC0), ("Alpha", 0x391),
    ("Aring", 0xC5), ("Atilde", 0xC3), ("Auml", 0xC4), ("Beta", 0x392), ("COPY", 0xA9), ("Ccedil", 0xC7),
    ("Chi", 0x3A7), ("Dagger", 0x2021), ("Delta", 0x394), ("ETH", 0xD0), ("Eacute", 0xC9), ("Ecirc", 0xCA),
    ("Egrave", 0xC8), ("Epsilon", 0x395), ("Eta", 0x397), ("Euml", 0xCB), ("GT", 0x3E), ("Gamma", 0x393),
    ("Iacute", 0xCD), ("Icirc", 0xCE), ("Igrave", 0xCC), ("Iota", 0x399), ("Iuml", 0xCF), ("Kappa", 0x39A),
    ("LT", 0x3C), ("Lambda", 0x39B), ("Mu", 0x39C), ("Ntilde", 0xD1), ("Nu", 0x39D), ("OElig", 0x152),
    ("Oacute", 0xD3), ("Ocirc", 0xD4), ("Ograve", 0xD2), ("Omega", 0x3A9), ("Omicron", 0x39F), ("Oslash", 0xD8),
    ("Otilde", 0xD5), ("Ouml", 0xD6), ("Phi", 0x3A6), ("Pi", 0x3A0), ("Prime", 0x2033), ("Psi", 0x3A8),
    ("QUOT", 0x22), ("REG", 0xAE), ("Rho", 0x3A1), ("Scaron", 0x160), ("Sigma", 0x3A3), ("THORN", 0xDE),
    ("Tau", 0x3A4), ("Theta", 0x398), ("Uacute", 0xDA), ("Ucirc", 0xDB), ("Ugrave", 0xD9), ("Upsilon", 0x3A5),
    ("Uuml", 0xDC), ("Xi", 0x39E), ("Yacute", 0xDD), ("Yuml", 0x178), ("Zeta", 0x396), ("aacute", 0xE1),
    ("acirc", 0xE2), ("acute", 0xB4), ("aelig", 0xE6), ("agrave", 0xE0), ("alefsym", 0x2135), ("alpha", 0x3B1),
    ("amp", 0x26), ("and", 0x2227), ("ang", 0x2220), ("apos", 0x27), ("aring", 0xE5), ("asymp", 0x2248),
    ("atilde", 0xE3), ("auml", 0xE4), ("bdquo", 0x201E), ("beta", 0x3B2), ("brvbar", 0xA6), ("bull", 0x2022),
    ("cap", 0x2229), ("ccedil", 0xE7), ("cedil", 0xB8), ("cent", 0xA2), ("chi", 0x3C7), ("circ", 0x2C6),
    ("clubs", 0x2663), ("cong", 0x2245), ("copy", 0xA9), ("crarr", 0x21B5), ("cup", 0x222A), ("curren", 0xA4),
    ("dArr", 0x21D3), ("dagger", 0x2020), ("darr", 0x2193), ("deg", 0xB0), ("delta", 0x3B4), ("diams", 0x2666),
    ("divide", 0xF7), ("eacute", 0xE9), ("ecirc", 0xEA), ("egrave", 0xE8), ("empty", 0x2205), ("emsp", 0x2003),
    ("ensp", 0x2002), ("epsilon", 0x3B5), ("equiv", 0x2261), ("eta", 0x3B7), ("eth", 0xF0), ("euml", 0xEB),
    ("euro", 0x20AC), ("exist", 0x2203), ("fnof", 0x192), ("forall", 0x2200), ("frac12", 0xBD),
    ("frac14", 0xBC), ("frac34", 0xBE), ("frasl", 0x2044), ("gamma", 0x3B3), ("ge", 0x2265), ("gt", 0x3E),
    ("hArr", 0x21D4), ("harr", 0x2194), ("hearts", 0x2665), ("hellip", 0x2026), ("iacute", 0xED),
    ("icirc", 0xEE), ("iexcl", 0xA1), ("igrave", 0xEC), ("image", 0x2111), ("infin", 0x221E), ("int", 0x222B),
    ("iota", 0x3B9), ("iquest", 0xBF), ("isin", 0x2208), ("iuml", 0xEF), ("kappa", 0x3BA), ("lArr", 0x21D0),
    ("lambda", 0x3BB), ("lang", 0x2329), ("laquo", 0xAB), ("larr", 0x2190), ("lceil", 0x2308),
    ("ldquo", 0x201C), ("le", 0x2264), ("lfloor", 0x230A), ("lowast", 0x2217), ("loz", 0x25CA), ("lrm", 0x200E),
    ("lsaquo", 0x2039), ("lsquo", 0x2018), ("lt", 0x3C), ("macr", 0xAF), ("mdash", 0x2014), ("micro", 0xB5),
    ("middot", 0xB7), ("minus", 0x2212), ("mu", 0x3BC), ("nabla", 0x2207), ("nbsp", 0xA0), ("ndash", 0x2013),
    ("ne", 0x2260), ("ni", 0x220B), ("not", 0xAC), ("notin", 0x2209), ("nsub", 0x2284), ("ntilde", 0xF1),
    ("nu", 0x3BD), ("oacute", 0xF3), ("ocirc", 0xF4), ("oelig", 0x153), ("ograve", 0xF2), ("oline", 0x203E),
    ("omega", 0x3C9), ("omicron", 0x3BF), ("oplus", 0x2295), ("or", 0x2228), ("ordf", 0xAA), ("ordm", 0xBA),
    ("oslash", 0xF8), ("otilde", 0xF5), ("otimes", 0x2297), ("ouml", 0xF6), ("para", 0xB6), ("part", 0x2202),
    ("permil", 0x2030), ("perp", 0x22A5), ("phi", 0x3C6), ("pi", 0x3C0), ("piv", 0x3D6), ("plusmn", 0xB1),
    ("pound", 0xA3), ("prime", 0x2032), ("prod", 0x220F), ("prop", 0x221D), ("psi", 0x3C8), ("quot", 0x22),
    ("rArr", 0x21D2), ("radic", 0x221A), ("rang", 0x232A), ("raquo", 0xBB), ("rarr", 0x2192), ("rceil", 0x2309),
    ("rdquo", 0x201D), ("real", 0x211C), ("reg", 0xAE), ("rfloor", 0x230B), ("rho", 0x3C1), ("rlm", 0x200F),
    ("rsaquo", 0x203A), ("rsquo", 0x2019), ("sbquo", 0x201A), ("scaron", 0x161), ("sdot", 0x22C5),
    ("sect", 0xA7), ("shy", 0xAD), ("sigma", 0x3C3), ("sigmaf", 0x3C2), ("sim", 0x223C), ("spades", 0x2660),
    ("sub", 0x2282), ("sube", 0x2286), ("sum", 0x2211), ("sup", 0x2283), ("sup1", 0xB9), ("sup2", 0xB2),
    ("sup3", 0xB3), ("supe", 0x2287), ("szlig", 0xDF), ("tau", 0x3C4), ("there4", 0x2234), ("theta", 0x3B8),
    ("thetasym", 0x3D1), ("thinsp", 0x2009), ("thorn", 0xFE), ("tilde", 0x2DC), ("times", 0xD7),
    ("trade", 0x2122), ("uArr", 0x21D1), ("uacute", 0xFA), ("uarr", 0x2191), ("ucirc", 0xFB), ("ugrave", 0xF9),
    ("uml", 0xA8), ("upsih", 0x3D2), ("upsilon", 0x3C5), ("uuml", 0xFC), ("weierp", 0x2118), ("xi", 0x3BE),
    ("yacute", 0xFD), ("yen", 0xA5), ("yuml", 0xFF), ("zeta", 0x3B6), ("zwj", 0x200D), ("zwnj", 0x200C),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_decoded() {
        for (text, decoded) in [
            ("a&amp;b", "a&b"),
            ("&lt;&gt;&quot;&apos;&nbsp;", "<>\"'\u{A0}"),
            ("caf&eacute;", "café"),
            ("&#65;&#x42;&#X43", "ABC"),
            ("&#0;&#xD800;&#x110000;&#99999999999;", "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
            ("&#150;", "\u{2013}"),
            ("&unknown; & &; &#; &#x;", "&unknown; & &; &#; &#x;"),
            ("&ampx", "&x"),
            ("&rsquo x", "&rsquo x"),
            ("&thetasym;&zwnj;", "\u{3D1}\u{200C}"),
            ("&", "&"),
            ("&é", "&é"),
        ] {
            assert_eq!(decode(text, Place::Text), decoded, "{text}");
        }
    }

    #[test]
    fn query_strings_survive_in_attributes() {
        for (text, decoded) in [
            ("?a=1&amp;b=2", "?a=1&b=2"),
            ("?a=1&copy=2", "?a=1&copy=2"),
            ("?a=1&copyx", "?a=1&copyx"),
            ("?a=1&copy", "?a=1\u{A9}"),
            ("?a=1&lt;2", "?a=1<2"),
            ("?x&section=1", "?x&section=1"),
        ] {
            assert_eq!(decode(text, Place::Attribute), decoded, "{text}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_within_its_longest_name() {
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(NAMES.iter().all(|(name, _)| name.len() <= LONGEST_NAME));
    }
}
