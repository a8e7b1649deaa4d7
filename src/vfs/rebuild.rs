//! A lost journal, rebuilt from what backing files tell of themselves (J5): `ferryfs recover --scan`.
//!
//! What was queued and owed is lost with the journal; content is not. The rules:
//!
//! * Content goes up by itself only if its file proves that it was closed, under this boot, unchanged since,
//!   with nobody left who could change it, and if the bucket still has the version that it was based on.
//! * Content that equals the bucket's version by size and CRC64 is that version.
//! * Other content from the state directory is held (P2): at its path, or aside if the machine went down
//!   since, for then the bucket's version must not be hidden by it, or if newer content has the path.
//! * Other content from the cache directory is dropped: the bucket has its version or a later one.
//! * Of a file that was partly here (C7) only what programs wrote counts, and the rest is the version that it
//!   was based on, if the bucket still has that; which was which unknown, all of it is aside.
//! * What no mapping of the configuration wants is put where nothing cleans up.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::cache::{self, Found, Partly, TagState, mark};
use crate::disk;
use crate::journal::{Content, Durability, Hold, InodeRow, Mark, Op, PartialRow};
use crate::namespace::{self, Mapping, Namespace, Tree, attributes_of, remote_of};
use crate::store::{ErrorKind, HeadOptions, ObjectMeta};
use crate::types::{Attrs, BackingNo, Crc64, FileKind, Ino, Key};

use super::content::sum;
use super::error::{Error, Result};
use super::partial::extent_row;
use super::recover::BOOT_ID;

/// Requests of the look at the bucket under way at once.
const LOOKS: usize = 16;

/// What becomes of a backing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Closed: it goes up after the next mount.
    Upload,
    /// Held, shown at its path.
    Held,
    /// Held, the path shows something else.
    Aside,
    /// Equal to the bucket's version.
    Clean,
    /// The bucket has it, or a later version; or it is empty and nobody knows what it was for.
    Dropped,
    /// No mapping wants it.
    Unplaced,
}

/// A backing file and what becomes of it.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The file.
    pub found: Found,
    /// Its path from the mount's root, if it has one; otherwise its mapping and key, if it tells them.
    pub path: String,
    /// What becomes of it.
    pub fate: Fate,
    /// Why.
    pub why: &'static str,
    place: Option<Place>,
    head: Option<ObjectMeta>,
}

#[derive(Clone, Debug)]
struct Place {
    mapping: Arc<Mapping>,
    /// Within the mapping.
    path: String,
}

/// Decides what becomes of each file. Changes nothing.
///
/// # Errors
/// The store does not tell what it has, or a file cannot be read: nothing is decided by halves.
pub(super) async fn plan(mappings: &[Arc<Mapping>], found: Vec<Found>, boot_id: &str) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut groups: BTreeMap<(usize, Key), Vec<Found>> = BTreeMap::new();
    for file in found {
        match wanted_by(mappings, &file) {
            Ok(slot) => groups.entry(slot).or_default().push(file),
            Err(finding) => findings.push(finding(file)),
        }
    }
    let looks = stream::iter(groups).map(|((at, key), files)| async move {
        let mapping = mappings.get(at).ok_or(Error::NotFound)?;
        decide(mapping, &key, files, boot_id).await
    });
    let decided: Vec<Vec<Finding>> = looks.buffered(LOOKS).try_collect().await?;
    findings.extend(decided.into_iter().flatten());
    findings.sort_by(|a, b| (&a.path, a.found.number).cmp(&(&b.path, b.found.number)));
    Ok(findings)
}

