//! Imports of contacts.

use std::collections::HashMap;
use std::sync::Mutex;

use mailrail_core::import::{self, Cutter, Format, Known, Piece, Plan};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::raised;

/// Cuts an upload into pieces.
#[pyclass(frozen, module = "mailrail._core")]
pub struct ImportCutter {
    core: Mutex<Cutter>,
}

#[pymethods]
impl ImportCutter {
    #[new]
    #[pyo3(signature = (format, delimiter=None))]
    fn new(format: &str, delimiter: Option<&str>) -> PyResult<Self> {
        let format = match format {
            "csv" => Format::Csv,
            "json" => Format::Json,
            "jsonl" => Format::JsonLines,
            _ => return Err(PyValueError::new_err("format must be csv, json or jsonl")),
        };
        let delimiter = match delimiter.map(str::as_bytes) {
            None => None,
            Some([byte]) => Some(*byte),
            Some(_) => return Err(PyValueError::new_err("delimiter must be one ASCII character")),
        };
        Ok(Self { core: Mutex::new(Cutter::new(format, delimiter)) })
    }

    fn feed(&self, py: Python<'_>, data: &[u8]) -> PyResult<Vec<ImportPiece>> {
        self.run(py, |cutter| cutter.feed(data))
    }

    fn finish(&self, py: Python<'_>) -> PyResult<Vec<ImportPiece>> {
        self.run(py, Cutter::finish)
    }

    #[getter]
    fn columns(&self) -> PyResult<Option<Vec<String>>> {
        Ok(self.lock()?.columns().map(<[String]>::to_vec))
    }

    #[getter]
    fn delimiter(&self) -> PyResult<Option<char>> {
        Ok(self.lock()?.delimiter().map(char::from))
    }

    #[getter]
    fn envelope<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.lock()?.envelope()))
    }
}

impl ImportCutter {
    fn lock(&self) -> PyResult<std::sync::MutexGuard<'_, Cutter>> {
        // Waiting here would hold the GIL, for which the other call may wait.
        self.core.try_lock().map_err(|_| PyRuntimeError::new_err("another call on this cutter is under way, or failed"))
    }

    fn run(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Cutter) -> mailrail_core::Result<Vec<Piece>> + Send,
    ) -> PyResult<Vec<ImportPiece>> {
        let mut cutter = self.lock()?;
        let cutter = &mut *cutter;
        let pieces = py.detach(|| work(cutter)).map_err(|error| raised(py, error))?;
        Ok(pieces.into_iter().map(|piece| ImportPiece::new(py, &piece)).collect())
    }
}

/// Whole records of an upload.
#[pyclass(frozen, get_all, module = "mailrail._core")]
pub struct ImportPiece {
    body: Py<PyBytes>,
    first_row: u64,
    rows: u32,
}

impl ImportPiece {
    fn new(py: Python<'_>, piece: &Piece) -> Self {
        Self { body: PyBytes::new(py, &piece.body).unbind(), first_row: piece.first_row, rows: piece.rows }
    }
}

/// What the columns or keys of an upload mean.
#[pyclass(frozen, module = "mailrail._core")]
pub struct ImportPlan {
    core: Plan,
}

#[pymethods]
impl ImportPlan {
    #[new]
    fn new(py: Python<'_>, options: &[u8]) -> PyResult<Self> {
        Ok(Self { core: Plan::from_json(options).map_err(|error| raised(py, error))? })
    }

    fn read(
        &self,
        py: Python<'_>,
        piece: &[u8],
        first_row: u64,
        valid: HashMap<String, String>,
        refused: HashMap<String, String>,
    ) -> PyResult<ImportRows> {
        let known = Known { valid, refused };
        let read = py.detach(|| self.core.read(piece, first_row, &known)).map_err(|error| raised(py, error))?;
        Ok(ImportRows {
            contacts: PyBytes::new(py, &read.contacts).unbind(),
            errors: PyBytes::new(py, &read.errors).unbind(),
            contact_count: read.contact_count,
            error_count: read.error_count,
            doubled_count: read.doubled_count,
            field_names: read.field_names,
            unknown: read.unknown,
        })
    }
}

/// The rows of one piece.
#[pyclass(frozen, get_all, module = "mailrail._core")]
pub struct ImportRows {
    contacts: Py<PyBytes>,
    errors: Py<PyBytes>,
    contact_count: usize,
    error_count: usize,
    doubled_count: usize,
    field_names: Vec<String>,
    unknown: Vec<String>,
}

/// Judges one email address.
#[pyfunction]
pub fn check_address(text: &str) -> (Option<String>, Option<&'static str>) {
    match import::check_address(text) {
        import::Checked::Valid(address) => (Some(address), None),
        import::Checked::Refused(reason) => (None, Some(reason)),
        import::Checked::Ask => (None, None),
    }
}
