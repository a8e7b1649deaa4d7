//! Answers on stdout, in columns or as JSON.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use serde::Serialize;

use super::Failure;

/// Writes an answer. A reader who has gone (`| head`) has had enough; that is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write the answer: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes an answer for programs.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("cannot write the answer as JSON: {error}")))?;
    text.push('\n');
    print(&text)
}

/// Lines of aligned columns; the last is not padded. Rows may have different lengths.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = width.saturating_sub(cell.chars().count());
            line.push_str(cell);
            line.push_str(&" ".repeat(padding + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A name as it can be shown on a terminal.
pub(super) fn shown(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// `3 files`, `1 file`.
pub(super) fn count(number: u64, singular: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { singular } else { plural })
}

/// `45s`, `12m`, `3h 5m`, `2d 4h`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m"),
        3_600..86_400 => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_ragged_rows_kept() {
        let rows = [vec!["a".into(), "1".into()], vec!["\u{4e2d}bc".into(), "22".into(), "x".into()], vec!["z".into()]];
        assert_eq!(columns(&rows), "a    1\n\u{4e2d}bc  22  x\nz\n");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(shown("a\x1b[31m\n"), "a\\u{1b}[31m\\n");
    }

    #[test]
    fn spans_are_short() {
        let span = |seconds| super::span(Duration::from_secs(seconds));
        assert_eq!([span(5), span(61), span(3_700), span(180_000)], ["5s", "1m", "1h 1m", "2d 2h"]);
    }
}
