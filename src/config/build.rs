//! From what was written to what is used: every default, every range.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::address::{BucketUrl, parse_bucket_url, parse_sync_url};
use super::error::{Error, Location, Result};
use super::options::Options;
use super::overlap::{self, MappingPlaces};
use super::place::{At, Place, Source};
use super::raw::{RawCache, RawConfig, RawMapping, RawMount, RawState, RawSync, RawWriteBack};
use super::secrets::{self, Credentials, Written};
use super::terms::terms;
use super::values::{addressing, check_path, check_region, choice, directory, endpoint, is_word, number, path_value};
use super::values::{mode, region, required, size, time, told};
use super::{
    BucketPlace, Cache, CloseMode, Config, FsyncMode, KilledWriter, Mapping, MountOptions, Passthrough, State, Sync,
    WriteBack,
};
use crate::namespace::Conflict;
use crate::store::Addressing;

/// A configuration file is small; more than this is another file by mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// COS: smallest part but the last, largest part and largest single PUT (PROTOCOL section 5).
const MIN_PART_BYTES: u64 = 1 << 20;
const MAX_PART_BYTES: u64 = 5_000_000_000;
/// Less cannot hold one part and one file at once.
const MIN_CACHE_BYTES: u64 = 1 << 20;
const DEFAULT_CACHE_BYTES: u64 = 20 << 30;
const DEFAULT_PART_BYTES: u64 = 16 << 20;
const DEFAULT_DELAY: Duration = Duration::from_secs(1);
/// DESIGN section 6: a file that keeps changing goes up at the latest after 30 s.
const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(30);
/// Longest of any time here but `give_up_after`: longer is a wrong unit.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);
/// Shorter intervals than these would be a program's own fsync; longer ones are a wrong unit.
const MIN_UPLOAD_OPEN: Duration = Duration::from_secs(1);
const MAX_UPLOAD_OPEN: Duration = Duration::from_secs(366 * 24 * 3600);
const DEFAULT_PARALLEL: i64 = 4;
/// Each part in flight is held in memory.
const MAX_PARALLEL: i64 = 64;
/// What most systems give their users.
const DEFAULT_UMASK: u32 = 0o022;
const DEFAULT_ATTR_TTL: Duration = Duration::from_secs(10);
/// DESIGN O3.
const DEFAULT_GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);
const MAX_GIVE_UP_AFTER: Duration = Duration::from_secs(366 * 24 * 3600);

type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// See [`Config::load_with`].
pub(super) fn from_file(path: &Path, options: &Options, environment: Environment<'_>) -> Result<Config> {
    let unreadable = |error: std::io::Error| Error {
        location: Location::File { path: path.to_owned(), line: None },
        message: format!("cannot read the configuration: {error}"),
        remedy: "name a readable file".to_owned(),
    };
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;

    let dir = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let source = Source { file: Some(path), text: &text, dir, environment };
    let mut raw: RawConfig = toml::from_str(&text).map_err(|error| {
        let place = Place::Offset(error.span().map_or(0, |span| span.start));
        // Only the message: the full text would show the line, which may hold a secret.
        source.refuse(
            &place,
            error.message().trim().replace('\n', ", "),
            "correct the line as the README's section on configuration shows",
        )
    })?;
    if let Some(place) = raw.first_secret() {
        secrets::check_mode(&source, place, path, mode)?;
    }
    options.apply(&mut raw, None)?;
    let name = absolute.file_stem().map_or_else(|| "ferryfs".to_owned(), |stem| stem.to_string_lossy().into_owned());
    build(&source, raw, name, Some(absolute.clone()))
}

/// See [`Config::from_url`].
pub(super) fn from_url(url: &str, options: &Options, environment: Environment<'_>) -> Result<Config> {
    let dir = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let source = Source { file: None, text: "", dir, environment };
    let place = Place::CommandLine;
    let parsed = parse_bucket_url(url).map_err(|refusal| told(&source, &place, refusal))?;
    let mut mapping = RawMapping {
        path: Some(At { value: "/".to_owned(), place: place.clone() }),
        url: Some(At { value: url.to_owned(), place: place.clone() }),
        ..RawMapping::default()
    };
    let mut raw = RawConfig::default();
    options.apply(&mut raw, Some(&mut mapping))?;
    raw.mapping.push(At { value: mapping, place });
    build(&source, raw, name_of(&parsed), None)
}

