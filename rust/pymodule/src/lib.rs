//! `mailrail._core`: the Rust core as Python sees it. The names, and nothing else.

mod codec;
mod errors;
mod import;
mod mail;
mod plan;
mod recipient;
mod runtime;
mod sender;
mod simulator;
mod sns;

/// Rounds come and go on several threads; the system's allocator keeps an arena for each and gives little back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The send core of mailrail.
#[pyo3::pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::codec::Codec;
    #[pymodule_export]
    use crate::errors::{ConfigError, CoreError, MailError, TemplateError};
    #[pymodule_export]
    use crate::import::{ImportCutter, ImportPiece, ImportPlan, ImportRows, check_address};
    #[pymodule_export]
    use crate::mail::{encode_mail_rows, inspect_template, prepare_mail};
    #[pymodule_export]
    use crate::plan::{Plan, freeze};
    #[pymodule_export]
    use crate::recipient::encode_recipient_row;
    #[pymodule_export]
    use crate::sender::{Lease, Report, Sender};
    #[pymodule_export]
    use crate::simulator::run_simulator;
    #[pymodule_export]
    use crate::sns::{Envelope, ParsedEvents, SnsVerifier, parse_events};
}
