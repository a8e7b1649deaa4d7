//! Single values: required, chosen from a list, within a range, in their place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{Refusal, parse_endpoint};
use super::error::{Error, Result};
use super::place::{At, Place, Source};
use super::units::parse_duration;
use crate::store::Addressing;
use crate::types::ByteSize;

/// Longest name of a file (NAME_MAX).
const MAX_NAME_BYTES: usize = 255;

/// An address's refusal, in its place.
pub(super) fn told(source: &Source<'_>, place: &Place, refusal: Refusal) -> Error {
    source.refuse(place, refusal.message, refusal.remedy)
}

pub(super) fn required<'a, T>(
    source: &Source<'_>,
    value: Option<&'a At<T>>,
    table: &Place,
    name: &str,
    remedy: &str,
) -> Result<&'a At<T>> {
    value.ok_or_else(|| source.refuse(table, format!("`{name}` is missing"), remedy))
}

/// `/`, or `/` and one name.
pub(super) fn check_path(source: &Source<'_>, path: &At<String>) -> Result<()> {
    let name = path.value.strip_prefix('/');
    let good = name.is_some_and(|name| {
        !name.contains('/')
            && !matches!(name, "." | "..")
            && name.len() <= MAX_NAME_BYTES
            && !name.chars().any(char::is_control)
    });
    if good {
        return Ok(());
    }
    Err(source.refuse(
        &path.place,
        format!("`{}` is not a directory of the mount", path.value),
        "write \"/\", or \"/\" and one name, as \"/photos\"",
    ))
}

pub(super) fn region(source: &Source<'_>, region: Option<&At<String>>, table: &Place) -> Result<String> {
    let region =
        required(source, region, table, "region", "add it as the provider spells it, as region = \"ap-guangzhou\"")?;
    check_region(source, region)
}

pub(super) fn check_region(source: &Source<'_>, region: &At<String>) -> Result<String> {
    // It becomes part of a host name.
    let good = !region.value.is_empty()
        && region.value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good {
        return Ok(region.value.clone());
    }
    Err(source.refuse(
        &region.place,
        format!("`{}` is not a region", region.value),
        "write it as the provider spells it, as ap-guangzhou",
    ))
}

pub(super) fn endpoint(source: &Source<'_>, endpoint: Option<&At<String>>) -> Result<Option<String>> {
    let parse = |at: &At<String>| {
        parse_endpoint(&at.value)
            .map(|endpoint| endpoint.to_string())
            .map_err(|refusal| told(source, &at.place, refusal))
    };
    endpoint.map(parse).transpose()
}

pub(super) fn addressing(source: &Source<'_>, value: Option<&At<String>>) -> Result<Option<Addressing>> {
    choice(source, value, &[("virtual", Addressing::Virtual), ("path", Addressing::Path)])
}

pub(super) fn choice<T: Copy>(
    source: &Source<'_>,
    value: Option<&At<String>>,
    choices: &[(&str, T)],
) -> Result<Option<T>> {
    let Some(at) = value else { return Ok(None) };
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == at.value) {
        return Ok(Some(*choice));
    }
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    Err(source.refuse(
        &at.place,
        format!("`{}` is none of the choices", at.value),
        format!("write one of {}", names.join(", ")),
    ))
}

pub(super) fn size(
    source: &Source<'_>,
    value: Option<&At<String>>,
    name: &str,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<ByteSize> {
    let Some(at) = value else { return Ok(ByteSize(default)) };
    let usage = || format!("write it as {name} = \"512MiB\" or \"20GiB\"");
    let size: ByteSize = at.value.parse().map_err(|message: String| source.refuse(&at.place, message, usage()))?;
    if range.contains(&size.0) {
        return Ok(size);
    }
    Err(source.refuse(
        &at.place,
        format!("{name} of {size} is out of range"),
        format!("choose between {} and {}", ByteSize(*range.start()), ByteSize(*range.end())),
    ))
}

pub(super) fn time(
    source: &Source<'_>,
    value: Option<&At<String>>,
    name: &str,
    default: Duration,
    range: std::ops::RangeInclusive<Duration>,
) -> Result<Duration> {
    let Some(at) = value else { return Ok(default) };
    let usage = || format!("write it as {name} = \"500ms\" or \"10s\"");
    let time = parse_duration(&at.value).map_err(|message| source.refuse(&at.place, message, usage()))?;
    if range.contains(&time) {
        return Ok(time);
    }
    Err(source.refuse(
        &at.place,
        format!("{name} of {time:?} is out of range"),
        format!("choose between {:?} and {:?}", range.start(), range.end()),
    ))
}

pub(super) fn number(
    source: &Source<'_>,
    value: Option<&At<i64>>,
    name: &str,
    default: i64,
    least: i64,
    most: i64,
) -> Result<u32> {
    let (number, place) = value.map_or((default, &Place::CommandLine), |at| (at.value, &at.place));
    u32::try_from(number).ok().filter(|_| (least..=most).contains(&number)).ok_or_else(|| {
        source.refuse(
            place,
            format!("{name} of {number} is out of range"),
            format!("choose between {least} and {most}"),
        )
    })
}

/// Permission bits in octal, as chmod(1) and umask(1) take them. Special bits are refused: they are rights
/// that an object must carry itself.
pub(super) fn mode(source: &Source<'_>, value: Option<&At<String>>, name: &str) -> Result<Option<u32>> {
    let Some(at) = value else { return Ok(None) };
    let digits = !at.value.is_empty() && at.value.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let parsed = u32::from_str_radix(&at.value, 8).ok().filter(|bits| digits && *bits <= 0o777);
    parsed.map(Some).ok_or_else(|| {
        source.refuse(
            &at.place,
            format!("{name} of `{}` is not a mode of permission bits", at.value),
            "write it in octal, between 0 and 0777, in a file in quotes: \"0640\"",
        )
    })
}

pub(super) fn directory(source: &Source<'_>, value: Option<&At<String>>, default: &str, name: &str) -> Result<PathBuf> {
    value.map_or_else(|| Ok(Path::new(default).join(name)), |at| path_value(source, at))
}

pub(super) fn path_value(source: &Source<'_>, at: &At<String>) -> Result<PathBuf> {
    let path = source.absolute(&at.value);
    let climbs = path.components().any(|part| matches!(part, std::path::Component::ParentDir));
    if at.value.is_empty() || at.value.contains('\0') || climbs {
        return Err(source.refuse(
            &at.place,
            format!("`{}` is not a plain directory path", at.value),
            "write an absolute path without `..`",
        ));
    }
    Ok(path)
}

pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
