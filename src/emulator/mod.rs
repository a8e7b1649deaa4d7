//! A COS-faithful object store and OMS endpoint on loopback, with faults to inject and a log of
//! every request. For tests, for trying ferryfs without an account, and for users' own CI.
//!
//! One listener serves the store (the bucket is the first label of the Host header or, if that is
//! an address or `localhost`, the first step of the path), OMS
//! (`/v2/<project>/sync-tasks/<task>/events`) and its own control (`/_emulator/`, see `control`).
//!
//! # Promise
//! A client that works here has kept the protocol: what COS or OMS would refuse is refused, and what
//! was stored or announced is on the log.
//!
//! # Invariants
//! 1. It is as strict as COS where the protocol's description knows: signatures, Content-MD5,
//!    multipart rules, conditions, limits, order of listings, error bodies.
//! 2. A request is signed rightly or refused; secrets appear in no answer and no log.
//! 3. Its signature checks share no code with the clients' signers.
//! 4. Memory does not grow with the size of objects: bodies go to disk and come from it in pieces.
//! 5. What it answered is still there when it is started again on the same root.
//! 6. A key can shadow neither OMS nor the control: only requests without a bucket in their host
//!    reach those, and no bucket can be called so.
//! 7. The dialect is taken from the request (`dialect`); COS is spoken, others have their place.

mod control;
mod cos;
mod dialect;
mod encoding;
mod error;
mod exchange;
mod fault;
mod letter_case;
mod log;
mod oms;
mod reply;
mod server;
mod shelf;
mod state;
mod throttle;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;

pub use error::Error;
pub use error::Result;
pub use fault::Action;
pub use fault::Fault;
pub use fault::Match;
pub use fault::Side;
pub use log::OmsEvent;
pub use log::OmsRequest;
pub use log::RequestRecord;
pub use log::StoreRecord;

use exchange::blocking;
use shelf::Bucket;
use shelf::NewObject;
use shelf::Object;
use shelf::PutError;
use shelf::Shelf;
use state::State;
use throttle::Throttle;

/// How to start an emulator.
#[derive(Clone)]
pub struct Options {
    /// Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Where objects are kept; made if absent, read if not.
    pub root: PathBuf,
    /// Buckets that exist, besides those already under the root.
    pub buckets: Vec<String>,
    /// (id, key) pairs that may sign store requests.
    pub credentials: Vec<(String, String)>,
    /// (access key, secret key) that may sign OMS requests; `None` refuses all.
    pub oms_credentials: Option<(String, String)>,
    /// Passes before each store and OMS request is worked on.
    pub latency: Duration,
    /// Bytes per second in each direction, all connections together; `None` is unlimited.
    pub bandwidth: Option<u64>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("root", &self.root)
            .field("buckets", &self.buckets)
            .field("latency", &self.latency)
            .field("bandwidth", &self.bandwidth)
            .finish_non_exhaustive()
    }
}

/// An object as the emulator holds it. Its bytes stay readable when it is replaced or deleted.
#[derive(Clone, Debug)]
pub struct StoredObject {
    object: Arc<Object>,
}

impl StoredObject {
    /// Its key.
    pub fn key(&self) -> &str {
        &self.object.key
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.object.size
    }

    /// Without quotes.
    pub fn etag(&self) -> &str {
        &self.object.etag
    }

    /// CRC-64/XZ of the whole.
    pub fn crc64(&self) -> u64 {
        self.object.crc64
    }

    /// How many parts it was made of; 0 for a PUT.
    pub fn parts(&self) -> u32 {
        self.object.parts
    }

    /// Nanoseconds since the epoch.
    pub fn modified_ns(&self) -> i64 {
        self.object.modified_ns
    }

    /// User metadata by lower-case name without the `x-cos-meta-`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.object.kept.metadata
    }

    /// Content-Type and the like by lower-case name.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.object.kept.headers
    }

    /// Canned ACL; `None` is the bucket's.
    pub fn acl(&self) -> Option<&str> {
        self.object.kept.acl.as_deref()
    }

    /// Tags by name.
    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.object.kept.tags
    }

    /// `None` is STANDARD.
    pub fn storage_class(&self) -> Option<&str> {
        self.object.kept.storage_class.as_deref()
    }

    /// All its bytes, in memory. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        self.object.read()
    }
}

