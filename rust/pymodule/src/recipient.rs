//! Recipients: one, encoded for sending.

use mailrail_core::copy::{RecipientRow, RecipientRows};
use pyo3::prelude::*;

/// A round of one for `Sender.submit`.
#[pyfunction]
#[pyo3(signature = (
    seq, email, *, attempt=1, skip=None, contact_id=None, name=None, first_name=None, last_name=None,
    custom_fields=None, tracked=true
))]
#[expect(clippy::too_many_arguments, reason = "they are the columns of a row, and given by name")]
pub fn encode_recipient_row(
    seq: i32,
    email: &str,
    attempt: i16,
    skip: Option<i16>,
    contact_id: Option<i64>,
    name: Option<&str>,
    first_name: Option<&str>,
    last_name: Option<&str>,
    custom_fields: Option<&[u8]>,
    tracked: bool,
) -> Vec<u8> {
    let recipient =
        RecipientRow { seq, attempt, skip, contact_id, email, name, first_name, last_name, custom_fields, tracked };
    RecipientRows::encode([recipient], 0)
}
