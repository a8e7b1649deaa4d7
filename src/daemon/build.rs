//! The rooms of one mount, put together from its configuration.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cache::{self, Cache};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, CloseMode, Config, FsyncMode, KilledWriter, MountOptions};
use crate::disk::{self, DirLock};
use crate::download::{self, Downloader};
use crate::http;
use crate::journal::{Counter, Journal, Snapshot, TargetKind};
use crate::namespace::{self, Defaults, Mapping, Namespace};
use crate::oms;
use crate::outbox::{self, Outbox};
use crate::store::{self, CredentialsSource, ErrorKind, ObjectStore};
use crate::task::{Guardian, Shutdown};
use crate::types::TargetId;
use crate::upload::{self, Uploader};
use crate::vfs::{self, Vfs};

use super::error::Error;
use super::owed;

/// How long the start waits to learn whether key, bucket and region are right; without an answer it
/// goes on offline.
const CHECK: Duration = Duration::from_secs(5);
/// Objects up to this size are fetched whole when they are opened.
const WHOLE_BELOW: u64 = 16 << 20;

/// Everything that serves a mount.
#[derive(Clone)]
pub(super) struct Rooms {
    pub(super) journal: Journal,
    pub(super) namespace: Namespace,
    pub(super) cache: Cache,
    pub(super) outbox: Outbox,
    pub(super) uploader: Uploader,
    pub(super) vfs: Vfs,
    pub(super) guardian: Guardian,
    /// Sync task of each mapping, in the configuration's order.
    pub(super) syncs: Vec<Option<TargetId>>,
    /// What each mapping signs with, in the configuration's order, for a reload.
    pub(super) keys: Vec<MappingKeys>,
    log_stores: Vec<Arc<dyn ObjectStore>>,
    vfs_end: Shutdown,
    upload_end: Shutdown,
    outbox_end: Shutdown,
    workers: Arc<std::sync::Mutex<Vec<JoinHandle<()>>>>,
}

/// Where a mapping's secrets are in force.
#[derive(Clone)]
pub(super) struct MappingKeys {
    store: CredentialsSource,
    log_store: Option<CredentialsSource>,
    task: Option<Arc<oms::SyncTask>>,
}

impl MappingKeys {
    /// Puts the secrets of `mapping`, read anew, in force.
    pub(super) fn replace(&self, mapping: &config::Mapping) -> Result<(), oms::Error> {
        self.store.replace(mapping.place.credentials.for_store());
        let Some(sync) = &mapping.sync else { return Ok(()) };
        if let (Some(source), Some(record)) = (&self.log_store, &sync.record) {
            source.replace(record.credentials.for_store());
        }
        self.task.as_ref().map_or(Ok(()), |task| task.replace_keys(&sync.task_options()))
    }
}

/// J6: one daemon a state and a cache directory.
pub(super) fn lock(config: &Config) -> Result<Vec<DirLock>, Error> {
    let mut locks = Vec::new();
    for dir in [&config.state.dir, &config.cache.dir] {
        disk::make_dir_private(dir).map_err(Error::io("make the state and cache directories"))?;
    }
    let same = config.state.dir == config.cache.dir;
    let dirs = if same { vec![&config.state.dir] } else { vec![&config.state.dir, &config.cache.dir] };
    for dir in dirs {
        locks.push(DirLock::acquire(dir).map_err(|error| Error::Failed(error.to_string()))?);
    }
    Ok(locks)
}

