//! The shape of an SES error: a status, a type in `x-amzn-errortype`, and a message.

/// An answer that is not 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Value of the `x-amzn-errortype` header.
    pub kind: &'static str,
    /// Value of `message` in the body.
    pub message: String,
}

impl ApiError {
    /// Any error.
    pub fn new(status: u16, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, kind, message: message.into() }
    }

    /// 400: the request breaks a rule.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "BadRequestException", message)
    }

    /// 400: a member that the model requires is absent. `path` is spelt as AWS does, `bulkEmailEntries.1.member.destination`.
    pub fn missing(path: &str) -> ApiError {
        ApiError::bad_request(format!(
            "1 validation error detected: Value null at '{path}' failed to satisfy constraint: Member must not be null"
        ))
    }

    /// 400: a member breaks a constraint of the model.
    pub fn constraint(path: &str, constraint: &str) -> ApiError {
        ApiError::bad_request(format!(
            "1 validation error detected: Value at '{path}' failed to satisfy constraint: {constraint}"
        ))
    }

    /// 404: something named does not exist.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(404, "NotFoundException", message)
    }

    /// 400: the mail itself is refused.
    pub fn rejected(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "MessageRejected", message)
    }

    /// 400: the body is not JSON of the right shape.
    pub fn serialization(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "SerializationException", message)
    }
}
