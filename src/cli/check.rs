//! `ferryfs config check`

use std::path::Path;

use super::Failure;
use super::output::{columns, print, shown};
use crate::config::Config;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let config = Config::load(file)?;
    let mut rows = Vec::new();
    for mapping in &config.mappings {
        rows.push(vec!["mapping".to_owned(), shown(&mapping.path), shown(&mapping.place.identity())]);
        if let Some(sync) = &mapping.sync {
            rows.push(vec!["sync".to_owned(), String::new(), sync.url.to_string()]);
            if let Some(record) = &sync.record {
                rows.push(vec!["record".to_owned(), String::new(), shown(&record.identity())]);
            }
        }
    }
    rows.push(vec!["cache".to_owned(), config.cache.size.to_string(), config.cache.dir.display().to_string()]);
    rows.push(vec!["state".to_owned(), String::new(), config.state.dir.display().to_string()]);
    print(&format!("{} is good\n{}", file.display(), columns(&rows)))
}