/// A running emulator. Dropped without [`Emulator::shutdown`] it ends as well, unawaited.
pub struct Emulator {
    state: Arc<State>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Emulator {
    /// Loads the root and listens; requests are answered from now on.
    ///
    /// # Errors
    /// The address cannot be listened on, the root cannot be used, or a bucket has a bad name.
    pub async fn start(options: Options) -> Result<Emulator> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        let (root, names) = (options.root, options.buckets);
        let shelf = blocking(move || Shelf::open(root, &names, now_ns)).await?;
        let listen = |source| Error::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let state = Arc::new(State {
            shelf,
            log: log::Log::default(),
            faults: fault::Faults::default(),
            credentials: options.credentials,
            oms_credentials: options.oms_credentials,
            latency: options.latency,
            upstream: Throttle::new(options.bandwidth),
            downstream: Throttle::new(options.bandwidth),
            clock_offset_s: AtomicI64::new(0),
            late: Mutex::new(JoinSet::new()),
            letter_case: letter_case::learn().await,
        });
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(server::run(listener, state.clone(), stopped));
        Ok(Emulator { state, address, stop, server })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`: an endpoint for path addressing, and what virtual hosts must be
    /// led to.
    pub fn store_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of a sync task's events; the same project and task at every start.
    pub fn oms_url(&self) -> String {
        format!("http://{}/v2/{}/sync-tasks/{}/events", self.address, oms::PROJECT, oms::TASK)
    }

    /// Stops listening, drops all connections and what was still to be applied late.
    pub async fn shutdown(self) {
        let Emulator { state, stop, server, .. } = self;
        // The server may have ended already; then there is nobody to tell.
        let _ = stop.send(true);
        if let Err(error) = server.await {
            tracing::error!("the emulator's server ended badly: {error}");
        }
        let mut late = std::mem::take(&mut *state.late.lock().expect("invariant: nothing panics holding this lock"));
        late.shutdown().await;
    }

    /// Every store and OMS request in order of arrival.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.log.requests()
    }

    /// Every object version that a request stored, in order.
    pub fn stores(&self) -> Vec<StoreRecord> {
        self.state.log.stores()
    }

    /// Every key of every accepted OMS request, in order.
    pub fn oms_events(&self) -> Vec<OmsEvent> {
        self.state.log.oms_events()
    }

    /// Every OMS request as it arrived, refused ones too, in order.
    pub fn oms_requests(&self) -> Vec<OmsRequest> {
        self.state.log.oms_requests()
    }

    /// Forgets all of the above.
    pub fn clear_log(&self) {
        self.state.log.clear();
    }

    /// Adds a fault behind those still to come.
    pub fn add_fault(&self, fault: Fault) {
        self.state.faults.add(fault);
    }

    /// Forgets the faults still to come.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// The faults still to come, with what is left of their counts.
    pub fn faults(&self) -> Vec<Fault> {
        self.state.faults.list()
    }

    /// Sets the emulator's clock ahead of the machine's (behind it if negative): dates, and the
    /// checks of signatures' times.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.state.clock_offset_s.store(seconds, Ordering::SeqCst);
    }

    /// The current version of an object.
    pub fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        let object = self.state.shelf.bucket(bucket)?.object(key)?;
        Some(StoredObject { object })
    }

    /// All keys of a bucket in byte order; none if there is no such bucket.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.state.shelf.bucket(bucket).map(|bucket| bucket.keys()).unwrap_or_default()
    }

    /// (key, upload id) of the multipart uploads in progress.
    pub fn uploads(&self, bucket: &str) -> Vec<(String, String)> {
        let uploads = self.state.shelf.bucket(bucket).map(|bucket| bucket.uploads()).unwrap_or_default();
        uploads.into_iter().map(|upload| (upload.key, upload.id)).collect()
    }

    /// Stores an object as if another client had, without a request. Blocks on the disk.
    ///
    /// # Errors
    /// There is no such bucket, or the disk's.
    pub fn put_object(&self, bucket: &str, key: &str, bytes: &[u8]) -> Result<StoredObject> {
        self.put_object_with(bucket, key, bytes, BTreeMap::new())
    }

    /// As [`Emulator::put_object`], with user metadata (names without the provider's prefix, values as on
    /// the wire).
    ///
    /// # Errors
    /// As there.
    pub fn put_object_with(
        &self,
        bucket: &str,
        key: &str,
        bytes: &[u8],
        metadata: BTreeMap<String, String>,
    ) -> Result<StoredObject> {
        let bucket = self.bucket(bucket)?;
        let mut writer = bucket.writer()?;
        writer.write(bytes)?;
        let received = writer.finish();
        let new = NewObject {
            key: key.to_owned(),
            etag: encoding::hex(&received.md5),
            crc64: received.crc64,
            modified_ns: self.state.now_ns(),
            parts: 0,
            kept: shelf::Kept { metadata, ..shelf::Kept::default() },
            blobs: vec![received.blob],
        };
        match bucket.put(new, false) {
            Ok(object) => Ok(StoredObject { object }),
            Err(PutError::Failed(error)) => Err(error),
            Err(PutError::Exists) => unreachable!("invariant: overwriting was not forbidden"),
        }
    }

    /// Deletes an object as if another client had; whether there was one. Blocks on the disk.
    ///
    /// # Errors
    /// There is no such bucket, or the disk's.
    pub fn delete_object(&self, bucket: &str, key: &str) -> Result<bool> {
        self.bucket(bucket)?.delete(key)
    }

    fn bucket(&self, name: &str) -> Result<Arc<Bucket>> {
        self.state.shelf.bucket(name).ok_or_else(|| Error::NoBucket { name: name.to_owned() })
    }
}
