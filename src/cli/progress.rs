//! Progress of uploads and what follows them: a bar on a terminal, lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::count;
use crate::control::Pending;
use crate::types::ByteSize;

/// Between two questions: short enough to feel immediate, long enough to cost nothing.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Shows [`Pending`] as it shrinks.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// Most work seen at once: the bar's length.
    most: u64,
    last_line: Option<(Instant, String)>,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}%  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Progress { bar, most: 0, last_line: None }
    }

    /// Shows where it stands.
    pub(super) fn show(&mut self, pending: &Pending) {
        // Bytes dominate while files travel, steps afterwards: a step weighs as much as 64 KiB.
        let work = pending.bytes.saturating_sub(pending.bytes_sent).saturating_add(pending.steps() << 16);
        self.most = self.most.max(work);
        let text = left(pending);
        match &self.bar {
            Some(bar) => {
                bar.set_length(self.most);
                bar.set_position(self.most - work);
                bar.set_message(text);
            }
            None => {
                // A line only for what there is to wait for.
                let due = !pending.is_settled()
                    && self.last_line.as_ref().is_none_or(|(at, last)| at.elapsed() >= LINE_EVERY && *last != text);
                if due {
                    // Progress that cannot be shown is no reason to stop.
                    let _ = writeln!(std::io::stderr(), "{text}");
                    self.last_line = Some((Instant::now(), text));
                }
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `3 files (12 MiB) to upload, 4 announcements, 1 record`, or `nothing left`.
pub(super) fn left(pending: &Pending) -> String {
    let mut parts = Vec::new();
    if pending.files > 0 {
        let bytes = ByteSize(pending.bytes.saturating_sub(pending.bytes_sent));
        parts.push(format!("{} ({bytes}) to upload", count(pending.files, "file", "files")));
    }
    for (number, singular, plural) in [
        (pending.copies, "copy", "copies"),
        (pending.removals, "removal", "removals"),
        (pending.announcements, "announcement", "announcements"),
        (pending.records, "record", "records"),
    ] {
        if number > 0 {
            parts.push(count(number, singular, plural));
        }
    }
    if pending.stuck_count > 0 {
        parts.push(format!("{} stuck", pending.stuck_count));
    }
    if parts.is_empty() { "nothing left".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_words() {
        assert_eq!(left(&Pending::default()), "nothing left");
        let pending = Pending { files: 1, bytes: 3 << 20, bytes_sent: 1 << 20, records: 2, ..Default::default() };
        assert_eq!(left(&pending), "1 file (2 MiB) to upload, 2 records");
    }
}
