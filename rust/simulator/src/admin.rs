//! The simulator's own endpoints, under `/_simulator/`, unsigned.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::{Answer, parameter, plain};
use crate::clock;
use crate::faults::{FaultDraw, Faults};
use crate::state::{State, lock};
use crate::store::Store;

/// How many mails one answer holds unless told.
const DEFAULT_LIMIT: usize = 100;
/// How many lines of the accept log one answer holds unless told.
const DEFAULT_LOG_LIMIT: usize = 10_000;
/// How many duplicated ids, and mails of each, are shown; all are counted.
const MAX_GROUPS: usize = 1000;
const MAX_GROUP_MAILS: usize = 10;

/// Answers a request of a test or an operator.
pub fn answer(state: &State, method: &Method, path: &str, query: &str, body: &[u8]) -> Answer {
    match (method.as_str(), path) {
        ("GET", "/_simulator/messages") => messages(state, query),
        ("DELETE", "/_simulator/messages") => {
            lock(&state.store).forget_mails();
            ok(json!({}))
        }
        ("GET", "/_simulator/accepted") => accepted(state, query),
        ("GET", "/_simulator/duplicates") => ok(duplicates(&lock(&state.store), state.instance)),
        ("GET", "/_simulator/stats") => ok(lock(&state.stats).describe(state.events.describe())),
        ("GET", "/_simulator/faults") => ok(json!(lock(&state.faults).menu)),
        ("PUT", "/_simulator/faults") => set_faults(state, body),
        ("GET", "/_simulator/account") => ok(json!(state.account())),
        ("PUT", "/_simulator/account") => match state.change_account(body) {
            Ok(account) => ok(json!(account)),
            Err(reason) => problem(StatusCode::BAD_REQUEST, &reason),
        },
        ("PUT", "/_simulator/identities") => match lock(&state.identities).steer(body, clock::now_ms()) {
            Ok(steering) => ok(json!(steering)),
            Err(reason) => problem(StatusCode::BAD_REQUEST, &reason),
        },
        ("POST", "/_simulator/reset") => {
            state.reset();
            ok(json!({}))
        }
        _ => problem(StatusCode::NOT_FOUND, "no such endpoint"),
    }
}

fn messages(state: &State, query: &str) -> Answer {
    let to = parameter(query, "to");
    match number(query, "limit", DEFAULT_LIMIT) {
        Ok(limit) => ok(lock(&state.store).read(to.as_deref(), limit).into()),
        Err(reason) => problem(StatusCode::BAD_REQUEST, &reason),
    }
}

fn accepted(state: &State, query: &str) -> Answer {
    let wanted = number(query, "from", 0).and_then(|from| Ok((from, number(query, "limit", DEFAULT_LOG_LIMIT)?)));
    let (from, limit) = match wanted {
        Ok(wanted) => wanted,
        Err(reason) => return problem(StatusCode::BAD_REQUEST, &reason),
    };
    let store = lock(&state.store);
    let mails: Vec<Value> =
        store.log.since(from as u64).take(limit).map(|accepted| accepted.describe(state.instance)).collect();
    ok(json!({"total": store.log.next_number(), "complete": store.log.is_complete(), "mails": mails}))
}

fn duplicates(store: &Store, instance: u64) -> Value {
    let (groups, without_id) = store.log.duplicates();
    let shown: Vec<Value> = groups
        .iter()
        .take(MAX_GROUPS)
        .map(|group| {
            let first = group.iter().take(MAX_GROUP_MAILS);
            let mails: Vec<Value> = first.map(|accepted| accepted.describe(instance)).collect();
            json!({"id": group[0].mail_id, "count": group.len(), "mails": mails})
        })
        .collect();
    json!({
        "checked": store.log.next_number(),
        "complete": store.log.is_complete(),
        "without_id": without_id,
        "count": groups.len(),
        "duplicates": shown,
    })
}

fn set_faults(state: &State, body: &[u8]) -> Answer {
    match Faults::read(body) {
        Ok(menu) => {
            let shown = json!(menu);
            *lock(&state.faults) = FaultDraw::new(menu);
            ok(shown)
        }
        Err(reason) => problem(StatusCode::BAD_REQUEST, &reason),
    }
}

fn number(query: &str, name: &str, default: usize) -> Result<usize, String> {
    match parameter(query, name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("{name} must be a number")),
    }
}

fn ok(json: Value) -> Answer {
    plain(StatusCode::OK, "application/json", json.to_string())
}

fn problem(status: StatusCode, message: &str) -> Answer {
    plain(status, "application/json", json!({"message": message}).to_string())
}
