//! Templates: frozen once per campaign, compiled once per process.

use std::sync::Arc;

use mailrail_core::plan;
use pyo3::prelude::*;

use crate::codec::Codec;
use crate::errors::raised;

/// A stream's compiled content.
#[pyclass(frozen, module = "mailrail._core")]
pub struct Plan {
    pub core: Arc<plan::Plan>,
}

#[pymethods]
impl Plan {
    #[new]
    fn new(py: Python<'_>, frozen: &[u8], stream: &[u8], codec: &Bound<'_, Codec>) -> PyResult<Self> {
        let keys = codec.get().keys.clone();
        let core = py.detach(|| plan::Plan::from_json(frozen, stream, keys));
        Ok(Self { core: Arc::new(core.map_err(|error| raised(py, error))?) })
    }

    fn preview(&self, py: Python<'_>, contact: &[u8]) -> PyResult<Vec<u8>> {
        py.detach(|| self.core.preview(contact)).map_err(|error| raised(py, error))
    }
}

/// Freezes a campaign's content.
#[pyfunction]
pub fn freeze(py: Python<'_>, content: &[u8]) -> PyResult<Vec<u8>> {
    py.detach(|| plan::freeze_json(content)).map_err(|error| raised(py, error))
}
