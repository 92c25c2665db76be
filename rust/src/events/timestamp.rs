//! RFC 3339 date-times, as SNS and SES write them, in whole microseconds.

const DAY_S: i64 = 86_400;

/// Microseconds since 1970-01-01 UTC, or `None` if `text` is not an RFC 3339 date-time.
///
/// Digits behind the sixth decimal are cut off. A leap second counts as the first second of the next minute.
pub fn unix_micros(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 20 {
        return None;
    }
    let separated = bytes[4] == b'-'
        && bytes[7] == b'-'
        && matches!(bytes[10], b'T' | b't')
        && bytes[13] == b':'
        && bytes[16] == b':';
    if !separated {
        return None;
    }
    let (year, month, day) = (number(bytes, 0, 4)?, number(bytes, 5, 7)?, number(bytes, 8, 10)?);
    let (hour, minute, second) = (number(bytes, 11, 13)?, number(bytes, 14, 16)?, number(bytes, 17, 19)?);
    if day == 0 || day > days_in_month(year, month)? || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, zone_at) = fraction(bytes, 19)?;
    let seconds = days_since_1970(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second;
    Some((seconds - zone_offset_s(&bytes[zone_at..])?) * 1_000_000 + micros)
}

fn number(bytes: &[u8], from: usize, to: usize) -> Option<i64> {
    bytes[from..to].iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

/// The microseconds of `.123…` at `at`, 0 when there is no fraction, and where the zone begins.
fn fraction(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    if bytes[at] != b'.' {
        return Some((0, at));
    }
    let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let kept = digits.min(6);
    let micros = number(bytes, at + 1, at + 1 + kept)? * 10_i64.pow(6 - kept as u32);
    Some((micros, at + 1 + digits))
}

fn zone_offset_s(zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    if zone.len() != 6 || zone[3] != b':' {
        return None;
    }
    let (hours, minutes) = (number(zone, 1, 3)?, number(zone, 4, 6)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> Option<i64> {
    match month {
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(28 + i64::from(is_leap(year))),
        1..=12 => Some(31),
        _ => None,
    }
}

/// Days by counting from a year that begins in March: the leap day then is the last day of a year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let march_year = if month > 2 { year } else { year - 1 };
    let march_month = (month + 9) % 12;
    let before_year =
        march_year * 365 + march_year.div_euclid(4) - march_year.div_euclid(100) + march_year.div_euclid(400);
    // 153 days in each run of five months, March to July and August to December.
    let before_month = (153 * march_month + 2) / 5;
    before_year + before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let moments = [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-01-01T00:00:00Z", 946_684_800_000_000),
            ("2000-02-29T12:00:00.5Z", 951_825_600_500_000),
            ("2016-10-19T23:20:52.240Z", 1_476_919_252_240_000),
            ("2026-11-23T16:39:28.123456789Z", 1_795_451_968_123_456),
            ("2026-11-23T16:39:28+05:30", 1_795_432_168_000_000),
            ("2026-11-23t16:39:28.000-08:00", 1_795_480_768_000_000),
            ("1969-12-31T23:59:59.999Z", -1000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
        ];
        for (text, micros) in moments {
            assert_eq!(unix_micros(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let texts = [
            "",
            "2026-11-23",
            "2026-11-23T16:39:28",
            "2026-11-23 16:39:28Z",
            "2026-13-23T16:39:28Z",
            "2026-00-23T16:39:28Z",
            "2026-02-29T16:39:28Z",
            "2026-11-31T16:39:28Z",
            "2026-11-00T16:39:28Z",
            "2026-11-23T24:39:28Z",
            "2026-11-23T16:60:28Z",
            "2026-11-23T16:39:61Z",
            "2026-11-23T16:39:28.Z",
            "2026-11-23T16:39:28.1",
            "2026-11-23T16:39:28ZZ",
            "2026-11-23T16:39:28+5:30",
            "2026-11-23T16:39:28+05:60",
            "2026-11-23T16:39:28+24:00",
            "+026-11-23T16:39:28Z",
            "2026-11-2éT16:39:28Z",
        ];
        for text in texts {
            assert_eq!(unix_micros(text), None, "{text}");
        }
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut before = days_since_1970(1899, 12, 31);
        for year in 1900..=2101 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month).unwrap() {
                    let today = days_since_1970(year, month, day);
                    assert_eq!(today, before + 1, "{year}-{month}-{day}");
                    before = today;
                }
            }
        }
    }
}
