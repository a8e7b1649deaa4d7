//! The store and OMS, as a process of their own that nobody kills.

use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ferryfs::store::Addressing;
use ferryfs::store::CosOptions;
use ferryfs::store::Credentials;
use ferryfs::store::ListOptions;
use ferryfs::store::ObjectMeta;
use ferryfs::store::ObjectStore;
use ferryfs::store::cos;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::harness::ACCESS_KEY;
use crate::harness::ACCESS_SECRET;
use crate::harness::BINARY;
use crate::harness::BUCKET;
use crate::harness::Guarded;
use crate::harness::LOGS;
use crate::harness::PATIENCE;
use crate::harness::SECRET_ID;
use crate::harness::SECRET_KEY;
use crate::harness::Service;
use crate::harness::die_together;

/// A version that a request stored.
#[derive(Clone, Debug, Deserialize)]
pub struct Stored {
    pub request: u64,
    pub time_ns: i64,
    pub how: String,
    pub bucket: String,
    pub key: String,
    pub etag: String,
    pub size: u64,
    pub crc64: u64,
}

/// A key that OMS accepted.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    pub key: String,
    pub time_ns: i64,
}

/// A request, as far as it is looked at.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    pub seq: u64,
    pub time_ns: i64,
}

/// How the service is started.
#[derive(Deserialize)]
struct Urls {
    store: String,
    oms: String,
}

pub struct Cloud {
    _emulator: Guarded,
    pub service: Service,
    address: String,
    buckets: [Arc<dyn ObjectStore>; 2],
    runtime: tokio::runtime::Runtime,
}

impl Cloud {
    pub fn start(root: &Path, latency: Duration) -> Cloud {
        let mut command = Command::new(BINARY);
        command.arg("emulator").arg("--root").arg(root.join("objects"));
        command.args(["--bucket", BUCKET, "--bucket", LOGS]);
        command.arg("--credentials").arg(format!("{SECRET_ID}:{SECRET_KEY}"));
        command.arg("--oms-credentials").arg(format!("{ACCESS_KEY}:{ACCESS_SECRET}"));
        command.arg("--latency").arg(format!("{}ms", latency.as_millis()));
        command.env_remove("FERRYFS_FAILPOINT");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        die_together(&mut command);
        let mut emulator = command.stderr(File::create(root.join("emulator.log")).unwrap()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(emulator.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let emulator = Guarded(emulator);
        let urls: Urls = serde_json::from_str(&line).unwrap();
        let buckets = [BUCKET, LOGS].map(|bucket| {
            let credentials = Credentials::new(SECRET_ID, SECRET_KEY, None);
            let mut options = CosOptions::new(bucket, "ap-guangzhou", credentials.into());
            options.endpoint = Some(urls.store.clone());
            options.addressing = Addressing::Path;
            cos(options).unwrap()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address = urls.store.strip_prefix("http://").unwrap().to_owned();
        let service = Service {
            store_url: urls.store,
            oms_url: urls.oms,
            secret_key: SECRET_KEY.to_owned(),
            access_secret: ACCESS_SECRET.to_owned(),
        };
        Cloud { _emulator: emulator, service, address, buckets, runtime }
    }

    /// What the emulator's own control says, as it is.
    pub fn ask_text(&self, what: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /_emulator/{what} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        let head = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        assert!(reply[..head].windows(5).any(|window| window == b" 200 "), "{what}: {:?}", &reply[..head]);
        reply.split_off(head + 4)
    }

    fn ask<T: DeserializeOwned>(&self, what: &str) -> Vec<T> {
        serde_json::from_slice(&self.ask_text(what)).unwrap()
    }

    /// Every version of the mapped bucket, in order.
    pub fn stores(&self) -> Vec<Stored> {
        let mut stores = self.ask::<Stored>("stores");
        stores.retain(|store| store.bucket == BUCKET);
        stores
    }

    pub fn told(&self) -> Vec<Told> {
        self.ask("oms")
    }

    pub fn requests(&self) -> Vec<Request> {
        self.ask("requests")
    }

    fn list(&self, bucket: usize, prefix: &str) -> Vec<ObjectMeta> {
        let mut objects = Vec::new();
        let mut marker = None;
        loop {
            let options = ListOptions { prefix: prefix.to_owned(), delimiter: None, marker, max_keys: 1000 };
            let page = self.runtime.block_on(self.buckets[bucket].list(options)).unwrap();
            objects.extend(page.objects);
            marker = page.next_marker;
            if marker.is_none() {
                return objects;
            }
        }
    }

    /// All objects of the mapped bucket.
    pub fn objects(&self) -> Vec<ObjectMeta> {
        self.list(0, "")
    }

    /// Keys with a record of this kind.
    pub fn recorded(&self, kind: &str) -> Vec<String> {
        let part = format!("/{kind}/");
        let keys = self.list(1, "").into_iter().map(|object| object.key.0);
        keys.filter_map(|key| key.split_once(&part).map(|(_, key)| key.to_owned())).collect()
    }

    /// Keys of uploads in progress.
    pub fn uploads(&self) -> Vec<String> {
        let page = self.runtime.block_on(self.buckets[0].list_uploads("", None)).unwrap();
        page.uploads.into_iter().map(|upload| upload.key.0).collect()
    }
}
