//! How an object is kept, besides its headers.

use std::collections::BTreeMap;

/// Asked for anew with every object that is stored; a copy has nothing of its source's but the tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Canned ACL as the provider names it; `None`: what the bucket says.
    pub acl: Option<String>,
    /// `None`: what the bucket says.
    pub encryption: Option<Encryption>,
    /// Tags by name. A copy in one call keeps its source's where this is empty.
    pub tags: BTreeMap<String, String>,
}

/// Encryption by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// With keys that are the store's own affair.
    Aes256,
    /// With a key of the key service.
    Kms {
        /// `None`: the service's default key.
        key_id: Option<String>,
    },
}