/// The mapping, by its place in the configuration, and key that a file is for; or what becomes of it
/// without one.
fn wanted_by(
    mappings: &[Arc<Mapping>],
    file: &Found,
) -> std::result::Result<(usize, Key), impl FnOnce(Found) -> Finding + use<>> {
    let (path, fate, why) = match &file.tagged {
        None if !file.dirty || file.size == 0 => (String::new(), Fate::Dropped, "it does not tell what it is"),
        None => (String::new(), Fate::Unplaced, "it does not tell what it is"),
        Some(tagged) => {
            let tag = &tagged.tag;
            let at = mappings.iter().position(|mapping| mapping.identity() == tag.mapping);
            let inner = at.and_then(|at| mappings.get(at)).and_then(|mapping| tag.key.strip_prefix(&mapping.prefix));
            match (at, inner) {
                (Some(at), Some(inner)) if is_path(inner) => return Ok((at, Key(tag.key.clone()))),
                _ => {
                    let fate = if file.dirty { Fate::Unplaced } else { Fate::Dropped };
                    (format!("{} {}", tag.mapping, tag.key), fate, "the configuration has no mapping for it")
                }
            }
        }
    };
    Err(move |found| Finding { found, path, fate, why, place: None, head: None })
}

/// Names that a file of ours can have.
fn is_path(path: &str) -> bool {
    path.split('/').all(|name| !name.is_empty() && name != "." && name != ".." && name.len() <= 255)
}

