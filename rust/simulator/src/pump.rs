//! Posts events to the subscriber, on one thread that yields to the requests.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::events;
use crate::sns::Post;
use crate::state::State;

/// Connections to the subscriber.
const CONNECTIONS: usize = 32;
/// How long one event is tried.
const TRY_FOR: Duration = Duration::from_secs(600);
/// The first pause between tries; it doubles up to `events_pause_max_ms`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Between two requests to confirm the subscription while the subscriber does not answer.
const CONFIRM_PAUSE: Duration = Duration::from_secs(1);
/// After an answered request to confirm, how long to wait for the confirmation before asking again.
const CONFIRM_WAIT: Duration = Duration::from_secs(20);
/// An RSA signature costs as much as many sends, so the scheduler prefers everything else.
const NICENESS: i32 = 10;

type Connection = SendRequest<Full<Bytes>>;

/// Starts the pump's thread, which ends when `stop` says so. `url` is `http://…`.
pub fn start(state: Arc<State>, url: Uri, mut stop: watch::Receiver<bool>) -> Result<JoinHandle<()>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the event pump: {error}"))?;
    let subscriber = Arc::new(Subscriber::new(url)?);
    let run = move || {
        lower_priority();
        runtime.block_on(async {
            tokio::select! {
                () = pump(&state, &subscriber) => {}
                _ = stop.wait_for(|stopped| *stopped) => {}
            }
        });
    };
    std::thread::Builder::new()
        .name("events".into())
        .spawn(run)
        .map_err(|error| format!("cannot start the event pump: {error}"))
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // On Linux the priority belongs to the thread; 0 is the calling one. Failing leaves it as it was, which is harmless.
    // SAFETY: setpriority takes plain numbers and touches no memory.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {
    // Elsewhere the priority belongs to the process, and lowering that would slow the requests as well.
    let _ = NICENESS;
}

async fn pump(state: &Arc<State>, subscriber: &Arc<Subscriber>) {
    subscribe(state, subscriber).await;
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (state, subscriber) = (state.clone(), subscriber.clone());
        workers.spawn(async move { post_events(&state, &subscriber).await });
    }
    workers.join_all().await;
}

/// Asks for confirmation until it has come.
async fn subscribe(state: &State, subscriber: &Subscriber) {
    let mut connection = None;
    while !state.topic.is_confirmed() {
        let answered = subscriber.post(&mut connection, &state.topic.confirmation(), state).await;
        if answered.is_ok_and(|status| (200..300).contains(&status)) {
            let asked = Instant::now();
            while !state.topic.is_confirmed() && asked.elapsed() < CONFIRM_WAIT {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        } else {
            tokio::time::sleep(CONFIRM_PAUSE).await;
        }
    }
}

async fn post_events(state: &State, subscriber: &Subscriber) {
    let mut connection = None;
    loop {
        let event = state.events.next().await;
        let post = state.topic.notification(&events::message(state, &event), event.notification);
        deliver(state, subscriber, &mut connection, &post).await;
        state.events.counts.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Tries until the subscriber has answered with 2xx, 3xx or 4xx, or for ten minutes, and counts how it ended.
async fn deliver(state: &State, subscriber: &Subscriber, connection: &mut Option<Connection>, post: &Post) {
    let counts = &state.events.counts;
    let started = Instant::now();
    let longest = Duration::from_millis(state.options.events_pause_max_ms);
    let mut pause = FIRST_PAUSE.min(longest);
    let end = loop {
        match subscriber.post(connection, post, state).await {
            Ok(200..300) => break &counts.posted,
            // SNS takes every status up to 499 as an answer and does not try again.
            Ok(300..500) => break &counts.dropped_4xx,
            Ok(_) | Err(()) => {}
        }
        if started.elapsed() + pause > TRY_FOR {
            break &counts.expired;
        }
        counts.retried.fetch_add(1, Relaxed);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    };
    end.fetch_add(1, Relaxed);
}

struct Subscriber {
    url: Uri,
    /// `host:port` to connect to.
    address: String,
    /// `host` or `host:port` as in the URL.
    authority: String,
}

impl Subscriber {
    fn new(url: Uri) -> Result<Subscriber, String> {
        let authority = url.authority().ok_or("events_url has no host")?.to_string();
        let host = url.host().unwrap_or_default();
        let address = format!("{host}:{}", url.port_u16().unwrap_or(80));
        Ok(Subscriber { url, address, authority })
    }

    /// One try; the status, or an error if there was no answer.
    async fn post(&self, connection: &mut Option<Connection>, post: &Post, state: &State) -> Result<u16, ()> {
        let patience = Duration::from_millis(state.options.events_timeout_ms);
        let answer = tokio::time::timeout(patience, self.exchange(connection, post, state)).await;
        let status = answer.map_err(drop).and_then(|answer| answer);
        if status.is_err() {
            *connection = None;
        }
        status
    }

    async fn exchange(&self, connection: &mut Option<Connection>, post: &Post, state: &State) -> Result<u16, ()> {
        if connection.as_ref().is_none_or(SendRequest::is_closed) {
            *connection = Some(self.connect().await?);
        }
        let Some(open) = connection.as_mut() else {
            return Err(());
        };
        open.ready().await.map_err(drop)?;
        let response = open.send_request(self.request(post, state)?).await.map_err(drop)?;
        let status = response.status().as_u16();
        // The answer is read to its end, or the connection could not be used again.
        response.into_body().collect().await.map_err(drop)?;
        Ok(status)
    }

    async fn connect(&self) -> Result<Connection, ()> {
        let stream = TcpStream::connect(&self.address).await.map_err(drop)?;
        stream.set_nodelay(true).map_err(drop)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(drop)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, post: &Post, state: &State) -> Result<Request<Full<Bytes>>, ()> {
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path)
            .header("host", &self.authority)
            .header("user-agent", "Amazon Simple Notification Service Agent")
            .header("content-type", "text/plain; charset=UTF-8")
            .header("x-amz-sns-message-type", post.message_type)
            .header("x-amz-sns-message-id", &post.message_id)
            .header("x-amz-sns-topic-arn", state.topic.arn());
        if post.message_type == "Notification" {
            request = request.header("x-amz-sns-subscription-arn", state.topic.subscription_arn());
        }
        request.body(Full::new(Bytes::from(post.body.clone()))).map_err(drop)
    }
}
