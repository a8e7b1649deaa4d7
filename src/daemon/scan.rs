//! A lost or damaged journal, rebuilt (J5). Steps, and what a crash before each leaves:
//!
//! 1. Look at files and bucket: nothing has happened.
//! 2. Make the new journal in a directory of its own: as before; the next scan begins it anew.
//! 3. Put files where their rows will find them: as before; a scan finds them there, too.
//! 4. Put the old journal aside: none is there, and mounting is refused while there is content.
//! 5. Put the new one in its place: the next mount goes on with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cache;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::disk;
use crate::failpoint;
use crate::http;
use crate::journal::{Counter, Journal, Snapshot};
use crate::namespace::{self, Mapping, Namespace};
use crate::store;
use crate::vfs::{Finding, Vfs};

use super::build::{self, Targets};
use super::error::Error;

/// How long each store may take to answer at all.
const CHECK: Duration = Duration::from_secs(30);
/// Where the new journal is made, in the state directory.
const NEW: &str = "journal.new";

/// What a scan found and did.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// By path.
    pub findings: Vec<Finding>,
    /// Where the old journal is now.
    pub aside: Option<PathBuf>,
}

/// Rebuilds the journal of a mount that is not mounted from its backing files. `dry_run`: only tells what
/// it would do. `force`: although the journal is good.
///
/// # Errors
/// The mount is mounted; a store does not answer; the disk failed. The old journal, in whatever state, is
/// never removed.
pub fn scan(config: &Config, dry_run: bool, force: bool) -> Result<Scanned, Error> {
    failpoint::check().map_err(Error::Refused)?;
    let _locks = build::lock(config).map_err(|error| Error::Failed(format!("{error}: unmount it first")))?;
    if !force && is_good(config) {
        return Err(Error::Failed(format!(
            "the journal in {} is good: mount with it. A rebuilt one knows less; --force makes one all the same",
            config.state.dir.display()
        )));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .map_err(Error::io("start the runtime"))?;
    let _context = runtime.enter();
    let trial = tempfile::tempdir().map_err(Error::io("make a temporary directory"))?;
    let new = if dry_run { trial.path().to_owned() } else { config.state.dir.join(NEW) };
    empty(&new).map_err(Error::io("make a directory for the new journal"))?;
    let journal = Journal::open(&new)?;
    let client = http::Client::new(&http::Options::default()).map_err(|error| Error::Failed(error.to_string()))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mappings = Targets::name(config, &journal, &client, &clock)?.mappings(config);
    runtime.block_on(all_answer(&mappings))?;
    let options = build::cache_options(config);
    let failed = |error: &dyn std::fmt::Display| Error::Failed(format!("nothing was rebuilt: {error}"));
    let found = cache::survey(&options).map_err(|error| failed(&error))?;
    if let Some(highest) = found.iter().map(|file| file.number.0).max() {
        // J6: no number is given out twice, and what has no row lies below the next start's first.
        journal.reserve(Counter::Backing, highest)?;
    }
    let boot_id = disk::boot_id().map_err(Error::io("read the boot id"))?;
    let planned = runtime.block_on(Vfs::plan_rebuild(&mappings, found, &boot_id));
    let mut findings = planned.map_err(|error| failed(&error))?;
    if dry_run {
        journal.close()?;
        return Ok(Scanned { findings, aside: None });
    }
    let names = namespace::Options { attr_ttl: config.mount.attr_ttl };
    let (namespace, _replaced) = Namespace::open(journal.clone(), clock.clone(), names, mappings, &Snapshot::default())
        .map_err(|error| failed(&error))?;
    Vfs::rebuild(&namespace, &options, &mut findings, &boot_id).map_err(|error| failed(&error))?;
    drop(namespace);
    journal.close()?;
    drop(journal);
    failpoint::hit(failpoint::SCAN_JOURNAL_MADE);
    let aside = Journal::replace(&config.state.dir, &new, clock.now()).map_err(Error::io("replace the journal"))?;
    fs::remove_dir_all(&new).map_err(Error::io("remove the directory of the new journal"))?;
    Ok(Scanned { findings, aside })
}

/// A journal that can be read to its last page and knows all content that is there.
fn is_good(config: &Config) -> bool {
    let look = || -> Result<(), Error> {
        let journal = Journal::open(&config.state.dir)?;
        journal.verify()?;
        journal.load()?;
        build::refuse_strangers(config, &journal)?;
        Ok(journal.close()?)
    };
    Journal::exists(&config.state.dir) && look().is_ok()
}

fn empty(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk::make_dir_private(dir)
}

/// What the bucket has decides over what is here: without it nothing is decided.
async fn all_answer(mappings: &[Arc<Mapping>]) -> Result<(), Error> {
    for mapping in mappings {
        let refused = |why: String| {
            Error::Failed(format!("{} must answer for a scan, which changed nothing: {why}", mapping.identity()))
        };
        match tokio::time::timeout(CHECK, store::check(mapping.store.as_ref())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(_) => return Err(refused("no answer".to_owned())),
        }
    }
    Ok(())
}
