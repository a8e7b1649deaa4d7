//! Other mounts of the same prefix: s3fs, and cosfs where somebody has built it (tests/vendor/PEERS.md).
//! What one makes or changes, the other shows as a plain directory would.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ferryfs::disk;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, utimensat};
use rustix::fs::{getxattr, listxattr, makedev, removexattr, setxattr};

use super::harness::{BUCKET, Cloud, Guarded, Mount, Options, PATIENCE, SECRET_ID, SECRET_KEY};
use super::harness::{pattern, source_dir, until, vendor_python};
use super::one;

/// Both peers send this by parts.
const BIG: usize = 27 << 20;
/// Contents above this are not part of [`Seen`]: a peer fetches them anew at every look.
const SMALL: u64 = 1 << 20;
/// A peer believes what it has seen for a second from the last look: asked more often, cosfs never asks again.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1500);
/// Times that the tests set are before it, those of now behind it.
const LONG_AGO: i64 = 1_300_000_000;

/// A peer's mount of what the test's mount maps; ends with it.
struct Peer {
    dir: PathBuf,
    log: PathBuf,
    program: Guarded,
    _face: Option<Guarded>,
}

impl Peer {
    /// s3fs speaks S3's dialect only: `s3_face.py` does for it what COS's endpoint does.
    fn s3fs(cloud: &Cloud, mount: &Mount) -> Peer {
        let port = cloud.emulator().addr().port().to_string();
        let mut face = Command::new(vendor_python());
        face.arg(source_dir().join("tests/vendor/s3_face.py")).args([&port, SECRET_ID, SECRET_KEY]);
        face.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut face = Guarded(face.spawn().expect("start s3_face.py"));
        let mut port = String::new();
        BufReader::new(face.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let url = format!("url=http://127.0.0.1:{}", port.trim());
        let options = [&url, "use_path_request_style", "use_xattr"];
        Peer::start("s3fs", BUCKET, &format!("{SECRET_ID}:{SECRET_KEY}"), &options, mount, Some(face))
    }

    fn cosfs(program: &str, cloud: &Cloud, mount: &Mount) -> Peer {
        // curl leads every name below localhost to this machine: the bucket stands in the host, as COS has it.
        let url = format!("url=http://localhost:{}", cloud.emulator().addr().port());
        Peer::start(program, BUCKET, &format!("{BUCKET}:{SECRET_ID}:{SECRET_KEY}"), &[&url], mount, None)
    }

    fn start(
        program: &str,
        bucket: &str,
        password: &str,
        options: &[&str],
        mount: &Mount,
        face: Option<Guarded>,
    ) -> Peer {
        let (dir, log, secret) = (mount.outside("peer"), mount.outside("peer.log"), mount.outside("peer.password"));
        fs::create_dir(&dir).unwrap();
        fs::write(&secret, format!("{password}\n")).unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        let out = fs::File::create(&log).unwrap();
        let mut command = Command::new(program);
        command.arg(format!("{bucket}:/data")).arg(&dir).args(["-f", "-o", "stat_cache_expire=1"]);
        command.arg("-o").arg(format!("passwd_file={}", secret.display()));
        for option in options {
            command.args(["-o", option]);
        }
        command.env("NO_PROXY", "*").env("no_proxy", "*").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let started = command.spawn();
        let program = Guarded(started.unwrap_or_else(|error| panic!("{program} (scripts/deps.sh test): {error}")));
        let mut peer = Peer { dir, log, program, _face: face };
        until("the peer has mounted", || {
            assert_eq!(peer.program.0.try_wait().unwrap(), None, "{}", peer.said());
            disk::mount_info(&peer.dir).unwrap().is_some()
        });
        peer
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the peer's log ---\n{}---", self.said());
        }
        if matches!(disk::mount_info(&self.dir), Ok(Some(_)))
            && let Err(error) = disk::unmount(&self.dir, true)
        {
            eprintln!("{} stays mounted: {error}", self.dir.display());
        }
    }
}

/// What a mount shows of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    uid: u32,
    gid: u32,
    /// cosfs and s3fs show whole seconds.
    mtime: i64,
    size: u64,
    /// Of small files and of links.
    content: Vec<u8>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

fn seen_at(path: &Path) -> io::Result<Seen> {
    let meta = fs::symlink_metadata(path)?;
    let (file, link) = (meta.is_file(), meta.is_symlink());
    let content = match () {
        () if file && meta.len() <= SMALL => fs::read(path)?,
        () if link => fs::read_link(path)?.into_os_string().into_encoded_bytes(),
        () => Vec::new(),
    };
    let mut xattrs = BTreeMap::new();
    if file || meta.is_dir() {
        let mut text = [0; 4096];
        let length = listxattr(path, &mut text[..])?;
        for name in text[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = [0; 4096];
            let length = getxattr(path, &name, &mut value[..])?;
            xattrs.insert(name, value[..length].to_vec());
        }
    }
    let size = if file { meta.len() } else { 0 };
    Ok(Seen { mode: meta.mode(), uid: meta.uid(), gid: meta.gid(), mtime: meta.mtime(), size, content, xattrs })
}

