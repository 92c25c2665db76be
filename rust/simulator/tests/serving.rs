//! Connections, signatures, identities, and the files in the directory.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use common::{BULK, assert_error, bulk, directory, exchange, is_private, now_s, signed_request, start};
use mailrail_simulator::{Options, Simulator};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

fn tls_config(ca_pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[test]
fn one_port_speaks_tls_and_plain_http_and_keeps_connections() {
    let running = start(json!({}));
    let request = signed_request("POST", BULK, &bulk(&["a@x.org"]).to_string(), now_s());
    let mut plain = running.connect();
    for _ in 0..3 {
        assert_eq!(exchange(&mut plain, &request).expect("an answer").status, 200);
    }
    for name in ["localhost", "127.0.0.1", "::1"] {
        let name = ServerName::try_from(name).expect("a name").to_owned();
        let client = ClientConnection::new(tls_config(running.simulator.ca_pem()), name).expect("a client");
        let mut tls = StreamOwned::new(client, running.connect());
        for _ in 0..2 {
            assert_eq!(exchange(&mut tls, &request).expect("an answer").status, 200);
        }
        assert_eq!(tls.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    assert_eq!(running.accepted(), 9);
}

#[test]
fn silent_connections_are_closed() {
    let running = start(json!({"idle_timeout_ms": 100}));
    let mut silent = running.connect();
    let mut buffer = [0; 100];
    assert_eq!(silent.read(&mut buffer).expect("a close"), 0);
    let mut used = running.connect();
    let request = signed_request("GET", "/v2/email/account", "", now_s());
    assert_eq!(exchange(&mut used, &request).expect("an answer").status, 200);
    std::thread::sleep(Duration::from_millis(300));
    let _ = used.write_all(&request);
    assert!(matches!(used.read(&mut buffer), Ok(0) | Err(_)));
}

#[test]
fn only_fresh_and_right_signatures_pass() {
    let running = start(json!({}));
    let body = bulk(&["a@x.org"]).to_string();
    let send = |request: &[u8]| exchange(&mut running.connect(), request).expect("an answer");
    let unsigned = running.plain("POST", BULK, &body);
    assert_error(&unsigned, 403, "MissingAuthenticationTokenException");
    for age_s in [310, 86_400] {
        assert_error(&send(&signed_request("POST", BULK, &body, now_s() - age_s)), 403, "InvalidSignatureException");
    }
    assert_error(&send(&signed_request("POST", BULK, &body, now_s() + 310)), 403, "InvalidSignatureException");
    assert_eq!(send(&signed_request("POST", BULK, &body, now_s() - 290)).status, 200);
    let text = String::from_utf8(signed_request("POST", BULK, &body, now_s())).expect("text");
    assert_error(&send(text.replace("a@x.org", "b@x.org").as_bytes()), 403, "SignatureDoesNotMatch");
    assert_error(&send(text.replace("us-east-1", "us-east-2").as_bytes()), 403, "SignatureDoesNotMatch");
    assert_error(&send(text.replace("=mailrail-simulator/", "=other/").as_bytes()), 403, "UnrecognizedClientException");
    running.faults(&json!({"skew_check": false}));
    assert_eq!(send(&signed_request("POST", BULK, &body, now_s() - 86_400)).status, 200);
    assert_eq!(running.accepted(), 2);
}

#[test]
fn unknown_operations_are_404() {
    let running = start(json!({}));
    assert_error(&running.signed("GET", "/v2/email/nothing", ""), 404, "UnknownOperationException");
    assert_error(&running.signed("DELETE", "/v2/email/account", ""), 404, "UnknownOperationException");
    assert_eq!(running.plain("GET", "/_simulator/nothing", "").status, 404);
}

#[test]
fn the_account_shows_its_quota() {
    let running = start(json!({"max_send_rate": 14, "max_24_hour_send": 200}));
    running.post(BULK, &bulk(&["a@x.org", "b@x.org"]));
    let reply = running.signed("GET", "/v2/email/account", "");
    let account = reply.json();
    assert_eq!(account["SendQuota"], json!({"Max24HourSend": 200.0, "MaxSendRate": 14.0, "SentLast24Hours": 2.0}));
    assert_eq!(account["SendingEnabled"], true);
    assert_eq!(account["EnforcementStatus"], "HEALTHY");
    assert!(reply.header("x-amzn-requestid").is_some());
}

#[test]
fn identities_are_created_verified_and_looked_up() {
    let running = start(json!({"verified_identities": ["a@other.org"], "verification_delay_ms": 200}));
    assert_error(&running.signed("GET", "/v2/email/identities/new.org", ""), 404, "NotFoundException");
    let created = running.signed("POST", "/v2/email/identities", r#"{"EmailIdentity":"new.org"}"#).json();
    assert_eq!(created["IdentityType"], "DOMAIN");
    assert_eq!(created["VerifiedForSendingStatus"], false);
    assert_eq!(created["DkimAttributes"]["Tokens"].as_array().map(Vec::len), Some(3));
    let pending = running.signed("GET", "/v2/email/identities/new.org", "").json();
    assert_eq!(
        (&pending["VerificationStatus"], &pending["DkimAttributes"]["Status"]),
        (&json!("PENDING"), &json!("PENDING"))
    );
    std::thread::sleep(Duration::from_millis(250));
    let verified = running.signed("GET", "/v2/email/identities/new.org", "").json();
    assert_eq!(
        (&verified["VerificationStatus"], &verified["VerifiedForSendingStatus"]),
        (&json!("SUCCESS"), &json!(true))
    );
    assert_eq!(verified["DkimAttributes"]["Tokens"], created["DkimAttributes"]["Tokens"]);
    assert_eq!(verified["DkimAttributes"]["SigningHostedZone"], "dkim.amazonses.com");
    let again = running.signed("POST", "/v2/email/identities", r#"{"EmailIdentity":"new.org"}"#);
    assert_error(&again, 400, "AlreadyExistsException");
    let address = running.signed("GET", "/v2/email/identities/a%40other.org", "").json();
    assert_eq!(
        (&address["IdentityType"], &address["VerifiedForSendingStatus"]),
        (&json!("EMAIL_ADDRESS"), &json!(true))
    );
    for bad in ["{}", r#"{"EmailIdentity":"no domain"}"#] {
        assert_error(&running.signed("POST", "/v2/email/identities", bad), 400, "BadRequestException");
    }
}

#[test]
fn keys_are_private_and_used_again() {
    let directory = directory();
    let options = || Options::read(json!({"directory": directory}).to_string().as_bytes()).expect("good options");
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect("a file");
    let first = Simulator::start(options()).expect("starts");
    let before = ["ca.pem", "ca-key.pem", "sns.pem", "sns-key.pem"].map(read);
    assert_eq!(first.ca_pem(), before[0]);
    assert!(is_private(&directory.join("ca-key.pem")) && is_private(&directory.join("sns-key.pem")));
    drop(first);
    let second = Simulator::start(options()).expect("starts again");
    assert_eq!(["ca.pem", "ca-key.pem", "sns.pem", "sns-key.pem"].map(read), before);
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(tls_config(&before[0]), name).expect("a client");
    let stream = std::net::TcpStream::connect(("127.0.0.1", second.port())).expect("connects");
    let mut tls = StreamOwned::new(client, stream);
    let reply = exchange(&mut tls, &signed_request("GET", "/v2/email/account", "", now_s()));
    assert_eq!(reply.expect("an answer").status, 200);
    drop(second);
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn a_taken_port_and_a_bad_option_are_sentences() {
    let running = start(json!({}));
    let port = running.simulator.port();
    let options = json!({"port": port, "directory": running.directory}).to_string();
    let error = mailrail_simulator::run(options.as_bytes()).expect_err("taken");
    assert!(error.starts_with(&format!("cannot listen on 127.0.0.1:{port}")), "{error}");
    assert!(mailrail_simulator::run(b"{\"x\":1}").expect_err("unknown").contains("unknown field `x`"));
}