/// A file name for a bucket URL: readable, and different for different URLs.
fn name_of(url: &BucketUrl) -> String {
    let plain: String = format!("{}-{}", url.bucket, url.prefix.trim_end_matches('/'))
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' })
        .take(100)
        .collect();
    let hash = Sha256::digest(format!("{}://{}/{}", url.provider, url.bucket, url.prefix));
    let short: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{short}", plain.trim_end_matches('-'))
}

fn build(source: &Source<'_>, raw: RawConfig, name: String, file: Option<PathBuf>) -> Result<Config> {
    if raw.mapping.is_empty() {
        return Err(source.refuse(
            &Place::Offset(0),
            "the configuration maps nothing",
            "add a [[mapping]] with path, url and region",
        ));
    }
    let mut mappings = Vec::new();
    let mut places = Vec::new();
    for raw_mapping in &raw.mapping {
        let (mapping, mapping_places) = mapping(source, raw_mapping)?;
        mappings.push(mapping);
        places.push(mapping_places);
    }
    overlap::mappings(source, &mappings, &places)?;
    let cache_place = raw.cache.dir.as_ref().map(|dir| dir.place.clone());
    let state_place = raw.state.dir.as_ref().map(|dir| dir.place.clone());
    let cache = cache(source, &raw.cache, &name)?;
    let state = state(source, &raw.state, &name)?;
    if overlap::nested(&cache.dir, &state.dir) {
        return Err(source.refuse(
            &state_place.or(cache_place).unwrap_or(Place::CommandLine),
            format!(
                "the cache directory {} and the state directory {} lie in one another",
                cache.dir.display(),
                state.dir.display()
            ),
            "keep them apart: what is in the cache directory may be deleted, what is in the state directory may not",
        ));
    }
    Ok(Config {
        name,
        file,
        mappings,
        cache,
        state,
        write_back: write_back(source, &raw.write_back)?,
        mount: mount(source, &raw.mount)?,
        source: None,
    })
}

fn mapping(source: &Source<'_>, raw: &At<RawMapping>) -> Result<(Mapping, MappingPlaces)> {
    let At { value: raw, place } = raw;
    let path = required(source, raw.path.as_ref(), place, "path", "add path = \"/\", or \"/name\"")?;
    check_path(source, path)?;
    let url = required(source, raw.url.as_ref(), place, "url", "add url = \"cos://<bucket>-<appid>/<prefix>/\"")?;
    let address = parse_bucket_url(&url.value).map_err(|refusal| told(source, &url.place, refusal))?;
    let region = region(source, raw.region.as_ref(), place)?;
    let endpoint = endpoint(source, raw.endpoint.as_ref())?;
    let addressing = addressing(source, raw.addressing.as_ref())?.unwrap_or(Addressing::Virtual);
    let written = Written {
        names: ["secret_id", "secret_key", "token"],
        id: raw.secret_id.as_ref(),
        key: raw.secret_key.as_ref(),
        token: raw.token.as_ref(),
        file: raw.credentials_file.as_ref(),
        bucket: Some(&address.bucket),
        environment: Some(["COS_SECRET_ID", "COS_SECRET_KEY", "COS_SESSION_TOKEN"]),
    };
    let credentials = secrets::resolve(source, &written)?.ok_or_else(|| {
        secrets::missing(
            source,
            place,
            &format!("{}://{}", address.provider, address.bucket),
            "set secret_id and secret_key, or credentials_file, or COS_SECRET_ID and COS_SECRET_KEY in the environment",
        )
    })?;
    if let Some(class) = raw.storage_class.as_ref().filter(|class| !is_word(&class.value)) {
        return Err(source.refuse(
            &class.place,
            format!("`{}` is not a storage class", class.value),
            "write it as the provider does, as STANDARD_IA",
        ));
    }
    let mut mapping = Mapping {
        path: path.value.clone(),
        place: BucketPlace {
            provider: address.provider,
            bucket: address.bucket,
            prefix: address.prefix,
            region,
            endpoint,
            addressing,
            credentials,
        },
        storage_class: raw.storage_class.as_ref().map(|class| class.value.clone()),
        terms: terms(source, raw)?,
        conflict: choice(
            source,
            raw.conflict.as_ref(),
            &[("keep-both", Conflict::KeepBoth), ("ours", Conflict::Ours), ("theirs", Conflict::Theirs)],
        )?
        .unwrap_or_default(),
        exclusive: raw.exclusive.as_ref().is_some_and(|exclusive| exclusive.value),
        sync: None,
    };
    let mut places = MappingPlaces { path: path.place.clone(), url: url.place.clone(), record: None };
    if let Some(raw_sync) = &raw.sync {
        places.record = raw_sync.value.record.as_ref().map(|record| record.place.clone());
        mapping.sync = Some(sync(source, raw_sync, &mapping.place)?);
    }
    Ok((mapping, places))
}

