//! A mount by the real binary, taken away however the test ends.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ferryfs::control::Status;
use ferryfs::disk;

use super::cloud::{ACCESS_KEY, SECRET_ID};
use super::{BUCKET, Cloud, LOGS, PATIENCE, PREFIX, Service, until};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_ferryfs");

/// Name of a mount's configuration.
const CONFIG: &str = "test.toml";

/// Lines of the daemon's log that a failing test shows.
const LOG_LINES: usize = 200;

/// The configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// `auto` (`true`) or `off`.
    pub passthrough: bool,
    /// `write_back.delay`
    pub delay: &'static str,
    /// `write_back.part_size`
    pub part_size: &'static str,
    /// `cache.size`
    pub cache_size: &'static str,
    /// Where `cache.dir` and `state.dir` lie; `None`: in a directory of the mount's own.
    pub data: Option<PathBuf>,
    /// `mount.attr_ttl`
    pub attr_ttl: &'static str,
    /// (path, prefix) of each mapping; all are announced.
    pub mappings: Vec<(&'static str, &'static str)>,
    /// More lines of `[write_back]`.
    pub write_back: String,
    /// More lines of `[mount]`.
    pub mount: String,
    /// More lines of each `[[mapping]]`.
    pub mapping: String,
    /// More lines of each `[mapping.sync]`.
    pub sync: String,
    /// More tables.
    pub extra: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            passthrough: true,
            delay: "20ms",
            part_size: "1MiB",
            cache_size: "4GiB",
            data: None,
            attr_ttl: "10s",
            mappings: vec![("/", PREFIX)],
            write_back: String::new(),
            mount: String::new(),
            mapping: String::new(),
            sync: String::new(),
            extra: String::new(),
        }
    }
}

impl Options {
    fn to_toml(&self, service: &Service, root: &Path) -> String {
        let mut text = String::new();
        for (path, prefix) in &self.mappings {
            writeln!(
                text,
                "[[mapping]]\npath = {path:?}\nurl = \"cos://{BUCKET}/{prefix}\"\nregion = \"ap-guangzhou\"\n\
                 endpoint = \"{store}\"\naddressing = \"path\"\nsecret_id = \"{SECRET_ID}\"\n\
                 secret_key = \"{secret_key}\"\n{mapping}\n[mapping.sync]\nurl = \"{oms}\"\naccess_key = \"{ACCESS_KEY}\"\n\
                 secret_key = \"{access_secret}\"\nrecord = \"cos://{LOGS}/\"\n{sync}",
                secret_key = service.secret_key,
                access_secret = service.access_secret,
                store = service.store_url,
                oms = service.oms_url,
                mapping = self.mapping,
                sync = self.sync,
            )
            .unwrap();
        }
        write!(
            text,
            "[cache]\ndir = \"{root}/cache\"\nsize = \"{size}\"\n[state]\ndir = \"{root}/state\"\n\
             [write_back]\ndelay = \"{delay}\"\npart_size = \"{part}\"\n{write_back}\n\
             [mount]\npassthrough = \"{passthrough}\"\nattr_ttl = \"{ttl}\"\n{mount}\n{extra}",
            root = self.data.as_deref().unwrap_or(root).display(),
            size = self.cache_size,
            delay = self.delay,
            part = self.part_size,
            write_back = self.write_back,
            passthrough = if self.passthrough { "auto" } else { "off" },
            ttl = self.attr_ttl,
            mount = self.mount,
            extra = self.extra,
        )
        .unwrap();
        text
    }
}

