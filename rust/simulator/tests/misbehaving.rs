//! Faults on purpose, and the simulator's own endpoints.

mod common;

use std::io::Read;
use std::time::{Duration, Instant};

use common::{BULK, Running, SEND, assert_error, bulk, now_s, signed_request, simple, start};
use serde_json::{Value, json};

fn try_bulk(running: &Running) -> Option<common::Reply> {
    running.try_signed("POST", BULK, &bulk(&["a@x.org"]).to_string())
}

#[test]
fn faults_before_accepting_accept_nothing() {
    let running = start(json!({}));
    running.faults(&json!({"throttle_429": 1}));
    assert_error(&try_bulk(&running).expect("an answer"), 429, "TooManyRequestsException");
    running.faults(&json!({"server_error_before": 1}));
    assert_error(&try_bulk(&running).expect("an answer"), 500, "InternalServiceErrorException");
    running.faults(&json!({"drop_request": 1}));
    assert!(try_bulk(&running).is_none());
    assert_eq!(running.accepted(), 0);
    let stats = running.get("/_simulator/stats");
    assert_eq!(stats["faults"], json!({"drop_request": 1, "server_error_before": 1, "throttle_429": 1}));
    assert_eq!(stats["rejected_calls"], json!({"InternalServiceErrorException": 1, "TooManyRequestsException": 1}));
}

#[test]
fn headers_come_in_another_order_or_without_a_signature_when_told() {
    let running = start(json!({}));
    let names = ["List-Unsubscribe", "List-Unsubscribe-Post", "X-Mailrail-Id"];
    let mut single = simple("s@x.org");
    single["Content"]["Simple"]["Headers"] = names.map(|name| json!({"Name": name, "Value": "v"})).into();
    let mut many = bulk(&["b@x.org"]);
    many["BulkEmailEntries"][0]["ReplacementHeaders"] = single["Content"]["Simple"]["Headers"].clone();
    let message = "From: news@example.com\r\nTo: r@x.org\r\nSubject: s\r\nList-Unsubscribe: v\r\nList-Unsubscribe-Post: v\r\n\
        X-Mailrail-Id: v\r\nContent-Type: text/plain\r\n\r\nx\r\n";
    let raw = json!({"Content": {"Raw": {"Data": base64_simd::STANDARD.encode_to_string(message)}}});
    let ways = [(SEND, &single, "s@x.org"), (BULK, &many, "b@x.org"), (SEND, &raw, "r@x.org")];
    let seen = |faults: Value| {
        running.faults(&faults);
        ways.map(|(path, request, address)| {
            assert_eq!(running.post(path, request).status, 200);
            let mail = running.mails_to(address).pop().expect("a mail");
            let ours = |name: &Value| name.as_str().filter(|name| names.contains(name)).map(str::to_owned);
            let headers = mail["headers"].as_array().expect("headers").iter();
            let signed = mail["signed_headers"].as_array().expect("names").iter();
            assert_eq!(signed.clone().filter(|name| *name == "Content-Type").count(), 1, "{mail}");
            let arrived: Vec<String> = headers.filter_map(|header| ours(&header["name"])).collect();
            (arrived, signed.filter_map(ours).collect::<Vec<_>>())
        })
    };
    let reversed = ["X-Mailrail-Id", "List-Unsubscribe-Post", "List-Unsubscribe"];
    for (arrived, signed) in seen(json!({})) {
        assert_eq!((arrived, signed), (names.map(str::to_owned).to_vec(), names.map(str::to_owned).to_vec()));
    }
    for (arrived, signed) in seen(json!({"reorder_headers": 1})) {
        assert_eq!((arrived, signed), (reversed.map(str::to_owned).to_vec(), reversed.map(str::to_owned).to_vec()));
    }
    for (arrived, signed) in seen(json!({"unsigned_headers": 1})) {
        assert_eq!((arrived, signed), (names.map(str::to_owned).to_vec(), vec!["X-Mailrail-Id".to_owned()]));
    }
    assert_eq!(running.get("/_simulator/stats")["faults"], json!({"reorder_headers": 3, "unsigned_headers": 3}));
}