pub(super) fn rooms(config: &Config, runtime: &Runtime) -> Result<Rooms, Error> {
    let _context = runtime.enter();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let journal = Journal::open(&config.state.dir)?;
    refuse_strangers(config, &journal)?;
    let snapshot = journal.load().map_err(|error| Error::Failed(format!("{error}{SEE_SCAN}")))?;
    let client = http::Client::new(&http::Options::default()).map_err(|error| Error::Failed(error.to_string()))?;
    let targets = Targets::name(config, &journal, &client, &clock)?;
    targets.refuse_orphans(&snapshot)?;
    let guardian = Guardian::new();
    let outbox = open_outbox(config, &journal, &clock, &targets, &snapshot)?;
    let mappings = targets.mappings(config);
    let (namespace, replaced) = Namespace::open(
        journal.clone(),
        clock,
        namespace::Options { attr_ttl: config.mount.attr_ttl },
        mappings,
        &snapshot,
    )
    .map_err(|error| Error::Failed(error.to_string()))?;
    let cache =
        Cache::open(cache_options(config), journal.clone()).map_err(|error| Error::Failed(error.to_string()))?;
    let boot_id = disk::boot_id().map_err(Error::io("read the boot id"))?;
    let recovered =
        Vfs::recover(&namespace, &cache, &boot_id).map_err(|error| Error::Failed(format!("recovery: {error}")))?;
    if recovered != vfs::Recovered::default() {
        tracing::info!(
            to_upload = recovered.to_upload,
            torn = recovered.torn,
            lost = recovered.lost,
            orphans = recovered.orphans,
            "recovered"
        );
    }
    let uploader = Uploader::open(
        namespace.clone(),
        cache.clone(),
        outbox.clone(),
        upload_options(config, journal.mount_uuid()),
        &snapshot,
    );
    let (vfs_end, upload_end, outbox_end) = (Shutdown::new(), Shutdown::new(), Shutdown::new());
    let parts = vfs::Parts {
        namespace: namespace.clone(),
        replaced,
        cache: cache.clone(),
        uploader: uploader.clone(),
        downloader: Downloader::new(download::Options::default()),
        guardian: guardian.clone(),
        shutdown: vfs_end.clone(),
    };
    let vfs = Vfs::start(parts, vfs_options(config, boot_id));
    let upload = guardian.spawn("uploader", uploader.clone().run(upload_end.clone()));
    let announce = {
        let (outbox, end) = (outbox.clone(), outbox_end.clone());
        guardian.spawn("outbox", async move { outbox.run(async move { end.triggered().await }).await })
    };
    let workers = Arc::new(std::sync::Mutex::new(vec![upload, announce]));
    Ok(Rooms {
        journal,
        namespace,
        cache,
        outbox,
        uploader,
        vfs,
        guardian,
        syncs: targets.mapped.iter().map(|named| named.sync.map(|(sync, _)| sync)).collect(),
        keys: targets.mapped.iter().map(|named| named.keys.clone()).collect(),
        log_stores: targets.mapped.iter().filter_map(|named| named.log_store.clone()).collect(),
        vfs_end,
        upload_end,
        outbox_end,
        workers,
    })
}

/// What to do about a journal that is gone or cannot be read.
const SEE_SCAN: &str = "; if the journal is lost or damaged for good: ferryfs recover --scan --config FILE";

pub(super) fn cache_options(config: &Config) -> cache::Options {
    cache::Options {
        state_dir: config.state.dir.clone(),
        cache_dir: config.cache.dir.clone(),
        limit: config.cache.size.0,
    }
}

/// J5: content that this journal has never given a number belongs to another one, which was deleted or
/// replaced. A start with this one would take it for orphans, and delete the only copy there is.
pub(super) fn refuse_strangers(config: &Config, journal: &Journal) -> Result<(), Error> {
    let highest = cache::highest_dirty(&cache_options(config)).map_err(|error| Error::Failed(error.to_string()))?;
    let next = journal.peek(Counter::Backing)?;
    if highest.is_none_or(|highest| highest.0 < next) {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "the journal in {} does not know of content that lies there and may be in no bucket yet: it was lost, or \
         replaced by an older one; put it back, or run ferryfs recover --scan --config FILE",
        config.state.dir.display()
    )))
}

fn vfs_options(config: &Config, boot_id: String) -> vfs::Options {
    vfs::Options {
        close: match config.write_back.close {
            CloseMode::Process => vfs::ClosePolicy::Process,
            CloseMode::Disk => vfs::ClosePolicy::Disk,
            CloseMode::Remote => vfs::ClosePolicy::Remote,
        },
        fsync: match config.write_back.fsync {
            FsyncMode::Disk => vfs::FsyncPolicy::Disk,
            FsyncMode::Remote => vfs::FsyncPolicy::Remote,
        },
        upload_open: config.write_back.upload_open,
        killed_writer: match config.mount.killed_writer {
            KilledWriter::Hold => vfs::KilledWriter::Hold,
            KilledWriter::Upload => vfs::KilledWriter::Upload,
        },
        whole_below: WHOLE_BELOW,
        boot_id,
    }
}

