//! Values that remember where they were written, so that a refusal can point there.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::error::{Error, Location};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At this byte of the file.
    Offset(usize),
    /// In this option.
    Option(String),
    /// In the rest of the command line.
    CommandLine,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<T> At<T> {
    /// A value given by an option.
    pub(super) fn option(name: &str, value: T) -> At<T> {
        At { value, place: Place::Option(name.to_owned()) }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        let place = Place::Offset(spanned.span().start);
        Ok(At { value: spanned.into_inner(), place })
    }
}

/// What the values were read from.
pub(super) struct Source<'a> {
    /// The file as it was named; `None`: a URL and options.
    pub(super) file: Option<&'a Path>,
    /// Its text.
    pub(super) text: &'a str,
    /// Relative paths start here; absolute.
    pub(super) dir: PathBuf,
    /// The environment, or a test's.
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    /// A refusal.
    pub(super) fn refuse(&self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error { location: self.location(place), message: message.into(), remedy: remedy.into() }
    }

    fn location(&self, place: &Place) -> Location {
        match (place, self.file) {
            (Place::Offset(offset), Some(path)) => {
                Location::File { path: path.to_owned(), line: Some(line_of(self.text, *offset)) }
            }
            (Place::Option(name), _) => Location::Option(name.clone()),
            (Place::CommandLine | Place::Offset(_), _) => Location::CommandLine,
        }
    }

    /// An absolute path: relative ones start at the configuration file's directory, since the daemon's
    /// working directory is not its user's.
    pub(super) fn absolute(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }
}

/// The line of a byte, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
