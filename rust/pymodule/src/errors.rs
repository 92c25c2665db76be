//! The core's errors as Python exceptions.

use mailrail_core::mail::FieldError;
use mailrail_core::{Error, ErrorKind};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyDict;

create_exception!(mailrail._core, CoreError, PyException, "Something is wrong with a whole call.");
create_exception!(mailrail._core, TemplateError, CoreError, "A template does not compile or breaks a limit.");
create_exception!(mailrail._core, ConfigError, CoreError, "An option is missing or cannot be used.");
create_exception!(mailrail._core, MailError, CoreError, "A mail cannot be sent as it is.");

/// The exception for a mail with these errors.
pub fn mail_error(py: Python<'_>, errors: &[FieldError]) -> PyResult<PyErr> {
    let exception = MailError::new_err(errors.first().map(|error| error.message.clone()).unwrap_or_default());
    let told = errors
        .iter()
        .map(|error| {
            let told = PyDict::new(py);
            told.set_item("param", &error.param)?;
            told.set_item("code", error.code)?;
            told.set_item("message", &error.message)?;
            Ok(told)
        })
        .collect::<PyResult<Vec<_>>>()?;
    exception.value(py).setattr("errors", told)?;
    Ok(exception)
}

/// The exception for `error`, with its attributes.
pub fn raised(py: Python<'_>, error: Error) -> PyErr {
    match error.kind {
        ErrorKind::Template => template_error(py, &error).unwrap_or_else(|failure| failure),
        ErrorKind::Config => ConfigError::new_err(error.to_string()),
        _ => CoreError::new_err(error.to_string()),
    }
}

fn template_error(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let exception = TemplateError::new_err(error.to_string());
    let value = exception.value(py);
    value.setattr("part", error.part)?;
    value.setattr("line", error.line)?;
    value.setattr("reason", &error.detail)?;
    Ok(exception)
}
