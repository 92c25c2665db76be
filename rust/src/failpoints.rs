//! Named points at which a test may kill or freeze this process, and a history of what passed them.
//!
//! They are part of the shipped binary, so that the one under test is the one that is shipped. Two environment
//! variables switch them on, both read once per process; the Python half of mailrail follows the same rules.
//!
//! - `MAILRAIL_TEST_HISTORY`: a file to which each point that is passed appends one line of JSON,
//!   `{"ns": CLOCK_BOOTTIME, "pid", "point", …facts}`, by one write each, so that lines of several processes and
//!   of one that dies right after stay whole.
//! - `MAILRAIL_TEST_FAILPOINTS`: `{"seed": 7, "points": {"call.signed": {"kill": 0.02, "stop": 0.01}}}`, the
//!   probabilities per hit of a SIGKILL and of a SIGSTOP to this process. Its last line says so in `end`.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use crate::lease::now_ns;
use crate::ses::json::push_string;

const HISTORY: &str = "MAILRAIL_TEST_HISTORY";
const FAILPOINTS: &str = "MAILRAIL_TEST_FAILPOINTS";

/// The failpoints of this process, or `None` when neither variable is set.
pub fn active() -> Option<&'static Failpoints> {
    static ACTIVE: OnceLock<Option<Failpoints>> = OnceLock::new();
    let read = || Failpoints::open(std::env::var(HISTORY).ok().as_deref(), std::env::var(FAILPOINTS).ok().as_deref());
    ACTIVE.get_or_init(read).as_ref()
}

/// A history, a menu of ends, or both.
#[derive(Debug)]
pub struct Failpoints {
    history: Option<File>,
    points: HashMap<String, Ends>,
    random: AtomicU64,
    calls: AtomicU64,
}

/// What a record says besides time, process and point.
#[derive(Debug, Clone, Copy)]
pub enum Fact {
    /// A number.
    Int(i64),
    /// A short word.
    Word(&'static str),
}

/// The probabilities of each end per hit.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ends {
    kill: f64,
    stop: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Menu {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    points: HashMap<String, Ends>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Stop,
}

impl Failpoints {
    /// From the values of the two variables. One that cannot be used counts as unset, and says so on stderr.
    fn open(history: Option<&str>, menu: Option<&str>) -> Option<Self> {
        let complain = |problem: String| eprintln!("mailrail: {problem}");
        let history = history.and_then(|path| open_history(path).map_err(complain).ok());
        let menu = menu.and_then(|json| read_menu(json).map_err(complain).ok());
        if history.is_none() && menu.is_none() {
            return None;
        }
        let Menu { seed, points } = menu.unwrap_or(Menu { seed: 0, points: HashMap::new() });
        let random = AtomicU64::new(seed.wrapping_add(u64::from(std::process::id())));
        Some(Self { history, points, random, calls: AtomicU64::new(0) })
    }

    /// A number for a call, unique in this process.
    pub fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Records that `point` was passed.
    pub fn record(&self, point: &str, facts: &[(&str, Fact)]) {
        self.write(point, facts, None);
    }

    /// Records that `point` was passed, and ends or freezes this process there if chance has it.
    pub fn hit(&self, point: &str, facts: &[(&str, Fact)]) {
        let end = self.points.get(point).and_then(|ends| self.draw(*ends));
        self.write(point, facts, end);
        match end {
            Some(End::Kill) => raise(libc::SIGKILL),
            Some(End::Stop) => raise(libc::SIGSTOP),
            None => {}
        }
    }

    fn draw(&self, ends: Ends) -> Option<End> {
        // Both are drawn every time, so that switching one off does not shift the other.
        let (kill, stop) = (self.chance() < ends.kill, self.chance() < ends.stop);
        if kill { Some(End::Kill) } else { stop.then_some(End::Stop) }
    }