fn upload_options(config: &Config, mount_uuid: &str) -> upload::Options {
    upload::Options {
        delay: config.write_back.delay,
        max_delay: config.write_back.max_delay,
        multipart_above: config.write_back.threshold.0.saturating_sub(1),
        part_bytes: config.write_back.part_size.0,
        parallel_parts: usize::try_from(config.write_back.parallel).unwrap_or(1),
        mount_uuid: mount_uuid.to_owned(),
        ..upload::Options::default()
    }
}

/// One mapping's numbers and clients.
struct Named {
    target: TargetId,
    sync: Option<(TargetId, Option<TargetId>)>,
    store: Arc<dyn ObjectStore>,
    log_store: Option<Arc<dyn ObjectStore>>,
    keys: MappingKeys,
}

pub(super) struct Targets {
    mapped: Vec<Named>,
}

impl Targets {
    /// J4: rows name provider, bucket, prefix and task; numbers stand for them.
    pub(super) fn name(
        config: &Config,
        journal: &Journal,
        client: &http::Client,
        clock: &Arc<dyn Clock>,
    ) -> Result<Targets, Error> {
        let open = |options: store::CosOptions| store::cos(options).map_err(|error| Error::Refused(error.to_string()));
        let mut mapped = Vec::new();
        for mapping in &config.mappings {
            let target = journal.target(TargetKind::Mapping, &mapping.place.identity())?;
            let options = mapping.place.store_options();
            let mut keys = MappingKeys { store: options.credentials.clone(), log_store: None, task: None };
            let (mut sync, mut log_store) = (None, None);
            if let Some(task) = &mapping.sync {
                let number = journal.target(TargetKind::Sync, &task.url.to_string())?;
                let record = match &task.record {
                    Some(record) => {
                        let options = record.store_options();
                        keys.log_store = Some(options.credentials.clone());
                        log_store = Some(open(options)?);
                        Some(journal.target(TargetKind::Record, &record.identity())?)
                    }
                    None => None,
                };
                sync = Some((number, record));
                let task = oms::SyncTask::new(task.task_options(), client.clone(), clock.clone());
                keys.task = Some(Arc::new(task.map_err(|error| Error::Refused(error.to_string()))?));
            }
            mapped.push(Named { target, sync, store: open(options)?, log_store, keys });
        }
        Ok(Targets { mapped })
    }

    /// J4: a start is refused while anything is owed to a target that the configuration lacks.
    fn refuse_orphans(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let mut known: HashSet<TargetId> = HashSet::new();
        for named in &self.mapped {
            known.insert(named.target);
            if let Some((sync, record)) = named.sync {
                known.insert(sync);
                known.extend(record);
            }
        }
        let owed = snapshot
            .inodes
            .iter()
            .filter(|row| owed::is_owed(row, snapshot))
            .map(|row| row.target)
            .chain(snapshot.attempts.iter().map(|row| row.target))
            .chain(snapshot.removals.iter().map(|row| row.target))
            .chain(snapshot.announcements.iter().map(|row| row.sync))
            .chain(snapshot.records.iter().flat_map(|row| [row.record, row.sync]));
        let missing: HashSet<TargetId> = owed.filter(|target| !known.contains(target)).collect();
        let Some(row) = snapshot.targets.iter().find(|row| missing.contains(&row.id)) else { return Ok(()) };
        Err(Error::Refused(format!(
            "uploads, removals, announcements or records are still owed to {}, which the configuration does not have \
             any more: put it back, mount and drain (ferryfs umount), then change it; or use another state directory",
            row.identity
        )))
    }

    pub(super) fn mappings(&self, config: &Config) -> Vec<Arc<Mapping>> {
        config
            .mappings
            .iter()
            .zip(&self.mapped)
            .map(|(mapping, named)| {
                let MountOptions { uid, gid, file_mode, dir_mode, .. } = config.mount;
                let defaults = Defaults { uid, gid, file_mode, dir_mode };
                let mut shown = Mapping::new(
                    named.target,
                    mapping.path.trim_matches('/').to_owned(),
                    mapping.place.prefix.clone(),
                    named.store.clone(),
                    named.sync.map(|(sync, _)| sync),
                    defaults,
                );
                shown.storage_class = mapping.storage_class.clone();
                shown.terms = mapping.terms.clone();
                shown.conflict = mapping.conflict;
                shown.exclusive = mapping.exclusive;
                Arc::new(shown)
            })
            .collect()
    }
}