#[test]
fn faults_after_accepting_keep_the_mail() {
    let running = start(json!({}));
    running.faults(&json!({"server_error_after_accept": 1}));
    assert_error(&try_bulk(&running).expect("an answer"), 500, "InternalServiceErrorException");
    running.faults(&json!({"drop_reply_after_accept": 1}));
    assert!(try_bulk(&running).is_none());
    running.faults(&json!({"hang_after_accept": 1}));
    let mut hanging = running.connect();
    hanging.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    std::io::Write::write_all(&mut hanging, &signed_request("POST", BULK, &bulk(&["a@x.org"]).to_string(), now_s()))
        .expect("written");
    let kind = hanging.read(&mut [0; 10]).expect_err("no answer and no close").kind();
    assert!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{kind}");
    assert_eq!(running.accepted(), 3);
    assert_eq!(running.mails_to("a@x.org").len(), 3);
    let duplicates = running.get("/_simulator/duplicates");
    assert_eq!(duplicates["duplicates"][0]["id"], "eml_a@x.org");
    assert_eq!(duplicates["duplicates"][0]["mails"].as_array().map(Vec::len), Some(3));
    running.faults(&json!({"server_error_after_accept": 1}));
    let refused = running.post(BULK, &bulk(&[]));
    assert_error(&refused, 400, "BadRequestException");
}

