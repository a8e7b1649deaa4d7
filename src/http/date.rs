//! Times as headers and XML bodies carry them.

use jiff::Timestamp;
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};

use crate::types::TimeNs;

/// Reads an HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`: `Date`, `Last-Modified`).
pub fn parse_date(text: &str) -> Option<TimeNs> {
    DateTimeParser::new().parse_timestamp(text.trim()).ok().and_then(from_timestamp)
}

/// Writes an HTTP date; the fraction of the second is dropped.
pub fn format_date(time: TimeNs) -> String {
    let timestamp = Timestamp::from_second(time.sec()).unwrap_or(Timestamp::UNIX_EPOCH);
    DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&timestamp)
        .expect("invariant: 64 bits of nanoseconds lie in the years 1677 to 2262, which the format can write")
}

/// Reads an ISO 8601 time (`2024-01-02T03:04:05.000Z`: listings).
pub fn parse_iso8601(text: &str) -> Option<TimeNs> {
    text.trim().parse::<Timestamp>().ok().and_then(from_timestamp)
}

fn from_timestamp(timestamp: Timestamp) -> Option<TimeNs> {
    i64::try_from(timestamp.as_nanosecond()).ok().map(TimeNs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_rfc_9110() {
        let time = TimeNs::new(784_111_777, 0);
        assert_eq!(parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(time));
        assert_eq!(format_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(parse_date("yesterday"), None);
        for extreme in [TimeNs(i64::MIN), TimeNs(i64::MAX)] {
            assert!(format_date(extreme).ends_with(" GMT"));
        }
    }

    #[test]
    fn times_of_listings() {
        assert_eq!(parse_iso8601("1994-11-06T08:49:37.000Z"), Some(TimeNs::new(784_111_777, 0)));
        assert_eq!(parse_iso8601("1994-11-06T08:49:37.250Z"), Some(TimeNs::new(784_111_777, 250_000_000)));
        assert_eq!(parse_iso8601("1994"), None);
    }
}
