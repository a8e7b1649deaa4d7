//! The store and OMS.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ferryfs::checksum::crc64;
use ferryfs::emulator::{Action, Emulator, Fault, Match, RequestRecord, StoredObject};
use tokio::runtime::Runtime;

use super::{BUCKET, LOGS};

/// The store's key pair.
pub const SECRET_ID: &str = "AKIDFAKE000000TEST";
pub const SECRET_KEY: &str = "FakeStoreSecretForTestsOnly";
pub const ACCESS_KEY: &str = "FAKEHWAK00000000TEST";
pub const ACCESS_SECRET: &str = "FakeHuaweiSecretKeyForTestsOnly000000000";

/// What a mount's configuration says of a store and of OMS.
pub struct Service {
    pub store_url: String,
    pub oms_url: String,
    pub secret_key: String,
    pub access_secret: String,
}

/// The emulator, on threads of its own.
pub struct Cloud {
    emulator: Option<Emulator>,
    address: SocketAddr,
    store_url: String,
    oms_url: String,
    latency: Duration,
    bandwidth: Option<u64>,
    secret_key: String,
    access_secret: String,
    runtime: Runtime,
    root: tempfile::TempDir,
}

impl Cloud {
    /// With the buckets [`BUCKET`] and [`LOGS`], as fast as it can.
    pub fn start() -> Cloud {
        Cloud::with(Duration::ZERO, None)
    }

    /// With so much latency for each request and so many bytes per second.
    pub fn with(latency: Duration, bandwidth: Option<u64>) -> Cloud {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (store_url, oms_url) = (String::new(), String::new());
        let (secret_key, access_secret) = (SECRET_KEY.to_owned(), ACCESS_SECRET.to_owned());
        let emulator = None;
        let mut cloud = Cloud {
            emulator,
            address,
            store_url,
            oms_url,
            latency,
            bandwidth,
            secret_key,
            access_secret,
            runtime,
            root,
        };
        cloud.restart();
        cloud
    }

    /// Starts it again after [`Cloud::stop`]: same port, same objects, an empty log.
    pub fn restart(&mut self) {
        let options = ferryfs::emulator::Options {
            listen: self.address,
            root: self.root.path().to_owned(),
            buckets: vec![BUCKET.to_owned(), LOGS.to_owned()],
            credentials: vec![(SECRET_ID.to_owned(), self.secret_key.clone())],
            oms_credentials: Some((ACCESS_KEY.to_owned(), self.access_secret.clone())),
            latency: self.latency,
            bandwidth: self.bandwidth,
        };
        let emulator = self.runtime.block_on(Emulator::start(options)).unwrap();
        self.address = emulator.addr();
        self.store_url = emulator.store_url();
        self.oms_url = emulator.oms_url();
        self.emulator = Some(emulator);
    }

    /// Connections are refused from now on.
    pub fn stop(&mut self) {
        if let Some(emulator) = self.emulator.take() {
            self.runtime.block_on(emulator.shutdown());
        }
    }

    /// Only other secret keys are good from now on, at the store and at OMS; as [`Cloud::restart`].
    pub fn rotate_keys(&mut self) {
        self.stop();
        self.secret_key.push('2');
        self.access_secret.push('2');
        self.restart();
    }

    /// The emulator itself.
    pub fn emulator(&self) -> &Emulator {
        self.emulator.as_ref().expect("the emulator was stopped")
    }

    /// What a mount must know of it.
    pub fn service(&self) -> Service {
        Service {
            store_url: self.store_url.clone(),
            oms_url: self.oms_url.clone(),
            secret_key: self.secret_key.clone(),
            access_secret: self.access_secret.clone(),
        }
    }

    /// An object of [`BUCKET`].
    pub fn object(&self, key: &str) -> Option<StoredObject> {
        self.emulator().object(BUCKET, key)
    }