fn open_outbox(
    config: &Config,
    journal: &Journal,
    clock: &Arc<dyn Clock>,
    targets: &Targets,
    snapshot: &Snapshot,
) -> Result<Outbox, Error> {
    let mut served = Vec::new();
    let mut seen = HashSet::new();
    for (mapping, named) in config.mappings.iter().zip(&targets.mapped) {
        let (Some(task), Some((sync, record))) = (&mapping.sync, named.sync) else { continue };
        if !seen.insert(sync) {
            continue;
        }
        served.extend(outbox_target(task, sync, record, named));
    }
    let give_up_after =
        config.mappings.iter().filter_map(|mapping| mapping.sync.as_ref()).map(|sync| sync.give_up_after);
    let options = outbox::Options {
        give_up_after: give_up_after.max().unwrap_or(outbox::Options::default().give_up_after),
        ..outbox::Options::default()
    };
    let owed = (snapshot.announcements.as_slice(), snapshot.records.as_slice());
    Outbox::open(journal.clone(), clock.clone(), options, served, owed)
        .map_err(|error| Error::Refused(error.to_string()))
}

fn outbox_target(
    task: &config::Sync,
    sync: TargetId,
    record: Option<TargetId>,
    named: &Named,
) -> Option<outbox::Target> {
    Some(outbox::Target {
        sync,
        record,
        announcer: named.keys.task.clone()?,
        record_store: named.log_store.clone(),
        record_prefix: task.record.as_ref().map_or_else(String::new, |record| record.prefix.clone()),
        task: task.url.task().to_owned(),
    })
}

impl Rooms {
    /// A wrong key, bucket or region is told at once. A store that does not answer is offline. All
    /// are asked together: many mappings without a network must not outlast the manager's patience.
    pub(super) async fn check_stores(&self) -> Result<(), Error> {
        let mappings = self.namespace.read(|tree| tree.mappings().to_vec());
        let mapped = join_all(mappings.iter().map(|mapping| timeout(CHECK, store::check(mapping.store.as_ref()))));
        let logs = join_all(self.log_stores.iter().map(|store| timeout(CHECK, store::check(store.as_ref()))));
        let (mapped, logs) = tokio::join!(mapped, logs);
        for (mapping, checked) in mappings.iter().zip(mapped) {
            match checked {
                Ok(result) => {
                    mapping.observe(&result);
                    refuse(result)?;
                }
                Err(_) => {
                    tracing::warn!(store = mapping.store.name(), "no answer yet: mounted all the same");
                    mapping.went_offline();
                }
            }
        }
        for result in logs.into_iter().flatten() {
            match result {
                // Records are owed for as long as it takes; a key that may only write them is a good one.
                Err(error) if error.kind == ErrorKind::AccessDenied => {
                    tracing::warn!(%error, "the log bucket may not be listed: mounted all the same");
                }
                result => refuse(result)?,
            }
        }
        Ok(())
    }

    /// Stops what runs, top-down; nothing is lost if that takes longer than `limit`.
    pub(super) async fn stop(&self, limit: Duration) -> Result<(), Error> {
        self.vfs_end.trigger();
        self.upload_end.trigger();
        self.outbox_end.trigger();
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for mut worker in workers {
            if timeout(limit, &mut worker).await.is_err() {
                tracing::warn!("requests under way did not end in time; they are settled at the next start");
                worker.abort();
            }
        }
        match timeout(limit, self.vfs.doubt_all()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "marks of files that are still open could not be taken back"),
            Err(_) => tracing::warn!("marks of files that are still open were not taken back in time"),
        }
        let journal = self.journal.clone();
        match tokio::task::spawn_blocking(move || journal.close()).await {
            Ok(closed) => Ok(closed?),
            Err(error) => Err(Error::Failed(error.to_string())),
        }
    }
}

/// What does not mend itself with time.
fn refuse(checked: store::Result<()>) -> Result<(), Error> {
    match checked {
        Err(error)
            if matches!(
                error.kind,
                ErrorKind::Credentials
                    | ErrorKind::AccessDenied
                    | ErrorKind::NoSuchBucket
                    | ErrorKind::NotFound
                    | ErrorKind::Region
                    | ErrorKind::Rejected
            ) =>
        {
            Err(Error::Failed(error.to_string()))
        }
        Err(error) => {
            tracing::warn!(%error, "the store is not usable yet: mounted all the same");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