async fn decide(mapping: &Arc<Mapping>, key: &Key, mut files: Vec<Found>, boot_id: &str) -> Result<Vec<Finding>> {
    let head = match mapping.store.head(key, HeadOptions::default()).await {
        Ok(meta) if attributes_of(&meta, &mapping.defaults).0 == FileKind::File => Some(meta),
        Ok(_) => None,
        Err(error) if error.kind == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let path = key.as_str().strip_prefix(&mapping.prefix).unwrap_or_default().to_owned();
    let shown = if mapping.is_root() { format!("/{path}") } else { format!("/{}/{path}", mapping.name) };
    // The one that takes the path comes first.
    files.sort_by_key(|file| std::cmp::Reverse(rank(file)));
    let mut taken = false;
    let mut findings = Vec::with_capacity(files.len());
    for found in files {
        let equal = equals(&found, head.as_ref()).await?;
        let (fate, why) = verdict(&found, head.as_ref(), equal, boot_id);
        let (fate, why) = match fate {
            Fate::Upload | Fate::Held if taken => (Fate::Aside, "newer content has its path"),
            Fate::Clean if taken => (Fate::Dropped, "the bucket has it"),
            _ => (fate, why),
        };
        taken |= matches!(fate, Fate::Upload | Fate::Held | Fate::Clean);
        let place = Some(Place { mapping: mapping.clone(), path: path.clone() });
        findings.push(Finding { found, path: shown.clone(), fate, why, place, head: head.clone() });
    }
    Ok(findings)
}

/// Of two files of one key the higher wins: dirty content over cached; of one inode the higher generation;
/// otherwise the file that was made later.
fn rank(file: &Found) -> (bool, u64, BackingNo) {
    let generation = file.tagged.as_ref().map_or(0, |tagged| tagged.tag.generation);
    (file.dirty, generation, file.number)
}

/// The content is that of the bucket's version.
async fn equals(file: &Found, head: Option<&ObjectMeta>) -> Result<bool> {
    let Some((meta, expected)) = head.and_then(|meta| Some((meta, meta.crc64?))) else { return Ok(false) };
    if meta.size != file.size || !file.quiet {
        return Ok(false);
    }
    let path = file.path.clone();
    let summed = tokio::task::spawn_blocking(move || sum(&disk::open_read(&path)?)).await;
    let (size, crc): (u64, Crc64) = summed.map_err(|error| Error::Io(std::io::Error::other(error.to_string())))??;
    Ok(size == meta.size && crc == expected)
}

/// What becomes of a file that has its key for itself. Pure.
fn verdict(file: &Found, head: Option<&ObjectMeta>, equal: bool, boot_id: &str) -> (Fate, &'static str) {
    if equal {
        return (Fate::Clean, "it equals the bucket's version");
    }
    let Some(tagged) = &file.tagged else { return (Fate::Dropped, "it does not tell what it is") };
    if let TagState::Partly(boot, partly) = &tagged.tag.state {
        return verdict_on_part(partly, file.size, boot != boot_id && head.is_some());
    }
    let base = match &tagged.tag.state {
        TagState::Clean(..) if !file.dirty && file.as_tagged => {
            return (Fate::Dropped, "the bucket has another version, or none");
        }
        TagState::Closed(boot) if boot == boot_id => {
            let unchanged = head.map(|meta| &meta.etag) == tagged.tag.base.as_ref();
            match (file.quiet && file.as_tagged, unchanged) {
                (true, true) => return (Fate::Upload, "it was closed, and the bucket is as it was then"),
                (true, false) => return (Fate::Held, "it was closed, but the bucket has another version since"),
                (false, _) => boot,
            }
        }
        TagState::Closed(boot) | TagState::Open(boot) | TagState::Partly(boot, _) => boot,
        // Fetched or uploaded, then opened for writing.
        TagState::Clean(..) => boot_id,
    };
    if base != boot_id && head.is_some() {
        return (Fate::Aside, "nothing proves that it survived the restart of the machine");
    }
    (Fate::Held, "nothing proves that it was closed")
}

/// C7: nothing but what programs wrote may be taken for content from its file.
fn verdict_on_part(partly: &Partly, size: u64, unproven: bool) -> (Fate, &'static str) {
    match &partly.written {
        Some(written) if written.is_empty() && (partly.end, size) == (partly.size, partly.size) => {
            (Fate::Dropped, "no program has written to it")
        }
        // Shown, it would be the bucket's bytes over what programs wrote, or zeros.
        None => (Fate::Aside, "parts of it were in the bucket only, and it does not tell which"),
        Some(_) if unproven => (Fate::Aside, "nothing proves that it survived the restart of the machine"),
        Some(_) => (Fate::Held, "parts of it were in the bucket only, and nothing proves that it was closed"),
    }
}

/// Writes the rows of a plan into an empty journal, on disk on return, and puts every file where its row
/// will find it: nothing that a start could clean up is without a row.
///
/// # Errors
/// The journal or the disk failed. Files stay findable for another scan.
pub(super) fn apply(
    namespace: &Namespace,
    options: &cache::Options,
    findings: &mut [Finding],
    boot_id: &str,
) -> Result<()> {
    let boot = Op::SetMeta(BOOT_ID, boot_id.to_owned());
    let ((), commit) = namespace.update(Durability::Buffered, |_, ops| ops.push(boot));
    commit.in_background();
    for finding in findings.iter_mut() {
        match (finding.fate, finding.place.clone()) {
            (Fate::Dropped, _) => continue,
            (Fate::Unplaced, _) | (_, None) => finding.found.path = cache::put_away(options, &finding.found)?,
            (_, Some(place)) => {
                finding.found.path = cache::place_dirty(options, &finding.found)?;
                restore(namespace, &place, finding)?;
            }
        }
    }
    Ok(futures::executor::block_on(namespace.barrier())?)
}

fn restore(namespace: &Namespace, place: &Place, finding: &mut Finding) -> Result<()> {
    let Finding { found, head, fate, .. } = &*finding;
    let file = disk::open_read(&found.path)?;
    let synced = match fate {
        Fate::Upload | Fate::Held | Fate::Aside => {
            // A mark counts after a power cut only if the content was on the disk before it (C5).
            disk::sync_file(&file)?;
            Mark { synced: true, ..mark(&file)? }
        }
        Fate::Clean | Fate::Dropped | Fate::Unplaced => mark(&file)?,
    };
    let tag = found.tagged.as_ref().map(|tagged| &tagged.tag);
    let of_bucket = head.as_ref().map(|meta| attributes_of(meta, &place.mapping.defaults).1);
    let own = tag.map(|tag| Attrs { mtime: found.mtime, ..tag.attrs });
    let attrs = match fate {
        Fate::Clean => of_bucket.or(own),
        _ => own.or(of_bucket),
    };
    let attrs = attrs.unwrap_or_else(|| place.mapping.defaults.attrs(FileKind::File, found.mtime));
    let generation = tag.map_or(1, |tag| tag.generation);
    let (number, size, has_remote) = (found.number, found.size, head.is_some());
    let target = place.mapping.target;
    let remote = head.as_ref().map(remote_of);
    let partly = tag.and_then(|tag| match &tag.state {
        TagState::Partly(_, partly) if *fate != Fate::Clean => Some(partly),
        _ => None,
    });
    // Of what is aside nothing is fetched: the bucket's version has its name.
    let lacks = |fate: Fate| {
        partly.is_some_and(|partly| {
            fate == Fate::Aside
                || head.as_ref().is_none_or(|meta| (&meta.etag, meta.size) != (&partly.base, partly.size))
        })
    };
    let fill = |fate: Fate| {
        move |row: &mut InodeRow| {
            row.backing = Some(number);
            row.size = size;
            row.remote_generation = generation;
            row.generation = generation;
            row.attr_generation = 1;
            row.remote_attr_generation = u64::from(has_remote);
            match fate {
                Fate::Clean => row.content = Content::Clean,
                Fate::Upload => {
                    row.content = Content::Closed;
                    row.mark = Some(synced);
                    row.generation += 1;
                }
                Fate::Held | Fate::Aside | Fate::Dropped | Fate::Unplaced => {
                    row.content = Content::Torn;
                    row.hold = Some(if lacks(fate) { Hold::Incomplete } else { Hold::Journal });
                    row.generation += 1;
                }
            }
        }
    };
    let extents = |tree: &mut Tree, ino: Ino, ops: &mut Vec<Op>| {
        let Some(partly) = partly else { return };
        let row = PartialRow { ino, etag: partly.base.clone(), size: partly.size, end: partly.end };
        tree.set_partial(ino, Some(row), ops);
        ops.extend(partly.written.iter().flatten().map(|range| extent_row(ino, range.clone(), false)));
    };
    let (made, commit) = namespace.update(Durability::Buffered, |tree, ops| {
        if *fate != Fate::Aside {
            match tree.restore(target, &place.path, attrs, remote, ops, fill(*fate)) {
                Ok(ino) => {
                    extents(tree, ino, ops);
                    return Ok(*fate);
                }
                // A file where another needs a directory, or the other way round: the cached one can be
                // fetched again, of others nothing is decided here.
                Err(namespace::Error::Journal(error)) => return Err(namespace::Error::Journal(error)),
                Err(_) if *fate == Fate::Clean => return Ok(Fate::Dropped),
                Err(_) => {}
            }
        }
        let ino = tree.restore_aside(target, &place.path, attrs, ops, fill(Fate::Aside))?;
        extents(tree, ino, ops);
        Ok(Fate::Aside)
    });
    let made = made?;
    futures::executor::block_on(commit.durable())?;
    if made != finding.fate {
        finding.fate = made;
        finding.why = "something else has its path";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Tag, Tagged};
    use crate::store::ObjectHeaders;
    use crate::types::{ETag, TimeNs};

    fn found(state: TagState, base: Option<&str>) -> Found {
        let attrs = Attrs { mode: 0o644, uid: 0, gid: 0, mtime: TimeNs(0) };
        let base = base.map(|etag| ETag(etag.to_owned()));
        let tag = Tag { mapping: String::new(), key: "k".into(), ino: Ino(2), generation: 1, attrs, base, state };
        Found {
            number: BackingNo(1),
            path: "/f".into(),
            dirty: true,
            tagged: Some(Tagged { tag, looked: (1, 4, 0) }),
            size: 4,
            mtime: TimeNs(0),
            as_tagged: true,
            quiet: true,
        }
    }

    fn in_bucket(etag: &str) -> ObjectMeta {
        ObjectMeta {
            key: Key("k".into()),
            size: 4,
            etag: ETag(etag.to_owned()),
            last_modified: None,
            crc64: None,
            version_id: None,
            storage_class: None,
            encryption: None,
            tag_count: 0,
            headers: ObjectHeaders::default(),
        }
    }

    #[test]
    fn only_what_proves_that_it_was_closed_goes_up() {
        let fate = |file: &Found, head: Option<&str>| verdict(file, head.map(in_bucket).as_ref(), false, "now").0;
        let closed = |base| found(TagState::Closed("now".into()), base);
        assert_eq!(fate(&closed(None), None), Fate::Upload);
        assert_eq!(fate(&closed(Some("a")), Some("a")), Fate::Upload);
        assert_eq!(fate(&closed(Some("a")), Some("b")), Fate::Held, "the bucket changed");
        assert_eq!(fate(&closed(None), Some("b")), Fate::Held, "the bucket has one now");
        assert_eq!(fate(&closed(Some("a")), None), Fate::Held, "the bucket lost it");
        let changed = Found { as_tagged: false, ..closed(None) };
        assert_eq!(fate(&changed, None), Fate::Held, "written to since");
        let mapped = Found { quiet: false, ..closed(None) };
        assert_eq!(fate(&mapped, None), Fate::Held, "somebody can still write");
        let before = found(TagState::Closed("before".into()), Some("a"));
        assert_eq!(fate(&before, Some("a")), Fate::Aside, "the machine went down since");
        assert_eq!(fate(&before, None), Fate::Held, "nothing is hidden by it");
        for state in [TagState::Open("now".into()), TagState::Clean(ETag("a".into()), None)] {
            assert_eq!(fate(&found(state, Some("a")), Some("a")), Fate::Held);
        }
        assert_eq!(fate(&found(TagState::Open(String::new()), None), Some("a")), Fate::Aside);
    }

    #[test]
    fn of_a_file_that_was_partly_here_nothing_goes_up() {
        let part = |boot: &str, ranges: Option<u64>| {
            let written = ranges.map(|count| (0..count).map(|n| n..n + 1).collect());
            let partly = Partly { base: ETag("a".into()), size: 4, end: 4, written };
            found(TagState::Partly(boot.into(), partly), Some("a"))
        };
        let fate = |file: &Found, head: Option<&str>| verdict(file, head.map(in_bucket).as_ref(), false, "now").0;
        for head in [None, Some("a"), Some("b")] {
            assert_eq!(fate(&part("now", Some(1)), head), Fate::Held);
            assert_eq!(fate(&part("now", None), head), Fate::Aside);
            assert_eq!(fate(&part("now", Some(0)), head), Fate::Dropped);
        }
        let cut = Found { size: 3, ..part("now", Some(0)) };
        assert_eq!(fate(&cut, Some("a")), Fate::Held);
        assert_eq!(fate(&part("before", Some(1)), Some("a")), Fate::Aside);
        assert_eq!(fate(&part("before", Some(1)), None), Fate::Held);
        assert_eq!(verdict(&part("now", None), Some(&in_bucket("a")), true, "now").0, Fate::Clean);
    }

    #[test]
    fn cached_content_is_the_buckets_or_goes() {
        let clean = Found { dirty: false, ..found(TagState::Clean(ETag("a".into()), None), None) };
        let head = in_bucket("b");
        assert_eq!(verdict(&clean, Some(&head), true, "now").0, Fate::Clean);
        assert_eq!(verdict(&clean, Some(&head), false, "now").0, Fate::Dropped);
        assert_eq!(verdict(&clean, None, false, "now").0, Fate::Dropped);
        let written = Found { as_tagged: false, ..clean };
        assert_eq!(verdict(&written, Some(&head), false, "now").0, Fate::Held, "changed in place since");
        let dirty = found(TagState::Open("now".into()), None);
        assert_eq!(verdict(&dirty, Some(&head), true, "now").0, Fate::Clean, "uploaded, not recorded");
    }
}