    /// The bytes of an object of [`BUCKET`].
    pub fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.object(key).map(|object| object.bytes().unwrap())
    }

    /// User metadata of an object of [`BUCKET`], by name without `x-cos-meta-`.
    pub fn metadata(&self, key: &str, name: &str) -> Option<String> {
        self.object(key)?.metadata().get(name).cloned()
    }

    /// The object holds these bytes, and its checksum is theirs.
    #[track_caller]
    pub fn holds(&self, key: &str, bytes: &[u8]) {
        let keys = || self.emulator().keys(BUCKET);
        let object = self.object(key).unwrap_or_else(|| panic!("{key} is not in the bucket: {:?}", keys()));
        assert_eq!(object.size(), bytes.len() as u64, "size of {key}");
        assert!(object.bytes().unwrap() == bytes, "bytes of {key}");
        assert_eq!(object.crc64(), crc64(bytes).0, "CRC64 of {key}");
    }

    /// Keys of [`BUCKET`].
    pub fn keys(&self) -> Vec<String> {
        self.emulator().keys(BUCKET)
    }

    /// Stores an object as another client.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        self.emulator().put_object(BUCKET, key, bytes).unwrap();
    }

    /// Stores an object as another client, with `x-cos-meta-` headers of these names, values as on the wire.
    pub fn put_with(&self, key: &str, bytes: &[u8], metadata: &[(&str, &str)]) {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.emulator().put_object_with(BUCKET, key, bytes, metadata).unwrap();
    }

    /// Requests of this method for this key of [`BUCKET`] that the emulator has seen.
    pub fn requests(&self, method: &str, key: &str) -> Vec<RequestRecord> {
        let mut requests = self.emulator().requests();
        requests.retain(|request| request.method == method && request.bucket == BUCKET && request.key == key);
        requests
    }

    /// How many those are.
    pub fn count(&self, method: &str, key: &str) -> usize {
        self.requests(method, key).len()
    }

    /// Requests for [`BUCKET`] that meet `wanted`.
    pub fn count_by(&self, wanted: impl Fn(&RequestRecord) -> bool) -> usize {
        self.emulator().requests().iter().filter(|request| request.bucket == BUCKET && wanted(request)).count()
    }

    /// Keys that OMS accepted, in order, once for every time.
    pub fn announced(&self) -> Vec<String> {
        self.emulator().oms_events().into_iter().map(|event| event.key).collect()
    }

    /// Keys that have a record of this kind (`success_object` or `failed_object`) in [`LOGS`], sorted.
    pub fn recorded(&self, kind: &str) -> Vec<String> {
        let part = format!("/{kind}/");
        let keys = self.emulator().keys(LOGS);
        keys.iter().filter_map(|key| key.split_once(&part).map(|(_, key)| key.to_owned())).collect()
    }

    /// `count` requests for [`BUCKET`] of this method, sub-resource and key pattern meet this action.
    pub fn fault(&self, method: &str, sub_resource: &str, key: &str, action: Action, count: u32) {
        let matching = Match {
            method: Some(method.to_owned()),
            bucket: Some(BUCKET.to_owned()),
            key: Some(key.to_owned()),
            sub_resource: Some(sub_resource.to_owned()),
        };
        self.emulator().add_fault(Fault { count, ..Fault::new(matching, action) });
    }

    /// The bucket answers nothing from now on, until [`Emulator::clear_faults`]: longer than any test takes.
    pub fn hang(&self) {
        let matching = Match { bucket: Some(BUCKET.to_owned()), ..Match::default() };
        let count = u32::MAX;
        self.emulator().add_fault(Fault { count, ..Fault::new(matching, Action::Delay(600_000)) });
    }

    /// Requests that hang, or did.
    pub fn hung(&self) -> u32 {
        self.emulator().faults().iter().map(|fault| u32::MAX - fault.count).sum()
    }

    /// Every fault that was added has been met: a test of faults that none met shows nothing.
    #[track_caller]
    pub fn all_faults_met(&self) {
        assert_eq!(self.emulator().faults(), [], "faults that no request met");
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.stop();
    }
}
