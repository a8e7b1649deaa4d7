//! Credentials: where they come from, and who else may read them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::error::{Error, Location, Result};
use super::place::{At, Place, Source};
use super::raw::Secret;
use crate::store;

/// What a request is signed with.
#[derive(Clone)]
pub struct Credentials {
    /// Public part (SecretId, access key).
    pub secret_id: String,
    /// Secret part.
    pub secret_key: SecretString,
    /// Of temporary credentials.
    pub token: Option<SecretString>,
}

impl Credentials {
    /// The same, as a store's client takes them.
    pub fn for_store(&self) -> store::Credentials {
        let token = self.token.as_ref().map(ExposeSecret::expose_secret);
        store::Credentials::new(&self.secret_id, self.secret_key.expose_secret(), token)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The id tells an attacker which key to look for; its head is enough to tell keys apart.
        let head: String = self.secret_id.chars().take(4).collect();
        f.debug_struct("Credentials").field("secret_id", &format_args!("{head}...")).finish_non_exhaustive()
    }
}

/// Where one set of credentials may be written.
pub(super) struct Written<'a> {
    /// `secret_id` and its kin, as the file spells them.
    pub(super) names: [&'static str; 3],
    pub(super) id: Option<&'a At<Secret>>,
    pub(super) key: Option<&'a At<Secret>>,
    pub(super) token: Option<&'a At<Secret>>,
    pub(super) file: Option<&'a At<String>>,
    /// Selects a line of a `bucket:id:key` file.
    pub(super) bucket: Option<&'a str>,
    /// Environment variables of id, key and token.
    pub(super) environment: Option<[&'static str; 3]>,
}

/// The credentials: from the file's own keys, else from `credentials_file`, else from the environment;
/// `None` if they are written nowhere.
pub(super) fn resolve(source: &Source<'_>, written: &Written<'_>) -> Result<Option<Credentials>> {
    let [id_name, key_name, token_name] = written.names;
    match (written.id, written.key) {
        (Some(id), Some(key)) => {
            for (name, given) in [(id_name, Some(id)), (key_name, Some(key)), (token_name, written.token)] {
                if let Some(given) = given.filter(|given| given.value.0.trim().is_empty()) {
                    return Err(source.refuse(&given.place, format!("`{name}` is empty"), "fill it in"));
                }
            }
            return Ok(Some(Credentials {
                secret_id: id.value.0.clone(),
                secret_key: SecretString::from(key.value.0.clone()),
                token: written.token.map(|token| SecretString::from(token.value.0.clone())),
            }));
        }
        (Some(id), None) => {
            return Err(source.refuse(
                &id.place,
                format!("`{id_name}` stands without `{key_name}`"),
                format!("add `{key_name}`, or remove `{id_name}` and name a credentials_file"),
            ));
        }
        (None, Some(key)) => {
            return Err(source.refuse(
                &key.place,
                format!("`{key_name}` stands without `{id_name}`"),
                format!("add `{id_name}`"),
            ));
        }
        (None, None) => {}
    }
    if let Some(token) = written.token {
        return Err(source.refuse(
            &token.place,
            format!("`{token_name}` stands without `{id_name}` and `{key_name}`"),
            "add them, or put all three into a credentials_file",
        ));
    }
    if let Some(file) = written.file {
        return from_file(source, file, written.bucket).map(Some);
    }
    let Some([id_variable, key_variable, token_variable]) = written.environment else { return Ok(None) };
    let environment = source.environment;
    Ok(match (environment(id_variable), environment(key_variable)) {
        (Some(secret_id), Some(key)) => Some(Credentials {
            secret_id,
            secret_key: SecretString::from(key),
            token: environment(token_variable).map(SecretString::from),
        }),
        _ => None,
    })
}

/// Refuses a file with a secret that others than its owner can read; `place` is what names the file or
/// the secret. `mode` is of the descriptor that the content is read from, so that the file checked is the
/// file read.
pub(super) fn check_mode(source: &Source<'_>, place: &Place, path: &Path, mode: u32) -> Result<()> {
    let mode = mode & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(source.refuse(
        place,
        format!("{} holds a secret and others can read it (mode {mode:04o})", path.display()),
        format!("run: chmod 600 {}", path.display()),
    ))
}

/// The names that a credentials file may use, so that one file also serves as an environment file.
const ID_NAMES: [&str; 4] = ["secret_id", "access_key", "COS_SECRET_ID", "HUAWEICLOUD_SDK_AK"];
const KEY_NAMES: [&str; 3] = ["secret_key", "COS_SECRET_KEY", "HUAWEICLOUD_SDK_SK"];
const TOKEN_NAMES: [&str; 2] = ["token", "COS_SESSION_TOKEN"];

/// A credentials file is small; more than this is another file by mistake.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Reads `name = value` lines, or `bucket-appid:SecretId:SecretKey` lines as cosfs keeps them.
fn from_file(source: &Source<'_>, named: &At<String>, bucket: Option<&str>) -> Result<Credentials> {
    let path = source.absolute(&named.value);
    let unreadable = |error: std::io::Error| {
        source.refuse(
            &named.place,
            format!("cannot read credentials file {}: {error}", path.display()),
            "name a file that exists and is readable by the user who mounts",
        )
    };
    let file = File::open(&path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    check_mode(source, &named.place, &path, mode)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;

    let mut id = None;
    let mut key = None;
    let mut token = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let refused = |message: &str, remedy: &str| Error {
            location: Location::File { path: path.clone(), line: Some(number + 1) },
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        };
        if let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.contains(':')) {
            let name = name.trim();
            let name = name.strip_prefix("export ").unwrap_or(name).trim();
            let value = value.trim();
            let value = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q)).unwrap_or(value);
            let slot = if ID_NAMES.contains(&name) {
                &mut id
            } else if KEY_NAMES.contains(&name) {
                &mut key
            } else if TOKEN_NAMES.contains(&name) {
                &mut token
            } else {
                return Err(refused("unknown name", "use secret_id, secret_key and token"));
            };
            if value.is_empty() {
                return Err(refused("empty value", "fill it in, or remove the line"));
            }
            if slot.replace(value.to_owned()).is_some() {
                return Err(refused("the value is given twice", "remove one of the two lines"));
            }
            continue;
        }
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [of, line_id, line_key] if !line_id.is_empty() && !line_key.is_empty() => {
                if bucket == Some(*of) {
                    id = Some((*line_id).to_owned());
                    key = Some((*line_key).to_owned());
                }
            }
            _ => {
                return Err(refused(
                    "neither `name = value` nor `bucket-appid:SecretId:SecretKey`",
                    "write secret_id = ... and secret_key = ... on lines of their own",
                ));
            }
        }
    }
    match (id, key) {
        (Some(secret_id), Some(key)) => {
            Ok(Credentials { secret_id, secret_key: SecretString::from(key), token: token.map(SecretString::from) })
        }
        _ => Err(source.refuse(
            &named.place,
            format!("credentials file {} does not hold both parts of a key for this bucket", path.display()),
            "write secret_id = ... and secret_key = ... into it",
        )),
    }
}

/// The refusal when credentials are written nowhere.
pub(super) fn missing(source: &Source<'_>, place: &Place, what: &str, remedy: &str) -> Error {
    source.refuse(place, format!("no credentials for {what}"), remedy)
}
