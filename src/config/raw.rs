//! The file's shape, before anything is checked.

use serde::{Deserialize, Deserializer};

use super::place::{At, Place};

/// A secret as written. Its errors never show the value, whatever its type.
#[derive(Clone)]
pub(super) struct Secret(pub(super) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde's own message would show a number or a table that was meant as a secret.
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Secret(text)),
            _ => Err(serde::de::Error::custom("a credential must be a string in quotes")),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) mapping: Vec<At<RawMapping>>,
    pub(super) cache: RawCache,
    pub(super) state: RawState,
    pub(super) write_back: RawWriteBack,
    pub(super) mount: RawMount,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMapping {
    pub(super) path: Option<At<String>>,
    pub(super) url: Option<At<String>>,
    pub(super) region: Option<At<String>>,
    pub(super) endpoint: Option<At<String>>,
    pub(super) addressing: Option<At<String>>,
    pub(super) storage_class: Option<At<String>>,
    pub(super) acl: Option<At<String>>,
    pub(super) sse: Option<At<String>>,
    pub(super) sse_kms_key_id: Option<At<String>>,
    pub(super) tags: Option<At<String>>,
    pub(super) conflict: Option<At<String>>,
    pub(super) exclusive: Option<At<bool>>,
    pub(super) secret_id: Option<At<Secret>>,
    pub(super) secret_key: Option<At<Secret>>,
    pub(super) token: Option<At<Secret>>,
    pub(super) credentials_file: Option<At<String>>,
    pub(super) sync: Option<At<RawSync>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSync {
    pub(super) url: Option<At<String>>,
    pub(super) access_key: Option<At<Secret>>,
    pub(super) secret_key: Option<At<Secret>>,
    pub(super) token: Option<At<Secret>>,
    pub(super) credentials_file: Option<At<String>>,
    pub(super) encode_keys: Option<At<bool>>,
    pub(super) give_up_after: Option<At<String>>,
    pub(super) record: Option<At<String>>,
    pub(super) record_region: Option<At<String>>,
    pub(super) record_endpoint: Option<At<String>>,
    pub(super) record_addressing: Option<At<String>>,
    pub(super) record_secret_id: Option<At<Secret>>,
    pub(super) record_secret_key: Option<At<Secret>>,
    pub(super) record_token: Option<At<Secret>>,
    pub(super) record_credentials_file: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCache {
    pub(super) dir: Option<At<String>>,
    pub(super) size: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawState {
    pub(super) dir: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawWriteBack {
    pub(super) delay: Option<At<String>>,
    pub(super) max_delay: Option<At<String>>,
    pub(super) close: Option<At<String>>,
    pub(super) fsync: Option<At<String>>,
    pub(super) upload_open: Option<At<String>>,
    pub(super) part_size: Option<At<String>>,
    pub(super) parallel: Option<At<i64>>,
    pub(super) threshold: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMount {
    pub(super) dir: Option<At<String>>,
    pub(super) uid: Option<At<i64>>,
    pub(super) gid: Option<At<i64>>,
    pub(super) umask: Option<At<String>>,
    pub(super) file_mode: Option<At<String>>,
    pub(super) dir_mode: Option<At<String>>,
    pub(super) allow_other: Option<At<bool>>,
    pub(super) ro: Option<At<bool>>,
    pub(super) attr_ttl: Option<At<String>>,
    pub(super) killed_writer: Option<At<String>>,
    pub(super) passthrough: Option<At<String>>,
    pub(super) suid: Option<At<bool>>,
    pub(super) dev: Option<At<bool>>,
    pub(super) exec: Option<At<bool>>,
}

impl RawConfig {
    /// Where the file itself first holds a secret (a key or a token; an id alone is none).
    pub(super) fn first_secret(&self) -> Option<&Place> {
        self.mapping.iter().find_map(|mapping| {
            let mapping = &mapping.value;
            let sync = mapping.sync.as_ref().map(|sync| &sync.value);
            let own = [mapping.secret_key.as_ref(), mapping.token.as_ref()];
            let others = sync.map(|sync| [&sync.secret_key, &sync.token, &sync.record_secret_key, &sync.record_token]);
            let others = others.into_iter().flatten().filter_map(Option::as_ref);
            own.into_iter().flatten().chain(others).map(|secret| &secret.place).next()
        })
    }
}
