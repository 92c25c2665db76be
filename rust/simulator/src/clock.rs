//! Wall-clock time in the spellings of AWS.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// `2026-01-02T03:04:05.678Z`, as in events and SNS envelopes.
pub fn iso(ms: u64) -> String {
    let (year, month, day) = civil(ms / 86_400_000);
    let (hour, minute, second) = time_of_day(ms);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// `20260102T030405Z`, as in signatures.
pub fn basic(ms: u64) -> String {
    let (year, month, day) = civil(ms / 86_400_000);
    let (hour, minute, second) = time_of_day(ms);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Reads `20260102T030405Z`; `None` for anything else.
pub fn parse_basic(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = &bytes[from..to];
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some((((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

fn time_of_day(ms: u64) -> (u64, u64, u64) {
    let seconds = ms / 1000 % 86_400;
    (seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The Gregorian date of a day number since 1970. Years are counted from March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let year_of_era = year % 400;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    year / 400 * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_spelt_as_aws_does() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(1_709_210_096_789), "2024-02-29T12:34:56.789Z");
        assert_eq!(basic(1_767_323_045_000), "20260102T030405Z");
    }

    #[test]
    fn every_day_of_two_centuries_goes_there_and_back() {
        for day in 0..73_000 {
            let ms = day * 86_400_000 + 3_661_000;
            assert_eq!(parse_basic(&basic(ms)), Some(ms));
        }
    }

    #[test]
    fn malformed_times_are_refused() {
        for bad in
            ["", "20260102T030405", "20261302T030405Z", "20260102 030405Z", "2026010xT030405Z", "20260102T250405Z"]
        {
            assert_eq!(parse_basic(bad), None, "{bad}");
        }
    }
}
