//! What the variable asks for.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ALL;

/// The variable, understood.
#[derive(Debug)]
pub(super) enum Setting {
    /// Not set, or empty.
    Unset,
    /// A failpoint is armed.
    Armed(Trigger),
    /// Not understood.
    Wrong(String),
}

/// An armed failpoint.
#[derive(Debug)]
pub(super) struct Trigger {
    name: &'static str,
    /// Hits left until it fires, that one included.
    left: AtomicU64,
}

impl Trigger {
    /// Counts a hit; true for the one that was asked for, and no other.
    pub(super) fn is_due(&self, name: &str) -> bool {
        // From 0 it wraps round, which is as good as never.
        name == self.name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// Ends this process as SIGKILL does: nothing is flushed, no destructor runs.
pub(super) fn end_process() -> ! {
    // The signal ends the process before the call returns; if it could not, abort does.
    let _refused = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

pub(super) fn parse(text: Option<&str>) -> Setting {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Setting::Unset };
    let (name, count) = text.split_once(':').map_or((text, Some(1)), |(name, count)| (name, count.parse().ok()));
    match (ALL.iter().find(|known| **known == name), count) {
        (Some(name), Some(count)) if count > 0 => Setting::Armed(Trigger { name, left: AtomicU64::new(count) }),
        _ => Setting::Wrong(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_a_name_and_a_count() {
        assert!(matches!(parse(None), Setting::Unset));
        assert!(matches!(parse(Some("")), Setting::Unset));
        for wrong in ["no-such-point", "upload-before-put:0", "upload-before-put:x", "upload-before-put:", ":1"] {
            assert!(matches!(parse(Some(wrong)), Setting::Wrong(text) if text == wrong), "{wrong}");
        }
        let Setting::Armed(trigger) = parse(Some("upload-before-put:3")) else { panic!("not armed") };
        let hits: Vec<bool> = (0..5).map(|_| trigger.is_due("upload-before-put")).collect();
        assert_eq!(hits, [false, false, true, false, false]);
        let Setting::Armed(trigger) = parse(Some("oms-after-send")) else { panic!("not armed") };
        assert!(!trigger.is_due("oms-before-send"));
        assert!(trigger.is_due("oms-after-send"));
    }

    #[test]
    fn names_are_distinct() {
        let distinct: std::collections::BTreeSet<_> = ALL.iter().collect();
        assert_eq!(distinct.len(), ALL.len());
    }
}
