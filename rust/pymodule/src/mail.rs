//! Single mails: checked once, encoded for sending.

use mailrail_core::mail;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::errors::{mail_error, raised};

/// Checks a mail and makes its stored content.
#[pyfunction]
pub fn prepare_mail(py: Python<'_>, mail: &[u8], options: &[u8]) -> PyResult<Vec<u8>> {
    py.detach(|| mail::prepare(mail, options)).map_err(|refusal| match refusal {
        mail::Refusal::Fields(errors) => mail_error(py, &errors).unwrap_or_else(|failure| failure),
        mail::Refusal::Call(error) => raised(py, error),
    })
}

/// What a template mentions, what is wrong with it, and what it says.
#[pyfunction]
pub fn inspect_template(py: Python<'_>, template: &[u8]) -> PyResult<Vec<u8>> {
    py.detach(|| mail::inspect(template)).map_err(|error| raised(py, error))
}

/// The rows of `Sender.submit_mails`.
#[pyfunction]
pub fn encode_mail_rows(
    py: Python<'_>,
    stream_id: i64,
    seqs: Vec<i32>,
    attempt: i16,
    skips: Vec<Option<i16>>,
    emails: Vec<String>,
    contents: Vec<PyBackedBytes>,
) -> PyResult<Vec<u8>> {
    let encoded = py.detach(|| mail::encode_rows(stream_id, &seqs, attempt, &skips, &emails, &contents));
    encoded.map_err(|error| raised(py, error))
}
