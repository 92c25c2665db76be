//! Ids and tokens.

use mailrail_core::token::TokenKeys;
use pyo3::prelude::*;

/// Ids and tokens under the keys of one secret.
#[pyclass(frozen, module = "mailrail._core")]
pub struct Codec {
    pub keys: TokenKeys,
}

#[pymethods]
impl Codec {
    #[new]
    fn new(secret: &[u8]) -> Self {
        Self { keys: TokenKeys::derive(secret) }
    }

    // Ids are bigint in PostgreSQL and keep their bits on the way through the unsigned block.
    #[pyo3(signature = (prefix, id, seq = 0, attempt = 0))]
    fn encode_id(&self, prefix: &str, id: i64, seq: u32, attempt: u16) -> String {
        self.keys.encode_id(prefix, id as u64, seq, attempt)
    }

    fn encode_ids(&self, py: Python<'_>, prefix: &str, ids: Vec<i64>) -> Vec<String> {
        py.detach(|| ids.into_iter().map(|id| self.keys.encode_id(prefix, id as u64, 0, 0)).collect())
    }

    fn decode_id(&self, prefix: &str, text: &str) -> Option<(i64, u32, u16)> {
        self.keys.decode_id(prefix, text).map(|(id, seq, attempt)| (id as i64, seq, attempt))
    }

    fn tag(&self, stream_id: i64, seq: i32, attempt: i16) -> String {
        self.keys.tag(stream_id, seq, attempt)
    }

    fn read_track_token(&self, token: &str) -> Option<(i64, i32)> {
        self.keys.read_track_token(token)
    }

    fn read_unsubscribe_token(&self, token: &str) -> Option<(i64, i64, i64, i64, i32)> {
        self.keys.read_unsubscribe_token(token)
    }

    fn track_token(&self, stream_id: i64, seq: i32) -> String {
        self.keys.track_token(stream_id, seq)
    }

    fn unsubscribe_token(&self, account_id: i64, contact_id: i64, list_id: i64, stream_id: i64, seq: i32) -> String {
        self.keys.unsubscribe_token(account_id, contact_id, list_id, stream_id, seq)
    }

    fn confirm_token(&self, account_id: i64, contact_id: i64, list_id: i64, expires_s: i64) -> String {
        self.keys.confirm_token(account_id, contact_id, list_id, expires_s)
    }

    fn read_confirm_token(&self, token: &str) -> Option<(i64, i64, i64, i64)> {
        self.keys.read_confirm_token(token)
    }
}
