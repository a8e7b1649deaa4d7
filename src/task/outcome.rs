//! How a worker ended.

use std::any::Any;
use std::error::Error;
use std::fmt::Write;

/// What a worker may end with.
pub trait Outcome {
    /// The failure in words, its causes included; `None`: it ended as it should.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Error> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| with_causes(&error))
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Many errors already print their cause.
        let part = error.to_string();
        if !text.ends_with(&part) {
            write!(text, ": {part}").expect("invariant: a String takes what is written to it");
        }
        cause = error.source();
    }
    text
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn failures_carry_their_causes_once() {
        assert_eq!(().failure(), None);
        assert_eq!(Ok::<(), Outer>(()).failure(), None);
        assert_eq!(Err(Outer(std::io::Error::other("inner"))).failure().as_deref(), Some("outer: inner"));
        assert_eq!(Err(std::io::Error::other("alone")).failure().as_deref(), Some("alone"));
    }
}