fn sync(source: &Source<'_>, raw: &At<RawSync>, mapping: &BucketPlace) -> Result<Sync> {
    let At { value: raw, place } = raw;
    let url = required(source, raw.url.as_ref(), place, "url", "add the events URL of the sync task")?;
    let parsed = parse_sync_url(&url.value).map_err(|refusal| told(source, &url.place, refusal))?;
    let written = Written {
        names: ["access_key", "secret_key", "token"],
        id: raw.access_key.as_ref(),
        key: raw.secret_key.as_ref(),
        token: raw.token.as_ref(),
        file: raw.credentials_file.as_ref(),
        bucket: None,
        environment: Some(["HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_SECURITY_TOKEN"]),
    };
    let keys = secrets::resolve(source, &written)?.ok_or_else(|| {
        secrets::missing(
            source,
            place,
            "the sync task",
            "set access_key and secret_key, or credentials_file, or HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK in the \
             environment",
        )
    })?;
    let give_up_after = time(
        source,
        raw.give_up_after.as_ref(),
        "give_up_after",
        DEFAULT_GIVE_UP_AFTER,
        Duration::from_secs(60)..=MAX_GIVE_UP_AFTER,
    )?;
    Ok(Sync {
        url: parsed,
        access_key: keys.secret_id,
        secret_key: keys.secret_key,
        token: keys.token,
        encode_keys: raw.encode_keys.as_ref().is_none_or(|encode| encode.value),
        give_up_after,
        record: record(source, raw, mapping)?,
    })
}

fn record(source: &Source<'_>, raw: &RawSync, mapping: &BucketPlace) -> Result<Option<BucketPlace>> {
    let Some(url) = &raw.record else {
        let texts = [&raw.record_region, &raw.record_endpoint, &raw.record_addressing, &raw.record_credentials_file];
        let secrets = [&raw.record_secret_id, &raw.record_secret_key, &raw.record_token];
        let stray = texts.into_iter().flatten().map(|at| &at.place);
        let stray = stray.chain(secrets.into_iter().flatten().map(|at| &at.place)).next();
        return match stray {
            None => Ok(None),
            Some(place) => Err(source.refuse(
                place,
                "a setting of the log bucket stands without `record`",
                "add record = \"cos://<log bucket>-<appid>/\", or remove the line",
            )),
        };
    };
    let address = parse_bucket_url(&url.value).map_err(|refusal| told(source, &url.place, refusal))?;
    let region = match &raw.record_region {
        Some(region) => Some(check_region(source, region)?),
        None => None,
    };
    // The mapping's endpoint speaks for the mapping's region only.
    let inherited = if region.is_none() { mapping.endpoint.clone() } else { None };
    let written = Written {
        names: ["record_secret_id", "record_secret_key", "record_token"],
        id: raw.record_secret_id.as_ref(),
        key: raw.record_secret_key.as_ref(),
        token: raw.record_token.as_ref(),
        file: raw.record_credentials_file.as_ref(),
        bucket: Some(&address.bucket),
        environment: None,
    };
    let credentials: Credentials = secrets::resolve(source, &written)?.unwrap_or_else(|| mapping.credentials.clone());
    Ok(Some(BucketPlace {
        provider: address.provider,
        bucket: address.bucket,
        prefix: address.prefix,
        region: region.unwrap_or_else(|| mapping.region.clone()),
        endpoint: endpoint(source, raw.record_endpoint.as_ref())?.or(inherited),
        addressing: addressing(source, raw.record_addressing.as_ref())?.unwrap_or(mapping.addressing),
        credentials,
    }))
}

