//! `submit` against a scripted HTTP server: what the wire does decides every outcome.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mailrail_core::batch::{self, Report};
use mailrail_core::copy::{Reader, RecipientRow, RecipientRows};
use mailrail_core::lease::{Lease, now_ns};
use mailrail_core::plan::Plan;
use mailrail_core::ses::sigv4::Credentials;
use mailrail_core::ses::{Sender, SenderOptions};
use mailrail_core::token::TokenKeys;
use mailrail_core::{ErrorKind, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const BULK: &str = "/v2/email/outbound-bulk-emails";
const SIMPLE: &str = "/v2/email/outbound-emails";
const STREAM_ID: i64 = (2_900 * 8) << 32 | 7;
const MINUTE_NS: u64 = 60_000_000_000;

const ACCEPTED: i16 = 1;
const NOT_WRITTEN: i16 = 2;
const DEFERRED: i16 = 3;
const FAILED: i16 = 4;
const HALTED: i16 = 5;
const UNKNOWN: i16 = 6;

/// One request as the server saw it.
#[derive(Clone)]
struct Seen {
    path: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

impl Seen {
    fn recipients(&self) -> Vec<String> {
        let to = |holder: &Value| holder["Destination"]["ToAddresses"][0].as_str().unwrap().to_owned();
        match self.body["BulkEmailEntries"].as_array() {
            Some(entries) => entries.iter().map(to).collect(),
            None => vec![to(&self.body)],
        }
    }
}

/// What the server does with a request that it has read whole.
enum Reply {
    Answer(u16, &'static str, String),
    AnswerAndClose(u16, String),
    Close,
    CutShort,
    Silence,
}

type Script = dyn Fn(usize, &Seen) -> Reply + Send + Sync;

struct FakeSes {
    endpoint: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl FakeSes {
    async fn start(script: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (seen, connections, script) = (fake.seen.clone(), fake.connections.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, seen.clone(), script.clone()));
            }
        });
        fake
    }

    fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn sender(&self) -> Arc<Sender> {
        sender_to(&self.endpoint, 2_000)
    }
}

