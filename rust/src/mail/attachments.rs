//! Files that come along.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::fields::Errors;

/// SES takes 500 MIME parts; nobody reads a mail with so many.
const MAX_ATTACHMENTS: usize = 100;
/// SES's `AttachmentFileName`.
const MAX_FILENAME_CHARS: usize = 255;
/// SES's `AttachmentContentType` and `AttachmentContentId`.
const MAX_WORD_BYTES: usize = 78;
/// What a file is when nothing is known about it (RFC 2046, section 4.5.1).
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Extensions that SES refuses (Amazon SES developer guide, "Unsupported attachment types"), sorted.
const FORBIDDEN_EXTENSIONS: [&str; 90] = [
    "ade", "adp", "app", "asp", "bas", "bat", "cer", "chm", "cmd", "com", "cpl", "crt", "csh", "der", "exe", "fxp",
    "gadget", "hlp", "hta", "inf", "ins", "isp", "its", "js", "jse", "ksh", "lib", "lnk", "mad", "maf", "mag", "mam",
    "maq", "mar", "mas", "mat", "mau", "mav", "maw", "mda", "mdb", "mde", "mdt", "mdw", "mdz", "msc", "msh", "msh1",
    "msh1xml", "msh2", "msh2xml", "mshxml", "msi", "msp", "mst", "ops", "pcd", "pif", "plg", "prf", "prg", "ps1",
    "ps1xml", "ps2", "ps2xml", "psc1", "psc2", "reg", "scf", "scr", "sct", "shb", "shs", "sys", "tmp", "url", "vb",
    "vbe", "vbs", "vps", "vsmacros", "vss", "vst", "vsw", "vxd", "ws", "wsc", "wsf", "wsh", "xnk",
];

/// A file as it is given.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Given {
    filename: String,
    content: String,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    content_id: Option<String>,
    #[serde(default)]
    disposition: Option<String>,
}

/// A file with nothing left open.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Attachment {
    pub(super) filename: String,
    /// Base64 in one line.
    pub(super) content: String,
    pub(super) content_type: String,
    pub(super) content_id: Option<String>,
    pub(super) disposition: Disposition,
}

/// How a file is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Disposition {
    /// Beside the text.
    Attachment,
    /// In the text.
    Inline,
}

/// The files, their types guessed from their names where none is given; one with a Content-ID is inline.
pub(super) fn check_attachments(given: Vec<Given>, errors: &mut Errors) -> Vec<Attachment> {
    if given.len() > MAX_ATTACHMENTS {
        errors.add("attachments", "list_too_long", format!("attachments has at most {MAX_ATTACHMENTS} items."));
        return Vec::new();
    }
    let mut ids = HashSet::new();
    let check = |(index, given): (usize, Given)| {
        let param = |name: &str| format!("attachments[{index}].{name}");
        check_filename(&param("filename"), &given.filename, errors);
        check_content(&param("content"), &given.content, errors);
        if let Some(id) = &given.content_id {
            check_content_id(&param("content_id"), id, errors);
            if !ids.insert(id.clone()) {
                errors.add(param("content_id"), "content_id_repeated", "Two attachments have this content_id.");
            }
        }
        let content_type = match given.content_type {
            Some(content_type) => {
                check_content_type(&param("content_type"), &content_type, errors);
                content_type
            }
            None => guessed_type(&given.filename),
        };
        let disposition = match given.disposition.as_deref() {
            Some("attachment") => Disposition::Attachment,
            Some("inline") => Disposition::Inline,
            None if given.content_id.is_some() => Disposition::Inline,
            None => Disposition::Attachment,
            Some(_) => {
                let message = format!("{} must be one of attachment, inline.", param("disposition"));
                errors.add(param("disposition"), "value_unknown", message);
                Disposition::Attachment
            }
        };
        let Given { filename, content, content_id, .. } = given;
        Attachment { filename, content, content_type, content_id, disposition }
    };
    given.into_iter().enumerate().map(check).collect()
}

impl Attachment {
    /// Whether SES can build the part itself. How it writes other names is not documented, and its guide asks for an
    /// extension.
    pub(super) fn is_plain(&self) -> bool {
        self.filename.is_ascii() && !extension(&self.filename).is_empty()
    }