fn cache(source: &Source<'_>, raw: &RawCache, name: &str) -> Result<Cache> {
    let dir = directory(source, raw.dir.as_ref(), "/var/cache/ferryfs", name)?;
    let size = size(source, raw.size.as_ref(), "size", DEFAULT_CACHE_BYTES, MIN_CACHE_BYTES..=u64::MAX >> 1)?;
    Ok(Cache { dir, size })
}

fn state(source: &Source<'_>, raw: &RawState, name: &str) -> Result<State> {
    Ok(State { dir: directory(source, raw.dir.as_ref(), "/var/lib/ferryfs", name)? })
}

fn write_back(source: &Source<'_>, raw: &RawWriteBack) -> Result<WriteBack> {
    let parts = MIN_PART_BYTES..=MAX_PART_BYTES;
    let part_size = size(source, raw.part_size.as_ref(), "part_size", DEFAULT_PART_BYTES, parts.clone())?;
    let delay = time(source, raw.delay.as_ref(), "delay", DEFAULT_DELAY, Duration::ZERO..=MAX_TIME)?;
    let upload_open = match &raw.upload_open {
        Some(every) if every.value == "off" => None,
        Some(every) => {
            Some(time(source, Some(every), "upload_open", MIN_UPLOAD_OPEN, MIN_UPLOAD_OPEN..=MAX_UPLOAD_OPEN)?)
        }
        None => None,
    };
    Ok(WriteBack {
        delay,
        max_delay: time(
            source,
            raw.max_delay.as_ref(),
            "max_delay",
            DEFAULT_MAX_DELAY.max(delay),
            delay..=MAX_TIME.max(delay),
        )?,
        close: choice(
            source,
            raw.close.as_ref(),
            &[("process", CloseMode::Process), ("disk", CloseMode::Disk), ("remote", CloseMode::Remote)],
        )?
        .unwrap_or(CloseMode::Process),
        fsync: choice(source, raw.fsync.as_ref(), &[("disk", FsyncMode::Disk), ("remote", FsyncMode::Remote)])?
            .unwrap_or(FsyncMode::Disk),
        upload_open,
        part_size,
        parallel: number(source, raw.parallel.as_ref(), "parallel", DEFAULT_PARALLEL, 1, MAX_PARALLEL)?,
        // A file of one part and a multipart of one part are the same bytes; below the smallest part only
        // the last part may be.
        threshold: size(source, raw.threshold.as_ref(), "threshold", part_size.0, parts)?,
    })
}

fn mount(source: &Source<'_>, raw: &RawMount) -> Result<MountOptions> {
    let id_max = i64::from(u32::MAX - 1);
    let uid = i64::from(rustix::process::geteuid().as_raw());
    let gid = i64::from(rustix::process::getegid().as_raw());
    let umask = mode(source, raw.umask.as_ref(), "umask")?.unwrap_or(DEFAULT_UMASK);
    let flag = |at: &Option<At<bool>>, default: bool| at.as_ref().map_or(default, |at| at.value);
    Ok(MountOptions {
        dir: raw.dir.as_ref().map(|dir| path_value(source, dir)).transpose()?,
        uid: number(source, raw.uid.as_ref(), "uid", uid, 0, id_max)?,
        gid: number(source, raw.gid.as_ref(), "gid", gid, 0, id_max)?,
        file_mode: mode(source, raw.file_mode.as_ref(), "file_mode")?.unwrap_or(0o666 & !umask),
        dir_mode: mode(source, raw.dir_mode.as_ref(), "dir_mode")?.unwrap_or(0o777 & !umask),
        allow_other: flag(&raw.allow_other, false),
        read_only: flag(&raw.ro, false),
        attr_ttl: time(source, raw.attr_ttl.as_ref(), "attr_ttl", DEFAULT_ATTR_TTL, Duration::ZERO..=MAX_TIME)?,
        killed_writer: choice(
            source,
            raw.killed_writer.as_ref(),
            &[("hold", KilledWriter::Hold), ("upload", KilledWriter::Upload)],
        )?
        .unwrap_or(KilledWriter::Hold),
        passthrough: choice(
            source,
            raw.passthrough.as_ref(),
            &[("auto", Passthrough::Auto), ("off", Passthrough::Off)],
        )?
        .unwrap_or(Passthrough::Auto),
        no_suid: !flag(&raw.suid, false),
        no_dev: !flag(&raw.dev, false),
        no_exec: !flag(&raw.exec, true),
    })
}
