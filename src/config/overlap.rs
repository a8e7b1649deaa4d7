//! Refusals that need two parts of the configuration: overlapping mappings, mapped log buckets,
//! directories inside each other.

use std::path::Path;

use super::error::{Error, Location, Result};
use super::place::{Place, Source};
use super::{Config, Mapping};

/// Where the parts of one mapping were written.
pub(super) struct MappingPlaces {
    pub(super) path: Place,
    pub(super) url: Place,
    pub(super) record: Option<Place>,
}

/// Refuses mappings whose mount paths or prefixes lie in one another, and log buckets that are mapped.
pub(super) fn mappings(source: &Source<'_>, mappings: &[Mapping], places: &[MappingPlaces]) -> Result<()> {
    let all: Vec<(&Mapping, &MappingPlaces)> = mappings.iter().zip(places).collect();
    for (index, (second, second_places)) in all.iter().enumerate() {
        for (first, _) in all.iter().take(index) {
            if first.path == second.path || first.path == "/" || second.path == "/" {
                return Err(source.refuse(
                    &second_places.path,
                    format!("mapping `{}` overlaps mapping `{}`", second.path, first.path),
                    "give each mapping a directory of its own, as /a and /b",
                ));
            }
            let (a, b) = (&first.place, &second.place);
            if a.is_same_bucket(b) && (a.prefix.starts_with(&b.prefix) || b.prefix.starts_with(&a.prefix)) {
                return Err(source.refuse(
                    &second_places.url,
                    format!("mapping `{}` overlaps mapping `{}`", b.identity(), a.identity()),
                    "give each mapping a prefix that does not lie in another's",
                ));
            }
        }
    }
    for (mapping, mapping_places) in &all {
        let Some((record, place)) =
            mapping.sync.as_ref().and_then(|sync| sync.record.as_ref()).zip(mapping_places.record.as_ref())
        else {
            continue;
        };
        // By bucket, whatever prefix, endpoint or spelling: a record written into a source bucket would be
        // announced again by whoever watches that bucket.
        if mappings.iter().any(|mapped| mapped.place.is_same_bucket(record)) {
            return Err(source.refuse(
                place,
                format!("log bucket `{}` is a mapped bucket", record.bucket),
                "record into a bucket of its own",
            ));
        }
    }
    Ok(())
}

/// Whether one of two absolute paths lies in the other.
pub(super) fn nested(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// See [`Config::check_mount_dir`].
pub(super) fn mount_dir(config: &Config, dir: &Path) -> Result<()> {
    for (what, local) in [("cache", &config.cache.dir), ("state", &config.state.dir)] {
        if nested(local, dir) {
            return Err(Error {
                location: match &config.file {
                    Some(path) => Location::File { path: path.clone(), line: None },
                    None => Location::CommandLine,
                },
                message: format!(
                    "the {what} directory {} and the mount directory {} lie in one another",
                    local.display(),
                    dir.display()
                ),
                remedy: format!("set [{what}] dir to a directory outside the mount"),
            });
        }
    }
    Ok(())
}
