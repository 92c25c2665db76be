//! The SES stand-in as a blocking call.

use pyo3::prelude::*;

use crate::errors::CoreError;

/// Runs the simulator until SIGTERM or SIGINT.
#[pyfunction]
pub fn run_simulator(py: Python<'_>, options: &[u8]) -> PyResult<()> {
    py.detach(|| mailrail_simulator::run(options)).map_err(CoreError::new_err)
}
