//! Sending: one `Sender` per process, a `Lease` per claim, a `Report` per round.

use std::collections::BTreeMap;
use std::sync::Arc;

use mailrail_core::copy::Bytes;
use mailrail_core::ses::sigv4::Credentials;
use mailrail_core::{batch, lease, mail};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::codec::Codec;
use crate::errors::raised;
use crate::plan::Plan;
use crate::runtime;

/// A deadline on CLOCK_BOOTTIME.
#[pyclass(frozen, module = "mailrail._core")]
pub struct Lease {
    core: lease::Lease,
}

#[pymethods]
impl Lease {
    #[new]
    fn new(deadline_ns: u64) -> Self {
        Self { core: lease::Lease::new(deadline_ns) }
    }

    fn extend(&self, deadline_ns: u64) {
        self.core.extend(deadline_ns);
    }

    #[staticmethod]
    fn now_ns() -> u64 {
        lease::now_ns()
    }
}

/// Connections and credentials of one process.
#[pyclass(frozen, module = "mailrail._core")]
pub struct Sender {
    core: Arc<mailrail_core::ses::Sender>,
}

#[pymethods]
impl Sender {
    #[new]
    fn new(py: Python<'_>, options: &[u8]) -> PyResult<Self> {
        let core = py.detach(|| mailrail_core::ses::Sender::from_json(options));
        Ok(Self { core: Arc::new(core.map_err(|error| raised(py, error))?) })
    }

    #[pyo3(signature = (access_key, secret_key, session_token))]
    fn set_credentials(
        &self,
        py: Python<'_>,
        access_key: String,
        secret_key: String,
        session_token: Option<String>,
    ) -> PyResult<()> {
        let credentials = Credentials { access_key, secret_key, session_token };
        self.core.set_credentials(credentials).map_err(|error| raised(py, error))
    }

    fn submit_mails<'py>(
        &self,
        py: Python<'py>,
        identity: &[u8],
        rows: PyBackedBytes,
        lease: &Bound<'py, Lease>,
        codec: &Bound<'py, Codec>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let identity = mail::Identity::from_json(identity).map_err(|error| raised(py, error))?;
        let (sender, keys, lease) = (self.core.clone(), codec.get().keys.clone(), lease.get().core.clone());
        let work = mail::submit(sender, identity, Bytes::from_owner(rows), lease, keys);
        runtime::awaitable(py, work, |py, report| match report {
            Ok(report) => Ok(Py::new(py, Report::new(py, report))?.into_any()),
            Err(error) => Err(raised(py, error)),
        })
    }

    fn submit<'py>(
        &self,
        py: Python<'py>,
        plan: &Bound<'py, Plan>,
        rows: PyBackedBytes,
        lease: &Bound<'py, Lease>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (sender, plan, lease) = (self.core.clone(), plan.get().core.clone(), lease.get().core.clone());
        // The rows stay where Python put them; nobody can change a bytes object.
        let work = batch::submit(sender, plan, Bytes::from_owner(rows), lease);
        runtime::awaitable(py, work, |py, report| match report {
            Ok(report) => Ok(Py::new(py, Report::new(py, report))?.into_any()),
            Err(error) => Err(raised(py, error)),
        })
    }
}

/// What a round came to.
#[pyclass(frozen, get_all, module = "mailrail._core")]
pub struct Report {
    outcomes: Py<PyBytes>,
    counts: BTreeMap<i16, u64>,
    throttled: u64,
    daily_quota_hit: bool,
    accepted_ranges: Py<PyBytes>,
    slots_recipients: u64,
    simple_recipients: u64,
    calls: u64,
    render_ns: u64,
    sign_ns: u64,
    call_ns: u64,
}

#[pymethods]
impl Report {
    #[getter]
    fn rows(&self, py: Python<'_>) -> PyResult<Vec<batch::Answer>> {
        batch::Report::answers(self.outcomes.bind(py).as_bytes()).map_err(|error| raised(py, error))
    }
}

impl Report {
    fn new(py: Python<'_>, report: batch::Report) -> Self {
        Self {
            outcomes: PyBytes::new(py, &report.outcomes).unbind(),
            counts: report.counts,
            throttled: report.throttled,
            daily_quota_hit: report.daily_quota_hit,
            accepted_ranges: PyBytes::new(py, &report.accepted_ranges).unbind(),
            slots_recipients: report.slots_recipients,
            simple_recipients: report.simple_recipients,
            calls: report.calls,
            render_ns: report.render_ns,
            sign_ns: report.sign_ns,
            call_ns: report.call_ns,
        }
    }
}
