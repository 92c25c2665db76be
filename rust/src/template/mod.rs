//! The template language, and freezing: from what a customer wrote to what every recipient's mail is made of.
//!
//! The language is minijinja 3.1 with these rules: HTML is autoescaped, the other parts are not; an unknown
//! variable prints nothing; `{#` opens no comment; trailing newlines stay; there is no loader, so `include`
//! and `extends` do not exist. In HTML, `{%` inside `<style>`, `<script>` and comments is text.

mod edit;
mod engine;
mod freeze;
mod part;
mod survey;
#[cfg(test)]
mod tests;

pub(crate) use edit::{BRACE, Edit};
pub(crate) use engine::{environment, explain, install};
pub(crate) use freeze::{Decorated, decorate};
pub use freeze::{FrozenContent, Source, Untracked, freeze};
pub(crate) use part::{Part, names_in, render_once};
pub(crate) use survey::{Step, Survey, range_in};

/// Largest source of one part, in bytes.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// Largest rendered part, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 1024 * 1024;
/// Work that rendering one part may cost, in minijinja's units of fuel.
pub const MAX_FUEL: u64 = 100_000;
/// How deeply blocks, loops and macro calls may nest while rendering.
pub const MAX_RECURSION: usize = 50;