async fn serve(stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>, script: Arc<Script>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        let (status, kind, body, goes_on) = match script(number, &request) {
            Reply::Answer(status, kind, body) => (status, kind, body, true),
            Reply::AnswerAndClose(status, body) => (status, "", body, false),
            Reply::Close => return,
            Reply::CutShort => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"Bulk").await;
                return;
            }
            Reply::Silence => return std::future::pending().await,
        };
        let connection = if goes_on { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 {status} Status\r\nx-amzn-errortype: {kind}\r\nconnection: {connection}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all((head + &body).as_bytes()).await.is_err() || !goes_on {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_owned(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { path, headers, body: serde_json::from_slice(&body).unwrap() })
}

/// Accepts all; the MessageId is the address, so that order can be checked.
fn accept(request: &Seen) -> Reply {
    let ids = request.recipients();
    let body = match request.path.as_str() {
        BULK => {
            let results: Vec<_> = ids.iter().map(|id| json!({"Status": "SUCCESS", "MessageId": id})).collect();
            json!({"BulkEmailEntryResults": results})
        }
        _ => json!({"MessageId": ids[0]}),
    };
    Reply::Answer(200, "", body.to_string())
}

fn refuse(status: u16, kind: &'static str, message: &str) -> Reply {
    Reply::Answer(status, kind, json!({"message": message}).to_string())
}

fn sender_to(endpoint: &str, call_timeout_ms: u64) -> Arc<Sender> {
    let sender = Sender::new(SenderOptions {
        endpoint: endpoint.to_owned(),
        region: "us-east-1".into(),
        ca_pem: None,
        max_connections: 2,
        call_timeout_ms,
    });
    let sender = sender.unwrap();
    let credentials = Credentials {
        access_key: "AKIDEXAMPLE".into(),
        secret_key: "secret".into(),
        session_token: Some("session".into()),
    };
    sender.set_credentials(credentials).unwrap();
    Arc::new(sender)
}

fn plan(mode: &str) -> Arc<Plan> {
    let frozen = json!({
        "subject": "Hello {{ firstName }}",
        "html": "<body><p>Dear {{ firstName }}, <a href=\"{{ unsubscribeUrl }}\">bye</a></p></body>",
        "text": "Dear {{ firstName }}, {{ unsubscribeUrl }}",
        "links": [],
        "variables": [],
    });
    let stream = json!({
        "stream_id": STREAM_ID, "account_id": 1, "list_id": 2, "from_name": "Acme", "from_email": "news@example.com",
        "reply_to": [], "configuration_set": "mailrail", "base_url": "https://t.example.com", "mode": mode,
    });
    let frozen = serde_json::from_value(frozen).unwrap();
    let stream = serde_json::from_value(stream).unwrap();
    Arc::new(Plan::compile(frozen, stream, TokenKeys::derive(b"a secret of the tests")).unwrap())
}

fn address(seq: i32) -> String {
    format!("r{seq}@example.net")
}

fn rows_with(count: i32, skip: impl Fn(i32) -> Option<i16>, email: impl Fn(i32) -> String) -> Vec<u8> {
    let emails: Vec<String> = (1..=count).map(email).collect();
    let recipients = (1..).zip(&emails).map(|(seq, email)| RecipientRow {
        seq,
        attempt: 1,
        skip: skip(seq),
        contact_id: Some(1_000 + i64::from(seq)),
        email,
        name: Some("Ann Lee"),
        first_name: Some("Ann"),
        last_name: None,
        custom_fields: Some(b"{\"city\": \"Bern\"}"),
        tracked: true,
    });
    RecipientRows::encode(recipients, 0)
}

fn rows(count: i32) -> Vec<u8> {
    rows_with(count, |_| None, address)
}

fn live_lease() -> Lease {
    Lease::new(now_ns() + MINUTE_NS)
}

async fn submit(sender: &Arc<Sender>, mode: &str, rows: Vec<u8>) -> Result<Report> {
    batch::submit(sender.clone(), plan(mode), rows.into(), live_lease()).await
}

/// (seq, outcome, message id, error) of every outcome row.
fn outcomes(report: &Report) -> Vec<(i32, i16, Option<String>, Option<String>)> {
    let mut reader = Reader::open(&report.outcomes).unwrap();
    let mut all = Vec::new();
    while let Some(mut row) = reader.next_row(7).unwrap() {
        assert_eq!(row.int8("stream_id").unwrap(), Some(STREAM_ID));
        let seq = row.int4("seq").unwrap().unwrap();
        assert_eq!(row.int2("attempt").unwrap(), Some(1));
        let outcome = row.int2("outcome").unwrap().unwrap();
        let id = row.text("ses_message_id").unwrap().map(str::to_owned);
        let error = row.text("error").unwrap().map(str::to_owned);
        assert_eq!(row.int8("account_id").unwrap(), Some(1));
        row.end().unwrap();
        assert_eq!(error.is_none(), outcome == ACCEPTED || outcome >= 10, "{outcome}: {error:?}");
        all.push((seq, outcome, id, error));
    }
    all
}

/// Runs ten recipients through one script and expects the same outcome for all of them.
async fn expect_all(script: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static, outcome: i16) -> FakeSes {
    let ses = FakeSes::start(script).await;
    let report = submit(&sender_to(&ses.endpoint, 300), "slots", rows(10)).await.unwrap();
    let seen: Vec<_> = outcomes(&report).into_iter().map(|(seq, outcome, ..)| (seq, outcome)).collect();
    assert_eq!(seen, (1..=10).map(|seq| (seq, outcome)).collect::<Vec<_>>(), "{:?}", outcomes(&report)[0]);
    assert_eq!(report.counts, BTreeMap::from([(outcome, 10)]));
    ses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_recipients_share_calls_of_fifty_and_connections() {
    let ses = FakeSes::start(|_, request| accept(request)).await;
    let report = submit(&ses.sender(), "slots", rows(370)).await.unwrap();
    for (index, (seq, outcome, id, _)) in outcomes(&report).into_iter().enumerate() {
        assert_eq!((seq, outcome), (index as i32 + 1, ACCEPTED));
        assert_eq!(id, Some(address(seq)));
    }
    assert_eq!((report.slots_recipients, report.simple_recipients, report.calls), (370, 0, 8));
    assert!(report.render_ns > 0 && report.sign_ns > 0 && report.call_ns > 0);
    assert!(ses.connections.load(Ordering::SeqCst) <= 2);
    let mut sizes: Vec<_> = ses.requests().iter().map(|request| request.recipients().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [20, 50, 50, 50, 50, 50, 50, 50]);
}

#[tokio::test]
async fn a_bulk_request_carries_identity_and_signature() {
    let ses = FakeSes::start(|_, request| accept(request)).await;
    submit(&ses.sender(), "slots", rows(3)).await.unwrap();
    let [request] = &ses.requests()[..] else { panic!("one call expected") };
    assert_eq!(request.path, BULK);
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["host"], ses.endpoint.strip_prefix("http://").unwrap());
    assert_eq!(request.headers["x-amz-security-token"], "session");
    assert!(request.headers["authorization"].contains("/us-east-1/ses/aws4_request"));
    let keys = TokenKeys::derive(b"a secret of the tests");
    for (index, entry) in request.body["BulkEmailEntries"].as_array().unwrap().iter().enumerate() {
        let seq = index as i32 + 1;
        let tag = entry["ReplacementTags"][0]["Value"].as_str().unwrap();
        assert_eq!(entry["ReplacementTags"], json!([{"Name": "mr", "Value": tag}]));
        assert_eq!(keys.read_tag(tag), Some((STREAM_ID, seq, 1)));
        let token = keys.unsubscribe_token(1, 1_000 + i64::from(seq), 2, STREAM_ID, seq);
        let id = keys.encode_id("eml", STREAM_ID as u64, seq as u32, 0);
        assert_eq!(
            entry["ReplacementHeaders"],
            json!([
                {"Name": "List-Unsubscribe", "Value": format!("<https://t.example.com/u/{token}>")},
                {"Name": "List-Unsubscribe-Post", "Value": "List-Unsubscribe=One-Click"},
                {"Name": "X-Mailrail-Id", "Value": id},
            ])
        );
    }
}

#[tokio::test]
async fn small_groups_and_simple_plans_go_one_by_one() {
    let ses = FakeSes::start(|_, request| accept(request)).await;
    let sender = ses.sender();
    let small = submit(&sender, "slots", rows(2)).await.unwrap();
    assert_eq!((small.slots_recipients, small.simple_recipients, small.calls), (0, 2, 2));
    let simple = submit(&sender, "simple", rows(5)).await.unwrap();
    assert_eq!((simple.slots_recipients, simple.simple_recipients, simple.calls), (0, 5, 5));
    assert_eq!(simple.counts, BTreeMap::from([(ACCEPTED, 5)]));
    for request in ses.requests() {
        assert_eq!(request.path, SIMPLE);
        assert_eq!(request.body["Content"]["Simple"]["Subject"], json!({"Data": "Hello Ann", "Charset": "UTF-8"}));
        assert_eq!(request.body["EmailTags"][0]["Name"], "mr");
    }
}

#[tokio::test]
async fn a_reply_with_the_wrong_count_settles_nobody() {
    let one = r#"{"BulkEmailEntryResults":[{"Status":"SUCCESS","MessageId":"m"}]}"#;
    expect_all(move |_, _| Reply::Answer(200, "", one.to_owned()), UNKNOWN).await;
}

#[tokio::test]
async fn server_errors_are_unknown() {
    let ses = expect_all(|_, _| refuse(500, "InternalServiceErrorException", "oops"), UNKNOWN).await;
    assert_eq!(ses.requests().len(), 1);
    expect_all(|_, _| refuse(503, "ThrottlingException", "Maximum sending rate exceeded."), UNKNOWN).await;
}

#[tokio::test]
async fn throttling_defers() {
    let ses =
        expect_all(|_, _| refuse(429, "TooManyRequestsException", "Maximum sending rate exceeded."), DEFERRED).await;
    assert_eq!(ses.requests().len(), 1);
}

#[tokio::test]
async fn account_wide_refusals_halt() {
    expect_all(|_, _| refuse(403, "InvalidSignatureException", "The request signature is wrong"), HALTED).await;
    expect_all(|_, _| refuse(400, "SendingPausedException", "Sending is paused."), HALTED).await;
}

#[tokio::test]
async fn what_a_limit_stopped_is_counted_apart() {
    let ses = FakeSes::start(|_, request| {
        let statuses = ["SUCCESS", "ACCOUNT_THROTTLED", "TRANSIENT_FAILURE", "ACCOUNT_THROTTLED", "SUCCESS", "SUCCESS"];
        assert_eq!(request.recipients().len(), statuses.len());
        let results: Vec<_> = statuses.iter().map(|status| json!({"Status": status, "MessageId": "m"})).collect();
        Reply::Answer(200, "", json!({"BulkEmailEntryResults": results}).to_string())
    })
    .await;
    let report = submit(&ses.sender(), "slots", rows(6)).await.unwrap();
    assert_eq!(report.counts, BTreeMap::from([(ACCEPTED, 3), (DEFERRED, 3)]));
    assert_eq!((report.throttled, report.daily_quota_hit), (2, false));
    assert_eq!(report.accepted_ranges, b"[[1,1],[5,6]]");
    let ses =
        expect_all(|_, _| refuse(429, "TooManyRequestsException", "Daily message quota exceeded."), DEFERRED).await;
    let report = submit(&ses.sender(), "slots", rows(10)).await.unwrap();
    assert_eq!((report.throttled, report.daily_quota_hit), (0, true));
    assert_eq!(report.accepted_ranges, b"[]");
}

#[tokio::test]
async fn a_refused_batch_goes_out_one_by_one_in_the_same_round() {
    let ses = FakeSes::start(|_, request| match request.path.as_str() {
        BULK => refuse(400, "BadRequestException", "Template contains unsupported operations."),
        _ if request.recipients()[0] == address(4) => refuse(400, "BadRequestException", "Illegal r4@example.net"),
        _ => accept(request),
    })
    .await;
    let report = submit(&ses.sender(), "slots", rows(10)).await.unwrap();
    for (seq, outcome, id, error) in outcomes(&report) {
        if seq == 4 {
            assert_eq!((outcome, error.as_deref()), (FAILED, Some("400 BadRequestException: Illegal [address]")));
        } else {
            assert_eq!((outcome, id), (ACCEPTED, Some(address(seq))));
        }
    }
    assert_eq!((report.slots_recipients, report.simple_recipients, report.calls), (0, 10, 11));
}

#[tokio::test]
async fn a_canary_goes_by_slots_or_not_at_all() {
    let ses = FakeSes::start(|_, request| accept(request)).await;
    let report = submit(&ses.sender(), "canary", rows(1)).await.unwrap();
    assert_eq!((report.slots_recipients, report.simple_recipients, report.calls), (1, 0, 1));
    assert_eq!(report.counts, BTreeMap::from([(ACCEPTED, 1)]));
    let refusal = || refuse(400, "BadRequestException", "Template contains unsupported operations.");
    let ses = FakeSes::start(move |_, _| refusal()).await;
    let report = submit(&ses.sender(), "canary", rows(1)).await.unwrap();
    assert_eq!(report.counts, BTreeMap::from([(FAILED, 1)]));
    let error = outcomes(&report)[0].3.clone();
    assert_eq!(error.as_deref(), Some("400 BadRequestException: Template contains unsupported operations."));
    assert_eq!(ses.requests().len(), 1);
}

#[tokio::test]
async fn a_close_instead_of_an_answer_is_unknown_and_never_repeated() {
    let ses = expect_all(|_, _| Reply::Close, UNKNOWN).await;
    assert_eq!(ses.requests().len(), 1);
}

#[tokio::test]
async fn an_answer_cut_short_is_unknown() {
    expect_all(|_, _| Reply::CutShort, UNKNOWN).await;
}

#[tokio::test]
async fn silence_is_unknown_after_the_call_timeout() {
    let started = std::time::Instant::now();
    let ses = expect_all(|_, _| Reply::Silence, UNKNOWN).await;
    assert!((300..1_500).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert_eq!(ses.requests().len(), 1);
}

#[tokio::test]
async fn a_call_timeout_of_zero_is_refused() {
    let options = br#"{"endpoint":"http://127.0.0.1:9","region":"us-east-1","call_timeout_ms":0}"#;
    assert_eq!(Sender::from_json(options).err().map(|error| error.kind), Some(ErrorKind::Config));
}

#[tokio::test]
async fn a_lease_that_is_over_lets_nothing_out() {
    let ses = FakeSes::start(|_, request| accept(request)).await;
    // A second left does not cover a call of two.
    for lease in [Lease::new(0), Lease::new(now_ns() + 1_000_000_000)] {
        let report = batch::submit(ses.sender(), plan("slots"), rows(60).into(), lease).await.unwrap();
        assert_eq!(report.counts, BTreeMap::from([(NOT_WRITTEN, 60)]));
        assert_eq!(outcomes(&report).len(), 60);
        assert_eq!((report.calls, report.slots_recipients, report.call_ns), (0, 0, 0));
    }
    assert!(ses.requests().is_empty());
}

#[tokio::test]
async fn nobody_listening_defers() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let report = submit(&sender_to(&format!("http://127.0.0.1:{port}"), 500), "slots", rows(5)).await.unwrap();
    assert_eq!(report.counts, BTreeMap::from([(DEFERRED, 5)]));
    assert_eq!(report.calls, 0);
}

#[tokio::test]
async fn a_failed_tls_handshake_defers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let report = submit(&sender_to(&endpoint, 500), "slots", rows(5)).await.unwrap();
    assert_eq!(report.counts, BTreeMap::from([(DEFERRED, 5)]));
}

