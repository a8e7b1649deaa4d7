use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;
use crate::store::Encryption;

/// The file of the README and of the issue, with every section.
const WHOLE: &str = r#"
[[mapping]]
path = "/"
url = "cos://examplebucket-1250000000/data/"
region = "ap-guangzhou"
endpoint = "http://127.0.0.1:9000"
addressing = "path"
secret_id = "AKIDexample"
secret_key = "hush"
[mapping.sync]
url = "https://oms.cn-north-4.myhuaweicloud.com/v2/0a1b/sync-tasks/7d-9/events"
access_key = "AK"
secret_key = "hush-too"
record = "cos://logs-1250000000/"
[cache]
dir = "/var/cache/ferryfs/demo"
size = "20GiB"
[state]
dir = "/var/lib/ferryfs/demo"
[write_back]
delay = "1s"
close = "process"
fsync = "disk"
part_size = "16MiB"
"#;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }
}

fn empty(_: &str) -> Option<String> {
    None
}

fn load(text: &str) -> Result<Config> {
    let fixture = Fixture::new();
    let path = fixture.write("demo.toml", text, 0o600);
    build::from_file(&path, &Options::default(), &empty)
}

/// `text` is refused at the line that holds `at`, with a message and a remedy that hold the other two,
/// and without any secret.
#[track_caller]
fn refused(text: &str, at: &str, message: &str, remedy: &str) {
    let fixture = Fixture::new();
    let path = fixture.write("demo.toml", text, 0o600);
    let error = build::from_file(&path, &Options::default(), &empty).unwrap_err();
    let line = 1 + text.lines().position(|line| line.contains(at)).unwrap();
    assert_eq!(error.location, Location::File { path: path.clone(), line: Some(line) }, "{error}");
    assert!(error.message.contains(message), "{error}");
    assert!(error.remedy.contains(remedy), "{error}");
    let shown = error.to_string();
    assert!(shown.starts_with(&format!("{}:{line}: ", path.display())), "{shown}");
    assert!(!shown.contains("hush"), "{shown}");
    assert!(!shown.contains('\n'), "{shown}");
}

/// [`refused`] for [`WHOLE`] with one line replaced.
#[track_caller]
fn refused_with(old: &str, new: &str, message: &str, remedy: &str) {
    assert_eq!(WHOLE.matches(old).count(), 1, "{old}");
    refused(&WHOLE.replace(old, new), new.lines().last().unwrap(), message, remedy);
}

