//! open and create: how files are served, and how sessions begin (C1, C2, C4).

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::cache::{Tag, TagState, mark};
use crate::disk;
use crate::journal::{Content, Durability, Mark};
use crate::namespace::{Inode, Lookup};
use crate::task::interruptible;
use crate::types::{Attrs, BackingNo, FileKind, Ino, TimeNs};

use super::close::restore;
use super::error::{Error, Result};
use super::handles::{Handle, Source};
use super::io;
use super::locks::Locked;
use super::reply::{Caller, Entry, OpenMode, Opened};
use super::session::{Mode, Prior, Session};
use super::{ClosePolicy, Vfs};

fn may_write(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY
}

impl Vfs {
    pub(super) async fn do_open(&self, ino: Ino, flags: i32, caller: Caller) -> Result<Opened> {
        self.revalidate(ino).await?;
        let kind = self.with_inode(ino, |inode| inode.row.kind)?;
        match kind {
            FileKind::Dir => return Err(Error::IsDirectory),
            FileKind::File => {}
            // Links are followed by the kernel, and special files opened by it.
            _ => return Err(Error::Invalid),
        }
        let write = may_write(flags);
        if write {
            self.make_room(0).await?;
        }
        if !(write && flags & libc::O_TRUNC != 0) {
            self.bring(ino).await?;
        }
        let mut state = interruptible(self.inner.locks.lock(ino)).await?;
        let opened = self.open_locked(ino, flags, caller, &mut state).await;
        self.inner.locks.release(ino, state);
        opened
    }

    async fn open_locked(&self, ino: Ino, flags: i32, caller: Caller, state: &mut Locked) -> Result<Opened> {
        let write = may_write(flags);
        let durability = durability(flags);
        if write && flags & libc::O_TRUNC != 0 {
            self.begin_truncated(ino, durability, state).await?;
        } else if write && self.is_partly_here(ino, state)? {
            // C7: its session begins with the first write, of which we hear.
            self.ensure_fill(ino, state).await?;
        } else if write {
            self.ensure_local(ino).await?;
            self.begin_session(ino, durability, state).await?;
        } else {
            self.ensure_readable(ino, state).await?;
        }
        // Of its writes we may not hear; each is on the disk when it returns.
        let sync = write && durability == Durability::Disk;
        let synced = if sync { self.sync_opened(ino, state).await } else { Ok(()) };
        let attached = synced.and_then(|()| self.attach(ino, flags, caller, state));
        if attached.is_err() && state.writers == 0 && state.session.is_some() {
            // No RELEASE will come to end the session.
            self.try_end_session(ino, state).await;
        }
        attached
    }

