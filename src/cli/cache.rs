//! `ferryfs cache`

use super::Failure;
use super::args::CacheArgs;
use super::output::{count, print, print_json, shown};
use crate::control::Client;
use crate::types::ByteSize;

pub(super) fn prune(args: &CacheArgs) -> Result<(), Failure> {
    let pruned = Client::find(&args.dir)?.cache_prune()?;
    if args.json {
        return print_json(&pruned);
    }
    print(&format!("{}, {} let go\n", count(pruned.files, "file", "files"), ByteSize(pruned.bytes)))
}

pub(super) fn verify(args: &CacheArgs) -> Result<(), Failure> {
    let verified = Client::find(&args.dir)?.cache_verify()?;
    if args.json {
        print_json(&verified)?;
    } else {
        let mut text = format!("{}, {} read", count(verified.files, "file", "files"), ByteSize(verified.bytes));
        if verified.unknown > 0 {
            text.push_str(&format!("; {} not read, as the bucket tells no CRC64", verified.unknown));
        }
        text.push('\n');
        for rotten in &verified.rotten {
            let what = if rotten.dropped { "dropped" } else { "in use: close it, then verify again" };
            text.push_str(&format!("{}: rotten, {what}\n", shown(&rotten.path)));
        }
        print(&text)?;
    }
    if verified.rotten.is_empty() {
        return Ok(());
    }
    let rotten = u64::try_from(verified.rotten.len()).unwrap_or(u64::MAX);
    Err(Failure::failed(format!(
        "{} had changed on the disk below the cache: look at its health",
        count(rotten, "cached file", "cached files")
    )))
}