    /// Its length as it travels: base64 in lines of 76 characters and their line breaks, and its headers.
    pub(super) fn travelling_bytes(&self) -> usize {
        self.content.len() / 76 * 78 + 78 + 1_024
    }
}

fn check_filename(param: &str, filename: &str, errors: &mut Errors) {
    if filename.trim().is_empty() {
        errors.add(param, "field_empty", format!("{param} must not be empty."));
        return;
    }
    errors.check_line(param, filename);
    errors.check_chars(param, filename, MAX_FILENAME_CHARS);
    if filename.contains(['/', '\\']) {
        errors.add(param, "filename_invalid", format!("{param} must be a name without a path."));
    }
    let extension = extension(filename);
    if FORBIDDEN_EXTENSIONS.binary_search(&extension.as_str()).is_ok() {
        errors.add(param, "filename_forbidden", format!("Amazon SES does not carry files that end in .{extension}."));
    }
}

/// What follows the last dot, in lower case. Systems that ignore dots and spaces at the end would open the file all
/// the same, so they do not count.
fn extension(filename: &str) -> String {
    let name = filename.trim_end_matches(['.', ' ']);
    name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase()
}

/// Strict (RFC 4648, section 4): no line breaks, padding where it belongs, no stray bits.
fn check_content(param: &str, content: &str, errors: &mut Errors) {
    if content.is_empty() {
        errors.add(param, "field_empty", format!("{param} must not be empty."));
    } else if base64_simd::STANDARD.check(content.as_bytes()).is_err() {
        let message = format!("{param} must be base64 (RFC 4648) with padding and without line breaks.");
        errors.add(param, "base64_invalid", message);
    }
}

fn check_content_id(param: &str, id: &str, errors: &mut Errors) {
    let is_sound = |byte: u8| byte.is_ascii_graphic() && !b"<>()[]\\\",;:".contains(&byte);
    if !(1..=MAX_WORD_BYTES).contains(&id.len()) || !id.bytes().all(is_sound) {
        let message = format!(
            "{param} must have 1 to {MAX_WORD_BYTES} ASCII characters without spaces, brackets, quotes and colons."
        );
        errors.add(param, "content_id_invalid", message);
    }
}

/// `type/subtype`, and parameters whose values are tokens or quoted (RFC 2045, section 5.1).
fn check_content_type(param: &str, content_type: &str, errors: &mut Errors) {
    let mut pieces = content_type.split(';');
    let essence = pieces.next().unwrap_or_default();
    let is_type = essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    let is_parameter = |piece: &str| {
        piece.trim_matches(' ').split_once('=').is_some_and(|(name, value)| {
            let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            is_token(name) && (is_token(value) || quoted.is_some_and(is_quotable))
        })
    };
    if content_type.len() > MAX_WORD_BYTES || !is_type || !pieces.all(is_parameter) {
        let message = format!("{param} must be a MIME type as application/pdf, at most {MAX_WORD_BYTES} characters.");
        errors.add(param, "content_type_invalid", message);
    } else if ["multipart/", "message/"].iter().any(|start| essence.to_ascii_lowercase().starts_with(start)) {
        // RFC 2046 forbids base64 for both.
        let message = format!("{param} cannot be {essence}. Send the file as {UNKNOWN_TYPE}.");
        errors.add(param, "content_type_invalid", message);
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte))
}

fn is_quotable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\;".contains(&byte))
}