#[test]
fn entries_can_fail_one_by_one_and_a_seed_repeats_them() {
    let running = start(json!({}));
    let statuses = |menu: &Value| {
        running.faults(menu);
        let reply = running.post(BULK, &bulk(&["a@x.org"; 50])).json();
        let results = reply["BulkEmailEntryResults"].as_array().expect("a list").clone();
        results.iter().map(|result| result["Status"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let menu = json!({"per_entry_failed": 0.3, "per_entry_transient": 0.3, "seed": 7});
    let first = statuses(&menu);
    assert_eq!(first, statuses(&menu));
    let count = |status: &str| first.iter().filter(|found| *found == status).count();
    assert!(count("FAILED") > 0 && count("TRANSIENT_FAILURE") > 0 && count("SUCCESS") > 0, "{first:?}");
    assert_eq!(running.accepted(), 2 * count("SUCCESS") as u64);
    let stats = running.get("/_simulator/stats");
    assert_eq!(stats["rejected_entries"]["FAILED"], 2 * count("FAILED"));
}

#[test]
fn latency_delays_sends_only() {
    let running = start(json!({}));
    running.faults(&json!({"latency_ms": 200}));
    let started = Instant::now();
    assert_eq!(running.signed("GET", "/v2/email/account", "").status, 200);
    assert!(started.elapsed() < Duration::from_millis(150));
    let started = Instant::now();
    assert_eq!(try_bulk(&running).expect("an answer").status, 200);
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_signature_is_refused_by_the_age_that_was_set() {
    let running = start(json!({"signature_max_age_ms": 10_000}));
    let body = bulk(&["a@x.org"]).to_string();
    let sent = |age_s: u64| {
        let request = signed_request("POST", BULK, &body, now_s() - age_s);
        common::exchange(&mut running.connect(), &request).expect("an answer")
    };
    assert_eq!(sent(5).status, 200);
    assert_error(&sent(12), 403, "InvalidSignatureException");
    running.faults(&json!({"signature_max_age_ms": 2_000}));
    assert_error(&sent(5), 403, "InvalidSignatureException");
    assert_eq!(sent(0).status, 200);
    running.faults(&json!({"signature_max_age_ms": 2_000, "skew_check": false}));
    assert_eq!(sent(400).status, 200);
    running.faults(&json!({}));
    assert_eq!(sent(5).status, 200, "the option holds again");
    let stats = running.get("/_simulator/stats");
    assert_eq!((&stats["refused_for_age"], &stats["send_calls"]), (&json!(2), &json!(4)));
}

#[test]
fn a_call_in_progress_is_accepted_though_its_client_died() {
    let running = start(json!({}));
    running.faults(&json!({"latency_ms": 200}));
    let mut dying = running.connect();
    std::io::Write::write_all(&mut dying, &signed_request("POST", BULK, &bulk(&["a@x.org"]).to_string(), now_s()))
        .expect("written");
    drop(dying);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(running.accepted(), 1);
}

#[test]
fn throttled_calls_are_counted_beside_all() {
    let running = start(json!({"max_send_rate": 10, "throttle": "entry"}));
    assert_eq!(running.post(BULK, &bulk(&["a@x.org"; 50])).status, 200);
    assert_eq!(running.post(BULK, &bulk(&[])).status, 400);
    running.faults(&json!({"throttle_429": 1}));
    assert_eq!(try_bulk(&running).expect("an answer").status, 429);
    let stats = running.get("/_simulator/stats");
    assert_eq!((&stats["send_calls"], &stats["throttled_calls"]), (&json!(3), &json!(2)));
    let whole = start(json!({"max_send_rate": 10}));
    assert_eq!(whole.post(BULK, &bulk(&["a@x.org"; 50])).status, 429);
    assert_eq!(whole.post(BULK, &bulk(&["a@x.org"; 5])).status, 200);
    let stats = whole.get("/_simulator/stats");
    assert_eq!((&stats["send_calls"], &stats["throttled_calls"]), (&json!(2), &json!(1)));
}

#[test]
fn the_account_changes_while_it_runs() {
    let running = start(json!({"max_send_rate": 10}));
    let granted = json!({"max_send_rate": 10.0, "max_24_hour_send": -1.0, "sending_enabled": true});
    assert_eq!(running.get("/_simulator/account"), granted);
    let put = |change: Value| running.plain("PUT", "/_simulator/account", &change.to_string());
    let quota = || running.signed("GET", "/v2/email/account", "").json();
    assert_eq!(put(json!({"max_send_rate": 1_000, "max_24_hour_send": 3})).status, 200);
    assert_eq!(quota()["SendQuota"], json!({"Max24HourSend": 3.0, "MaxSendRate": 1000.0, "SentLast24Hours": 0.0}));
    assert_error(&running.post(BULK, &bulk(&["a@x.org"; 4])), 400, "LimitExceededException");
    assert_eq!(put(json!({"sending_enabled": false})).status, 200);
    assert_eq!(quota()["SendingEnabled"], false);
    assert_error(&running.post(BULK, &bulk(&["a@x.org"])), 400, "SendingPausedException");
    assert_error(&running.post(SEND, &simple("a@x.org")), 400, "SendingPausedException");
    assert_eq!(put(json!({"sending_enabled": true})).json()["max_24_hour_send"], 3.0);
    assert_eq!(running.post(BULK, &bulk(&["a@x.org"])).status, 200);
    assert_eq!(put(json!({"max_send_rate": 0})).status, 400);
    assert_eq!(put(json!({"rate": 5})).status, 400);
    assert_eq!(running.plain("POST", "/_simulator/reset", "").status, 200);
    assert_eq!(running.get("/_simulator/account"), granted);
}

#[test]
fn every_accepted_mail_is_in_the_file_before_the_answer() {
    let directory = common::directory();
    std::fs::create_dir_all(&directory).expect("made");
    let file = directory.join("accepted.jsonl");
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&file).expect("a file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    {
        let running = start(json!({"accept_log_file": file}));
        assert_eq!(running.post(BULK, &bulk(&["a@x.org", "b@x.org"])).status, 200);
        assert_eq!(lines().len(), 2);
        running.faults(&json!({"drop_reply_after_accept": 1}));
        assert!(try_bulk(&running).is_none());
        assert_eq!(json!(lines()), running.get("/_simulator/accepted")["mails"]);
        assert_eq!(lines()[1]["to"], json!(["b@x.org"]));
    }
    let running = start(json!({"accept_log_file": file}));
    assert_eq!(running.plain("POST", "/_simulator/reset", "").status, 200);
    assert_eq!(running.post(SEND, &simple("c@x.org")).status, 200);
    assert_eq!((lines().len(), &lines()[3]["number"], &lines()[3]["id"]), (4, &json!(0), &json!("eml_c@x.org")));
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn what_the_file_does_not_take_is_not_accepted() {
    // A device that is always full.
    let running = start(json!({"accept_log_file": "/dev/full"}));
    assert_error(&running.post(BULK, &bulk(&["a@x.org"])), 500, "InternalServiceErrorException");
    assert_eq!(running.accepted(), 0);
    assert_eq!(running.get("/_simulator/accepted")["total"], 0);
    let options = json!({"directory": common::directory(), "accept_log_file": "/nowhere/at/all"});
    let options = mailrail_simulator::Options::read(options.to_string().as_bytes()).expect("good options");
    let refused = mailrail_simulator::Simulator::start(options).err().expect("a sentence");
    assert!(refused.contains("/nowhere/at/all"), "{refused}");
}

#[test]
fn the_menu_is_shown_and_checked() {
    let running = start(json!({}));
    let shown = running.get("/_simulator/faults");
    assert_eq!((&shown["throttle_429"], &shown["skew_check"]), (&json!(0.0), &json!(true)));
    running.faults(&json!({"lose_events": 0.5}));
    assert_eq!(running.get("/_simulator/faults")["lose_events"], 0.5);
    for bad in ["", "{", r#"{"x":1}"#, r#"{"drop_request":2}"#] {
        assert_eq!(running.plain("PUT", "/_simulator/faults", bad).status, 400, "{bad}");
    }
    assert_eq!(running.get("/_simulator/faults")["lose_events"], 0.5, "a bad menu changes nothing");
}

#[test]
fn stats_count_by_operation_and_mode() {
    let running = start(json!({}));
    let body = bulk(&["a@x.org", "b@x.org"]).to_string();
    running.signed("POST", BULK, &body);
    let one = simple("a@x.org");
    running.post(SEND, &one);
    let stats = running.get("/_simulator/stats");
    let rendered = |mails: &[&str]| mails.iter().map(|part| part.len()).sum::<usize>();
    assert_eq!(
        stats["SendBulkEmail"],
        json!({"slots": {
            "calls": 1, "messages": 2, "recipients": 2, "request_bytes": body.len(),
            "rendered_bytes": 2 * rendered(&["Hi x", "<p>x</p>", "x"]),
        }})
    );
    assert_eq!(stats["SendEmail"]["simple"]["recipients"], 1);
    assert_eq!(stats["SendEmail"]["simple"]["request_bytes"], one.to_string().len());
    assert_eq!(stats["SendEmail"]["simple"]["rendered_bytes"], rendered(&["Été", "<p>é</p>", "?"]));
    assert_eq!(stats["accepted"], 3);
    assert_eq!(stats["rejected_calls"], json!({}));
    assert_eq!(stats["events"]["published"], 0);
}

#[test]
fn the_accept_log_is_read_in_pages() {
    let running = start(json!({}));
    running.post(BULK, &bulk(&["a@x.org", "b@x.org", "c@x.org"]));
    let page = running.get("/_simulator/accepted?from=1&limit=1");
    assert_eq!((&page["total"], &page["complete"]), (&json!(3), &json!(true)));
    let mail = &page["mails"][0];
    assert_eq!(mail["number"], 1);
    assert_eq!((&mail["to"], &mail["id"], &mail["tag"]), (&json!(["b@x.org"]), &json!("eml_b@x.org"), &json!("tag")));
    assert_eq!(mail["message_id"], running.mails_to("b@x.org")[0]["message_id"]);
    assert_eq!(running.plain("GET", "/_simulator/accepted?from=x", "").status, 400);
}

#[test]
fn two_hundred_thousand_mails_are_read_in_pages() {
    const MAILS: u64 = 200_000;
    let running = start(json!({"retain_messages": 10}));
    let request = signed_request("POST", BULK, &bulk(&["someone@example.net"; 50]).to_string(), now_s());
    let mut stream = running.connect();
    for _ in 0..MAILS / 50 {
        assert_eq!(common::exchange(&mut stream, &request).expect("an answer").status, 200);
    }
    let started = Instant::now();
    let mut next = 0;
    while next < MAILS {
        let page = running.get(&format!("/_simulator/accepted?from={next}&limit=10000"));
        let mails = page["mails"].as_array().expect("a list");
        assert_eq!((&page["total"], &page["complete"], mails.len()), (&json!(MAILS), &json!(true), 10_000));
        for mail in mails {
            assert_eq!(mail["number"], next);
            next += 1;
        }
    }
    assert_eq!(running.get("/_simulator/accepted?from=200000")["mails"], json!([]));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    eprintln!("{MAILS} mails in pages: {:?}", started.elapsed());
}

#[test]
fn duplicates_are_ids_seen_in_two_mails() {
    let running = start(json!({}));
    running.post(BULK, &bulk(&["a@x.org", "b@x.org"]));
    let mut anonymous = bulk(&["c@x.org"]);
    anonymous["BulkEmailEntries"][0]["ReplacementHeaders"] = json!([]);
    running.post(BULK, &anonymous);
    let clean = running.get("/_simulator/duplicates");
    assert_eq!(clean, json!({"checked": 3, "complete": true, "without_id": 1, "count": 0, "duplicates": []}));
    running.post(SEND, &simple("b@x.org"));
    let found = running.get("/_simulator/duplicates");
    assert_eq!(found["count"], 1);
    assert_eq!(found["duplicates"][0]["count"], 2);
    assert_eq!(found["duplicates"][0]["mails"][1]["number"], 3);
}

#[test]
fn messages_are_retained_limited_and_forgotten() {
    let running = start(json!({"retain_messages": 10}));
    for n in 0..20 {
        let address = format!("a{n}@x.org");
        running.post(BULK, &bulk(&[&address]));
    }
    let count = |path: &str| running.get(path).as_array().expect("a list").len();
    assert_eq!(count("/_simulator/messages"), 10);
    assert_eq!(count("/_simulator/messages?limit=3"), 3);
    assert_eq!(count("/_simulator/messages?to=A19@X.org"), 1);
    assert_eq!(count("/_simulator/messages?to=a19%40x.org"), 1);
    assert_eq!(count("/_simulator/messages?to=a1@x.org"), 0);
    assert_eq!(running.plain("GET", "/_simulator/messages?limit=x", "").status, 400);
    assert_eq!(running.plain("DELETE", "/_simulator/messages", "").status, 200);
    assert_eq!(count("/_simulator/messages"), 0);
    assert_eq!(running.accepted(), 20, "only the bodies are forgotten");
}

#[test]
fn reset_goes_back_to_the_start() {
    let running = start(json!({"max_24_hour_send": 1, "verified_identities": ["example.com"]}));
    assert_eq!(running.post(BULK, &bulk(&["a@x.org"])).status, 200);
    running.signed("POST", "/v2/email/identities", r#"{"EmailIdentity":"new.org"}"#);
    running.faults(&json!({"throttle_429": 1}));
    assert_eq!(running.plain("POST", "/_simulator/reset", "").status, 200);
    assert_eq!(running.accepted(), 0);
    assert_eq!(running.get("/_simulator/messages"), json!([]));
    assert_eq!(running.get("/_simulator/accepted")["total"], 0);
    assert_eq!(running.signed("GET", "/v2/email/identities/new.org", "").status, 404);
    assert_eq!(running.post(BULK, &bulk(&["a@x.org"])).status, 200);
}
