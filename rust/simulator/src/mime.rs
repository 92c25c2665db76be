//! Reads enough of a MIME message to show it: headers, and the HTML and text parts.

use crate::template::Rendered;

/// How deep multiparts may nest.
const MAX_DEPTH: usize = 10;

/// Names and values, unfolded, in their order.
pub type Headers = Vec<(String, String)>;

/// The headers, unfolded, and the body. `None` if the message has no header at all.
pub fn split(message: &[u8]) -> Option<(Headers, &[u8])> {
    let mut headers = Headers::new();
    let mut rest = message;
    while !rest.is_empty() {
        let end = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        rest = after;
        if line.is_empty() {
            break;
        }
        let line = String::from_utf8_lossy(line);
        if line.starts_with([' ', '\t']) {
            let (_, value) = headers.last_mut()?;
            value.push(' ');
            value.push_str(line.trim());
        } else {
            let (name, value) = line.split_once(':')?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    if headers.is_empty() { None } else { Some((headers, rest)) }
}

/// The value of a header by its name, any case.
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
}

/// Splits an address list at its commas, but not at those in quotes.
pub fn addresses(list: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut is_quoted) = (0, false);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => {
                found.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(list[start..].trim());
    found.retain(|address| !address.is_empty());
    found
}

/// Subject, HTML and text of a message.
pub fn read(message: &[u8]) -> Rendered {
    let mut rendered = Rendered::default();
    if let Some((headers, _)) = split(message) {
        rendered.subject = decode_words(header(&headers, "Subject").unwrap_or(""));
    }
    collect(message, 0, &mut rendered);
    rendered
}

fn collect(part: &[u8], depth: usize, rendered: &mut Rendered) {
    // A part may begin with the empty line, and then it is plain text.
    let (headers, body) = split(part).unwrap_or_else(|| (Vec::new(), part.trim_ascii_start()));
    let content_type = header(&headers, "Content-Type").unwrap_or("text/plain");
    let lower = content_type.to_ascii_lowercase();
    if lower.starts_with("multipart/") && depth < MAX_DEPTH {
        if let Some(boundary) = boundary(content_type) {
            for part in parts(body, &boundary) {
                collect(part, depth + 1, rendered);
            }
        }
        return;
    }
    let target = if lower.starts_with("text/html") {
        &mut rendered.html
    } else if lower.starts_with("text/plain") {
        &mut rendered.text
    } else {
        return;
    };
    let is_attachment = header(&headers, "Content-Disposition")
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("attachment"));
    if target.is_empty() && !is_attachment {
        let encoding = header(&headers, "Content-Transfer-Encoding").unwrap_or("");
        *target = String::from_utf8_lossy(&decode_body(body, encoding)).into_owned();
    }
}

fn boundary(content_type: &str) -> Option<String> {
    let at = content_type.to_ascii_lowercase().find("boundary=")?;
    let value = &content_type[at + "boundary=".len()..];
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => value.split([';', ' ']).next()?,
    };
    Some(value.to_owned())
}

fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let marker = format!("--{boundary}");
    let mut found = Vec::new();
    let mut start = None;
    let mut at = 0;
    while at < body.len() {
        let end = body[at..].iter().position(|b| *b == b'\n').map_or(body.len(), |length| at + length + 1);
        let line = &body[at..end];
        if line.starts_with(marker.as_bytes()) {
            if let Some(start) = start {
                let part: &[u8] = &body[start..at];
                // The line break before the marker belongs to the marker.
                let part = part.strip_suffix(b"\n").unwrap_or(part);
                found.push(part.strip_suffix(b"\r").unwrap_or(part));
            }
            start = Some(end);
            if line[marker.len()..].starts_with(b"--") {
                break;
            }
        }
        at = end;
    }
    found
}

fn decode_body(body: &[u8], encoding: &str) -> Vec<u8> {
    match encoding.to_ascii_lowercase().as_str() {
        "base64" => {
            let packed: Vec<u8> = body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            data_encoding::BASE64.decode(&packed).unwrap_or_default()
        }
        "quoted-printable" => decode_quoted(body, false),
        _ => body.to_vec(),
    }
}

/// Quoted-printable of bodies, or with `is_word` the Q encoding of headers, where `_` is a space.
fn decode_quoted(bytes: &[u8], is_word: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(b"=\r\n") {
            at += 3;
        } else if rest.starts_with(b"=\n") {
            at += 2;
        } else if let [b'=', high, low, ..] = rest
            && let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low))
        {
            out.push(high << 4 | low);
            at += 3;
        } else {
            out.push(if is_word && rest[0] == b'_' { b' ' } else { rest[0] });
            at += 1;
        }
    }
    out
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// Undoes the encoded words of RFC 2047. White space between two of them is no part of the text.
fn decode_words(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    let mut was_word = false;
    while let Some(start) = rest.find("=?") {
        let Some((word, length)) = decode_word(&rest[start..]) else {
            out.push_str(&rest[..start + 2]);
            rest = &rest[start + 2..];
            was_word = false;
            continue;
        };
        let between = &rest[..start];
        if !(was_word && between.trim().is_empty()) {
            out.push_str(between);
        }
        out.push_str(&word);
        rest = &rest[start + length..];
        was_word = true;
    }
    out.push_str(rest);
    out
}

/// Decodes the word that the text begins with, and says how long it is.
fn decode_word(text: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix("=?")?;
    let (_charset, after) = inner.split_once('?')?;
    let (encoding, after) = after.split_once('?')?;
    let (encoded, after) = after.split_once("?=")?;
    let bytes = match encoding {
        "B" | "b" => data_encoding::BASE64.decode(encoded.as_bytes()).ok()?,
        "Q" | "q" => decode_quoted(encoded.as_bytes(), true),
        _ => return None,
    };
    Some((String::from_utf8_lossy(&bytes).into_owned(), text.len() - after.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"From: A <a@b.co>\r\nTo: \"X, Y\" <x@b.co>,\r\n z@b.co\r\nSubject: =?utf-8?B?w4k=?= =?utf-8?Q?t=C3=A9_1?= ok\r\n\
        Content-Type: multipart/alternative; boundary=\"=b\"\r\n\r\nignored\r\n--=b\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ncaf=C3=A9 =\r\nau lait\r\n--=b\r\n\
        Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+\r\neDwvYj4=\r\n--=b--\r\n";

    #[test]
    fn parts_and_encoded_words_are_decoded() {
        let rendered = read(MESSAGE);
        assert_eq!(rendered.subject, "Été 1 ok");
        assert_eq!(rendered.text, "café au lait");
        assert_eq!(rendered.html, "<b>x</b>");
    }

    #[test]
    fn folded_headers_and_address_lists_are_read() {
        let (headers, _) = split(MESSAGE).unwrap();
        let to = header(&headers, "to").unwrap();
        assert_eq!(addresses(to), ["\"X, Y\" <x@b.co>", "z@b.co"]);
    }

    #[test]
    fn messages_without_headers_are_none_and_plain_bodies_are_text() {
        assert!(split(b"").is_none());
        assert!(split(b"no header\r\n").is_none());
        assert!(split(b" folded: first\r\n").is_none());
        assert_eq!(read(b"Subject: s =? t\n\nbody\n").text, "body\n");
        assert_eq!(read(b"Subject: s =? t\n\nbody\n").subject, "s =? t");
    }
}
