//! The configuration of one mount: a TOML file, or a bucket URL with `-o` options, checked whole
//! before anything is started.
//!
//! # Promise
//! A [`Config`] that exists is usable as it stands: every path is absolute, every size and time is in
//! range, every credential is present, no mapping overlaps another, no log bucket is mapped.
//! What is refused is refused with the place (file and line, or option), the cause and the remedy.
//!
//! # Invariants
//! 1. An unknown key or option is refused, never ignored: a misspelt one would silently do nothing.
//! 2. A file that holds a secret is read only if nobody but its owner can read it.
//! 3. No message and no `Debug` holds a secret, not even a line that could not be parsed.
//! 4. Buckets are compared by provider and full name (with the appid), never by URL.

mod address;
mod build;
mod error;
mod options;
mod overlap;
mod place;
mod raw;
mod secrets;
mod terms;
mod units;
mod values;

#[cfg(test)]
mod tests;

pub use error::{Error, Location, Result};
pub use options::Options;
pub use secrets::Credentials;
pub use units::parse_duration;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::namespace::Conflict;
use crate::oms;
use crate::oms::SyncUrl;
use crate::store::{Addressing, CosOptions, Terms};
use crate::types::ByteSize;

/// Everything one mount needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The configuration file's stem, or a name made of bucket and prefix; names the default
    /// directories.
    pub name: String,
    /// The file it was read from, absolute.
    pub file: Option<PathBuf>,
    /// At least one; ordered as written.
    pub mappings: Vec<Mapping>,
    /// Where clean content is kept.
    pub cache: Cache,
    /// Where the journal and content that no bucket has are kept.
    pub state: State,
    /// When and how content goes up.
    pub write_back: WriteBack,
    /// How the mount looks to programs.
    pub mount: MountOptions,
    /// What mount(8) and df(1) show as mounted, if whoever mounts names it; otherwise the bucket.
    pub source: Option<String>,
}

/// A directory of the mount that is a prefix of a bucket.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// `/`, or `/name`.
    pub path: String,
    /// Where its objects are.
    pub place: BucketPlace,
    /// For objects written here; `None`: the bucket's standard.
    pub storage_class: Option<String>,
    /// ACL, encryption and tags of what is written here.
    pub terms: Terms,
    /// What becomes of another host's version where something here waits for the bucket.
    pub conflict: Conflict,
    /// Nobody else writes there: what was seen once is believed for good.
    pub exclusive: bool,
    /// Who is told of new and changed objects; `None`: nobody.
    pub sync: Option<Sync>,
}

/// The OMS task that ferries this mapping's objects on.
#[derive(Clone, Debug)]
pub struct Sync {
    /// The task's events URL, parsed strictly (PROTOCOL section 11); its text is the target's identity
    /// in the journal (J4).
    pub url: SyncUrl,
    /// Access key of OMS.
    pub access_key: String,
    /// Secret key of OMS.
    pub secret_key: SecretString,
    /// Of temporary keys.
    pub token: Option<SecretString>,
    /// URL-encode the keys of an announcement, as the API's manual asks (default true).
    pub encode_keys: bool,
    /// An announcement fails for good after being refused or unanswered this long while the target
    /// was reachable (default 24 h).
    pub give_up_after: Duration,
    /// Where outcomes are recorded (the log bucket); `None`: nowhere.
    pub record: Option<BucketPlace>,
}

/// A prefix of a bucket, and how to get there.
#[derive(Clone, Debug)]
pub struct BucketPlace {
    /// Which protocol.
    pub provider: Provider,
    /// Full name (COS: with the appid).
    pub bucket: String,
    /// Empty, or ends in `/`.
    pub prefix: String,
    /// As the provider spells it.
    pub region: String,
    /// `http(s)://host[:port]` without the bucket; `None`: from provider and region.
    pub endpoint: Option<String>,
    /// Where the bucket's name goes in a request.
    pub addressing: Addressing,
    /// Of the bucket.
    pub credentials: Credentials,
}

/// A store's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Tencent COS.
    Cos,
    /// Alibaba OSS.
    Oss,
    /// S3 and its kin.
    S3,
}

/// `[cache]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Absolute; `/var/cache/ferryfs/<name>` by default.
    pub dir: PathBuf,
    /// Counts everything that is kept locally; 20 GiB by default.
    pub size: ByteSize,
}

/// `[state]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Absolute; `/var/lib/ferryfs/<name>` by default.
    pub dir: PathBuf,
}

/// What close(2) waits for (P1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMode {
    /// The journal: survives SIGKILL of the daemon.
    Process,
    /// The disk: survives power loss.
    Disk,
    /// The bucket, verified.
    Remote,
}

