//! A simulator to test, and a client that signs with code of its own.

// Each test binary uses a part of this.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use mailrail_simulator::{Options, Simulator};
use serde_json::{Value, json};

/// Where bulk sends go.
pub const BULK: &str = "/v2/email/outbound-bulk-emails";
/// Where single sends go.
pub const SEND: &str = "/v2/email/outbound-emails";

/// A running simulator and its directory, which goes away with it.
pub struct Running {
    pub simulator: Simulator,
    pub directory: PathBuf,
}

/// An answer, as it came over the wire.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub text: String,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// A directory of the test's own.
pub fn directory() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("mailrail-simulator-{}-{number}", std::process::id()))
}

/// Starts a simulator with options on top of the defaults.
pub fn start(mut options: Value) -> Running {
    let directory = directory();
    options["directory"] = json!(directory);
    let options = Options::read(options.to_string().as_bytes()).expect("good options");
    Running { simulator: Simulator::start(options).expect("starts"), directory }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Running {
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.simulator.port())).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream
    }

    /// A signed request on a connection of its own.
    pub fn signed(&self, method: &str, path: &str, body: &str) -> Reply {
        self.try_signed(method, path, body).expect("an answer")
    }

    /// A signed request that may get no answer.
    pub fn try_signed(&self, method: &str, path: &str, body: &str) -> Option<Reply> {
        exchange(&mut self.connect(), &signed_request(method, path, body, now_s()))
    }

    /// A signed POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.signed("POST", path, &body.to_string())
    }

    /// An unsigned request.
    pub fn plain(&self, method: &str, path: &str, body: &str) -> Reply {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        exchange(&mut self.connect(), request.as_bytes()).expect("an answer")
    }

    pub fn get(&self, path: &str) -> Value {
        let reply = self.plain("GET", path, "");
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        reply.json()
    }

    pub fn faults(&self, menu: &Value) {
        let reply = self.plain("PUT", "/_simulator/faults", &menu.to_string());
        assert_eq!(reply.status, 200, "{}", reply.text);
    }

    /// The mails to an address.
    pub fn mails_to(&self, address: &str) -> Vec<Value> {
        let list = self.get(&format!("/_simulator/messages?to={address}"));
        list.as_array().expect("a list").clone()
    }

    /// How many recipients were accepted.
    pub fn accepted(&self) -> u64 {
        self.get("/_simulator/stats")["accepted"].as_u64().expect("a count")
    }

    /// Waits until the event counters say so.
    pub fn wait_for_events(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let events = self.get("/_simulator/stats")["events"].clone();
            if holds(&events) {
                return events;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{what}: {events}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Writes a request and reads its answer; `None` if the connection closes instead.
pub fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Option<Reply> {
    stream.write_all(request).ok()?;
    stream.flush().ok()?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let reply = Reply { status: head.split(' ').nth(1)?.parse().ok()?, head, text: String::new() };
            let length: usize = reply.header("content-length").map_or(0, |length| length.parse().expect("a length"));
            if bytes.len() >= end + 4 + length {
                let text = String::from_utf8_lossy(&bytes[end + 4..end + 4 + length]).into_owned();
                return Some(Reply { text, ..reply });
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// `20260102T030405Z` of a time, by counting days: slow and obvious.
pub fn basic_time(seconds: u64) -> String {
    let (mut year, mut day) = (1970, seconds / 86_400);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{:02}{:02}T{hour:02}{minute:02}{second:02}Z", month + 1, day + 1)
}

/// A request signed with the default credential. `path` is percent-encoded once and has no query.
pub fn signed_request(method: &str, path: &str, body: &str, at_s: u64) -> Vec<u8> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let time = basic_time(at_s);
    let date = &time[..8];
    let scope = format!("{date}/us-east-1/ses/aws4_request");
    let body_hash = hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref());
    let canonical = format!(
        "{method}\n{}\n\ncontent-type:application/json\nhost:localhost\nx-amz-date:{time}\n\ncontent-type;host;x-amz-date\n{body_hash}",
        path.replace('%', "%25")
    );
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
    );
    let sign =
        |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let key = ["us-east-1", "ses", "aws4_request"]
        .iter()
        .fold(sign(b"AWS4mailrail-simulator-secret", date), |key, part| sign(&key, part));
    let signature = hex(&sign(&key, &to_sign));
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nx-amz-date: {time}\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=mailrail-simulator/{scope}, \
         SignedHeaders=content-type;host;x-amz-date, Signature={signature}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A bulk request with one entry per address and one slot.
pub fn bulk(addresses: &[&str]) -> Value {
    let entries: Vec<Value> = addresses.iter().map(|address| entry(address, &json!({"a": "x"}))).collect();
    json!({
        "FromEmailAddress": "Acme <news@example.com>",
        "ConfigurationSetName": "mailrail",
        "DefaultContent": {"Template": {"TemplateContent": {"Subject": "Hi {{a}}", "Html": "<p>{{a}}</p>", "Text": "{{a}}"}, "TemplateData": "{}"}},
        "BulkEmailEntries": entries,
    })
}

/// One entry of a bulk request, with an id made from the address.
pub fn entry(address: &str, data: &Value) -> Value {
    json!({
        "Destination": {"ToAddresses": [address]},
        "ReplacementEmailContent": {"ReplacementTemplate": {"ReplacementTemplateData": data.to_string()}},
        "ReplacementHeaders": [{"Name": "X-Mailrail-Id", "Value": format!("eml_{address}")}],
        "ReplacementTags": [{"Name": "mr", "Value": "tag"}],
    })
}

/// A SendEmail request with simple content.
pub fn simple(address: &str) -> Value {
    json!({
        "FromEmailAddress": "news@example.com",
        "ConfigurationSetName": "mailrail",
        "Destination": {"ToAddresses": [address]},
        "Content": {"Simple": {
            "Subject": {"Data": "Été", "Charset": "UTF-8"},
            "Body": {"Html": {"Data": "<p>é</p>", "Charset": "UTF-8"}, "Text": {"Data": "é"}},
            "Headers": [{"Name": "X-Mailrail-Id", "Value": format!("eml_{address}")}],
        }},
        "EmailTags": [{"Name": "mr", "Value": "tag"}],
    })
}

/// Refuses with an error of SES, and says so in all three places.
pub fn assert_error(reply: &Reply, status: u16, kind: &str) {
    assert_eq!((reply.status, reply.header("x-amzn-errortype")), (status, Some(kind)), "{}", reply.text);
    assert!(reply.json()["message"].is_string());
    assert!(reply.header("x-amzn-requestid").is_some());
}

/// A web server that takes SNS posts, answers with a status that can be changed, and keeps what it got.
pub struct Subscriber {
    pub port: u16,
    pub posts: Arc<Mutex<Vec<Reply>>>,
    status: Arc<Mutex<u16>>,
}

impl Subscriber {
    pub fn start() -> Subscriber {
        Subscriber::on(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    pub fn on(listener: TcpListener) -> Subscriber {
        let port = listener.local_addr().expect("an address").port();
        let posts = Arc::new(Mutex::new(Vec::new()));
        let status = Arc::new(Mutex::new(200));
        let (kept, answer) = (posts.clone(), status.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answer) = (kept.clone(), answer.clone());
                std::thread::spawn(move || serve_posts(stream, &kept, &answer));
            }
        });
        Subscriber { port, posts, status }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/events/ses", self.port)
    }

    pub fn answer_with(&self, status: u16) {
        *self.status.lock().expect("unpoisoned") = status;
    }

    /// The bodies of all posts of a type, once there are `count`.
    pub fn wait_for(&self, message_type: &str, count: usize) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let found: Vec<Value> = {
                let posts = self.posts.lock().expect("unpoisoned");
                let of_type = |post: &&Reply| post.header("x-amz-sns-message-type") == Some(message_type);
                posts.iter().filter(of_type).map(Reply::json).collect()
            };
            if found.len() >= count {
                return found;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{} of {count} {message_type}", found.len());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The events inside all notifications, once there are `count`.
    pub fn events(&self, count: usize) -> Vec<Value> {
        self.wait_for("Notification", count)
            .iter()
            .map(|envelope| serde_json::from_str(envelope["Message"].as_str().expect("text")).expect("JSON"))
            .collect()
    }

    /// Confirms the subscription of a simulator that posts here.
    pub fn confirm(&self, running: &Running) {
        let envelope = &self.wait_for("SubscriptionConfirmation", 1)[0];
        let url = envelope["SubscribeURL"].as_str().expect("a URL").to_owned();
        let path = url.strip_prefix(&format!("http://127.0.0.1:{}", running.simulator.port())).expect("our host");
        assert_eq!(running.plain("GET", path, "").status, 200);
    }
}

fn serve_posts(mut stream: TcpStream, kept: &Mutex<Vec<Reply>>, answer: &Mutex<u16>) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut post = Reply { status: 0, head, text: String::new() };
        let length: usize = post.header("content-length").expect("a length").parse().expect("a number");
        while bytes.len() < end + 4 + length {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        post.text = String::from_utf8_lossy(&bytes[end + 4..end + 4 + length]).into_owned();
        bytes.drain(..end + 4 + length);
        let status = *answer.lock().expect("unpoisoned");
        if status < 500 {
            kept.lock().expect("unpoisoned").push(post);
        }
        let _ = write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\nok");
    }
}

/// Whether a path is there, and nobody else may read it.
pub fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777 == 0o600
}