fn guessed_type(filename: &str) -> String {
    let guess = mime_guess::from_path(filename).first_raw().unwrap_or(UNKNOWN_TYPE);
    let is_unfit = guess.starts_with("multipart/") || guess.starts_with("message/") || guess.len() > MAX_WORD_BYTES;
    if is_unfit { UNKNOWN_TYPE } else { guess }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(filename: &str) -> Given {
        Given {
            filename: filename.into(),
            content: "aGk=".into(),
            content_type: None,
            content_id: None,
            disposition: None,
        }
    }

    fn checked(given: Given) -> (Attachment, Vec<(String, &'static str)>) {
        let mut errors = Errors::default();
        let attachment = check_attachments(vec![given], &mut errors).remove(0);
        (attachment, errors.0.into_iter().map(|error| (error.param, error.code)).collect())
    }

    fn codes(given: Given) -> Vec<&'static str> {
        checked(given).1.into_iter().map(|(_, code)| code).collect()
    }

    #[test]
    fn gaps_are_filled() {
        let (attachment, errors) = checked(given("invoice.PDF"));
        assert!(errors.is_empty());
        assert_eq!((&*attachment.content_type, attachment.disposition), ("application/pdf", Disposition::Attachment));
        let (attachment, _) = checked(Given { content_id: Some("logo".into()), ..given("logo.png") });
        assert_eq!((&*attachment.content_type, attachment.disposition), ("image/png", Disposition::Inline));
        let (attachment, _) = checked(Given {
            content_id: Some("a@b".into()),
            disposition: Some("attachment".into()),
            ..given("mail.eml")
        });
        assert_eq!((&*attachment.content_type, attachment.disposition), (UNKNOWN_TYPE, Disposition::Attachment));
    }

    #[test]
    fn forbidden_extensions_are_found_however_they_are_spelt() {
        assert!(FORBIDDEN_EXTENSIONS.is_sorted());
        for name in ["a.exe", "a.ExE", "a.pdf.js", "a.exe.", "a.exe . .", ".bat", "a.ade"] {
            assert_eq!(codes(given(name)), ["filename_forbidden"], "{name}");
        }
        for name in ["exe", "a.exe.txt", "a.json", "report", "Größe.pdf", "a b.pdf"] {
            assert!(codes(given(name)).is_empty(), "{name}");
        }
    }

    #[test]
    fn names_are_lines_without_a_path() {
        for (name, code) in [
            ("", "field_empty"),
            (" ", "field_empty"),
            ("../a.pdf", "filename_invalid"),
            ("c:\\a.pdf", "filename_invalid"),
            ("a\r\nb.pdf", "text_control_character"),
            ("a\u{2028}.pdf", "text_control_character"),
            (&"a".repeat(256), "text_too_long"),
        ] {
            assert_eq!(codes(given(name)), [code], "{name:?}");
        }
    }

    #[test]
    fn content_is_strict_base64() {
        for bad in ["aGk", "aGk =", "aG\nk=", "aGl=", "_-8=", "a===", "aGk=aGk=", "é"] {
            assert_eq!(codes(Given { content: bad.into(), ..given("a.pdf") }), ["base64_invalid"], "{bad:?}");
        }
        assert_eq!(codes(Given { content: String::new(), ..given("a.pdf") }), ["field_empty"]);
    }

    #[test]
    fn types_and_ids_cannot_break_out() {
        for good in
            ["image/png", "text/calendar; method=REQUEST", "text/plain;charset=\"utf-8\"", "application/x.y+json"]
        {
            assert!(codes(Given { content_type: Some(good.into()), ..given("a.ics") }).is_empty(), "{good}");
        }
        for bad in [
            "",
            "pdf",
            "a/b/c",
            "a /b",
            "text/plain\r\nBcc: x@y.z",
            "text/plain; x",
            "text/plain; x=\"a\"b\"",
            "text/plain; x=a b",
            "te<xt/plain",
            "é/x",
            "multipart/mixed",
            "Message/RFC822",
            &format!("a/{}", "b".repeat(77)),
        ] {
            let given = Given { content_type: Some(bad.into()), ..given("a.pdf") };
            assert_eq!(codes(given), ["content_type_invalid"], "{bad:?}");
        }
        for bad in ["", "<logo>", "a b", "a\r\nb", "é", "a\"b", "a:b", &"a".repeat(79)] {
            let given = Given { content_id: Some(bad.into()), ..given("a.png") };
            assert_eq!(codes(given), ["content_id_invalid"], "{bad:?}");
        }
    }

    #[test]
    fn every_error_has_its_path() {
        let mut errors = Errors::default();
        let twice = Given { content_id: Some("x".into()), disposition: Some("above".into()), ..given("a.png") };
        check_attachments(vec![twice.clone(), twice], &mut errors);
        let params: Vec<_> = errors.0.iter().map(|error| error.param.as_str()).collect();
        assert_eq!(params, ["attachments[0].disposition", "attachments[1].content_id", "attachments[1].disposition"]);
        let mut errors = Errors::default();
        check_attachments(vec![given("a.pdf"); MAX_ATTACHMENTS + 1], &mut errors);
        assert_eq!(errors.0[0].code, "list_too_long");
    }
}
