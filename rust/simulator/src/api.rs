//! From an HTTP request to an answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use serde_json::json;

use crate::admin;
use crate::clock;
use crate::error::ApiError;
use crate::identities::{Identity, Status};
use crate::request::{CreateIdentity, PutDkimSigning, PutMailFrom};
use crate::rules::MAX_REQUEST_BYTES;
use crate::send::{self, Ending};
use crate::sigv4::{self, Signed, decode};
use crate::sns;
use crate::sqs;
use crate::state::{State, lock};
use crate::stats::Operation;

/// The whole answer is at hand, so its length is known.
pub type Answer = Response<Full<Bytes>>;

/// The connection ends without an answer.
#[derive(Debug)]
pub struct NoAnswer;

impl fmt::Display for NoAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("no answer, on purpose")
    }
}

impl std::error::Error for NoAnswer {}

const IDENTITIES: &str = "/v2/email/identities/";

/// Answers one request. The error closes the connection.
pub async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Result<Answer, NoAnswer> {
    let (head, body) = request.into_parts();
    let body = match read(body).await? {
        Ok(body) => body,
        Err(error) => return Ok(error_answer(state, &error)),
    };
    let path = head.uri.path();
    let query = head.uri.query().unwrap_or("");
    if path.starts_with("/_simulator/") {
        return Ok(admin::answer(state, &head.method, path, query, &body));
    }
    if head.method == Method::GET
        && let Some(answer) = sns_answer(state, path, query)
    {
        return Ok(answer);
    }
    let signed = Signed { method: head.method.as_str(), path, query, headers: &head.headers, body: &body };
    let target = head.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let queue = state.options.event_queue.as_deref().zip(target);
    let verifier = if queue.is_some() { &state.queue_verifier } else { &state.verifier };
    if let Err(error) = verifier.verify(&signed, clock::now_ms(), state.signature_max_age_ms()) {
        if error.kind == sigv4::WRONG_TIME {
            lock(&state.stats).refused_for_age();
        }
        return Ok(error_answer(state, &error));
    }
    if let Some((name, target)) = queue {
        return Ok(match sqs::answer(state, name, target, &body).await {
            Ok(json) => finish(Response::builder().status(StatusCode::OK), json),
            Err(error) => error_answer(state, &error),
        });
    }
    let ending = match (head.method.as_str(), path) {
        ("POST", "/v2/email/outbound-bulk-emails") => send::send(state, Operation::SendBulkEmail, &body).await,
        ("POST", "/v2/email/outbound-emails") => send::send(state, Operation::SendEmail, &body).await,
        ("GET", "/v2/email/account") => Ending::Answer(Ok(account(state))),
        ("POST", "/v2/email/identities") => Ending::Answer(create_identity(state, &body)),
        (method, _) if path.starts_with(IDENTITIES) => Ending::Answer(of_identity(state, method, path, &body)),
        (_, "/v2/email/account/suppression" | "/v2/email/suppression/addresses") => {
            Ending::Answer(suppression(state, &head.method, path, query, &body))
        }
        _ if path.starts_with("/v2/email/suppression/addresses/") => {
            Ending::Answer(suppression(state, &head.method, path, query, &body))
        }
        _ => Ending::Answer(Err(unknown_operation())),
    };
    match ending {
        Ending::Answer(Ok(json)) => Ok(finish(Response::builder().status(StatusCode::OK), json)),
        Ending::Answer(Err(error)) => Ok(error_answer(state, &error)),
        Ending::Close => Err(NoAnswer),
        // A client that gives up is not noticed, so that it ends some time.
        Ending::Hang => {
            tokio::time::sleep(Duration::from_millis(state.options.idle_timeout_ms)).await;
            Err(NoAnswer)
        }
    }
}

