//! JSON strings, escaped once or twice, written straight into a buffer.

/// Appends `text` as a JSON string with its quotes.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text, &ONCE);
    out.push(b'"');
}

/// Appends `text` as it looks inside a JSON string inside a JSON string, without any quotes:
/// `"` takes 4 bytes, a line feed 3, a backslash 4.
pub fn push_nested(out: &mut Vec<u8>, text: &str) {
    push_escaped(out, text, &TWICE);
}

/// How the bytes are written that JSON does not allow in a string.
struct Escapes {
    quote: &'static [u8],
    backslash: &'static [u8],
    backspace: &'static [u8],
    form_feed: &'static [u8],
    line_feed: &'static [u8],
    carriage_return: &'static [u8],
    tab: &'static [u8],
    unicode: &'static [u8],
}

const ONCE: Escapes = Escapes {
    quote: br#"\""#,
    backslash: br"\\",
    backspace: br"\b",
    form_feed: br"\f",
    line_feed: br"\n",
    carriage_return: br"\r",
    tab: br"\t",
    unicode: br"\u00",
};

/// Each of [`ONCE`] with its own backslashes and quotes escaped again.
const TWICE: Escapes = Escapes {
    quote: br#"\\\""#,
    backslash: br"\\\\",
    backspace: br"\\b",
    form_feed: br"\\f",
    line_feed: br"\\n",
    carriage_return: br"\\r",
    tab: br"\\t",
    unicode: br"\\u00",
};

fn push_escaped(out: &mut Vec<u8>, text: &str, escapes: &Escapes) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 8);
    loop {
        let clean = clean_prefix(rest);
        out.extend_from_slice(&rest[..clean]);
        let Some(special) = rest.get(clean) else { return };
        match special {
            b'"' => out.extend_from_slice(escapes.quote),
            b'\\' => out.extend_from_slice(escapes.backslash),
            0x08 => out.extend_from_slice(escapes.backspace),
            0x0c => out.extend_from_slice(escapes.form_feed),
            b'\n' => out.extend_from_slice(escapes.line_feed),
            b'\r' => out.extend_from_slice(escapes.carriage_return),
            b'\t' => out.extend_from_slice(escapes.tab),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(escapes.unicode);
                out.push(DIGITS[usize::from(control >> 4)]);
                out.push(DIGITS[usize::from(control & 15)]);
            }
        }
        rest = &rest[clean + 1..];
    }
}

/// Length of the prefix without quotes, backslashes and control characters, eight bytes a step.
fn clean_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The lowest mark of either test is exact: a borrow can only run upwards from a true hit.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (chunks, tail) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let marks = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        if marks != 0 {
            return index * 8 + (marks.trailing_zeros() / 8) as usize;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    bytes.len() - tail.len() + tail.iter().position(special).unwrap_or(tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<String> {
        let mut samples = vec![String::new(), "plain".into(), "Zürich — 東京 🎉".into(), "a\u{7f}\u{2028}b".into()];
        let every_low: String = (0_u8..=0x7f).map(char::from).collect();
        for pad in 0..9 {
            samples.push("x".repeat(pad) + &every_low);
            samples.push("é".repeat(pad) + "\"" + &"y".repeat(pad) + "\\\n\0");
        }
        samples
    }

    #[test]
    fn once_escaped_strings_read_back() {
        for sample in samples() {
            let mut out = Vec::new();
            push_string(&mut out, &sample);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), sample);
            assert_eq!(out, serde_json::to_vec(&sample).unwrap());
        }
    }

    #[test]
    fn twice_escaped_strings_are_json_in_json() {
        for sample in samples() {
            let mut out = b"\"\\\"".to_vec();
            push_nested(&mut out, &sample);
            out.extend_from_slice(b"\\\"\"");
            let inner: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(serde_json::from_str::<String>(&inner).unwrap(), sample);
            let reference = serde_json::to_string(&serde_json::to_string(&sample).unwrap()).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), reference);
        }
    }
}
