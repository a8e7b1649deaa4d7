//! What a check found to be wrong.

use std::fmt;

/// What it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// What was acknowledged is not there.
    Lost,
    /// Neither the old nor the new.
    Torn,
    /// Stored twice, or where it should not be any more.
    Duplicated,
    Unannounced,
    /// Anything else that must not be.
    Other,
}

/// All of it.
#[derive(Default)]
pub struct Findings(Vec<(Wrong, String)>);

impl Findings {
    pub fn add(&mut self, wrong: Wrong, text: impl Into<String>) {
        self.0.push((wrong, text.into()));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn count(&self, wrong: Wrong) -> usize {
        self.0.iter().filter(|(held, _)| *held == wrong).count()
    }

    /// The line that says it all.
    pub fn sum(&self) -> String {
        let count = |wrong| self.count(wrong);
        let other = match count(Wrong::Other) {
            0 => String::new(),
            other => format!(", and {other} other"),
        };
        format!(
            "lost / torn / duplicated / unannounced: {} / {} / {} / {}{other}",
            count(Wrong::Lost),
            count(Wrong::Torn),
            count(Wrong::Duplicated),
            count(Wrong::Unannounced)
        )
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(wrong, text)| writeln!(f, "{wrong:?}: {text}"))
    }
}
