//! What can go wrong for a whole call. A failure of one recipient is data, not an error.

use std::fmt;

/// What kind of thing went wrong; callers branch on this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A template does not compile or breaks a limit; `part` and `line` say where.
    Template,
    /// A setting is missing or malformed.
    Config,
    /// Input bytes (COPY rows, JSON) are not what the interface promises.
    Data,
}

/// An error with its kind, its place where known, and a sentence for the reader.
#[derive(Debug, Clone)]
pub struct Error {
    /// What to branch on.
    pub kind: ErrorKind,
    /// `subject`, `preheader`, `html` or `text` for template errors, else empty.
    pub part: &'static str,
    /// Line in that part, counted from 1, where known.
    pub line: Option<u32>,
    /// One sentence in plain words, without addresses or secrets.
    pub detail: String,
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A template error in `part`.
    pub fn template(part: &'static str, line: Option<u32>, detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Template, part, line, detail: detail.into() }
    }

    /// A setting that cannot be used.
    pub fn config(detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Config, part: "", line: None, detail: detail.into() }
    }

    /// Input that breaks the interface.
    pub fn data(detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Data, part: "", line: None, detail: detail.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.part, self.line) {
            ("", _) => f.write_str(&self.detail),
            (part, Some(line)) => write!(f, "{part}, line {line}: {}", self.detail),
            (part, None) => write!(f, "{part}: {}", self.detail),
        }
    }
}

impl std::error::Error for Error {}
