//! `-o` options: the conventions of mount(8), and overrides of what a file says.

use super::error::{Error, Location, Result};
use super::place::At;
use super::raw::{RawConfig, RawMapping, RawSync};

/// Parsed `-o` options; later ones win.
#[derive(Clone, Debug, Default)]
pub struct Options {
    entries: Vec<Entry>,
    sloppy: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    value: Option<String>,
}

/// What fstab lines carry for others than the helper (USERS 6.1). `rw` is here too: mount(8) passes it
/// whether or not it was asked for, so it must not override `ro` in a file.
/// The kernel keeps no access times for FUSE, so asking for or against them changes nothing.
const FOR_OTHERS: [&str; 19] = [
    "_netdev",
    "nofail",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "defaults",
    "rw",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "lazytime",
];

/// Options that would show a secret to everybody who can run ps.
const SECRETS: [&str; 7] =
    ["secret_id", "secret_key", "token", "access_key", "sync_access_key", "sync_secret_key", "record_secret_key"];

/// What a refusal of an unknown name lists.
const KNOWN: &str = "the options are region, endpoint, addressing, storage_class, acl, sse, sse_kms_key_id, tags, \
    conflict, exclusive, \
    credentials_file, sync_url, sync_record, sync_credentials_file, cache_dir, cache_size, state_dir, write_back, max_delay, close, fsync, \
    upload_open, part_size, parallel, threshold, uid, gid, umask, file_mode, dir_mode, allow_other, ro, attr_ttl, \
    killed_writer, passthrough, \
    suid, nosuid, dev, nodev, exec, noexec";

fn refuse(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Error {
    Error { location: Location::Option(name.to_owned()), message: message.into(), remedy: remedy.into() }
}

impl Options {
    /// Parses the arguments of `-o`, each `name[=value][,...]`. A value with commas stands in double
    /// quotes, a quote within them is doubled. `sloppy` (mount -s): unknown names are ignored.
    ///
    /// # Errors
    /// A quote that does not close, or an option that would show a secret in `ps`.
    pub fn parse<S: AsRef<str>>(arguments: &[S], sloppy: bool) -> Result<Options> {
        let mut entries = Vec::new();
        for argument in arguments {
            for piece in split(argument.as_ref())? {
                let (name, value) = match piece.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (piece.as_str(), None),
                };
                if name.is_empty() || FOR_OTHERS.contains(&name) || name.starts_with("x-") || name == "comment" {
                    continue;
                }
                let name = name.replace('-', "_");
                if SECRETS.contains(&name.as_str()) {
                    return Err(refuse(
                        &name,
                        "a credential on the command line is visible to every user",
                        "use credentials_file=FILE, the environment, or a configuration file",
                    ));
                }
                entries.push(Entry { name, value });
            }
        }
        Ok(Options { entries, sloppy })
    }

    /// Writes the options over `raw`. `single`: the mapping that a URL on the command line stands for.
    pub(super) fn apply(&self, raw: &mut RawConfig, mut single: Option<&mut RawMapping>) -> Result<()> {
        for entry in &self.entries {
            if entry.over_mapping(single.as_deref_mut())? || entry.over_tables(raw)? || self.sloppy {
                continue;
            }
            return Err(refuse(&entry.name, "there is no such option", KNOWN));
        }
        Ok(())
    }
}

impl Entry {
    /// Whether it is an option of the mapping.
    fn over_mapping(&self, mapping: Option<&mut RawMapping>) -> Result<bool> {
        let mut unused = RawMapping::default();
        let in_file = mapping.is_none();
        let mapping = mapping.unwrap_or(&mut unused);
        let name = self.name.as_str();
        let refused = || {
            refuse(
                name,
                "the option belongs to one mapping, and the mappings come from a file",
                "write it into the file's [[mapping]]",
            )
        };
        if name == "exclusive" {
            if in_file {
                return Err(refused());
            }
            mapping.exclusive = Some(self.flag(true)?);
            return Ok(true);
        }
        let slot = match name {
            "region" => &mut mapping.region,
            "endpoint" | "url" => &mut mapping.endpoint,
            "addressing" => &mut mapping.addressing,
            "storage_class" => &mut mapping.storage_class,
            "acl" => &mut mapping.acl,
            "sse" => &mut mapping.sse,
            "sse_kms_key_id" => &mut mapping.sse_kms_key_id,
            "tags" => &mut mapping.tags,
            "conflict" => &mut mapping.conflict,
            "credentials_file" | "passwd_file" => &mut mapping.credentials_file,
            "sync_url" | "sync_record" | "sync_credentials_file" => {
                let empty = RawSync::default;
                let sync = &mut mapping.sync.get_or_insert_with(|| At::option("sync_url", empty())).value;
                match name {
                    "sync_url" => &mut sync.url,
                    "sync_record" => &mut sync.record,
                    _ => &mut sync.credentials_file,
                }
            }
            _ => return Ok(false),
        };
        if in_file {
            return Err(refused());
        }
        *slot = Some(self.text()?);
        Ok(true)
    }