/// What fsync(2) waits for (P1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsyncMode {
    /// The disk.
    Disk,
    /// The bucket as well, verified.
    Remote,
}

/// `[write_back]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteBack {
    /// A file goes up when it has not changed for this long (default 1 s).
    pub delay: Duration,
    /// A file that keeps changing goes up at the latest after this (default 30 s).
    pub max_delay: Duration,
    /// What close(2) waits for.
    pub close: CloseMode,
    /// What fsync(2) waits for.
    pub fsync: FsyncMode,
    /// A file that stays open for writing goes up as often as this, if it changed (default: when it is
    /// closed).
    pub upload_open: Option<Duration>,
    /// Of multipart uploads, bytes (default 16 MiB; larger files get larger parts).
    pub part_size: ByteSize,
    /// Parts of one file that travel at once (default 4).
    pub parallel: u32,
    /// Files of at least this size go up in parts, bytes (default: `part_size`).
    pub threshold: ByteSize,
}

/// What becomes of a file whose writer was killed by a signal (C6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KilledWriter {
    /// Held and reported.
    Hold,
    /// Uploaded as it is.
    Upload,
}

/// Whether the kernel may serve files by itself (P5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passthrough {
    /// Where the kernel grants it.
    Auto,
    /// Never.
    Off,
}

/// `[mount]` and `-o`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// Where to mount if the command line does not say; absolute.
    pub dir: Option<PathBuf>,
    /// Owner of what has none recorded (default: who mounts).
    pub uid: u32,
    /// Group of what has none recorded (default: of who mounts).
    pub gid: u32,
    /// Permission bits of files that have none recorded (default: 0666 less the umask).
    pub file_mode: u32,
    /// Permission bits of directories that have none recorded (default: 0777 less the umask).
    pub dir_mode: u32,
    /// Other users may use the mount.
    pub allow_other: bool,
    /// No changes.
    pub read_only: bool,
    /// How long remote truth is believed before it is looked up again (default 10 s).
    pub attr_ttl: Duration,
    /// What becomes of a file whose writer was killed.
    pub killed_writer: KilledWriter,
    /// Whether the kernel may serve files by itself.
    pub passthrough: Passthrough,
    /// MS_NOSUID: default true, since whoever writes the bucket would become root; `-o suid` lifts it.
    pub no_suid: bool,
    /// MS_NODEV: default true; `-o dev` lifts it.
    pub no_dev: bool,
    /// MS_NOEXEC (default false).
    pub no_exec: bool,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Whatever is refused, with file, line and remedy.
    pub fn load(path: &Path) -> Result<Config> {
        Config::load_with(path, &Options::default())
    }

    /// Reads and checks a configuration file; `options` override what it says.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(path: &Path, options: &Options) -> Result<Config> {
        build::from_file(path, options, &environment)
    }

    /// A configuration of one mapping at `/`, for `ferryfs mount cos://bucket/prefix DIR -o ...`.
    ///
    /// # Errors
    /// Whatever is refused, with the option and the remedy.
    pub fn from_url(url: &str, options: &Options) -> Result<Config> {
        build::from_url(url, options, &environment)
    }

    /// Refuses a mount directory (absolute) that the cache or state directory lies in, or that lies
    /// in one of them: the daemon would wait for itself.
    ///
    /// # Errors
    /// With the remedy.
    pub fn check_mount_dir(&self, dir: &Path) -> Result<()> {
        overlap::mount_dir(self, dir)
    }
}

/// The process's environment.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl BucketPlace {
    /// `provider://bucket/prefix`: the target's identity in the journal (J4).
    pub fn identity(&self) -> String {
        format!("{}://{}/{}", self.provider, self.bucket, self.prefix)
    }

    /// How to open the bucket.
    pub fn store_options(&self) -> CosOptions {
        let credentials = self.credentials.for_store().into();
        CosOptions {
            endpoint: self.endpoint.clone(),
            addressing: self.addressing,
            ..CosOptions::new(&self.bucket, &self.region, credentials)
        }
    }

    /// Whether two are the same bucket, whatever their prefixes, endpoints or spelling.
    pub fn is_same_bucket(&self, other: &BucketPlace) -> bool {
        self.provider == other.provider && self.bucket == other.bucket
    }
}

impl Sync {
    /// How to reach the task.
    pub fn task_options(&self) -> oms::Options {
        let mut options = oms::Options::new(self.url.clone(), self.access_key.clone(), self.secret_key.clone());
        options.security_token = self.token.clone();
        options.encode_keys = self.encode_keys;
        options
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provider::Cos => "cos",
            Provider::Oss => "oss",
            Provider::S3 => "s3",
        })
    }
}
