//! What the control socket can ask.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::config::{self, Config};
use crate::control::{
    ActionError, Actions, CachePruned, CacheStatus, CacheVerified, Counters, HeldEntry, InFlight, MAX_LISTED,
    MappingStatus, MoveStatus, OddKeyList, OutboxEntry, OutboxReconciled, OutboxState, PassthroughStatus, Pending,
    Phase, Problem, RottenFile, Status, SyncStatus, Waiting,
};
use crate::fuse::Mounted;
use crate::namespace::{Lookup, Tree};
use crate::outbox::{ItemState, Left};
use crate::task::Shutdown;
use crate::types::{FileKind, Ino, Key};

use super::STOP_LIMIT;
use super::build::Rooms;
use super::drain::Drained;
use super::held::{self, hold_text};
use super::notify::Notify;
use super::{odd, reconcile};

/// The daemon, as the control socket and the main loop see it.
#[derive(Clone)]
pub(super) struct Daemon {
    rooms: Rooms,
    mounted: Arc<Mounted>,
    config: Arc<Config>,
    stop: Shutdown,
    started: Instant,
    phase: Arc<AtomicU8>,
}

const RUNNING: u8 = 0;
const DRAINING: u8 = 1;
const UNMOUNTING: u8 = 2;

impl Daemon {
    pub(super) fn new(config: &Config, rooms: Rooms, mounted: Arc<Mounted>, stop: Shutdown) -> Daemon {
        Daemon {
            rooms,
            mounted,
            config: Arc::new(config.clone()),
            stop,
            started: Instant::now(),
            phase: Arc::new(AtomicU8::new(RUNNING)),
        }
    }

    pub(super) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    pub(super) fn begin_drain(&self) {
        self.phase.store(DRAINING, Ordering::Relaxed);
    }

    /// SIGHUP: secrets are read again, and what is known of directories is asked for anew.
    ///
    /// # Errors
    /// Says why the secrets in force are the old ones.
    pub(super) fn reload(&self) -> Result<(), String> {
        let reloaded = self.config.file.as_deref().map_or(Ok(()), |file| self.reload_keys(file));
        let dirs: Vec<Ino> = self
            .rooms
            .namespace
            .read(|tree| tree.inodes().filter(|inode| inode.is_dir()).map(crate::namespace::Inode::ino).collect());
        for dir in dirs {
            self.rooms.namespace.expire(dir);
        }
        if reloaded.is_ok() {
            self.rooms.uploader.retry();
            self.rooms.outbox.hurry();
        }
        reloaded
    }

    fn reload_keys(&self, file: &Path) -> Result<(), String> {
        let new = Config::load(file).map_err(|error| error.to_string())?;
        // Targets are numbered in the journal and opened by the rooms; their secrets alone may change.
        let targets = |config: &Config| -> Vec<_> {
            let target = |mapping: &config::Mapping| {
                let sync = mapping.sync.as_ref();
                let record = sync.and_then(|sync| sync.record.as_ref()).map(config::BucketPlace::identity);
                (mapping.place.identity(), sync.map(|sync| sync.url.to_string()), record)
            };
            config.mappings.iter().map(target).collect()
        };
        if targets(&new) != targets(&self.config) {
            return Err("the mappings changed: that needs a restart".to_owned());
        }
        for (mapping, keys) in new.mappings.iter().zip(&self.rooms.keys) {
            keys.replace(mapping).map_err(|error| error.to_string())?;
        }
        tracing::info!("reloaded: credentials are in force; other changes need a restart");
        Ok(())
    }

    /// What is left anywhere.
    pub(super) fn pending_all(&self) -> Pending {
        self.collect(None, &self.rooms.outbox.left(None, ""))
    }

