//! One endpoint, a few kept-alive HTTP/1.1 connections, and an exact answer to one question:
//! may a byte of the request have left this machine?
//!
//! A connection is driven by the very task that uses it, not by a task of its own: dropping it
//! closes the socket there and then, after which the count of bytes that the kernel took is final.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::TlsConnector;

use super::outcome::Answer;
use crate::error::{Error, Result};

/// AWS endpoints close connections that were idle for about a minute; a request that meets such
/// a close is ambiguous, so idle ones are dropped well before.
const LONGEST_IDLE: Duration = Duration::from_secs(20);
/// Answers of the sending operations are a few KB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Where to connect and how much at once.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// `https://host[:port]` or `http://host[:port]`.
    pub endpoint: String,
    /// Certificates to trust instead of the public ones, as PEM.
    pub ca_pem: Option<String>,
    /// How many calls may be under way at the same time.
    pub max_connections: usize,
}

/// The pool.
pub struct Transport {
    endpoint: Endpoint,
    tls: Option<TlsConnector>,
    slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

/// Permission to have one call under way.
pub struct Slot<'a> {
    _permit: SemaphorePermit<'a>,
}

/// How a request ended.
#[derive(Debug)]
pub enum Exchange {
    /// SES answered.
    Answered(Answer),
    /// No byte of the request was written, for this reason.
    NotWritten(String),
    /// It may have been read by SES, and there is no answer, for this reason.
    NoAnswer(String),
}

impl Transport {
    /// Checks the options; connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::config`] for an endpoint that is no http(s) origin or certificates that cannot
    /// be read.
    pub fn new(options: &TransportOptions) -> Result<Self> {
        if !(1..=Semaphore::MAX_PERMITS).contains(&options.max_connections) {
            return Err(Error::config("max_connections must be at least 1"));
        }
        let endpoint = Endpoint::parse(&options.endpoint)?;
        let tls = match endpoint.server_name {
            Some(_) => Some(connector(options.ca_pem.as_deref())?),
            None => None,
        };
        let slots = Semaphore::new(options.max_connections);
        Ok(Self { endpoint, tls, slots, idle: Mutex::new(Vec::new()) })
    }

    /// The value of the `host` header.
    pub fn host_header(&self) -> &str {
        &self.endpoint.host_header
    }

    /// Waits until fewer than `max_connections` calls are under way.
    pub async fn slot(&self) -> Slot<'_> {
        // The semaphore is never closed, so there is always a permit in the end.
        Slot { _permit: self.slots.acquire().await.expect("the semaphore stays open") }
    }

    /// A connection that is open as far as can be known: a rested one, else a new one.
    ///
    /// # Errors
    /// A short reason; nothing was sent then.
    pub async fn connect(&self, timeout: Duration) -> std::result::Result<Connection, String> {
        while let Some(mut connection) = self.take_idle() {
            if connection.is_open().await {
                return Ok(connection);
            }
        }
        match tokio::time::timeout(timeout, self.connect_anew()).await {
            Ok(connected) => connected,
            Err(_) => Err("connecting timed out".into()),
        }
    }

    /// Puts a connection to rest for the next call, if it can take one.
    pub async fn rest(&self, mut connection: Connection) {
        if connection.is_open().await {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            connection.is_new = false;
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// The connection that was used last, so that spare ones grow old and are dropped.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|rested| rested.since.elapsed() < LONGEST_IDLE);
        idle.pop().map(|rested| rested.connection)
    }

    async fn connect_anew(&self) -> std::result::Result<Connection, String> {
        let address = (self.endpoint.host.as_str(), self.endpoint.port);
        let tcp = TcpStream::connect(address).await.map_err(|error| format!("could not connect: {error}"))?;
        tcp.set_nodelay(true).map_err(|error| format!("could not connect: {error}"))?;
        let traffic = Arc::new(Traffic::default());
        let counted = Counted { tcp, traffic: traffic.clone() };
        let stream: Box<dyn Stream> = match (&self.tls, &self.endpoint.server_name) {
            (Some(tls), Some(name)) => {
                Box::new(tls.connect(name.clone(), counted).await.map_err(|error| format!("TLS failed: {error}"))?)
            }
            _ => Box::new(counted),
        };
        let (sender, driver) = http1::Builder::new()
            .writev(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("could not connect: {error}"))?;
        let driver = Driver { connection: Some(Box::new(driver)) };
        Ok(Connection { sender, driver, traffic, is_new: true })
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A scheme, a host and a port.
struct Endpoint {
    host: String,
    port: u16,
    host_header: String,
    /// Present for https.
    server_name: Option<ServerName<'static>>,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::config(format!("the SES endpoint {text:?} {why}"));
        let uri: http::Uri = text.parse().map_err(|_| bad("is not a URL"))?;
        let default_port = match uri.scheme_str() {
            Some("https") => 443,
            Some("http") => 80,
            _ => return Err(bad("must begin with https:// or http://")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("must not have a path"));
        }
        let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("must not have credentials"));
        }
        let bracketed = authority.host();
        let host = bracketed.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(default_port);
        let host_header = if port == default_port { bracketed.to_owned() } else { format!("{bracketed}:{port}") };
        let server_name = match default_port {
            443 => Some(ServerName::try_from(host.clone()).map_err(|_| bad("has a host that TLS cannot name"))?),
            _ => None,
        };
        Ok(Self { host, port, host_header, server_name })
    }
}