    /// A number in [0, 1): SplitMix64 (Steele, Lea and Flood, 2014), whose state is a mere counter.
    fn chance(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut bits = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn write(&self, point: &str, facts: &[(&str, Fact)], end: Option<End>) {
        let Some(mut history) = self.history.as_ref() else { return };
        let mut line = format!("{{\"ns\":{},\"pid\":{},\"point\":", now_ns(), std::process::id()).into_bytes();
        push_string(&mut line, point);
        for (name, fact) in facts {
            line.push(b',');
            push_string(&mut line, name);
            line.push(b':');
            match fact {
                Fact::Int(number) => line.extend_from_slice(number.to_string().as_bytes()),
                Fact::Word(word) => push_string(&mut line, word),
            }
        }
        match end {
            Some(End::Kill) => line.extend_from_slice(br#","end":"kill""#),
            Some(End::Stop) => line.extend_from_slice(br#","end":"stop""#),
            None => {}
        }
        line.extend_from_slice(b"}\n");
        // One write(2): with O_APPEND nothing comes in between. A history that lacks lines fails its reader.
        let _ = history.write(&line);
    }
}

fn open_history(path: &str) -> Result<File, String> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| format!("{HISTORY} cannot be opened, nothing is recorded: {error}"))
}

fn read_menu(json: &str) -> Result<Menu, String> {
    let refused = |why: String| format!("{FAILPOINTS} cannot be used, nothing is armed: {why}");
    let menu: Menu = serde_json::from_str(json).map_err(|error| refused(error.to_string()))?;
    let is_probability = |ends: &Ends| [ends.kill, ends.stop].iter().all(|chance| (0.0..=1.0).contains(chance));
    match menu.points.iter().find(|(_, ends)| !is_probability(ends)) {
        Some((point, _)) => Err(refused(format!("{point} needs probabilities between 0 and 1"))),
        None => Ok(menu),
    }
}

/// Sends a signal that cannot be caught to this thread, and by its default action it takes the whole process. Were a
/// SIGSTOP sent to the process, any thread might take it and this one run on for a while.
fn raise(signal: libc::c_int) {
    // SAFETY: no memory is involved.
    unsafe { libc::raise(signal) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(menu: &str) -> Failpoints {
        Failpoints::open(None, Some(menu)).expect("a menu that can be used")
    }

    #[test]
    fn nothing_is_active_without_a_variable_or_with_a_bad_one() {
        assert!(Failpoints::open(None, None).is_none());
        assert!(Failpoints::open(Some("/nowhere/at/all"), None).is_none());
        for bad in [
            "",
            "7",
            r#"{"points":{"a":{"kill":1.5}}}"#,
            r#"{"points":{"a":{"stop":-1}}}"#,
            r#"{"points":{"a":{"explode":1}}}"#,
            r#"{"pionts":{}}"#,
        ] {
            assert!(Failpoints::open(None, Some(bad)).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_seed_repeats_its_draws_at_the_rate_that_was_asked_for() {
        let menu = r#"{"seed":7,"points":{"a":{"kill":0.25,"stop":0.25}}}"#;
        let draws = |failpoints: &Failpoints| -> Vec<Option<End>> {
            (0..10_000).map(|_| failpoints.draw(failpoints.points["a"])).collect()
        };
        let first = draws(&armed(menu));
        assert_eq!(first, draws(&armed(menu)));
        assert_ne!(first, draws(&armed(&menu.replace('7', "8"))));
        let count = |end| first.iter().filter(|drawn| **drawn == Some(end)).count();
        assert!((2_300..2_700).contains(&count(End::Kill)), "{}", count(End::Kill));
        assert!((1_700..2_050).contains(&count(End::Stop)), "{}", count(End::Stop));
        let certain = armed(r#"{"points":{"never":{},"kill":{"kill":1},"stop":{"stop":1}}}"#);
        let drawn = |point: &str| certain.draw(certain.points[point]);
        assert_eq!((drawn("never"), drawn("kill"), drawn("stop")), (None, Some(End::Kill), Some(End::Stop)));
    }

    #[test]
    fn the_history_is_one_line_of_json_per_record() {
        let path = std::env::temp_dir().join(format!("mailrail-history-{}", std::process::id()));
        let failpoints = Failpoints::open(path.to_str(), None).expect("a history");
        failpoints.hit("call.open", &[("span", Fact::Word("call")), ("call", Fact::Int(12))]);
        failpoints.record("call.closed", &[]);
        let text = std::fs::read_to_string(&path).expect("a file");
        std::fs::remove_file(&path).expect("removed");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["point"], &lines[0]["span"], &lines[0]["call"]),
            (&"call.open".into(), &"call".into(), &12.into())
        );
        assert_eq!(lines[1]["pid"], std::process::id());
        assert!(lines[0]["ns"].as_u64() <= lines[1]["ns"].as_u64() && lines[0].get("end").is_none());
        assert_ne!(failpoints.next_call(), failpoints.next_call());
    }
}
