//! One port for TLS and plain HTTP, and the life of the process.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::Uri;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::api;
use crate::certificates::Certificates;
use crate::options::Options;
use crate::pump;
use crate::sns::Topic;
use crate::state::State;

/// First byte of a TLS connection: a handshake record. No HTTP method begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// A running simulator. It stops when dropped.
pub struct Simulator {
    runtime: Option<Runtime>,
    pump: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    port: u16,
    ca_pem: String,
}

impl Simulator {
    /// Opens the keys, binds the port and begins to serve. The error is a sentence.
    pub fn start(options: Options) -> Result<Simulator, String> {
        let events_url = parse_url(options.events_url.as_deref())?;
        let certificates = Certificates::open(&options.directory, &options.host)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads)
            .thread_name("simulator")
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start threads: {error}"))?;
        let listener = runtime.block_on(bind(&options))?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let topic = Topic::new(&options.topic_arn, base_url(&options.host, port), certificates.sns);
        let state = Arc::new(State::new(options, topic)?);
        let (stop, stopped) = watch::channel(false);
        let pump = match events_url {
            Some(url) => Some(pump::start(state.clone(), url, stopped)?),
            None => None,
        };
        runtime.spawn(accept(listener, TlsAcceptor::from(certificates.server), state));
        Ok(Simulator { runtime: Some(runtime), pump, stop, port, ca_pem: certificates.ca_pem })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority to trust, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // The receiver is gone where there is no pump.
        let _ = self.stop.send(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_millis(500));
        }
        if let Some(pump) = self.pump.take() {
            // A pump that panicked has nothing left to stop.
            let _ = pump.join();
        }
    }
}

/// Starts a simulator, says so on standard output, and serves until SIGTERM or SIGINT.
pub fn run(options: Options) -> Result<(), String> {
    let simulator = Simulator::start(options)?;
    let Some(runtime) = &simulator.runtime else {
        return Ok(());
    };
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        let listen = |kind| signal(kind).map_err(|error| format!("cannot listen to signals: {error}"));
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?)
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {}", simulator.port)
        .and_then(|()| out.flush())
        .map_err(|error| format!("standard output: {error}"))?;
    drop(out);
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    Ok(())
}

async fn bind(options: &Options) -> Result<TcpListener, String> {
    TcpListener::bind((options.host.as_str(), options.port))
        .await
        .map_err(|error| format!("cannot listen on {}:{}: {error}", options.host, options.port))
}

fn base_url(host: &str, port: u16) -> String {
    if host.contains(':') { format!("http://[{host}]:{port}") } else { format!("http://{host}:{port}") }
}

fn parse_url(url: Option<&str>) -> Result<Option<Uri>, String> {
    url.map(|url| url.parse().map_err(|error| format!("events_url: {error}"))).transpose()
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, tls.clone(), state.clone()))),
            // Most likely out of file descriptors, and then trying at once would only burn the CPU.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, state: Arc<State>) {
    // Without it small answers wait for acknowledgements; failing to set it only makes them slow.
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    let idle = Duration::from_millis(state.options.idle_timeout_ms);
    let Ok(Ok(1)) = tokio::time::timeout(idle, stream.peek(&mut first)).await else {
        return;
    };
    if first[0] == TLS_HANDSHAKE {
        if let Ok(Ok(stream)) = tokio::time::timeout(idle, tls.accept(stream)).await {
            serve_http(stream, state, idle).await;
        }
    } else {
        serve_http(stream, state, idle).await;
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>, idle: Duration) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { api::answer(&state, request).await }
    });
    // A connection that ends in an error is the client's affair; there is nobody to tell.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        // A request that came whole is handled even if its client died meanwhile, as Amazon would.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