fn connector(ca_pem: Option<&str>) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    match ca_pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| Error::config("ca_pem is not PEM"))?;
                roots.add(certificate).map_err(|_| Error::config("ca_pem has an unreadable certificate"))?;
            }
            if roots.is_empty() {
                return Err(Error::config("ca_pem has no certificate"));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::config(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// An HTTP/1.1 connection that only its user drives.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    traffic: Arc<Traffic>,
    is_new: bool,
}

impl Connection {
    /// Whether it has never been at rest, so that nobody had time to close it.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Sends one request and reads its answer within `timeout`. Calls `on_sent` once the kernel has
    /// taken the whole request, before any answer is looked at. Gives the connection back when it
    /// may be used again.
    pub async fn exchange(
        mut self,
        request: http::Request<Full<Bytes>>,
        timeout: Duration,
        on_sent: impl FnOnce() + Send,
    ) -> (Exchange, Option<Self>) {
        let written_before = self.traffic.written.load(Ordering::SeqCst);
        let result = tokio::time::timeout(timeout, self.send_and_read(request, on_sent)).await;
        let reason = match result {
            Ok(Ok(answer)) => return (Exchange::Answered(answer), Some(self)),
            Ok(Err(Failure::GivenBack(reason))) => return (Exchange::NotWritten(reason), None),
            Ok(Err(Failure::Broken(reason))) => reason,
            Err(_) => format!("no answer within {} ms", timeout.as_millis()),
        };
        let traffic = self.traffic.clone();
        // Closes the socket: nothing is written after this, so the count below is final.
        drop(self);
        if traffic.written.load(Ordering::SeqCst) == written_before {
            return (Exchange::NotWritten(reason), None);
        }
        (Exchange::NoAnswer(reason), None)
    }

    async fn send_and_read(
        &mut self,
        request: http::Request<Full<Bytes>>,
        on_sent: impl FnOnce() + Send,
    ) -> std::result::Result<Answer, Failure> {
        let written_before = self.traffic.written.load(Ordering::SeqCst);
        let mut on_sent = Some(on_sent);
        let watch = || {
            // The request is flushed as a whole, and nothing else is written meanwhile.
            if self.traffic.flushed.load(Ordering::SeqCst) > written_before
                && let Some(on_sent) = on_sent.take()
            {
                on_sent();
            }
        };
        let reply = self.sender.try_send_request(request);
        let reply = self.driver.run(reply, watch).await.map_err(|mut error| match error.take_message() {
            Some(_) => Failure::GivenBack("the connection was closed before the request".into()),
            None => Failure::Broken(describe(&error.into_error())),
        })?;
        let (head, body) = reply.into_parts();
        let error_type = head.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let error_type = error_type.unwrap_or_default().to_owned();
        // A body that breaks off still leaves a status to judge by.
        let body = self.driver.run(Limited::new(body, MAX_ANSWER_BYTES).collect(), || ()).await;
        let body = body.ok().map(http_body_util::Collected::to_bytes);
        Ok(Answer { status: head.status.as_u16(), error_type, body })
    }

    /// Whether the connection, as far as this side can see, takes another request.
    async fn is_open(&mut self) -> bool {
        self.driver.settle().await;
        self.driver.connection.is_some() && self.sender.is_ready()
    }
}

enum Failure {
    /// The request came back unread.
    GivenBack(String),
    /// The connection failed at some point.
    Broken(String),
}

fn describe(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        "the connection was closed before an answer".into()
    } else if error.is_parse() {
        "the answer was not HTTP".into()
    } else {
        format!("the connection broke: {error}")
    }
}

