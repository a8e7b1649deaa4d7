//! A refused configuration.

use std::fmt;
use std::path::PathBuf;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// Where the refused thing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a file; the line counts from 1 and is absent if the file could not be read.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line.
        line: Option<usize>,
    },
    /// In a `-o` option of this name.
    Option(String),
    /// In the rest of the command line.
    CommandLine,
}

/// What is refused, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where.
    pub location: Location,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::File { path, line: Some(line) } => write!(f, "{}:{line}: ", path.display())?,
            Location::File { path, line: None } => write!(f, "{}: ", path.display())?,
            Location::Option(name) => write!(f, "option `{name}`: ")?,
            Location::CommandLine => {}
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

impl std::error::Error for Error {}
