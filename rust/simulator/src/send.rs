//! SendEmail and SendBulkEmail, with the faults that are switched on.

use std::time::Duration;

use serde::Deserialize;

use crate::bulk::send_bulk;
use crate::clock;
use crate::error::ApiError;
use crate::faults::{After, Before};
use crate::single::send_one;
use crate::state::{State, lock};
use crate::stats::Operation;
use crate::template::unsupported;

/// How a call ends.
pub enum Ending {
    /// With JSON or an error.
    Answer(Result<String, ApiError>),
    /// The connection closes.
    Close,
    /// Not while any client waits: the connection is idle until it is closed for that.
    Hang,
}

/// Handles a send, with the faults that are switched on.
pub async fn send(state: &State, operation: Operation, body: &[u8]) -> Ending {
    lock(&state.stats).send_call();
    let (latency_ms, before) = {
        let mut faults = lock(&state.faults);
        let before = faults.before().or_else(|| match operation {
            Operation::SendEmail => None,
            Operation::SendBulkEmail => faults.before_bulk(clock::now_ms()),
        });
        (faults.menu.latency_ms, before)
    };
    if latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;
    }
    if let Some(fault) = before {
        return spoil_before(state, fault);
    }
    let accepted = match operation {
        _ if !state.account().sending_enabled => Err(paused()),
        Operation::SendEmail => send_one(state, body),
        Operation::SendBulkEmail => send_bulk(state, body),
    };
    // A refused call accepted nothing, so there is nothing to spoil "after".
    let after = if accepted.is_ok() { lock(&state.faults).after() } else { None };
    if matches!(&accepted, Err(error) if error.status == 429) {
        lock(&state.stats).throttled_call();
    }
    match after {
        Some(fault) => spoil_after(state, fault),
        None => Ending::Answer(accepted),
    }
}

fn spoil_before(state: &State, fault: Before) -> Ending {
    let (name, ending) = match fault {
        Before::Throttle => ("throttle_429", Ending::Answer(Err(too_fast()))),
        Before::RefuseTemplate => ("refuse_bulk", Ending::Answer(Err(unsupported()))),
        Before::ServerError => ("server_error_before", Ending::Answer(Err(server_error()))),
        Before::Drop => ("drop_request", Ending::Close),
    };
    let mut stats = lock(&state.stats);
    stats.fault(name);
    if fault == Before::Throttle {
        stats.throttled_call();
    }
    ending
}

fn spoil_after(state: &State, fault: After) -> Ending {
    let (name, ending) = match fault {
        After::ServerError => ("server_error_after_accept", Ending::Answer(Err(server_error()))),
        After::Drop => ("drop_reply_after_accept", Ending::Close),
        After::Hang => ("hang_after_accept", Ending::Hang),
    };
    lock(&state.stats).fault(name);
    ending
}

fn paused() -> ApiError {
    ApiError::new(400, "SendingPausedException", "Email sending is disabled for the account.")
}

/// 429: more recipients per second than granted.
pub fn too_fast() -> ApiError {
    ApiError::new(429, "TooManyRequestsException", "Maximum sending rate exceeded.")
}

/// 500: something is wrong on our side.
pub fn server_error() -> ApiError {
    ApiError::new(500, "InternalServiceErrorException", "Internal failure. Please try again later.")
}

/// Reads a request. Members that SES does not know are ignored, as it ignores them.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    sonic_rs::from_slice(body).map_err(|error| {
        // The parser's message quotes the body around the place; its first line names the reason.
        let text = error.to_string();
        ApiError::serialization(text.lines().next().unwrap_or("Malformed JSON").to_owned())
    })
}