type Wire = http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>;

/// The half of a connection that does the reading and writing; `None` once it has ended.
struct Driver {
    connection: Option<Box<Wire>>,
}

impl Driver {
    /// Moves the connection along until `future` is done; `watch` looks on after each step.
    async fn run<F: Future>(&mut self, future: F, mut watch: impl FnMut()) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            self.poll(context);
            watch();
            // Also after the end of the connection: it may have delivered its last answer.
            let polled = future.as_mut().poll(context);
            if polled.is_pending() {
                // The future may just have made room or asked for more.
                self.poll(context);
                watch();
            }
            polled
        })
        .await
    }

    /// Lets the connection notice what has already happened, a close above all.
    async fn settle(&mut self) {
        poll_fn(|context| {
            self.poll(context);
            Poll::Ready(())
        })
        .await;
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(context).is_ready()
        {
            // Its error, if any, also reaches the request in flight.
            self.connection = None;
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What went out through a connection so far.
#[derive(Debug, Default)]
struct Traffic {
    /// Bytes that the kernel took.
    written: AtomicU64,
    /// How many of them there were when nothing was left to write, the last time.
    flushed: AtomicU64,
}

/// A TCP stream that counts.
struct Counted {
    tcp: TcpStream,
    traffic: Arc<Traffic>,
}

impl Counted {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.traffic.written.fetch_add(*bytes as u64, Ordering::SeqCst);
        }
        written
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever writes flushes after the last byte of what it has: hyper a request, rustls its records.
        let written = self.traffic.written.load(Ordering::SeqCst);
        self.traffic.flushed.store(written, Ordering::SeqCst);
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, u16, String, bool) {
        let endpoint = Endpoint::parse(text).unwrap();
        (endpoint.host, endpoint.port, endpoint.host_header, endpoint.server_name.is_some())
    }

    #[test]
    fn endpoints_are_origins() {
        let aws = "email.eu-west-1.amazonaws.com";
        assert_eq!(parsed(&format!("https://{aws}")), (aws.into(), 443, aws.into(), true));
        assert_eq!(parsed("http://127.0.0.1:8080/"), ("127.0.0.1".into(), 8080, "127.0.0.1:8080".into(), false));
        assert_eq!(parsed("https://[::1]:9443"), ("::1".into(), 9443, "[::1]:9443".into(), true));
        for bad in ["", "email.com", "ftp://a", "https://a/b", "https://a?b", "https://u:p@a", "https://"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_are_checked() {
        let options = |ca_pem: Option<&str>, max_connections| TransportOptions {
            endpoint: "https://localhost".into(),
            ca_pem: ca_pem.map(str::to_owned),
            max_connections,
        };
        assert!(Transport::new(&options(None, 1)).is_ok());
        assert!(Transport::new(&options(None, 0)).is_err());
        assert!(Transport::new(&options(Some("no certificate here"), 1)).is_err());
    }
}
