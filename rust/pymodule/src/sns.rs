//! What comes back from SES by way of SNS.

use mailrail_core::events;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::codec::Codec;
use crate::errors::raised;

/// Checks SNS envelopes.
#[pyclass(frozen, module = "mailrail._core")]
pub struct SnsVerifier {
    core: events::SnsVerifier,
}

#[pymethods]
impl SnsVerifier {
    #[new]
    fn new(py: Python<'_>, topic_arns: Vec<String>, cert_hosts: Vec<String>, max_age_s: i64) -> PyResult<Self> {
        let core = events::SnsVerifier::new(topic_arns, cert_hosts, max_age_s);
        Ok(Self { core: core.map_err(|error| raised(py, error))? })
    }

    fn add_certificate_key(&self, py: Python<'_>, url: &str, spki_der: &[u8]) -> PyResult<()> {
        py.detach(|| self.core.add_certificate_key(url, spki_der)).map_err(|error| raised(py, error))
    }

    fn verify(&self, py: Python<'_>, bodies: Vec<PyBackedBytes>) -> Vec<Envelope> {
        let envelopes = py.detach(|| self.core.verify(&bodies));
        envelopes.into_iter().map(|envelope| Envelope::new(py, envelope)).collect()
    }
}

/// A checked envelope.
#[pyclass(frozen, get_all, module = "mailrail._core")]
pub struct Envelope {
    status: &'static str,
    reason: Option<&'static str>,
    certificate_url: Option<String>,
    #[pyo3(name = "type")]
    kind: String,
    message_id: String,
    topic_arn: String,
    message: Py<PyBytes>,
    token: Option<String>,
    subscribe_url: Option<String>,
}

impl Envelope {
    fn new(py: Python<'_>, envelope: events::Envelope) -> Self {
        Self {
            status: envelope.status.as_str(),
            reason: envelope.reason,
            certificate_url: envelope.certificate_url,
            kind: envelope.kind,
            message_id: envelope.message_id,
            topic_arn: envelope.topic_arn,
            message: PyBytes::new(py, &envelope.message).unbind(),
            token: envelope.token,
            subscribe_url: envelope.subscribe_url,
        }
    }
}

/// Turns SES events into rows.
#[pyfunction]
pub fn parse_events(py: Python<'_>, codec: &Bound<'_, Codec>, rows: &[u8]) -> PyResult<ParsedEvents> {
    let keys = &codec.get().keys;
    let parsed = py.detach(|| events::parse_events(keys, rows)).map_err(|error| raised(py, error))?;
    Ok(ParsedEvents {
        events: PyBytes::new(py, &parsed.events).unbind(),
        parked: PyBytes::new(py, &parsed.parked).unbind(),
        event_count: parsed.event_count,
        parked_count: parsed.parked_count,
    })
}

/// The rows made of a batch of notifications.
#[pyclass(frozen, get_all, module = "mailrail._core")]
pub struct ParsedEvents {
    events: Py<PyBytes>,
    parked: Py<PyBytes>,
    event_count: usize,
    parked_count: usize,
}
