//! Amazon SES: what is written, how it is signed, and what the answers mean.

pub mod json;
pub mod outcome;
pub mod request;
pub mod sigv4;
pub mod trace;
pub mod transport;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::Full;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::lease::{Lease, now_ns};
use outcome::Answer;
use request::Request;
use sigv4::{Credentials, Signable, SignedHeaders, Signer};
use trace::{Carried, Trace};
use transport::{Exchange, Transport, TransportOptions};

const USER_AGENT_VALUE: HeaderValue = HeaderValue::from_static(concat!("mailrail/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// From here on a call is held to have lain still. Far below any age at which SES refuses a signature, far above what a
/// busy machine takes.
const STALL: Duration = Duration::from_secs(1);

/// What a [`Sender`] needs to know from the start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SenderOptions {
    /// `https://…` (AWS) or `http://…` (a stand-in).
    pub endpoint: String,
    /// AWS region, e.g. `eu-west-1`; part of the signature.
    pub region: String,
    /// Certificates to trust instead of the public ones, as PEM.
    #[serde(default)]
    pub ca_pem: Option<String>,
    /// How many calls may be under way at the same time; 16 unless given.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// Longest time from the first byte of a request to the last of its answer, milliseconds;
    /// 10,000 unless given. Connecting may take as long again.
    #[serde(default = "default_call_timeout_ms")]
    pub call_timeout_ms: u64,
}

fn default_max_connections() -> usize {
    16
}

fn default_call_timeout_ms() -> u64 {
    10_000
}

/// Connections and credentials of one process towards one SES region.
pub struct Sender {
    transport: Transport,
    region: String,
    signer: RwLock<Option<Arc<Signer>>>,
    max_connections: usize,
    call_timeout: Duration,
    host: HeaderValue,
}

/// How a call ended.
#[derive(Debug)]
pub enum Ending {
    /// SES answered.
    Answered(Answer),
    /// The lease would not have outlived the call, so no byte was written.
    LeaseOver,
    /// No connection took the request; surely not accepted.
    NotConnected(String),
    /// Something was written and no answer came; perhaps accepted.
    NoAnswer(String),
}

/// The end of a call and what it took.
#[derive(Debug)]
pub struct Call {
    /// How it ended.
    pub ending: Ending,
    /// Time spent on signing.
    pub sign_time: Duration,
    /// Time between the signature and the first byte; a matter of microseconds unless the process was frozen.
    pub still_time: Duration,
    /// Time from the first byte written to the answer; zero when nothing was written.
    pub call_time: Duration,
}

impl Call {
    /// Whether a byte of it may have left.
    pub fn was_written(&self) -> bool {
        matches!(self.ending, Ending::Answered(_) | Ending::NoAnswer(_))
    }

    /// Whether its signature may have grown too old before the first byte left.
    pub fn stalled(&self) -> bool {
        self.still_time >= STALL
    }
}

impl Sender {
    /// A sender for options as JSON.
    ///
    /// # Errors
    /// [`Error::config`] for JSON that is not [`SenderOptions`], and as [`Sender::new`].
    pub fn from_json(options: &[u8]) -> Result<Self> {
        let options = serde_json::from_slice(options);
        Self::new(options.map_err(|error| Error::config(format!("the sender's options: {error}")))?)
    }

    /// A sender without credentials.
    ///
    /// # Errors
    /// [`Error::config`] when an option cannot be used.
    pub fn new(options: SenderOptions) -> Result<Self> {
        if options.call_timeout_ms == 0 {
            return Err(Error::config("call_timeout_ms must be above 0"));
        }
        let transport = Transport::new(&TransportOptions {
            endpoint: options.endpoint,
            ca_pem: options.ca_pem,
            max_connections: options.max_connections,
        })?;
        let host = HeaderValue::from_str(transport.host_header());
        Ok(Self {
            host: host.map_err(|_| Error::config("the SES endpoint has an unusable host"))?,
            transport,
            region: options.region,
            signer: RwLock::new(None),
            max_connections: options.max_connections,
            call_timeout: Duration::from_millis(options.call_timeout_ms),
        })
    }

    /// Sets or replaces the credentials for the calls from now on.
    ///
    /// # Errors
    /// [`Error::config`] when they hold characters that no header can carry.
    pub fn set_credentials(&self, credentials: Credentials) -> Result<()> {
        let token = credentials.session_token.as_deref().unwrap_or_default();
        if [credentials.access_key.as_str(), token].iter().any(|text| HeaderValue::from_str(text).is_err()) {
            return Err(Error::config("the AWS credentials hold characters that no header can carry"));
        }
        let mut signer = self.signer.write().unwrap_or_else(PoisonError::into_inner);
        *signer = Some(Arc::new(Signer::new(credentials, self.region.clone())));
        Ok(())
    }

    /// How many calls may be under way at the same time.
    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// The signer of the present credentials.
    ///
    /// # Errors
    /// [`Error::config`] when none were set.
    pub fn signer(&self) -> Result<Arc<Signer>> {
        let signer = self.signer.read().unwrap_or_else(PoisonError::into_inner);
        signer.clone().ok_or_else(|| Error::config("the sender has no AWS credentials yet"))
    }

    /// Makes one call, exactly once.
    ///
    /// Signs first and looks at the lease after: a process frozen in between wakes up with a
    /// signature that SES no longer takes (it is good for 5 minutes). `about_to_write` is called
    /// right before the first byte may leave. Only a request of which no byte was written is
    /// ever tried again, on a new connection. `carried` is for the history of a test.
    pub async fn call(
        &self,
        request: &Request,
        carried: Carried,
        signer: &Signer,
        lease: &Lease,
        about_to_write: impl Fn() + Send,
    ) -> Call {
        let mut call = Call {
            ending: Ending::NotConnected(String::new()),
            sign_time: Duration::ZERO,
            still_time: Duration::ZERO,
            call_time: Duration::ZERO,
        };
        let _slot = self.transport.slot().await;
        // Those who queued up behind a lease that has ended need not also connect and sign.
        if !lease.covers(self.call_timeout) {
            call.ending = Ending::LeaseOver;
            return call;
        }
        let mut trace = Trace::start(carried);
        loop {
            let connection = match self.transport.connect(self.call_timeout).await {
                Ok(connection) => connection,
                Err(reason) => {
                    call.ending = Ending::NotConnected(reason);
                    break;
                }
            };
            trace.rendered();
            let signing = Instant::now();
            let signed_ns = now_ns();
            let message = self.signed(request, signer);
            call.sign_time += signing.elapsed();
            trace.signed();
            if !lease.covers(self.call_timeout) {
                self.transport.rest(connection).await;
                call.ending = Ending::LeaseOver;
                break;
            }
            let is_new = connection.is_new();
            about_to_write();
            trace.checked();
            call.still_time = Duration::from_nanos(now_ns().saturating_sub(signed_ns));
            let calling = Instant::now();
            let (exchange, connection) = connection.exchange(message, self.call_timeout, || trace.written()).await;
            match exchange {
                Exchange::Answered(answer) => {
                    call.call_time = calling.elapsed();
                    trace.answered();
                    if let Some(connection) = connection {
                        self.transport.rest(connection).await;
                    }
                    call.ending = Ending::Answered(answer);
                    break;
                }
                Exchange::NoAnswer(reason) => {
                    call.call_time = calling.elapsed();
                    call.ending = Ending::NoAnswer(reason);
                    break;
                }
                // A rested connection may turn out closed; with a new one it is the end.
                Exchange::NotWritten(reason) if is_new => {
                    call.ending = Ending::NotConnected(reason);
                    break;
                }
                Exchange::NotWritten(_) => {}
            }
        }
        trace.closed(&call.ending);
        call
    }

    fn signed(&self, request: &Request, signer: &Signer) -> http::Request<Full<bytes::Bytes>> {
        let path = request.operation.path();
        let host = self.transport.host_header();
        let signable = Signable { path, host, body_hash: &request.body_hash };
        let SignedHeaders { date, authorization, session_token } = signer.sign(signable, SystemTime::now());
        let mut message = http::Request::new(Full::new(request.body.clone()));
        *message.method_mut() = http::Method::POST;
        *message.uri_mut() = http::Uri::from_static(path);
        let headers = message.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(USER_AGENT, USER_AGENT_VALUE);
        let mut insert = |name: &'static str, value: String| {
            // Credentials were checked when they were set; the rest is ASCII by construction.
            let value = HeaderValue::try_from(value).expect("signed headers are printable ASCII");
            headers.insert(name, value);
        };
        insert("x-amz-date", date);
        insert("authorization", authorization);
        if let Some(token) = session_token {
            insert("x-amz-security-token", token);
        }
        message
    }
}