    /// What the kernel believes of the inode is at most `attr_ttl` old, and its attributes are the
    /// true ones (permissions are never enforced from a guess, N3).
    async fn revalidate(&self, ino: Ino) -> Result<()> {
        let (parent, name, linked, local, displaced) = self.with_inode(ino, |inode| {
            let local = inode.row.content != Content::Absent;
            (inode.row.parent, inode.row.name.clone(), inode.row.linked, local, inode.displaced)
        })?;
        if displaced {
            // The kernel has not forgotten it yet: it looks the name up once more.
            return Err(Error::Stale);
        }
        if !linked || ino == Ino::ROOT {
            return Ok(());
        }
        match self.inner.namespace.lookup(parent, &name).await {
            Ok(Lookup::Found(current)) if current == ino => {}
            Ok(_) => return Err(Error::Stale),
            // Cached content stays usable when the network is gone (P7).
            Err(crate::namespace::Error::Offline(_)) if local => return Ok(()),
            Err(crate::namespace::Error::Store(error)) if local && error.is_offline() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let current = self.inner.namespace.ensure_attributes(ino).await?;
        if current == ino { Ok(()) } else { Err(Error::Stale) }
    }

    /// Content for a reader: whole if it is small, otherwise served while it arrives.
    async fn ensure_readable(&self, ino: Ino, state: &mut Locked) -> Result<()> {
        if self.is_partly_here(ino, state)? {
            self.ensure_fill(ino, state).await?;
            return Ok(());
        }
        self.ensure_local(ino).await
    }

    /// C2: `open` is journaled before anybody can write. Over content whose mark counts after a power
    /// cut, on disk: that mark must not outlive the content that it means (J2).
    pub(super) async fn begin_session(&self, ino: Ino, durability: Durability, state: &mut Locked) -> Result<()> {
        if state.session.is_some() {
            return Ok(());
        }
        let synced = self.with_inode(ino, |inode| inode.row.mark.is_some_and(|mark| mark.synced))?;
        let durability = if synced { Durability::Disk } else { durability };
        let (begun, commit) = self.inner.namespace.update(durability, |tree, ops| {
            let inode = tree.get_mut(ino).ok_or(Error::NotFound)?;
            let backing = inode.row.backing.ok_or(Error::Corrupt)?;
            let row = &inode.row;
            let prior = Prior { content: row.content, generation: row.generation, mark: row.mark, hold: row.hold };
            // What was synced and is nowhere else stays what programs rely on, in place; what the bucket has, it
            // has better than a file that is being changed.
            inode.row.told = match prior.content {
                Content::Clean | Content::Absent => false,
                Content::Closed | Content::Flushed => inode.row.told || synced,
                Content::Open | Content::Torn => inode.row.told,
            };
            inode.row.content = Content::Open;
            inode.row.generation += 1;
            inode.row.mark = None;
            tree.persist(ino, ops);
            Ok::<_, Error>((backing, prior))
        });
        let (backing, prior) = begun?;
        commit.durable().await?;
        let base = match self.base_of(ino, backing) {
            Ok(base) => base,
            Err(error) => {
                // Nobody can write: left `open`, it would never go up, and be torn at the next start.
                let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
                    if let Some(inode) = tree.get_mut(ino) {
                        restore(inode, &prior);
                        tree.persist(ino, ops);
                    }
                });
                commit.durable().await?;
                self.inner.uploader.changed(ino);
                return Err(error);
            }
        };
        state.session = Some(Session::new(base, false, prior, self.monotonic()));
        Ok(())
    }

    /// What a session starts from; the content is among what may change when this returns.
    fn base_of(&self, ino: Ino, backing: BackingNo) -> Result<Mark> {
        self.inner.cache.to_dirty(backing)?;
        let file = self.inner.cache.open_read(backing)?;
        let base = mark(&file)?;
        self.inner.live.insert(ino, file);
        Ok(base)
    }

    /// O_TRUNC: new content from nothing. Without other handles it gets a new backing file, so that
    /// the old content is untouched until the row is on disk; otherwise the one backing file of all
    /// handles is truncated (C1).
    pub(super) async fn begin_truncated(&self, ino: Ino, durability: Durability, state: &mut Locked) -> Result<()> {
        let used = state.count > 0 || state.session.is_some();
        if used && self.is_partly_here(ino, state)? {
            self.truncate_partly(ino, 0, state).await?;
            if let Some(session) = state.session.as_mut() {
                session.fresh = true;
                session.prior.hold = None;
                session.forgive();
            }
            return self.record_size(ino, 0).await;
        }
        if used {
            let local = self.with_inode(ino, |inode| inode.row.content != Content::Absent)?;
            if !local {
                self.ensure_local(ino).await?;
            }
            self.begin_session(ino, durability, state).await?;
            let (backing, _) = self.inner.backing_file(ino)?;
            // J2: the row is on disk before the file is cut.
            self.inner.namespace.barrier().await?;
            disk::truncate(&self.inner.cache.open_write(backing)?, 0)?;
            let (_, file) = self.inner.backing_file(ino)?;
            if let Some(session) = state.session.as_mut() {
                session.base = mark(&file)?;
                session.fresh = true;
                session.prior.hold = None;
                session.forgive();
            }
            return self.record_size(ino, 0).await;
        }
        if let Some((fill, _)) = state.fill.take() {
            // What was being made whole is not wanted any more.
            fill.cancel().await;
        }
        let (tag, prior) = self.inner.namespace.read(|tree| {
            let inode = tree.get(ino).ok_or(Error::NotFound)?;
            let row = &inode.row;
            let prior = Prior { content: row.content, generation: row.generation, mark: row.mark, hold: None };
            let tag = Vfs::tag(tree, ino, self.open_now()).ok_or(Error::NotFound)?;
            Ok::<_, Error>((Tag { generation: row.generation + 1, ..tag }, prior))
        })?;
        let (backing, file) = self.inner.cache.create_dirty(&tag)?;
        drop(file);
        let file = self.inner.cache.open_read(backing)?;
        let base = mark(&file)?;
        let (old, commit) = self.inner.namespace.update(durability, |tree, ops| {
            let inode = tree.get_mut(ino).ok_or(Error::NotFound)?;
            let old = inode.row.backing.replace(backing);
            inode.row.content = Content::Open;
            inode.row.generation += 1;
            inode.row.mark = None;
            inode.row.told = false;
            inode.row.hold = None;
            inode.row.size = 0;
            inode.row.attrs.mtime = base.mtime;
            inode.row.ctime = base.ctime;
            inode.unverified = false;
            tree.persist(ino, ops);
            tree.set_partial(ino, None, ops);
            tree.set_copied(ino, None, ops);
            Ok::<_, Error>(old)
        });
        let old = match old {
            Ok(old) => old,
            Err(error) => {
                self.inner.cache.discard(backing);
                return Err(error);
            }
        };
        commit.durable().await?;
        self.trash(old);
        self.inner.live.insert(ino, file);
        state.session = Some(Session::new(base, true, prior, self.monotonic()));
        Ok(())
    }

    async fn record_size(&self, ino: Ino, size: u64) -> Result<()> {
        let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if let Some(inode) = tree.get_mut(ino) {
                inode.row.size = size;
                inode.row.told = false;
                inode.row.hold = None;
                tree.persist(ino, ops);
            }
        });
        Ok(commit.durable().await?)
    }

    /// One more handle, served as the others of this inode are (C1).
    fn attach(&self, ino: Ino, flags: i32, caller: Caller, state: &mut Locked) -> Result<Opened> {
        let write = may_write(flags);
        let mode = match state.mode {
            Some(mode) => mode,
            None => self.choose_mode(ino, write.then_some(caller), state)?,
        };
        let source = match (mode, &state.fill) {
            (Mode::Passthrough(_), _) => Source::Kernel,
            (_, Some((fill, _))) => Source::Fill(fill.clone()),
            (_, None) => {
                let (backing, file) = self.inner.backing_file(ino)?;
                let file = if write { self.inner.cache.open_write(backing)? } else { file };
                Source::File(Arc::new(file))
            }
        };
        state.mode = Some(mode);
        state.count += 1;
        state.writers += u32::from(write);
        state.flushed = state.flushed.filter(|_| !write);
        state.direct |= write && flags & libc::O_DIRECT != 0;
        self.inner.namespace.touch(|tree| {
            if let Some(inode) = tree.get_mut(ino) {
                inode.handles += 1;
                inode.writers += u32::from(write);
                if let Some(backing) = inode.row.backing {
                    self.inner.cache.used_now(backing);
                }
            }
        });
        // Only a close that waits for the bucket asks who closes.
        let asked = write && self.inner.options.close == ClosePolicy::Remote;
        let opener = if asked { disk::process_of(caller.pid) } else { None };
        let arriving = !write && matches!(source, Source::Fill(_));
        let reader = if arriving { disk::process_of(caller.pid) } else { None };
        let sync = flags & libc::O_DSYNC != 0;
        let direct = matches!(mode, Mode::Direct);
        let fh = self.inner.handles.insert(Handle { ino, write, opener, flushed: false, sync, direct, reader, source });
        let mode = match mode {
            Mode::Passthrough(id) => OpenMode::Passthrough(id),
            Mode::Cached => OpenMode::Cached { keep: false },
            Mode::Direct => OpenMode::Direct,
        };
        Ok(Opened { fh, mode, no_flush: !may_write(flags) })
    }

    fn choose_mode(&self, ino: Ino, writer: Option<Caller>, state: &Locked) -> Result<Mode> {
        if state.fill.is_some() {
            return Ok(Mode::Direct);
        }
        let Some(registrar) = self.registrar() else { return Ok(Mode::Cached) };
        if writer.is_some() && self.inner.cache.usage().is_tight() {
            // P7: its writes must come by us to wait for room.
            return Ok(Mode::Cached);
        }
        let fresh = state.session.as_ref().is_some_and(|session| session.fresh);
        if fresh && writer.is_some_and(|writer| self.may_copy(writer)) {
            return Ok(Mode::Direct);
        }
        // C4: registered from a read-only descriptor, or the daemon itself would count as a writer.
        let (_, file) = self.inner.backing_file(ino)?;
        match registrar.register(file.as_fd()) {
            Ok(id) => Ok(Mode::Passthrough(id)),
            Err(error) => {
                tracing::debug!(%ino, %error, "the kernel refuses this backing file; served by requests");
                Ok(Mode::Cached)
            }
        }
    }

    pub(super) async fn do_create(
        &self,
        place: (Ino, &str),
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        let (parent, name) = place;
        if let Lookup::Found(ino) = self.inner.namespace.lookup(parent, name).await? {
            if flags & libc::O_EXCL != 0 {
                return Err(Error::Exists);
            }
            self.remember(ino);
            return match self.do_open(ino, flags, caller).await {
                Ok(opened) => Ok((self.entry(ino)?, opened)),
                Err(error) => {
                    self.forget(ino, 1);
                    Err(error)
                }
            };
        }
        self.make_room(0).await?;
        let (ino, base, commit) = self.make_file(place, mode, caller, Content::Open, Durability::Buffered)?;
        commit.durable().await?;
        let mut state = self.inner.locks.lock(ino).await;
        let prior = Prior { content: Content::Open, generation: 1, mark: None, hold: None };
        state.session = Some(Session::new(base, true, prior, self.monotonic()));
        let sync = durability(flags) == Durability::Disk;
        let synced = if sync { self.sync_opened(ino, &mut state).await } else { Ok(()) };
        let opened = synced.and_then(|()| {
            let (_, file) = self.inner.backing_file(ino)?;
            self.inner.live.insert(ino, file);
            self.attach(ino, flags, caller, &mut state)
        });
        if opened.is_err() {
            // No RELEASE will come to end the session.
            self.try_end_session(ino, &mut state).await;
        }
        self.inner.locks.release(ino, state);
        Ok((self.entry(ino)?, opened?))
    }

    /// O_SYNC: content and name are on the disk, or the session ends held.
    async fn sync_opened(&self, ino: Ino, state: &mut Locked) -> Result<()> {
        let synced = self.sync_to_disk(ino).await;
        if let (Err(error), Some(session)) = (&synced, state.session.as_mut()) {
            session.hold = session.hold.or(io::failure(error));
        }
        synced
    }

    /// A new regular file with an empty backing file; its lookup count is one.
    pub(super) fn make_file(
        &self,
        place: (Ino, &str),
        mode: u32,
        caller: Caller,
        content: Content,
        durability: Durability,
    ) -> Result<(Ino, Mark, crate::namespace::Commit)> {
        let tag = self.inner.namespace.read(|tree| {
            let key = tree.check_name(place.0, place.1, FileKind::File)?;
            let attrs = Attrs { mode: mode & 0o7777, uid: caller.uid, gid: caller.gid, mtime: TimeNs::default() };
            let state = match content {
                Content::Closed => TagState::Closed(self.inner.options.boot_id.clone()),
                _ => self.open_now(),
            };
            Ok::<_, Error>(Vfs::tag_of_new(tree, place.0, key.0, attrs, state))
        })?;
        let (backing, file) = self.inner.cache.create_dirty(&tag)?;
        drop(file);
        let base = mark(&self.inner.cache.open_read(backing)?)?;
        let (made, commit) = self.inner.namespace.update(durability, |tree, ops| {
            let gid = inherited_gid(tree.get(place.0), caller);
            let attrs = Attrs { mode: mode & 0o7777, uid: caller.uid, gid, mtime: base.mtime };
            tree.make(place, FileKind::File, attrs, base.ctime, ops, |inode| {
                inode.row.content = content;
                inode.row.backing = Some(backing);
                inode.row.mark = (content == Content::Closed).then_some(base);
                inode.lookups = 1;
            })
        });
        match made {
            Ok(ino) => Ok((ino, base, commit)),
            Err(error) => {
                self.inner.cache.discard(backing);
                Err(error.into())
            }
        }
    }
}

/// O_SYNC and O_DSYNC: the new name is on disk before open returns (J1).
fn durability(flags: i32) -> Durability {
    if flags & libc::O_DSYNC == 0 { Durability::Buffered } else { Durability::Disk }
}

/// A setgid directory gives its group to what is made in it (inode(7)).
pub(super) fn inherited_gid(parent: Option<&Inode>, caller: Caller) -> u32 {
    parent.filter(|parent| parent.row.attrs.mode & 0o2000 != 0).map_or(caller.gid, |parent| parent.row.attrs.gid)
}
