//! Which keys have no path of their own, of all mappings.

use crate::control::{MAX_LISTED, OddKeyEntry, OddKeyList, Problem};
use crate::namespace::Namespace;

/// Walks through all of them; one that fails does not hide the others'.
pub(super) async fn keys(namespace: &Namespace) -> OddKeyList {
    let mappings = namespace.read(|tree| tree.mappings().to_vec());
    let mut list = OddKeyList::default();
    for mapping in mappings {
        let most = MAX_LISTED.saturating_sub(list.keys.len());
        match namespace.odd_keys(mapping.target, most).await {
            Ok(found) => {
                list.objects += found.objects;
                list.count += found.count;
                let entry =
                    |odd: crate::namespace::OddKey| OddKeyEntry { key: odd.key, path: odd.path, reason: odd.reason };
                list.keys.extend(found.keys.into_iter().map(entry));
            }
            Err(error) => {
                let path = format!("/{}", mapping.name);
                list.failed.push(Problem { path, reason: error.to_string() });
            }
        }
    }
    list
}
