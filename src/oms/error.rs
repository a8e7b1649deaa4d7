//! What can be wrong with the configuration of a sync task.

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// A sync task that cannot be talked to as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address is not that of a sync task.
    #[error("`{url}` is not the address of a sync task: {reason}")]
    Url {
        /// As configured, without query and user information.
        url: String,
        /// What is wrong with it, and what is wanted.
        reason: String,
    },
    /// A credential is empty or holds what no header can carry (a line's end, say).
    #[error("the {0} of the sync task is empty, or holds control characters")]
    Credential(&'static str),
}