    /// Whether it is an option of one of the file's tables.
    fn over_tables(&self, raw: &mut RawConfig) -> Result<bool> {
        match self.name.as_str() {
            "cache_dir" => raw.cache.dir = Some(self.text()?),
            "cache_size" => raw.cache.size = Some(self.text()?),
            "state_dir" => raw.state.dir = Some(self.text()?),
            "write_back" | "delay" => raw.write_back.delay = Some(self.text()?),
            "max_delay" => raw.write_back.max_delay = Some(self.text()?),
            "close" => raw.write_back.close = Some(self.text()?),
            "fsync" => raw.write_back.fsync = Some(self.text()?),
            "upload_open" => raw.write_back.upload_open = Some(self.text()?),
            "part_size" => raw.write_back.part_size = Some(self.text()?),
            "parallel" => raw.write_back.parallel = Some(self.number()?),
            "threshold" => raw.write_back.threshold = Some(self.text()?),
            "uid" => raw.mount.uid = Some(self.number()?),
            "gid" => raw.mount.gid = Some(self.number()?),
            "umask" => raw.mount.umask = Some(self.text()?),
            "file_mode" => raw.mount.file_mode = Some(self.text()?),
            "dir_mode" => raw.mount.dir_mode = Some(self.text()?),
            "attr_ttl" | "attr_timeout" => raw.mount.attr_ttl = Some(self.text()?),
            "killed_writer" => raw.mount.killed_writer = Some(self.text()?),
            "passthrough" => raw.mount.passthrough = Some(self.text()?),
            "allow_other" => raw.mount.allow_other = Some(self.flag(true)?),
            "ro" | "read_only" => raw.mount.ro = Some(self.flag(true)?),
            "suid" => raw.mount.suid = Some(self.flag(true)?),
            "nosuid" => raw.mount.suid = Some(self.flag(false)?),
            "dev" => raw.mount.dev = Some(self.flag(true)?),
            "nodev" => raw.mount.dev = Some(self.flag(false)?),
            "exec" => raw.mount.exec = Some(self.flag(true)?),
            "noexec" => raw.mount.exec = Some(self.flag(false)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn text(&self) -> Result<At<String>> {
        match &self.value {
            Some(value) if !value.is_empty() => Ok(At::option(&self.name, value.clone())),
            _ => Err(refuse(&self.name, "the option needs a value", format!("write {}=VALUE", self.name))),
        }
    }

    fn number(&self) -> Result<At<i64>> {
        let text = self.text()?;
        match text.value.parse() {
            Ok(number) => Ok(At::option(&self.name, number)),
            Err(_) => Err(refuse(
                &self.name,
                format!("`{}` is not a whole number", text.value),
                format!("write {}=NUMBER", self.name),
            )),
        }
    }

    fn flag(&self, means: bool) -> Result<At<bool>> {
        match &self.value {
            None => Ok(At::option(&self.name, means)),
            Some(_) => Err(refuse(&self.name, "the option takes no value", format!("write just {}", self.name))),
        }
    }
}

/// Splits at commas outside double quotes and takes the quotes away.
fn split(argument: &str) -> Result<Vec<String>> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let mut quoted = false;
    let mut chars = argument.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                piece.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => pieces.push(std::mem::take(&mut piece)),
            other => piece.push(other),
        }
    }
    if quoted {
        return Err(refuse("-o", "a quote does not close", "close it, and double a quote that is meant as one"));
    }
    pieces.push(piece);
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_split_outside_quotes() {
        let pieces = split(r#"a=1,b="x,""y""",c"#).unwrap();
        assert_eq!(pieces, ["a=1", r#"b=x,"y""#, "c"]);
        assert!(split(r#"a="1"#).is_err());
    }

    #[test]
    fn what_is_for_others_is_ignored() {
        let options =
            Options::parse(&["_netdev,nofail,x-systemd.automount,comment=mine,rw,allow-other"], false).unwrap();
        let names: Vec<_> = options.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["allow_other"]);
    }

    #[test]
    fn secrets_are_refused_and_not_shown() {
        let refused = Options::parse(&["secret-key=hush"], true).unwrap_err().to_string();
        assert!(refused.contains("option `secret_key`") && refused.contains("credentials_file"), "{refused}");
        assert!(!refused.contains("hush"));
    }

    #[test]
    fn unknown_options_are_refused_unless_sloppy() {
        let mut raw = RawConfig::default();
        let refused = Options::parse(&["cashe_size=1"], false).unwrap().apply(&mut raw, None).unwrap_err();
        assert!(refused.to_string().contains("cache_size"), "{refused}");
        assert!(Options::parse(&["cashe_size=1"], true).unwrap().apply(&mut raw, None).is_ok());
    }
}
