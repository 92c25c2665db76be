//! SQS as a reader of the topic sees it: batches of envelopes, which come again unless they are deleted in time.
//!
//! The JSON protocol of Amazon's SDKs, and of its operations those that a reader of one queue needs. Bodies carry no MD5.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::error::ApiError;
use crate::events;
use crate::queue::{Event, EventQueue};
use crate::state::{State, lock};

const BATCH_MAX: usize = 10;
const WAIT_MAX_S: u64 = 20;
const VISIBILITY_MAX_S: u64 = 43_200;
/// How often a long poll looks for messages whose time is out.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The one queue.
#[derive(Default)]
pub struct Received {
    messages: Mutex<Messages>,
}

impl Received {
    /// Nobody has a message any more.
    pub fn clear(&self, events: &EventQueue) {
        let forgotten = std::mem::take(&mut lock(&self.messages).under_way).len();
        events.counts.in_flight.fetch_sub(forgotten as u64, Relaxed);
    }
}

#[derive(Default)]
struct Messages {
    under_way: HashMap<u64, UnderWay>,
    last_receipt: u64,
}

/// A message that somebody has, until it is deleted or its time is out.
struct UnderWay {
    event: Event,
    visible_at_ms: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetUrl {
    queue_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetAttributes {
    queue_url: String,
    #[serde(default)]
    attribute_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Receive {
    queue_url: String,
    max_number_of_messages: Option<usize>,
    wait_time_seconds: Option<u64>,
    visibility_timeout: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteBatch {
    queue_url: String,
    entries: Vec<DeleteEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteEntry {
    id: String,
    receipt_handle: String,
}

/// Answers one request; `target` is its header `x-amz-target`. `name` is the queue's.
pub async fn answer(state: &State, name: &str, target: &str, body: &[u8]) -> Result<String, ApiError> {
    let answer = match target.strip_prefix("AmazonSQS.") {
        Some("GetQueueUrl") => {
            let asked: GetUrl = read(body)?;
            check_name(&asked.queue_name, name)?;
            json!({"QueueUrl": url(state, name)})
        }
        Some("GetQueueAttributes") => {
            let asked: GetAttributes = read(body)?;
            check_url(&asked.queue_url, name)?;
            json!({"Attributes": attributes(state, name, &asked.attribute_names)})
        }
        Some("ReceiveMessage") => {
            let asked: Receive = read(body)?;
            check_url(&asked.queue_url, name)?;
            receive(state, &asked).await?
        }
        Some("DeleteMessageBatch") => {
            let asked: DeleteBatch = read(body)?;
            check_url(&asked.queue_url, name)?;
            delete(state, &asked.entries)?
        }
        _ => return Err(ApiError::new(400, "UnknownOperationException", "")),
    };
    Ok(answer.to_string())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::serialization(error.to_string()))
}

fn check_name(asked: &str, name: &str) -> Result<(), ApiError> {
    if asked == name {
        return Ok(());
    }
    Err(ApiError::new(400, "QueueDoesNotExist", "The specified queue does not exist."))
}

fn check_url(asked: &str, name: &str) -> Result<(), ApiError> {
    check_name(asked.rsplit('/').next().unwrap_or(""), name)
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(400, "InvalidParameterValue", message)
}

fn url(state: &State, name: &str) -> String {
    format!("{}/{}/{name}", state.topic.base_url(), state.options.account_id)
}

fn attributes(state: &State, name: &str, asked: &[String]) -> Value {
    let options = &state.options;
    give_back(state);
    let known = [
        ("ApproximateNumberOfMessages", state.events.waiting().to_string()),
        ("ApproximateNumberOfMessagesNotVisible", lock(&state.received.messages).under_way.len().to_string()),
        ("QueueArn", format!("arn:aws:sqs:{}:{}:{name}", options.region, options.account_id)),
        ("VisibilityTimeout", (options.queue_visibility_ms / 1000).to_string()),
    ];
    let wanted = |name: &str| asked.iter().any(|one| one == "All" || one == name);
    let shown: Map<String, Value> = known
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    shown.into()
}

/// Waits for the first message, not for a full batch.
async fn receive(state: &State, asked: &Receive) -> Result<Value, ApiError> {
    let most = asked.max_number_of_messages.unwrap_or(1);
    let wait_s = asked.wait_time_seconds.unwrap_or(0);
    let visibility_ms = asked.visibility_timeout.map_or(state.options.queue_visibility_ms, |seconds| seconds * 1000);
    if !(1..=BATCH_MAX).contains(&most) {
        return Err(invalid("MaxNumberOfMessages must be between 1 and 10, if provided."));
    }
    if wait_s > WAIT_MAX_S || asked.visibility_timeout.is_some_and(|seconds| seconds > VISIBILITY_MAX_S) {
        return Err(invalid("WaitTimeSeconds must be at most 20 and VisibilityTimeout at most 43200."));
    }
    let until_ms = clock::now_ms() + wait_s * 1000;
    let mut taken = Vec::with_capacity(most);
    loop {
        give_back(state);
        while taken.len() < most
            && let Some(event) = state.events.try_next()
        {
            taken.push(event);
        }
        if !taken.is_empty() || clock::now_ms() >= until_ms {
            break;
        }
        // Running out of time only means looking again.
        if let Ok(event) = tokio::time::timeout(LOOK_EVERY, state.events.next()).await {
            taken.push(event);
        }
    }
    let messages: Vec<Value> = taken.into_iter().map(|event| hand_out(state, event, visibility_ms)).collect();
    Ok(if messages.is_empty() { json!({}) } else { json!({"Messages": messages}) })
}

fn hand_out(state: &State, event: Event, visibility_ms: u64) -> Value {
    let post = state.topic.notification(&events::message(state, &event), event.notification);
    let mut messages = lock(&state.received.messages);
    messages.last_receipt += 1;
    let receipt = messages.last_receipt;
    let visible_at_ms = clock::now_ms() + visibility_ms;
    messages.under_way.insert(receipt, UnderWay { event, visible_at_ms });
    json!({
        // Doubles are messages of their own around the same notification.
        "MessageId": format!("{:016x}-{receipt}", state.instance),
        "ReceiptHandle": receipt.to_string(),
        "Body": String::from_utf8_lossy(&post.body),
    })
}

/// What was not deleted in time is there again.
fn give_back(state: &State) {
    let now_ms = clock::now_ms();
    let mut messages = lock(&state.received.messages);
    let out: Vec<u64> =
        messages.under_way.iter().filter(|(_, one)| one.visible_at_ms <= now_ms).map(|(receipt, _)| *receipt).collect();
    if out.is_empty() {
        return;
    }
    let events: Vec<Event> =
        out.iter().filter_map(|receipt| messages.under_way.remove(receipt)).map(|one| one.event).collect();
    drop(messages);
    let counts = &state.events.counts;
    counts.retried.fetch_add(events.len() as u64, Relaxed);
    counts.in_flight.fetch_sub(events.len() as u64, Relaxed);
    state.events.add(|adding| events.into_iter().for_each(|event| adding.push(event, 0)));
}

/// A receipt whose message went back meanwhile deletes nothing, and is no error.
fn delete(state: &State, entries: &[DeleteEntry]) -> Result<Value, ApiError> {
    if !(1..=BATCH_MAX).contains(&entries.len()) {
        return Err(ApiError::new(400, "TooManyEntriesInBatchRequest", "A batch has one to ten entries."));
    }
    let mut ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != entries.len() {
        return Err(ApiError::new(400, "BatchEntryIdsNotDistinct", "Two entries have the same id."));
    }
    give_back(state);
    let counts = &state.events.counts;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for entry in entries {
        let Ok(receipt) = entry.receipt_handle.parse::<u64>() else {
            failed.push(json!({"Id": entry.id, "Code": "ReceiptHandleIsInvalid", "SenderFault": true}));
            continue;
        };
        if lock(&state.received.messages).under_way.remove(&receipt).is_some() {
            counts.posted.fetch_add(1, Relaxed);
            counts.in_flight.fetch_sub(1, Relaxed);
        }
        done.push(json!({"Id": entry.id}));
    }
    Ok(json!({"Successful": done, "Failed": failed}))
}