/// A mount; dropping it kills its daemon and takes it away.
pub struct Mount {
    dir: PathBuf,
    config: PathBuf,
    /// For commands and daemons from now on, as `FERRYFS_FAILPOINT`.
    pub env: Vec<(&'static str, String)>,
    pid: Option<u32>,
    data: PathBuf,
    root: tempfile::TempDir,
}

impl Mount {
    /// Mounts with directories of its own.
    #[track_caller]
    pub fn new(cloud: &Cloud, options: Options) -> Mount {
        let mut mount = Mount::prepare(cloud, &options);
        mount.remount();
        let passthrough = mount.status().passthrough;
        // The kernel gives it from 6.9 on; a fallback unseen would prove the fallback twice.
        let wanted = options.passthrough && disk::kernel_version().unwrap() >= (6, 9);
        assert_eq!(passthrough.enabled, wanted, "{passthrough:?}");
        mount
    }

    /// Everything but the mount.
    #[track_caller]
    pub fn prepare(cloud: &Cloud, options: &Options) -> Mount {
        Mount::prepare_for(&cloud.service(), options)
    }

    /// The same for a store and OMS that are not in this process.
    #[track_caller]
    pub fn prepare_for(service: &Service, options: &Options) -> Mount {
        // Not in /tmp, which may be a filesystem that takes no passthrough.
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let dir = root.path().join("mnt");
        fs::create_dir(&dir).unwrap();
        let data = options.data.clone().unwrap_or_else(|| root.path().to_owned());
        let mount = Mount { dir, config: root.path().join(CONFIG), env: Vec::new(), pid: None, data, root };
        mount.write_config(CONFIG, &options.to_toml(service, mount.root.path()));
        mount
    }

    /// Writes the configuration anew, for the next mount.
    pub fn configure(&self, cloud: &Cloud, options: &Options) {
        self.write_config(CONFIG, &options.to_toml(&cloud.service(), self.root.path()));
    }

    /// Its file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// What is outside the mount stays when it is dropped: for whoever looks into a failure.
    pub fn keep(&mut self) {
        self.root.disable_cleanup(true);
    }

    /// The configuration as it is.
    pub fn config_text(&self) -> String {
        fs::read_to_string(&self.config).unwrap()
    }

    /// Writes another configuration beside it.
    pub fn write_config(&self, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600).open(self.outside(name));
        std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    }

    /// The mount directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Outside the mount, gone with it: for what a test must remember.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// `cache.dir`
    pub fn cache_dir(&self) -> PathBuf {
        self.data.join("cache")
    }

    /// `state.dir`
    pub fn state_dir(&self) -> PathBuf {
        self.data.join("state")
    }

    /// The daemon.
    pub fn pid(&self) -> u32 {
        self.pid.expect("not mounted")
    }

