//! What hashing and sealing cost: SigV4 of a single mail's and of a bulk call's body, and the two link tokens.
//!
//! The floor of each is one SHA-256 over the same bytes. Signatures and tokens are checked before they are timed.

use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailrail_core::ses::request::Operation;
use mailrail_core::ses::sigv4::{Credentials, Signable, SignedHeaders, Signer};
use mailrail_core::token::TokenKeys;
use sha2::{Digest, Sha256};

const STREAM_ID: i64 = (2_968 * 8) << 32 | 7;

fn signer() -> Signer {
    let credentials = Credentials {
        access_key: "AKIDEXAMPLE".into(),
        secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        session_token: None,
    };
    Signer::new(credentials, "us-east-1")
}

/// Hashes and signs, as a body that is not shared by several calls demands.
fn sign(signer: &Signer, operation: Operation, body: &[u8], now: SystemTime) -> SignedHeaders {
    let body_hash = Sha256::digest(body).into();
    let host = "email.us-east-1.amazonaws.com";
    signer.sign(Signable { path: operation.path(), host, body_hash: &body_hash }, now)
}

/// The vector was made with botocore.
fn assert_the_known_signature(signer: &Signer) {
    let now = UNIX_EPOCH + Duration::from_secs(1_767_323_045);
    let body = br#"{"FromEmailAddress":"a@example.com"}"#;
    let signed = sign(signer, Operation::SendBulkEmail, body, now);
    let signature = "Signature=8a0619ac626d99cb1a3173c14a62f318157bdb6ab1a2628bd6e9532cf37c4bfb";
    assert!(signed.authorization.ends_with(signature), "{}", signed.authorization);
}

fn requests(criterion: &mut Criterion) {
    let signer = signer();
    assert_the_known_signature(&signer);
    let mut group = criterion.benchmark_group("sigv4");
    for (size, operation) in [(20_000, Operation::SendEmail), (75_000, Operation::SendBulkEmail)] {
        let body: Vec<u8> = (0..size).map(|n| b' ' + (n * 31 % 95) as u8).collect();
        let now = SystemTime::now();
        group.throughput(Throughput::Bytes(size));
        group.bench_function(format!("{} KB", size / 1_000), |bench| {
            bench.iter(|| sign(&signer, operation, black_box(&body), now));
        });
        group.bench_function(format!("{} KB, sha2 alone", size / 1_000), |bench| {
            bench.iter(|| Sha256::digest(black_box(&body)));
        });
    }
    group.finish();
}

fn tokens(criterion: &mut Criterion) {
    let keys = TokenKeys::derive(b"a secret of the benches, long enough to be one");
    assert_eq!(keys.read_track_token(&keys.track_token(STREAM_ID, 9)), Some((STREAM_ID, 9)));
    let unsubscribe = keys.unsubscribe_token(3, 1_000_009, 5, STREAM_ID, 9);
    assert_eq!(keys.read_unsubscribe_token(&unsubscribe), Some((3, 1_000_009, 5, STREAM_ID, 9)));

    let mut group = criterion.benchmark_group("token");
    let mut seq = 0;
    let mut next = || {
        seq = seq % 1_000_000 + 1;
        black_box(seq)
    };
    group.bench_function("track", |bench| bench.iter(|| keys.track_token(STREAM_ID, next())));
    group.bench_function("unsubscribe", |bench| {
        bench.iter(|| {
            let seq = next();
            keys.unsubscribe_token(3, 1_000_000 + i64::from(seq), 5, STREAM_ID, seq)
        });
    });
    group.bench_function("sha2 of one block", |bench| bench.iter(|| Sha256::digest(next().to_be_bytes())));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = requests, tokens
}
criterion_main!(benches);
