//! Times as people write them.

use std::time::Duration;

/// Parses `500ms`, `1s`, `10m`, `24h`, `7d`; a bare `0` is no time at all.
///
/// # Errors
/// What is wrong and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let usage = || format!("`{text}` is not a time: write a whole number and a unit, as 500ms, 1s, 10m or 24h");
    let number: u64 = number.parse().map_err(|_| usage())?;
    let milliseconds: u64 = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(usage()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_parse() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "1", "s", "-1s", "1.5s", "1 fortnight", "18446744073709551615d"] {
            let refused = parse_duration(wrong).unwrap_err();
            assert!(refused.contains("as 500ms"), "{wrong}: {refused}");
        }
    }
}
