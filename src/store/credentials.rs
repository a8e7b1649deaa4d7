//! Who signs: keys that are shown to nobody, and where the current ones are kept.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use secrecy::{ExposeSecret, SecretString};

/// A key pair, with a token if it is a temporary one.
#[derive(Clone)]
pub struct Credentials {
    secret_id: String,
    secret_key: SecretString,
    token: Option<SecretString>,
}

impl Credentials {
    /// Takes a key pair; `token` for temporary keys. White space around them, which files and
    /// environment variables leave behind, is dropped.
    pub fn new(secret_id: &str, secret_key: &str, token: Option<&str>) -> Self {
        let secret = |text: &str| SecretString::from(text.trim().to_owned());
        Credentials { secret_id: secret_id.trim().to_owned(), secret_key: secret(secret_key), token: token.map(secret) }
    }

    /// The public half (`AKID...`).
    pub fn secret_id(&self) -> &str {
        &self.secret_id
    }

    /// The secret half.
    pub(super) fn secret_key(&self) -> &str {
        self.secret_key.expose_secret()
    }

    /// The token of temporary keys.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_ref().map(ExposeSecret::expose_secret)
    }

    /// Whether a request signed by `other` would be signed alike.
    pub(super) fn same_as(&self, other: &Credentials) -> bool {
        self.secret_id == other.secret_id && self.secret_key() == other.secret_key() && self.token() == other.token()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("secret_id", &self.secret_id).finish_non_exhaustive()
    }
}

/// The credentials in force. Clones share them: whoever renews them (a reload, a role's temporary
/// keys) calls [`CredentialsSource::replace`], and requests signed from then on use the new ones.
#[derive(Clone, Debug)]
pub struct CredentialsSource {
    /// Held only to copy the pointer; last in every order of locks.
    current: Arc<RwLock<Arc<Credentials>>>,
}

impl CredentialsSource {
    /// The credentials in force now.
    pub fn current(&self) -> Arc<Credentials> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts others in force.
    pub fn replace(&self, credentials: Credentials) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
    }
}

impl From<Credentials> for CredentialsSource {
    fn from(credentials: Credentials) -> Self {
        CredentialsSource { current: Arc::new(RwLock::new(Arc::new(credentials))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let source = CredentialsSource::from(Credentials::new(" AKIDx ", "hush-key\n", Some("hush-token")));
        let text = format!("{source:?}");
        assert!(text.contains("AKIDx") && !text.contains("hush"), "{text}");
        assert_eq!(source.current().secret_key(), "hush-key");
    }

    #[test]
    fn replaced_credentials_are_seen_by_all_clones() {
        let source = CredentialsSource::from(Credentials::new("a", "b", None));
        let clone = source.clone();
        let before = clone.current();
        source.replace(Credentials::new("a", "c", None));
        assert!(!before.same_as(&clone.current()));
        assert!(clone.current().same_as(&source.current()));
    }
}