#[tokio::test]
async fn a_rested_connection_that_was_closed_costs_nobody() {
    let ses = FakeSes::start(|number, request| match (number, accept(request)) {
        (0, Reply::Answer(status, _, body)) => Reply::AnswerAndClose(status, body),
        (_, answer) => answer,
    })
    .await;
    let sender = ses.sender();
    for _ in 0..3 {
        let report = submit(&sender, "slots", rows(5)).await.unwrap();
        assert_eq!(report.counts, BTreeMap::from([(ACCEPTED, 5)]));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(ses.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn skipped_rows_pass_through_and_bad_addresses_fail() {
    let ses = FakeSes::start(|_, request| accept(request)).await;
    let skip = |seq: i32| (seq % 3 == 0).then_some(10 + (seq % 4) as i16);
    let email = |seq: i32| if seq == 5 { "a@b.c,d@e.f".to_owned() } else { address(seq) };
    let report = submit(&ses.sender(), "slots", rows_with(20, skip, email)).await.unwrap();
    for (seq, outcome, ..) in outcomes(&report) {
        let expected = if seq == 5 { FAILED } else { skip(seq).unwrap_or(ACCEPTED) };
        assert_eq!(outcome, expected, "{seq}");
    }
    let reached: usize = ses.requests().iter().map(|request| request.recipients().len()).sum();
    assert_eq!(reached, 13);
}

#[tokio::test]
async fn broken_input_and_missing_credentials_send_nothing() {
    let ses = FakeSes::start(|_, request| accept(request)).await;
    let mut broken = rows(5);
    broken.truncate(broken.len() - 1);
    assert_eq!(submit(&ses.sender(), "slots", broken).await.unwrap_err().kind, ErrorKind::Data);
    let options = SenderOptions {
        endpoint: ses.endpoint.clone(),
        region: "us-east-1".into(),
        ca_pem: None,
        max_connections: 1,
        call_timeout_ms: 1_000,
    };
    let poor = Arc::new(Sender::new(options).unwrap());
    assert_eq!(submit(&poor, "slots", rows(5)).await.unwrap_err().kind, ErrorKind::Config);
    assert!(ses.requests().is_empty());
}

#[tokio::test]
async fn an_empty_round_is_an_empty_report() {
    let ses = FakeSes::start(|_, request| accept(request)).await;
    let report = submit(&ses.sender(), "slots", rows(0)).await.unwrap();
    assert!(outcomes(&report).is_empty() && report.counts.is_empty());
}

/// Nobody is lost, nobody is sent twice, and whoever the server took is accepted or unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recipient_ends_once_whatever_the_server_does() {
    let ses = FakeSes::start(|number, request| match number % 7 {
        0 => Reply::Close,
        1 => refuse(500, "", "oops"),
        2 => refuse(429, "TooManyRequestsException", ""),
        3 if request.path == BULK => refuse(400, "BadRequestException", ""),
        4 => Reply::CutShort,
        _ => accept(request),
    })
    .await;
    let report = submit(&sender_to(&ses.endpoint, 1_000), "slots", rows(3_000)).await.unwrap();
    let all = outcomes(&report);
    assert_eq!(all.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=3_000).collect::<Vec<_>>());
    let mut times_seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in ses.requests() {
        for recipient in request.recipients() {
            times_seen.entry(recipient).or_default().push(request.path.clone());
        }
    }
    for (seq, outcome, id, _) in all {
        let paths = &times_seen[&address(seq)];
        assert!(paths == &[BULK] || paths == &[BULK, SIMPLE], "{seq}: {paths:?}");
        assert!([ACCEPTED, DEFERRED, UNKNOWN].contains(&outcome));
        assert!(outcome != ACCEPTED || id == Some(address(seq)));
    }
    assert!(report.counts.len() == 3, "{:?}", report.counts);
}