    /// `ferryfs` with these words, without the network's proxies.
    pub fn command<S: Into<OsString>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        self.command_of(Path::new(BINARY), words)
    }

    /// The same by another name of the binary, or of a program that runs it.
    pub fn command_of<S: Into<OsString>>(&self, program: &Path, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program);
        command.args(words.into_iter().map(Into::into));
        command.env("FERRYFS_RUN_DIR", self.root.path().join("run"));
        command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        command.env_remove("FERRYFS_FAILPOINT").env_remove("NOTIFY_SOCKET");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs `ferryfs VERB.. DIR MORE..` and returns what came of it.
    pub fn run(&self, verb: &[&str], more: &[&str]) -> Output {
        let mut command = self.command(verb.iter().copied());
        command.arg(&self.dir).args(more).output().unwrap()
    }

    /// Tries to mount.
    pub fn try_mount(&mut self) -> Output {
        let mut command = self.command(["mount", "--config"]);
        let output = command.arg(&self.config).arg(&self.dir).output().unwrap();
        if output.status.success() {
            self.pid = Some(self.status().pid);
        }
        output
    }

    /// Takes charge of the daemon that a command of [`Mount::command`] has started.
    #[track_caller]
    pub fn adopt(&mut self) {
        self.pid = Some(self.status().pid);
    }

    /// Mounts (again).
    #[track_caller]
    pub fn remount(&mut self) {
        let output = self.try_mount();
        assert!(output.status.success(), "mount: {}\n{}", shown(&output), self.log());
    }

    /// `ferryfs status`
    #[track_caller]
    pub fn status(&self) -> Status {
        let output = self.run(&["status"], &["--json"]);
        assert!(output.status.success(), "status: {}", shown(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `ferryfs wait DIR [PATH]`; no path for everything.
    pub fn try_wait(&self, path: &str, timeout: Duration) -> Output {
        let timeout = format!("{}ms", timeout.as_millis());
        // A path may begin with a dash.
        let mut command = self.command(["wait", "--timeout", &timeout, "--"]);
        command.arg(&self.dir);
        if !path.is_empty() {
            command.arg(path);
        }
        command.output().unwrap()
    }

    /// Uploaded, announced and recorded.
    #[track_caller]
    pub fn wait(&self, path: &str) {
        let output = self.try_wait(path, PATIENCE);
        assert!(output.status.success(), "wait {path}: {}", shown(&output));
    }

    /// All that was ever asked for is uploaded, announced and recorded.
    #[track_caller]
    pub fn wait_all(&self) {
        self.wait("");
    }

    /// SIGKILL. The dead mount stays until [`Mount::remount`].
    pub fn kill9(&mut self) {
        if let Some(pid) = self.pid.take() {
            kill(pid);
        }
    }

    /// The daemon has ended by itself (a failpoint): until it has.
    #[track_caller]
    pub fn wait_for_death(&mut self) {
        let pid = self.pid();
        until("the daemon ends", || !is_running(pid));
        self.pid = None;
    }

    /// `ferryfs umount`, which drains.
    #[track_caller]
    pub fn umount(&mut self) {
        let output = self.run(&["umount"], &["--timeout", "60s"]);
        assert!(output.status.success(), "umount: {}", shown(&output));
        assert!(disk::mount_info(&self.dir).unwrap().is_none());
        self.pid = None;
    }

    /// Unmounts and mounts with nothing cached.
    #[track_caller]
    pub fn forget_cache(&mut self) {
        self.umount();
        fs::remove_dir_all(self.cache_dir()).unwrap();
        self.remount();
    }

    /// Unmounts and mounts as a host that has never seen the bucket.
    #[track_caller]
    pub fn forget_all(&mut self) {
        self.umount();
        fs::remove_dir_all(self.cache_dir()).unwrap();
        fs::remove_dir_all(self.state_dir()).unwrap();
        self.remount();
    }

    /// A line of `/proc/PID/status` of the daemon, as `VmHWM`, in KiB.
    #[track_caller]
    pub fn memory_kib(&self, line: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let found = text.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        found.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap()
    }

    /// The end of the daemon's log.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.state_dir().join("ferryfs.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}---", self.log());
        }
        if self.pid.is_none() {
            // One that a command started, and nobody adopted.
            let status = self.run(&["status"], &["--json"]);
            self.pid = serde_json::from_slice::<Status>(&status.stdout).ok().map(|status| status.pid);
        }
        // The dead mount of a killed daemon answers at once; one that hangs would hold everybody up.
        self.kill9();
        while matches!(disk::mount_info(&self.dir), Ok(Some(_))) {
            if let Err(error) = disk::unmount(&self.dir, true) {
                eprintln!("{} stays mounted: {error}", self.dir.display());
                break;
            }
        }
    }
}

/// What came of a command whose words are UTF-8.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Answer {
    pub fn of(output: Output) -> Answer {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// It ended with this code, said this on stderr, and did not fall over.
    #[track_caller]
    pub fn is(&self, code: i32, message: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(message), "{message}: {self:?}");
        assert!(!self.err.contains("panicked") && !self.err.contains("backtrace"), "{self:?}");
    }
}

/// What a command said.
pub fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn kill(pid: u32) {
    let Some(process) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return };
    // ESRCH: it has ended already.
    let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    let deadline = Instant::now() + PATIENCE;
    while is_running(pid) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A zombie whose threads have all ended has ended: its files and locks are gone.
fn is_running(pid: u32) -> bool {
    if fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1) {
        return true;
    }
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}