#[test]
fn the_whole_file_is_understood() {
    let config = load(WHOLE).unwrap();
    assert_eq!(config.name, "demo");
    let [mapping] = config.mappings.as_slice() else { panic!("{:?}", config.mappings) };
    assert_eq!(mapping.place.identity(), "cos://examplebucket-1250000000/data/");
    assert_eq!(mapping.place.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(mapping.place.addressing, Addressing::Path);
    assert_eq!(mapping.place.credentials.secret_id, "AKIDexample");
    assert_eq!(mapping.place.credentials.secret_key.expose_secret(), "hush");
    let sync = mapping.sync.as_ref().unwrap();
    assert_eq!((sync.url.project(), sync.url.task()), ("0a1b", "7d-9"));
    assert_eq!(sync.secret_key.expose_secret(), "hush-too");
    assert!(sync.encode_keys);
    let record = sync.record.as_ref().unwrap();
    assert_eq!(record.identity(), "cos://logs-1250000000/");
    assert_eq!(record.endpoint, mapping.place.endpoint);
    assert_eq!(record.region, "ap-guangzhou");
    assert_eq!(record.addressing, Addressing::Path);
    assert_eq!(record.credentials.secret_id, "AKIDexample");
    assert_eq!(config.cache.size, ByteSize(20 << 30));
    assert_eq!(config.state.dir, PathBuf::from("/var/lib/ferryfs/demo"));
    assert_eq!(config.write_back.delay, Duration::from_secs(1));
    assert_eq!(config.write_back.close, CloseMode::Process);
    assert_eq!(config.write_back.parallel, 4);
    assert_eq!(config.write_back.threshold, ByteSize(16 << 20));
    assert!(!format!("{config:?}").contains("hush"), "{config:?}");
}

#[test]
fn defaults_come_from_the_files_stem() {
    let config = load(
        "[[mapping]]\npath='/'\nurl='cos://a-1/'\nregion='ap-guangzhou'\nsecret_id='i'\nsecret_key='k'\n[mount]\ndir='/m'\n",
    )
    .unwrap();
    assert_eq!(config.cache, Cache { dir: "/var/cache/ferryfs/demo".into(), size: ByteSize(20 << 30) });
    assert_eq!(config.state.dir, PathBuf::from("/var/lib/ferryfs/demo"));
    assert_eq!(config.mount.dir, Some(PathBuf::from("/m")));
    assert_eq!(config.mount.attr_ttl, Duration::from_secs(10));
    assert!(config.mount.no_suid && config.mount.no_dev && !config.mount.read_only);
    assert!(config.mappings[0].sync.is_none());
}

#[test]
fn unknown_keys_are_refused() {
    refused_with("delay = \"1s\"", "dellay = \"1s\"", "unknown field `dellay`, expected one of `delay`", "README");
    refused_with("[cache]", "[cash]", "unknown field `cash`", "README");
    refused_with("region = \"ap-guangzhou\"", "regoin = \"ap-guangzhou\"", "unknown field `regoin`", "README");
}

#[test]
fn syntax_errors_are_refused_without_showing_the_line() {
    refused_with("secret_key = \"hush\"", "secret_key = hush", "", "README");
    refused_with("secret_key = \"hush\"", "secret_key = \"hush", "", "README");
    refused_with("secret_key = \"hush\"", "secret_key = 4815162342", "string in quotes", "README");
    let error = load(&WHOLE.replace("\"hush\"", "4815162342")).unwrap_err();
    assert!(!error.to_string().contains("4815162342"));
}

#[test]
fn bad_sizes_are_refused() {
    refused_with("size = \"20GiB\"", "size = \"20 parsecs\"", "not a unit of size", "size = \"512MiB\"");
    refused_with("size = \"20GiB\"", "size = \"12KiB\"", "out of range", "between 1 MiB");
    refused_with("part_size = \"16MiB\"", "part_size = \"1KiB\"", "out of range", "between 1 MiB");
    refused_with("part_size = \"16MiB\"", "part_size = \"6GiB\"", "out of range", "between 1 MiB");
    refused_with("part_size = \"16MiB\"", "parallel = 0", "out of range", "between 1 and 64");
}

#[test]
fn bad_times_are_refused() {
    refused_with("delay = \"1s\"", "delay = \"1\"", "not a time", "delay = \"500ms\"");
    refused_with("delay = \"1s\"", "delay = \"99d\"", "out of range", "between");
    refused_with("delay = \"1s\"", "delay = \"1m\"\nmax_delay = \"1s\"", "out of range", "between 60s");
}

#[test]
fn unknown_choices_are_refused() {
    refused_with(
        "close = \"process\"",
        "close = \"never\"",
        "none of the choices",
        "\"process\", \"disk\", \"remote\"",
    );
    refused_with("fsync = \"disk\"", "fsync = \"no\"", "none of the choices", "\"disk\", \"remote\"");
    refused_with("addressing = \"path\"", "addressing = \"dns\"", "none of the choices", "\"virtual\", \"path\"");
}

#[test]
fn terms_are_read_and_checked() {
    let region = "region = \"ap-guangzhou\"";
    let with = |lines: &str| load(&WHOLE.replacen(region, &format!("{region}\n{lines}"), 1));
    let lines = "acl = \"public-read\"\nsse = \"KMS\"\nsse_kms_key_id = \"k-1\"\ntags = \"team=a b&keep=\"";
    let terms = with(lines).unwrap().mappings[0].terms.clone();
    assert_eq!(terms.acl.as_deref(), Some("public-read"));
    assert_eq!(terms.encryption, Some(Encryption::Kms { key_id: Some("k-1".to_owned()) }));
    assert_eq!(terms.tags, [("team".to_owned(), "a b".to_owned()), ("keep".to_owned(), String::new())].into());
    assert_eq!(with("sse = \"AES256\"").unwrap().mappings[0].terms.encryption, Some(Encryption::Aes256));
    assert_eq!(load(WHOLE).unwrap().mappings[0].terms, Terms::default());
    let many: String = (0..11).map(|n| format!("&t{n}=x")).collect();
    for (line, message, remedy) in [
        ("acl = \"public-read-write\"", "none of the choices", "\"default\", \"private\", \"public-read\""),
        ("sse = \"aes\"", "none of the choices", "\"AES256\", \"KMS\""),
        ("sse_kms_key_id = \"k-1\"", "without sse = \"KMS\"", "add sse"),
        ("sse = \"KMS\"\nsse_kms_key_id = \"\"", "not the id of a key", "key service"),
        ("tags = \"team\"", "`team` is not NAME=VALUE", "team=billing"),
        ("tags = \"=x\"", "not the name of a tag", "team=billing"),
        ("tags = \"a=1&a=2\"", "given twice", "team=billing"),
        ("tags = \"a=(1)\"", "not `(`", "team=billing"),
        (&format!("tags = \"{}\"", &many[1..]), "11 tags", "up to 10"),
        (&format!("tags = \"a={}\"", "x".repeat(256)), "more than 255", "up to 10"),
    ] {
        refused_with(region, &format!("{region}\n{line}"), message, remedy);
    }
    let options = Options::parse(&["region=r,acl=private,sse=AES256,tags=a=1&b=2"], false).unwrap();
    let environment = |name: &str| name.starts_with("COS_SECRET").then(|| "x".to_owned());
    let config = build::from_url("cos://a-1/", &options, &environment).unwrap();
    assert_eq!(config.mappings[0].terms.tags.len(), 2);
}

#[test]
fn close_and_fsync_may_wait_for_the_bucket() {
    let text = WHOLE
        .replace("close = \"process\"", "close = \"remote\"")
        .replace("fsync = \"disk\"", "fsync = \"remote\"\nupload_open = \"10m\"");
    let written = load(&text).unwrap().write_back;
    assert_eq!((written.close, written.fsync), (CloseMode::Remote, FsyncMode::Remote));
    assert_eq!(written.upload_open, Some(Duration::from_secs(600)));
    assert_eq!(load(WHOLE).unwrap().write_back.upload_open, None);
    assert_eq!(load(&text.replace("10m", "off")).unwrap().write_back.upload_open, None);
    refused_with("fsync = \"disk\"", "upload_open = \"10ms\"", "out of range", "between");
    refused_with("fsync = \"disk\"", "upload_open = \"never\"", "not a time", "");
}

fn two(first: (&str, &str), second: (&str, &str)) -> String {
    let one = |(path, url): (&str, &str)| {
        format!(
            "[[mapping]]\npath = \"{path}\"\nurl = \"{url}\"\nregion = \"ap-guangzhou\"\nsecret_id = \"i\"\n\
             secret_key = \"hush\"\n"
        )
    };
    one(first) + &one(second)
}

#[test]
fn overlapping_mappings_are_refused() {
    let clash = two(("/", "cos://a-1/"), ("/b", "cos://b-1/"));
    refused(&clash, "path = \"/b\"", "overlaps mapping `/`", "directory of its own");
    let text = two(("/b", "cos://a-1/"), ("/b", "cos://b-1/")).replacen("path = \"/b\"", "path = '/b'", 1);
    refused(&text, "path = \"/b\"", "overlaps mapping `/b`", "directory of its own");
    let text = two(("/a", "cos://a-1/x/"), ("/b", "cos://a-1/x/y/"));
    refused(&text, "x/y/", "overlaps mapping `cos://a-1/x/`", "prefix");
    let text = two(("/a", "cos://a-1/x/"), ("/b", "cos://a-1"));
    refused(&text, "\"cos://a-1\"", "overlaps", "prefix");
    assert!(load(&two(("/a", "cos://a-1/x/"), ("/b", "cos://a-1/xy/"))).is_ok());
    assert!(load(&two(("/a", "cos://a-1/x/"), ("/b", "cos://b-1/x/"))).is_ok());
}

#[test]
fn a_mapped_log_bucket_is_refused() {
    for record in ["cos://examplebucket-1250000000/", "cos://examplebucket-1250000000/logs/"] {
        refused_with(
            "record = \"cos://logs-1250000000/\"",
            &format!("record_endpoint = \"http://127.0.0.1:1\"\nrecord = \"{record}\""),
            "log bucket `examplebucket-1250000000` is a mapped bucket",
            "bucket of its own",
        );
    }
    let text = WHOLE.replace("path = \"/\"", "path = \"/a\"")
        + "[[mapping]]\npath = \"/b\"\nurl = \"cos://logs-1250000000/x\"\nregion = \"r\"\nsecret_id = \"i\"\nsecret_key = \"k\"\n";
    refused(&text, "record =", "is a mapped bucket", "bucket of its own");
}

#[test]
fn a_secret_file_that_others_can_read_is_refused() {
    let fixture = Fixture::new();
    for mode in [0o640, 0o604, 0o660] {
        let path = fixture.write("demo.toml", WHOLE, mode);
        let error = build::from_file(&path, &Options::default(), &empty).unwrap_err();
        let line = 1 + WHOLE.lines().position(|line| line.starts_with("secret_key")).unwrap();
        assert_eq!(error.location, Location::File { path: path.clone(), line: Some(line) });
        assert!(error.message.contains(&format!("{mode:04o}")), "{error}");
        assert_eq!(error.remedy, format!("run: chmod 600 {}", path.display()));
    }
}

const FROM_FILE: &str =
    "[[mapping]]\npath = \"/\"\nurl = \"cos://a-1/\"\nregion = \"r\"\ncredentials_file = \"keys\"\n";

#[test]
fn credentials_come_from_a_file_of_ones_own() {
    let fixture = Fixture::new();
    // No secret in the file itself: others may read it.
    let path = fixture.write("demo.toml", FROM_FILE, 0o644);
    let load = || build::from_file(&path, &Options::default(), &empty);

    let error = load().unwrap_err();
    assert_eq!(error.location, Location::File { path: path.clone(), line: Some(5) });
    assert!(error.message.contains("cannot read credentials file"), "{error}");

    let keys = fixture.write("keys", "secret_id = id\nsecret_key = hush\n", 0o644);
    let error = load().unwrap_err();
    assert_eq!(error.location, Location::File { path: path.clone(), line: Some(5) });
    assert_eq!(error.remedy, format!("run: chmod 600 {}", keys.display()));

    for text in [
        "secret_id = id\nsecret_key = hush\n",
        "# for the shell\nexport COS_SECRET_ID=\"id\"\nCOS_SECRET_KEY='hush'\n",
        "other-2:x:y\na-1:id:hush\n",
    ] {
        fixture.write("keys", text, 0o600);
        let credentials = load().unwrap().mappings.remove(0).place.credentials;
        assert_eq!((credentials.secret_id.as_str(), credentials.secret_key.expose_secret()), ("id", "hush"));
    }

    fixture.write("keys", "secret_id = id\nsecret_kee = hush\n", 0o600);
    let error = load().unwrap_err();
    assert_eq!(error.location, Location::File { path: keys, line: Some(2) });
    assert!(!error.to_string().contains("hush"));

    fixture.write("keys", "other-2:x:hush\n", 0o600);
    let error = load().unwrap_err();
    assert!(error.message.contains("both parts of a key"), "{error}");
}

#[test]
fn credentials_come_from_the_environment_last() {
    let text = "[[mapping]]\npath = \"/\"\nurl = \"cos://a-1/\"\nregion = \"r\"\n";
    refused(text, "[[mapping]]", "no credentials for cos://a-1", "COS_SECRET_ID");
    let fixture = Fixture::new();
    let path = fixture.write("demo.toml", text, 0o644);
    let environment = |name: &str| Some(format!("{name}-value"));
    let config = build::from_file(&path, &Options::default(), &environment).unwrap();
    assert_eq!(config.mappings[0].place.credentials.secret_id, "COS_SECRET_ID-value");
    assert_eq!(config.mappings[0].place.credentials.token.as_ref().unwrap().expose_secret(), "COS_SESSION_TOKEN-value");
}

#[test]
fn half_of_a_key_is_refused() {
    refused(&WHOLE.replace("secret_key = \"hush\"\n", ""), "secret_id", "without `secret_key`", "add `secret_key`");
    refused(
        &WHOLE.replace("secret_id = \"AKIDexample\"\n", ""),
        "secret_key",
        "without `secret_id`",
        "add `secret_id`",
    );
    refused_with("secret_key = \"hush\"", "secret_key = \"\"", "`secret_key` is empty", "fill it in");
}

#[test]
fn sync_settings_are_checked() {
    let url = "url = \"https://oms.cn-north-4.myhuaweicloud.com/v2/0a1b/sync-tasks/7d-9/events\"";
    refused_with(
        url,
        "url = \"http://oms.example.com/v2/p/sync-tasks/t/events\"",
        "loopback only",
        "write it as https://",
    );
    refused_with(url, "url = \"https://oms.example.com/v2/p/sync-tasks/events\"", "must be https://", "sync-tasks");
    refused_with("record = \"cos://logs-1250000000/\"", "record_region = \"r\"", "without `record`", "add record");
}

#[test]
fn providers_not_built_are_said_so() {
    let url = "url = \"cos://examplebucket-1250000000/data/\"";
    refused_with(url, "url = \"s3://bucket/data/\"", "`s3` is not built yet", "cos://");
    refused_with(url, "url = \"oss://bucket/data/\"", "`oss` is not built yet", "cos://");
    refused_with(url, "url = \"cos://examplebucket/data/\"", "full name of a COS bucket", "appid");
    refused_with(url, "url = \"cos://examplebucket-1250000000/a//b/\"", "holds `//`", "plain directory names");
}

#[test]
fn missing_things_are_named() {
    refused("[cache]\nsize = \"1GiB\"\n", "[cache]", "maps nothing", "add a [[mapping]]");
    refused("[[mapping]]\nurl = \"cos://a-1/\"\n", "[[mapping]]", "`path` is missing", "path = \"/\"");
    refused("[[mapping]]\npath = \"/\"\n", "[[mapping]]", "`url` is missing", "cos://");
    refused("[[mapping]]\npath = \"/\"\nurl = \"cos://a-1/\"\n", "[[mapping]]", "`region` is missing", "ap-guangzhou");
    refused_with("path = \"/\"", "path = \"/a/b\"", "not a directory of the mount", "one name");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(std::path::Path::new("/nonexistent/demo.toml")).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/demo.toml: cannot read the configuration"), "{error}");
}

#[test]
fn directories_may_not_lie_in_each_other() {
    refused_with(
        "dir = \"/var/lib/ferryfs/demo\"",
        "dir = \"/var/cache/ferryfs/demo/state\"",
        "lie in one another",
        "keep them apart",
    );
    refused_with("dir = \"/var/lib/ferryfs/demo\"", "dir = \"/var/../lib\"", "not a plain directory", "absolute");
    let config = load(WHOLE).unwrap();
    assert!(config.check_mount_dir(std::path::Path::new("/mnt/demo")).is_ok());
    for dir in ["/", "/var/cache/ferryfs/demo", "/var/lib/ferryfs/demo/x"] {
        let error = config.check_mount_dir(std::path::Path::new(dir)).unwrap_err();
        assert!(error.remedy.contains("outside the mount"), "{error}");
    }
}

#[test]
fn a_url_and_options_are_enough() {
    let environment = |name: &str| name.starts_with("COS_SECRET").then(|| "x".to_owned());
    let options = Options::parse(
        &["region=ap-guangzhou,endpoint=http://127.0.0.1:9", "cache-size=1GiB,ro,uid=5,exec,nosuid"],
        false,
    )
    .unwrap();
    let config = build::from_url("cos://a-1/x y", &options, &environment).unwrap();
    assert_eq!(config.mappings[0].place.identity(), "cos://a-1/x y/");
    assert!(config.name.starts_with("a-1-x-y-"), "{}", config.name);
    assert_eq!(config.cache.dir, PathBuf::from("/var/cache/ferryfs").join(&config.name));
    assert!(config.mount.read_only && config.mount.uid == 5 && !config.mount.no_exec);
    let other = build::from_url("cos://a-1/x-y", &options, &environment).unwrap();
    assert_ne!(config.name, other.name);

    let options = Options::parse(&["region=Nowhere!"], false).unwrap();
    let error = build::from_url("cos://a-1/", &options, &environment).unwrap_err();
    assert_eq!(error.location, Location::Option("region".to_owned()));
    let error = build::from_url("cos://a-1/", &Options::default(), &environment).unwrap_err();
    assert!(error.message.contains("`region` is missing"), "{error}");
}

#[test]
fn options_override_the_file() {
    let fixture = Fixture::new();
    let path = fixture.write("demo.toml", WHOLE, 0o600);
    let with = |text: &str| {
        build::from_file(&path, &Options::parse(&[text], false).unwrap(), &empty).map_err(|error| error.to_string())
    };
    let config = with("allow_other,attr_ttl=1s,passthrough=off").unwrap();
    assert!(config.mount.allow_other);
    assert_eq!(config.mount.attr_ttl, Duration::from_secs(1));
    assert_eq!(config.mount.passthrough, Passthrough::Off);
    assert!(with("attr_ttl=soon").unwrap_err().starts_with("option `attr_ttl`: `soon` is not a time"));
    assert!(with("region=x").unwrap_err().contains("[[mapping]]"));
    assert!(with("uid=-1").unwrap_err().contains("between 0"));
    assert_eq!((config.mount.file_mode, config.mount.dir_mode), (0o644, 0o755));
    let config = with("umask=027,dir_mode=0700").unwrap();
    assert_eq!((config.mount.file_mode, config.mount.dir_mode), (0o640, 0o700));
    for wrong in ["umask=abc", "umask=0888", "file_mode=4755", "dir_mode=+7", "umask=01000"] {
        let (name, value) = wrong.split_once('=').unwrap();
        let error = with(wrong).unwrap_err();
        let start = format!("option `{name}`: {name} of `{value}` is not a mode of permission bits");
        assert!(error.starts_with(&start) && error.contains("octal"), "{error}");
    }
    assert!(with("umask").unwrap_err().contains("needs a value"));
}

#[test]
fn the_readmes_configuration_is_accepted() {
    let readme = include_str!("../../README.md");
    let (_, block) = readme.split_once("```toml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let config = load(&block.replace("<project>", "p").replace("<task>", "t")).unwrap();
    // What it calls defaults are the defaults.
    let bare = load("[[mapping]]\npath='/'\nurl='cos://a-1/'\nregion='r'\nsecret_id='i'\nsecret_key='k'\n").unwrap();
    assert_eq!(config.write_back, bare.write_back);
    assert_eq!(config.cache, bare.cache);
    assert_eq!(config.state, bare.state);
    assert_eq!(config.mount.attr_ttl, bare.mount.attr_ttl);
    assert_eq!(config.mount.killed_writer, bare.mount.killed_writer);
}
