//! Contacts in bulk: an upload cut into pieces at the ends of records while it comes in, and a piece
//! turned into COPY bytes.
//!
//! A [`Cutter`] looks only at where records end, so that an API process can store what it receives
//! piece by piece. A [`Plan`] reads the records of one piece, checks them as a single contact would
//! be checked, and writes good ones and bad ones as rows of two tables. Pieces know nothing of
//! each other: whoever reads one again gets the same rows.
//!
//! ```
//! use mailrail_core::import::{Cutter, Format, Known, Plan};
//!
//! let mut cutter = Cutter::new(Format::Csv, None);
//! let mut pieces = cutter.feed(b"email,name\r\nann@example.com,Ann Lee\r\n")?;
//! pieces.extend(cutter.finish()?);
//! let plan = Plan::from_json(br#"{"format": "csv", "delimiter": ",", "columns": ["email", "name"]}"#)?;
//! let read = plan.read(&pieces[0].body, pieces[0].first_row, &Known::default())?;
//! assert_eq!((read.contact_count, read.error_count), (1, 0));
//! # Ok::<(), mailrail_core::Error>(())
//! ```

mod address;
mod contact;
mod csv;
mod cutter;
mod json;
mod plan;

pub use address::{Checked, check_address};
pub use cutter::{Cutter, Format, Piece};
pub use plan::{Known, Plan, Read};

/// Bytes after which a piece is cut at the next end of a record.
pub const PIECE_BYTES: usize = 768 * 1024;
/// The longest record; a longer one is nearly always a quotation mark that nothing closes.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// The longest value of one column.
pub const FIELD_BYTES_MAX: usize = 10 * 1024;
/// The most columns.
pub const COLUMNS_MAX: usize = 100;
/// What a JSON upload may hold around its contacts, and a CSV upload in its header.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