/// The body; the inner error is an answer, the outer one a client that went away.
async fn read(mut body: Incoming) -> Result<Result<Bytes, ApiError>, NoAnswer> {
    let expected = body.size_hint().lower();
    if expected > MAX_REQUEST_BYTES as u64 {
        return Ok(Err(too_large()));
    }
    let mut whole = BytesMut::with_capacity(expected as usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| NoAnswer)?;
        if let Ok(data) = frame.into_data() {
            // Small bodies come as one piece, which need not be copied.
            if whole.is_empty() && data.len() as u64 == expected && body.is_end_stream() {
                return Ok(Ok(data));
            }
            if whole.len() + data.len() > MAX_REQUEST_BYTES {
                return Ok(Err(too_large()));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Ok(whole.freeze()))
}

fn too_large() -> ApiError {
    ApiError::new(413, "RequestEntityTooLargeException", "Request size exceeds the limit.")
}

fn error_answer(state: &State, error: &ApiError) -> Answer {
    lock(&state.stats).rejected_call(error.kind);
    let builder = Response::builder().status(error.status).header("x-amzn-errortype", error.kind);
    finish(builder, json!({"message": error.message}).to_string())
}

fn finish(builder: http::response::Builder, json: String) -> Answer {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let request_id = sns::uuid(clock::now_ms() << 20, REQUESTS.fetch_add(1, Relaxed));
    builder
        .header("content-type", "application/json")
        .header("x-amzn-requestid", request_id)
        .body(Full::new(Bytes::from(json)))
        // Statuses and headers are constants or ids.
        .expect("a valid response")
}

/// What SNS serves without a signature: its certificate, and the confirmation of the subscription.
fn sns_answer(state: &State, path: &str, query: &str) -> Option<Answer> {
    if let Some(pem) = state.topic.certificate(path) {
        return Some(plain(StatusCode::OK, "application/x-pem-file", pem.to_owned()));
    }
    if path != "/" || parameter(query, "Action").as_deref() != Some("ConfirmSubscription") {
        return None;
    }
    let topic_arn = parameter(query, "TopicArn").unwrap_or_default();
    let token = parameter(query, "Token").unwrap_or_default();
    let (status, xml) = if state.topic.confirm(&topic_arn, &token) {
        let xml = format!(
            "<ConfirmSubscriptionResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><ConfirmSubscriptionResult>\
             <SubscriptionArn>{}</SubscriptionArn></ConfirmSubscriptionResult></ConfirmSubscriptionResponse>\n",
            state.topic.subscription_arn()
        );
        (StatusCode::OK, xml)
    } else {
        let xml = "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type>\
                   <Code>InvalidParameter</Code><Message>Invalid parameter: Token</Message></Error></ErrorResponse>\n";
        (StatusCode::BAD_REQUEST, xml.to_owned())
    };
    Some(plain(status, "text/xml", xml))
}

/// An answer in any content type.
pub fn plain(status: StatusCode, content_type: &str, body: String) -> Answer {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(Full::new(Bytes::from(body)))
        .expect("a valid response")
}

/// A query parameter, percent-decoded. A plus stays a plus: it is common in addresses.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(String::from_utf8_lossy(&decode(value)).into_owned())
}

fn account(state: &State) -> String {
    let granted = state.account();
    let sent = lock(&state.quota).sent_last_24_hours(clock::now_ms());
    json!({
        "DedicatedIpAutoWarmupEnabled": false,
        "EnforcementStatus": "HEALTHY",
        "ProductionAccessEnabled": true,
        "SendQuota": {
            "Max24HourSend": granted.max_24_hour_send,
            "MaxSendRate": granted.max_send_rate,
            "SentLast24Hours": sent as f64,
        },
        "SendingEnabled": granted.sending_enabled,
        "SuppressionAttributes": {"SuppressedReasons": lock(&state.suppressed).reasons()},
    })
    .to_string()
}

fn create_identity(state: &State, body: &[u8]) -> Result<String, ApiError> {
    let request: CreateIdentity = send::parse(body)?;
    let name = request.email_identity.as_deref().ok_or_else(|| ApiError::missing("emailIdentity"))?;
    let identity = lock(&state.identities).create(name, clock::now_ms())?;
    Ok(json!({
        "IdentityType": identity_type(&identity),
        "VerifiedForSendingStatus": identity.is_verified,
        "DkimAttributes": dkim(&identity),
    })
    .to_string())
}

