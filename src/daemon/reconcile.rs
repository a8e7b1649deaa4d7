//! Which objects have no success record, of one directory or of all mappings (O4).

use crate::control::{ActionError, OutboxReconciled};
use crate::types::Ino;

use super::build::Rooms;

/// Compares what lies below a directory, or in all mappings, and announces what is missing.
pub(super) async fn below(rooms: &Rooms, dir: Option<Ino>) -> Result<OutboxReconciled, ActionError> {
    let mut wanted = rooms.namespace.read(|tree| match dir {
        None => tree.mappings().iter().map(|mapping| (mapping.clone(), mapping.prefix.clone())).collect::<Vec<_>>(),
        Some(dir) => {
            let prefix = tree.get(dir).filter(|inode| inode.is_dir()).and_then(|_| tree.prefix(dir));
            tree.mapping_of(dir).cloned().zip(prefix).into_iter().collect()
        }
    });
    if wanted.is_empty() {
        return Err(ActionError::NotFound("it is no directory of a bucket: name one".to_owned()));
    }
    wanted.retain(|(mapping, _)| mapping.sync.is_some());
    if wanted.is_empty() {
        return Err(ActionError::Failed("nothing of it is announced: the mapping has no [mapping.sync]".to_owned()));
    }
    let mut total = OutboxReconciled::default();
    for (mapping, prefix) in wanted {
        let Some(sync) = mapping.sync else { continue };
        let is_private = |key: &crate::types::Key| mapping.is_reserved(key);
        let found = rooms.outbox.reconcile(sync, &*mapping.store, &prefix, is_private).await;
        let found = found.map_err(|error| ActionError::Failed(format!("/{}: {error}", mapping.name)))?;
        total.objects += found.objects;
        total.owed += found.owed;
        total.pending += found.pending;
    }
    Ok(total)
}