    /// The inode at a path: what is known here, else what the bucket says.
    async fn find(&self, path: &str) -> Result<Ino, ActionError> {
        if let Some(ino) = self.rooms.namespace.read(|tree| resolve(tree, path)) {
            return Ok(ino);
        }
        let mut at = Ino::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = match self.rooms.namespace.lookup(at, name).await {
                Ok(Lookup::Found(ino)) => ino,
                Ok(Lookup::Absent) | Err(crate::namespace::Error::NotDirectory) => {
                    return Err(ActionError::NotFound(format!("there is no {path} here or in the bucket")));
                }
                Err(error) => return Err(ActionError::Failed(format!("cannot tell whether {path} exists: {error}"))),
            };
        }
        Ok(at)
    }

    async fn refresh_now(&self, path: &str) -> Result<u64, ActionError> {
        let asked = |error: crate::vfs::Error| ActionError::Failed(format!("the bucket could not be asked: {error}"));
        let mut at = Ino::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let known = self.rooms.namespace.read(|tree| tree.child(at, name));
            at = match self.rooms.vfs.refresh_name(at, name).await.map_err(asked)? {
                Some(ino) => ino,
                // Removed elsewhere: that is what was to be found out.
                None if known.is_some() => return Ok(0),
                None => return Err(ActionError::NotFound(format!("there is no {path} here or in the bucket"))),
            };
        }
        if !self.rooms.namespace.read(|tree| tree.get(at).is_some_and(crate::namespace::Inode::is_dir)) {
            return Ok(0);
        }
        let listed = self.rooms.vfs.refresh(at).await.map_err(asked)?;
        Ok(u64::try_from(listed).unwrap_or(u64::MAX))
    }

    async fn pending_below(&self, path: &str) -> Result<Pending, ActionError> {
        let ino = self.find(path).await?;
        let found = self.rooms.namespace.read(|tree| {
            let sync = tree.mapping_of(ino).and_then(|mapping| mapping.sync);
            let key = tree.key(ino).or_else(|| tree.prefix(ino).map(Key));
            Some((sync, key, tree.get(ino)?.row.kind))
        });
        let Some((sync, key, kind)) = found else {
            return Err(ActionError::NotFound(format!("{path} was removed a moment ago")));
        };
        let left = match (sync, &key) {
            (Some(sync), Some(key)) if kind == FileKind::Dir => self.rooms.outbox.left(Some(sync), key.as_str()),
            (Some(sync), Some(key)) => self.rooms.outbox.left_of(sync, key),
            _ => Left::default(),
        };
        Ok(self.collect(Some(ino), &left))
    }

    fn collect(&self, below: Option<Ino>, left: &Left) -> Pending {
        let outstanding = self.rooms.uploader.outstanding(below);
        let flights = self.rooms.uploader.flights();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let waiting = |what: &str| {
            let what = what.to_owned();
            move |path: &String| Waiting { path: path.clone(), what: what.clone() }
        };
        let mut stuck: Vec<Problem> = outstanding
            .held
            .iter()
            .map(|path| Problem {
                path: path.clone(),
                reason: "held: not uploaded until it is written anew or accepted (see ferryfs recover list)".to_owned(),
            })
            .collect();
        if left.failed > 0 {
            stuck.push(Problem {
                path: format!("{} announcements", left.failed),
                reason: "refused by OMS: see ferryfs outbox list, then ferryfs outbox retry".to_owned(),
            });
        }
        let stuck_count = count(outstanding.held.len()) + count(left.failed);
        stuck.truncate(MAX_LISTED);
        Pending {
            files: count(outstanding.paths.len()),
            bytes: outstanding.bytes,
            bytes_sent: flights.iter().map(|flight| flight.sent).sum(),
            copies: outstanding.moves,
            removals: outstanding.removals,
            announcements: count(left.announcements),
            records: count(left.records),
            first: outstanding.paths.iter().take(MAX_LISTED).map(waiting("upload")).collect(),
            stuck,
            stuck_count,
        }
    }

    async fn umount_now(&self, timeout: Duration) -> Result<Pending, ActionError> {
        // Without a journal nothing goes up.
        let drained = match self.rooms.journal.failure() {
            None => self.drain(timeout, &Notify::from_environment()).await,
            Some(_) => Drained::TimedOut,
        };
        let unmounted = {
            let mounted = self.mounted.clone();
            tokio::task::spawn_blocking(move || mounted.unmount(false)).await
        };
        match unmounted {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.phase.store(RUNNING, Ordering::Relaxed);
                return Err(ActionError::Busy(format!("{error}: close what is open there (fuser -m shows it)")));
            }
            Err(error) => return Err(ActionError::Failed(error.to_string())),
        }
        self.phase.store(UNMOUNTING, Ordering::Relaxed);
        // The releases of what was open a moment ago make the last final marks.
        if tokio::time::timeout(STOP_LIMIT, self.mounted.ended()).await.is_err() {
            // Another mount namespace may have it too, or a request hangs: nobody is to wait for that.
            tracing::warn!("the mount is gone, but its session did not end");
        }
        let left = if drained == Drained::Whole {
            self.drain(timeout, &Notify::from_environment()).await;
            self.pending_all()
        } else {
            self.pending_all()
        };
        self.stop.trigger();
        Ok(left)
    }

    fn status_now(&self) -> Status {
        let uploads = self.rooms.uploader.status();
        let outbox = self.rooms.outbox.status();
        let usage = self.rooms.cache.usage();
        let pressure = self.rooms.vfs.pressure();
        let (enabled, why) = self.rooms.vfs.passthrough();
        let torn: Vec<Problem> =
            self.rooms.vfs.torn().into_iter().map(|(path, hold)| Problem { path, reason: hold_text(hold) }).collect();
        let failed: Vec<Problem> = uploads
            .failures
            .iter()
            .map(|failure| Problem {
                path: failure.path.clone(),
                reason: format!("{} (tried {} times, will be repeated)", failure.error, failure.attempts),
            })
            .collect();
        let left_out = torn.len().saturating_sub(MAX_LISTED) + failed.len().saturating_sub(MAX_LISTED);
        let sum = |each: fn(&crate::outbox::TargetStatus) -> usize| {
            outbox.targets.iter().map(|target| u64::try_from(each(target)).unwrap_or(u64::MAX)).sum::<u64>()
        };
        let counted = |each: fn(&crate::outbox::TargetStatus) -> u64| outbox.targets.iter().map(each).sum::<u64>();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mount: self.mounted.dir().to_owned(),
            name: self.config.name.clone(),
            phase: match self.phase.load(Ordering::Relaxed) {
                DRAINING => Phase::Draining,
                UNMOUNTING => Phase::Unmounting,
                _ => Phase::Running,
            },
            uptime_s: self.started.elapsed().as_secs(),
            mappings: self.mapping_statuses(&outbox),
            uploads_files: uploads.pending,
            uploads_bytes: uploads.pending_bytes,
            in_flight: uploads
                .flights
                .iter()
                .map(|flight| InFlight {
                    path: flight.path.clone(),
                    key: flight.key.clone(),
                    bytes_sent: flight.sent,
                    bytes_total: flight.total,
                })
                .collect(),
            removals_owed: uploads.removals_owed,
            copies_owed: uploads.copies_owed,
            moves: uploads
                .moves
                .iter()
                .take(MAX_LISTED)
                .map(|one| MoveStatus {
                    path: one.path.clone(),
                    from: one.prefixes.clone(),
                    done: one.done,
                    left: one.left,
                    quiet: one.quiet,
                })
                .collect(),
            announcements_owed: sum(|target| target.owed + target.in_flight),
            announcements_failed: sum(|target| target.failed),
            records_owed: sum(|target| target.records_owed + target.records_in_flight),
            torn: torn.into_iter().take(MAX_LISTED).collect(),
            held: Vec::new(),
            failed: failed.into_iter().take(MAX_LISTED).collect(),
            problems_left_out: u64::try_from(left_out).unwrap_or(u64::MAX),
            cache: CacheStatus {
                used_bytes: usage.used,
                limit_bytes: usage.limit,
                files: usage.files,
                pinned_bytes: usage.pinned(),
                tight: pressure.tight,
                waiting: pressure.waiting,
                refused: pressure.refused,
                disk_available_bytes: pressure.disk_available,
                disk_full: pressure.disk_full,
                disk_inodes: pressure.disk_inodes,
            },
            passthrough: PassthroughStatus { enabled, why },
            counters: Counters {
                puts: uploads.counters.puts,
                multiparts: uploads.counters.multiparts,
                parts: uploads.counters.parts,
                uploaded_bytes: uploads.counters.bytes,
                copies: uploads.counters.copies,
                removals: uploads.counters.removals,
                conflicts: uploads.counters.conflicts,
                marks_taken_back: self.rooms.vfs.marks_taken_back(),
                corrupt: uploads.counters.mismatches,
                announced: counted(|target| target.counters.announced),
                gone: counted(|target| target.counters.gone),
                records: counted(|target| target.counters.recorded),
                ..Counters::default()
            },
            requests: self.mounted.requests().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            journal_failure: self.rooms.journal.failure(),
        }
    }

    fn mapping_statuses(&self, outbox: &crate::outbox::Status) -> Vec<MappingStatus> {
        let online: Vec<bool> =
            self.rooms.namespace.read(|tree| tree.mappings().iter().map(|mapping| !mapping.is_offline()).collect());
        self.config
            .mappings
            .iter()
            .zip(&self.rooms.syncs)
            .zip(online)
            .map(|((mapping, sync), online)| MappingStatus {
                path: mapping.path.clone(),
                url: mapping.place.identity(),
                online,
                error: (!online).then(|| "the store does not answer; it is asked again every 2 s".to_owned()),
                sync: mapping.sync.as_ref().map(|task| {
                    let target = outbox.targets.iter().find(|target| sync.is_some_and(|sync| sync.0 == target.sync));
                    SyncStatus {
                        url: task.url.to_string(),
                        record: task.record.as_ref().map(crate::config::BucketPlace::identity),
                        paused: target.and_then(|target| target.paused.clone()),
                        error: target.and_then(|target| target.last_error.clone()),
                        record_error: target.and_then(|target| target.record_error.clone()),
                    }
                }),
            })
            .collect()
    }

    fn outbox_entries(&self, limit: usize) -> Vec<OutboxEntry> {
        let now = self.rooms.namespace.clock().now();
        let tasks = self.rooms.outbox.status().targets;
        self.rooms
            .outbox
            .list(limit)
            .into_iter()
            .map(|item| OutboxEntry {
                key: item.key,
                task: tasks
                    .iter()
                    .find(|target| target.sync == item.sync)
                    .and_then(|target| target.name.rsplit('/').nth(1))
                    .unwrap_or_default()
                    .to_owned(),
                state: match item.state {
                    ItemState::Owed => OutboxState::Owed,
                    ItemState::InFlight => OutboxState::Sending,
                    ItemState::Failed | ItemState::GaveUp => OutboxState::Failed,
                    ItemState::RecordSuccess | ItemState::RecordFailed => OutboxState::Recording,
                },
                attempts: item.attempts,
                age_s: item.owed_ns.map_or(0, |owed| u64::try_from((now.0 - owed) / 1_000_000_000).unwrap_or(0)),
                error: item.error,
            })
            .collect()
    }
}

