//! The emulator proves itself against clients it shares nothing with: the vendors' own, from
//! pinned packages in an environment that `scripts/venv.sh` makes (`tests/vendor`).

mod harness;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ferryfs::emulator::Emulator;
use ferryfs::emulator::Options;
use tokio::process::Command;

use harness::source_dir;
use harness::vendor_python;

const BUCKET: &str = "examplebucket-1250000000";
const AWKWARD: [&str; 6] = ["data/plain.txt", "with space", "\u{4e2d}\u{6587}", "plus+plus", "100%", "tilde~star*(x)"];

/// The slowest script takes a few seconds; a loaded machine may take ten times that.
const MOST_TIME: Duration = Duration::from_secs(180);

async fn start(root: &Path) -> Emulator {
    let options = Options {
        listen: "127.0.0.1:0".parse().expect("an address"),
        root: root.to_owned(),
        buckets: vec![BUCKET.to_owned()],
        credentials: vec![("AKIDvendor".to_owned(), "vendor-secret".to_owned())],
        oms_credentials: Some(("HWAK".to_owned(), "hw-secret".to_owned())),
        latency: Duration::ZERO,
        bandwidth: None,
    };
    Emulator::start(options).await.expect("start the emulator")
}

async fn run(script: &str, argument: &str) {
    run_with(script, &[argument.as_ref()]).await;
}

async fn run_with(script: &str, arguments: &[&OsStr]) -> String {
    let python = tokio::task::spawn_blocking(vendor_python).await.expect("make the environment");
    let output = Command::new(python)
        .arg(source_dir().join("tests/vendor").join(script))
        .args(arguments)
        .env("no_proxy", "*")
        .env("NO_PROXY", "*")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(MOST_TIME, output).await.expect("the script ends").expect("run the script");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}:\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What programs copied into a mount is, byte for byte, what the vendor's client finds in the bucket;
/// and every announcement of it is signed and encoded as the vendor of OMS would have.
#[test]
fn a_thousand_delivered_files_are_equal_by_the_vendors_client() {
    let cloud = harness::Cloud::start();
    let mut mount = harness::Mount::new(&cloud, harness::Options::default());
    let source = mount.outside("source");
    for n in 0..1000_usize {
        let dir = source.join(format!("dir {}/\u{4e2d}{}", n % 10, n % 3));
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(format!("file+{n:04}%")), harness::pattern(n as u64, (n * 7919) % 40_000)).expect("a file");
    }
    let copied = std::process::Command::new("cp").arg("-r").arg(&source).arg(mount.path("tree")).status();
    assert!(copied.expect("run cp").success());
    mount.wait_all();
    let port = cloud.emulator().addr().port().to_string();
    let arguments: [&OsStr; 5] = [
        port.as_ref(),
        harness::SECRET_ID.as_ref(),
        harness::SECRET_KEY.as_ref(),
        "data/tree/".as_ref(),
        source.as_ref(),
    ];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    assert_eq!(runtime.block_on(run_with("delivered.py", &arguments)).trim(), "1000");

    let arguments: [&OsStr; 3] = [port.as_ref(), harness::ACCESS_KEY.as_ref(), harness::ACCESS_SECRET.as_ref()];
    let signed = runtime.block_on(run_with("oms_signatures.py", &arguments));
    let (seen, announced) = (cloud.emulator().oms_requests(), cloud.announced());
    assert!(seen.len() >= 100 && announced.len() >= 1000, "{} requests, {} keys", seen.len(), announced.len());
    assert_eq!(signed.trim(), format!("{} {}", seen.len(), announced.len()), "requests and keys that were checked");
    mount.umount();
}

#[tokio::test(flavor = "multi_thread")]
async fn cos_python_sdk() {
    let root = tempfile::tempdir().expect("a directory");
    let emulator = start(root.path()).await;
    run("cos_sdk.py", &emulator.addr().port().to_string()).await;
    assert!(emulator.uploads(BUCKET).is_empty());
    let object = emulator.object(BUCKET, "multi").expect("the object is there");
    assert_eq!((object.parts(), object.size()), (3, (4 << 20) + 4));
    let completed = emulator.stores().into_iter().filter(|store| store.key == "multi" && store.how == "complete");
    assert_eq!(completed.count(), 1);
    emulator.shutdown().await;
    let emulator = start(root.path()).await;
    let again = emulator.object(BUCKET, "multi").expect("the object survives a restart");
    assert_eq!((again.etag(), again.crc64()), (object.etag(), object.crc64()));
    emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coscmd() {
    let root = tempfile::tempdir().expect("a directory");
    let emulator = start(root.path()).await;
    run("coscmd_cli.py", &emulator.addr().port().to_string()).await;
    assert_eq!(emulator.keys(BUCKET), ["cmd/small \u{4e2d}+.txt"]);
    let parts = emulator.requests().into_iter().filter(|request| {
        request.method == "PUT" && request.sub_resource.contains(&"partNumber".to_owned()) && request.status == 200
    });
    assert_eq!(parts.count(), 21, "21 MiB in parts of 1 MiB");
    emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huawei_oms_sdk() {
    let root = tempfile::tempdir().expect("a directory");
    let emulator = start(root.path()).await;
    run("oms_sdk.py", &emulator.oms_url()).await;
    let keys: Vec<_> = emulator.oms_events().into_iter().map(|event| event.key).collect();
    assert_eq!(keys, AWKWARD, "those of the one request that was accepted, decoded");
    emulator.shutdown().await;
}