fn seen(top: &Path) -> io::Result<BTreeMap<String, Seen>> {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let shown = seen_at(&path)?;
            if FileType::from_raw_mode(shown.mode) == FileType::Directory {
                dirs.push(path.clone());
            }
            found.insert(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned(), shown);
        }
    }
    Ok(found)
}

/// Both mounts come to show what the plain directory holds, and the same times.
#[track_caller]
fn agree(why: &str, plain: &Path, mount: &Mount, peer: &Peer) {
    mount.wait_all();
    let wanted = seen(plain).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A name may go between a listing and a look.
        let shown = (seen(mount.dir()), seen(&peer.dir));
        if let (Ok(ours), Ok(theirs)) = &shown {
            let like_plain = |name: &String, one: &Seen| {
                wanted.get(name).is_some_and(|plain| {
                    let mtime = if plain.mtime < LONG_AGO { plain.mtime } else { one.mtime };
                    *one == Seen { mtime, ..plain.clone() }
                })
            };
            if ours == theirs && ours.len() == wanted.len() && ours.iter().all(|(name, one)| like_plain(name, one)) {
                return;
            }
        }
        if Instant::now() > deadline {
            let (ours, theirs) = (shown.0.unwrap(), shown.1.unwrap());
            for name in wanted.keys().chain(ours.keys()).chain(theirs.keys()) {
                let all = (wanted.get(name), ours.get(name), theirs.get(name));
                if all.1 != all.2 || all.0 != all.1 {
                    eprintln!("{name}:\n  plain  {:?}\n  ours   {:?}\n  theirs {:?}", all.0, all.1, all.2);
                }
            }
            panic!("{why}: the mounts do not agree");
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

fn set_mtime(path: &Path, sec: i64, nsec: i64) {
    let time = Timespec { tv_sec: sec, tv_nsec: nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// One of everything, with names that begin with `who`.
fn make(dir: &Path, who: &str) {
    let at = |name: &str| dir.join(format!("{who}-{name}"));
    for (name, mode) in [("plain", 0o644), ("suid", 0o4755), ("sgid", 0o2755), ("none", 0o000), ("sticky", 0o1666)] {
        fs::write(at(name), format!("{who} {name}")).unwrap();
        chown(at(name), Some(1000), Some(100)).unwrap();
        set_mode(&at(name), mode);
    }
    fs::write(at("time"), "t").unwrap();
    set_mtime(&at("time"), 1_234_567_890, 123_456_789);
    fs::write(at("empty"), "").unwrap();
    fs::write(at("big"), pattern(who.len() as u64, BIG)).unwrap();
    fs::create_dir_all(at("dir/deep")).unwrap();
    fs::write(at("dir/deep/in side+%\u{4e2d}"), "inside").unwrap();
    chown(at("dir"), Some(7), Some(8)).unwrap();
    set_mode(&at("dir"), 0o3770);
    fs::create_dir(at("empty dir")).unwrap();
    symlink("some/where", at("link")).unwrap();
    lchown(at("link"), Some(5), Some(6)).unwrap();
    symlink("\u{4e2d} \u{6587}", at("other link")).unwrap();
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    mknodat(CWD, at("socket"), FileType::Socket, Mode::from_raw_mode(0o640), 0).unwrap();
    mknodat(CWD, at("chr"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(1, 3)).unwrap();
    mknodat(CWD, at("blk"), FileType::BlockDevice, Mode::from_raw_mode(0o640), makedev(7, 300)).unwrap();
    fs::write(at("xattrs"), "x").unwrap();
    set_xattr(&at("xattrs"), "user.colour", b"red");
    set_xattr(&at("xattrs"), "user.binary", &(0..=255).collect::<Vec<u8>>());
    fs::create_dir(at("xattrs of dir")).unwrap();
    set_xattr(&at("xattrs of dir"), "user.d", b"1");
}

/// Every kind of change to what [`make`] made.
fn change(dir: &Path, who: &str) {
    let at = |name: &str| dir.join(format!("{who}-{name}"));
    let rename = |from: &str, to: &str| fs::rename(at(from), at(to)).unwrap();
    set_mode(&at("plain"), 0o4711);
    chown(at("suid"), Some(42), Some(43)).unwrap();
    set_mtime(&at("sgid"), 1_111_111_111, 0);
    append(&at("sticky"), ", and more");
    rename("time", "time moved");
    fs::remove_file(at("empty")).unwrap();
    set_mode(&at("big"), 0o755);
    rename("dir", "dir moved");
    set_mode(&at("empty dir"), 0o1777);
    chown(at("empty dir"), Some(11), Some(12)).unwrap();
    set_mtime(&at("empty dir"), 1_222_222_222, 0);
    rename("link", "link moved");
    lchown(at("other link"), Some(11), Some(12)).unwrap();
    set_mtime(&at("other link"), 1_222_222_222, 0);
    rename("fifo", "fifo moved");
    set_mode(&at("chr"), 0o666);
    set_xattr(&at("xattrs"), "user.colour", b"blue");
    removexattr(at("xattrs"), "user.binary").unwrap();
}

fn walk(cloud: &Cloud, mount: &Mount, peer: &Peer) {
    let plain = mount.outside("plain");
    fs::create_dir(&plain).unwrap();
    let step = |why: &str, work: fn(&Path, &str), dir: &Path, who: &str| {
        work(dir, who);
        work(&plain, who);
        agree(why, &plain, mount, peer);
    };
    step("they make", make, &peer.dir, "their");
    step("we make", make, mount.dir(), "own");
    for (dir, who) in [(mount.dir(), "own"), (&*peer.dir, "their")] {
        let device = |mount: &Path, name: &str| fs::metadata(mount.join(format!("{who}-{name}"))).unwrap();
        let big = fs::read(dir.join(format!("{who}-big"))).unwrap();
        for other in [mount.dir(), &peer.dir] {
            assert!(fs::read(other.join(format!("{who}-big"))).unwrap() == big, "{who}-big");
            assert!(
                device(other, "chr").file_type().is_char_device() && device(other, "blk").file_type().is_block_device()
            );
        }
    }
    // Which devices ours are, nobody else keeps or shows.
    assert_eq!(fs::metadata(mount.path("own-chr")).unwrap().rdev(), makedev(1, 3));
    assert_eq!(fs::metadata(mount.path("own-blk")).unwrap().rdev(), makedev(7, 300));

    step("we change theirs", change, mount.dir(), "their");
    step("they change ours", change, &peer.dir, "own");
    let time = fs::metadata(mount.path("own-time moved")).unwrap();
    assert_eq!((time.mtime(), time.mtime_nsec()), (1_234_567_890, 123_456_789), "what they do not know travels");
    assert_eq!(fs::metadata(mount.path("own-chr")).unwrap().rdev(), makedev(1, 3));
    for name in ["own-sgid", "own-other link"] {
        let meta = fs::symlink_metadata(mount.path(name)).unwrap();
        assert_eq!(meta.mtime_nsec(), 0, "{name}: of the time that they set");
    }

    // Written on both sides: nothing is lost, though they keep our headers.
    fs::write(mount.path("both"), "base\n").unwrap();
    fs::write(mount.path("removed"), "base\n").unwrap();
    mount.wait_all();
    until("they see it", || fs::read(peer.dir.join("both")).is_ok() && fs::read(peer.dir.join("removed")).is_ok());
    let mut file = OpenOptions::new().append(true).open(mount.path("both")).unwrap();
    file.write_all(b"ours\n").unwrap();
    append(&peer.dir.join("both"), "theirs\n");
    drop(file);
    mount.wait_all();
    cloud.holds("data/both", b"base\nours\n");
    let keys = cloud.keys();
    let kept = keys.iter().find(|key| key.starts_with("data/both.conflict-"));
    cloud.holds(kept.unwrap_or_else(|| panic!("{keys:?}")), b"base\ntheirs\n");

    let refused =
        cloud.emulator().requests().into_iter().filter(|one| matches!(one.status, 400 | 401 | 403 | 405 | 501));
    assert_eq!(refused.collect::<Vec<_>>(), [], "requests that COS takes");
    assert_eq!(mount.status().failed.len(), 0);
}

fn options() -> Options {
    Options { attr_ttl: "1s", ..Options::default() }
}

#[test]
fn what_s3fs_and_we_write_into_one_prefix_shows_the_same_in_both() {
    one(options(), |cloud, mount| walk(cloud, mount, &Peer::s3fs(cloud, mount)));
}

#[test]
#[ignore = "cosfs is not packaged: tests/vendor/PEERS.md says how to build it and run this"]
fn what_cosfs_and_we_write_into_one_prefix_shows_the_same_in_both() {
    let program = std::env::var("FERRYFS_COSFS").expect("FERRYFS_COSFS: the path of a cosfs that was built");
    one(options(), |cloud, mount| walk(cloud, mount, &Peer::cosfs(&program, cloud, mount)));
}