/// Walks a path within the mount through what is known here.
fn resolve(tree: &Tree, path: &str) -> Option<Ino> {
    path.split('/').filter(|name| !name.is_empty()).try_fold(Ino::ROOT, |dir, name| tree.child(dir, name))
}

impl Actions for Daemon {
    fn status(&self) -> BoxFuture<'_, Status> {
        async { self.status_now() }.boxed()
    }

    fn pending(&self, path: Option<String>) -> BoxFuture<'_, Result<Pending, ActionError>> {
        async move {
            // Whoever waits does not want to wait for the delay too.
            self.rooms.uploader.hurry();
            match path {
                Some(path) => self.pending_below(&path).await,
                None => Ok(self.pending_all()),
            }
        }
        .boxed()
    }

    fn umount(&self, timeout: Duration) -> BoxFuture<'_, Result<Pending, ActionError>> {
        self.umount_now(timeout).boxed()
    }

    fn outbox_list(&self, limit: usize) -> BoxFuture<'_, Result<Vec<OutboxEntry>, ActionError>> {
        async move { Ok(self.outbox_entries(limit)) }.boxed()
    }

    fn held(&self) -> BoxFuture<'_, Result<Vec<HeldEntry>, ActionError>> {
        async {
            let files = self.rooms.vfs.held().await.map_err(|error| ActionError::Failed(error.to_string()))?;
            Ok(files.into_iter().map(held::entry).collect())
        }
        .boxed()
    }

    fn settle_held(&self, id: u64, generation: u64, accept: bool) -> BoxFuture<'_, Result<(), ActionError>> {
        async move {
            let settled = match accept {
                true => self.rooms.vfs.accept_held(Ino(id), generation).await,
                false => self.rooms.vfs.discard_held(Ino(id), generation).await,
            };
            settled.map_err(held::refusal)
        }
        .boxed()
    }

    fn odd_keys(&self) -> BoxFuture<'_, OddKeyList> {
        odd::keys(&self.rooms.namespace).boxed()
    }

    fn refresh(&self, path: Option<String>) -> BoxFuture<'_, Result<u64, ActionError>> {
        async move { self.refresh_now(path.as_deref().unwrap_or_default()).await }.boxed()
    }

    fn cache_prune(&self) -> BoxFuture<'_, Result<CachePruned, ActionError>> {
        async {
            let (files, bytes) =
                self.rooms.vfs.drop_clean().await.map_err(|error| ActionError::Failed(error.to_string()))?;
            Ok(CachePruned { files: u64::try_from(files).unwrap_or(u64::MAX), bytes })
        }
        .boxed()
    }

    fn cache_verify(&self) -> BoxFuture<'_, Result<CacheVerified, ActionError>> {
        async {
            let verified =
                self.rooms.vfs.verify_cache().await.map_err(|error| ActionError::Failed(error.to_string()))?;
            let rotten = verified.rotten.into_iter();
            Ok(CacheVerified {
                files: verified.files,
                bytes: verified.bytes,
                unknown: verified.unknown,
                rotten: rotten.map(|one| RottenFile { path: one.path, dropped: one.dropped }).collect(),
            })
        }
        .boxed()
    }

    fn outbox_reconcile(&self, path: Option<String>) -> BoxFuture<'_, Result<OutboxReconciled, ActionError>> {
        async move {
            let below = match path.as_deref().filter(|path| path.contains(|c| c != '/')) {
                Some(path) => Some(self.find(path).await?),
                None => None,
            };
            reconcile::below(&self.rooms, below).await
        }
        .boxed()
    }

    fn outbox_retry(&self) -> BoxFuture<'_, Result<u64, ActionError>> {
        async {
            let retried = self.rooms.outbox.retry_failed(None, "").await;
            retried
                .map(|count| u64::try_from(count).unwrap_or(u64::MAX))
                .map_err(|error| ActionError::Failed(error.to_string()))
        }
        .boxed()
    }
}