/// What is asked about, or done to, the identity that the path names.
fn of_identity(state: &State, method: &str, path: &str, body: &[u8]) -> Result<String, ApiError> {
    let (encoded, part) = path[IDENTITIES.len()..].split_once('/').unwrap_or((&path[IDENTITIES.len()..], ""));
    let name = String::from_utf8_lossy(&decode(encoded)).into_owned();
    match (method, part) {
        ("GET", "") => get_identity(state, &name),
        ("PUT", "mail-from") => put_mail_from(state, &name, body),
        ("PUT", "dkim/signing") => put_dkim_signing(state, &name, body),
        _ => Err(unknown_operation()),
    }
}

fn unknown_operation() -> ApiError {
    ApiError::new(404, "UnknownOperationException", "Unknown operation.")
}

fn get_identity(state: &State, name: &str) -> Result<String, ApiError> {
    let identity = lock(&state.identities).get(name, clock::now_ms())?;
    let mail_from = match &identity.mail_from {
        None => json!({"BehaviorOnMxFailure": "USE_DEFAULT_VALUE"}),
        Some(known) => json!({
            "MailFromDomain": known.domain,
            "MailFromDomainStatus": known.status,
            "BehaviorOnMxFailure": known.on_mx_failure,
        }),
    };
    Ok(json!({
        "IdentityType": identity_type(&identity),
        "FeedbackForwardingStatus": true,
        "VerifiedForSendingStatus": identity.is_verified,
        "DkimAttributes": dkim(&identity),
        "MailFromAttributes": mail_from,
        "Policies": {},
        "Tags": [],
        "VerificationStatus": identity.status,
        "VerificationInfo": identity.error.as_ref().map_or(json!({}), |error| json!({"ErrorType": error})),
    })
    .to_string())
}

fn put_mail_from(state: &State, name: &str, body: &[u8]) -> Result<String, ApiError> {
    let request: PutMailFrom = send::parse(body)?;
    let on_mx_failure = request.behavior_on_mx_failure.as_deref().unwrap_or("USE_DEFAULT_VALUE");
    let domain = request.mail_from_domain.as_deref();
    lock(&state.identities).set_mail_from(name, domain, on_mx_failure, clock::now_ms())?;
    Ok("{}".into())
}

fn put_dkim_signing(state: &State, name: &str, body: &[u8]) -> Result<String, ApiError> {
    let request: PutDkimSigning = send::parse(body)?;
    match request.signing_attributes_origin.as_deref() {
        None => return Err(ApiError::missing("signingAttributesOrigin")),
        Some("AWS_SES") => {}
        Some(_) => return Err(ApiError::bad_request("Only AWS_SES signs here.")),
    }
    let identity = lock(&state.identities).look_again(name, clock::now_ms())?;
    let dkim = dkim(&identity);
    Ok(json!({
        "DkimStatus": dkim["Status"],
        "DkimTokens": dkim["Tokens"],
        "SigningHostedZone": dkim["SigningHostedZone"],
    })
    .to_string())
}

/// What concerns the account's suppression list.
fn suppression(state: &State, method: &Method, path: &str, query: &str, body: &[u8]) -> Result<String, ApiError> {
    let mut list = lock(&state.suppressed);
    match (method.as_str(), path) {
        ("PUT", "/v2/email/account/suppression") => list.choose_reasons(&send::parse(body)?),
        ("PUT", "/v2/email/suppression/addresses") => list.put_request(&send::parse(body)?),
        ("GET", "/v2/email/suppression/addresses") => list.page(query),
        ("GET", _) => list.get(path, query),
        ("DELETE", _) => list.delete(path, query),
        _ => Err(unknown_operation()),
    }
}

fn identity_type(identity: &Identity) -> &'static str {
    if identity.is_domain { "DOMAIN" } else { "EMAIL_ADDRESS" }
}

fn dkim(identity: &Identity) -> serde_json::Value {
    let status = if identity.is_domain { identity.status } else { Status::NotStarted };
    let mut dkim = json!({
        "SigningEnabled": identity.is_domain,
        "Status": status,
        "SigningAttributesOrigin": "AWS_SES",
        "NextSigningKeyLength": "RSA_2048_BIT",
    });
    if identity.is_domain {
        dkim["Tokens"] = json!(identity.tokens);
        dkim["SigningHostedZone"] = "dkim.amazonses.com".into();
        dkim["CurrentSigningKeyLength"] = "RSA_2048_BIT".into();
    }
    dkim
}
