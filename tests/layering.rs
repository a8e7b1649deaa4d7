//! Rooms import only from rows below their own (src/lib.rs, DESIGN section 2).
//!
//! Scans the text of src/: what a room may name of the crate is a matter of rows, not of visibility,
//! so the compiler does not see to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rows from the bottom. `types` is the vocabulary of all: it imports nothing, hence stands below
/// the row that src/lib.rs draws it in.
const ROWS: &[&[&str]] = &[
    &["types"],
    &["clock", "disk", "checksum", "http", "task", "failpoint"],
    &["journal", "store", "oms"],
    &["namespace", "cache", "outbox"],
    &["upload", "download"],
    &["vfs"],
    &["fuse"],
    &["main", "cli", "config", "daemon", "control", "emulator"],
];

/// The top row composes: its rooms may import each other.
const TOP: usize = ROWS.len() - 1;

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

/// Whether `room` may import `other`.
fn may_import(room: &str, other: &str) -> bool {
    match (row(room), row(other)) {
        (Some(own), Some(below)) => room == other || below < own || (own == TOP && below == TOP),
        _ => false,
    }
}

/// The code of a file: comments, and the contents of string literals, are blanked out.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = raw_string(rest) {
            raw
        } else if first == '"' {
            string(rest)
        } else if let Some(length) = char_literal(rest) {
            length
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

/// Length of the string literal that `text` begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the raw string literal that `text` begins with, if it does.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = 1 + hashes + 1;
    Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()))
}

/// Length of the character literal that `text` begins with: a quote in one opens no string.
fn char_literal(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let mut chars = inner.char_indices();
    let end = match chars.next()?.1 {
        '\\' => inner[2..].find('\'')? + 2,
        _ => chars.next()?.0,
    };
    inner[end..].starts_with('\'').then_some(end + 2)
}

/// What follows each `path::` that begins a path in `code`.
fn after<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(path).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        let begins = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        begins.then(|| code[at + path.len()..].trim_start())
    })
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// What is wrong with one file of `room`, whose folders below src/ number `depth`.
fn faults(room: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let mut faults = Vec::new();
    // `ferryfs::` is the library as the binary sees it.
    for crate_path in ["crate::", "ferryfs::"] {
        for rest in after(&code, crate_path) {
            match identifier(rest) {
                "" => faults.push(format!("imports a group or everything: `{crate_path}{}`", first_line(rest))),
                other if may_import(room, other) => {}
                other if row(other).is_none() => faults.push(format!("names `{other}`, which has no row")),
                other => faults.push(format!("must not import `{other}`: not in a row below")),
            }
        }
    }
    if after(&code, "use crate as").next().is_some() || after(&code, "use crate;").next().is_some() {
        faults.push("renames the crate".to_owned());
    }
    for statement in code.split(';').filter_map(|statement| statement.split("use ").last()) {
        let path: String = statement.split_whitespace().collect();
        if path.starts_with("crate::") && path.ends_with("::*") {
            faults.push(format!("imports all of a room: `{path}`"));
        }
    }
    faults
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// All Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The room of a file: its first folder below src/, or its own name.
fn room(relative: &Path) -> String {
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn rooms_import_only_from_rows_below() {
    let src = src();
    let mut all = Vec::new();
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        if relative == Path::new("lib.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let faults = faults(&room(relative), &text);
        all.extend(faults.into_iter().map(|fault| format!("src/{}: {fault}", relative.display())));
    }
    assert!(all.is_empty(), "\n{}\n", all.join("\n"));
}

#[test]
fn every_room_has_a_row_and_every_row_its_rooms() {
    let rooms: BTreeSet<String> = sources(&src())
        .iter()
        .map(|path| room(path.strip_prefix(src()).unwrap()))
        .filter(|room| room != "lib")
        .collect();
    let rows: BTreeSet<String> = ROWS.iter().flat_map(|rooms| rooms.iter().map(|room| (*room).to_owned())).collect();
    assert_eq!(rooms, rows);
}

/// Where unsafe code may be: system calls in `disk`, and the one call by which fuser takes the number
/// of a backing file.
const UNSAFE: &[&str] = &["disk", "fuse/opened.rs"];

#[test]
fn unsafe_code_is_where_it_may_be() {
    let src = src();
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let code = code(&fs::read_to_string(&path).unwrap());
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let allowed = UNSAFE.iter().any(|place| relative.starts_with(place));
        assert!(allowed || words.all(|word| word != "unsafe"), "src/{} has unsafe code", relative.display());
    }
}

#[test]
fn wrong_imports_are_found() {
    let wrong = [
        ("cache", "use crate::vfs::Vfs;"),
        ("cache", "use crate::outbox::Outbox;"),
        ("journal", "fn f() { crate::store::g() }"),
        ("types", "use crate::clock::Clock;"),
        ("disk", "use crate::task::Guardian;"),
        ("vfs", "use crate::{cache::Cache, journal::Journal};"),
        ("vfs", "use crate::*;"),
        ("vfs", "use crate::cache::*;"),
        ("vfs", "use crate as everything;"),
        ("vfs", "use crate::nowhere::Thing;"),
        ("fuse", "use\n    crate::daemon\n::Daemon;"),
        ("store", "type T<'a> = &'a str; const C: char = '\"'; use crate::vfs::Vfs; const D: char = '\"';"),
        ("store", "const S: &str = r#\"quote \" inside\"#; use crate::vfs::Vfs;"),
    ];
    for (room, text) in wrong {
        assert!(!faults(room, text).is_empty(), "{room}: {text}");
    }
    let right = [
        ("cache", "use crate::journal::Journal; use crate::types::Ino; use crate::cache::Space;"),
        ("vfs", "// use crate::fuse::Session;\nuse crate::upload::Uploader;"),
        ("vfs", "/* crate::fuse */ const S: &str = \"crate::fuse::x \\\" crate::fuse::y\";"),
        ("daemon", "use crate::config::Config; use crate::fuse::Session;"),
        ("vfs", "use super::*; pub(crate) struct S; use other_crate::fuse::X;"),
    ];
    for (room, text) in right {
        assert_eq!(faults(room, text), Vec::<String>::new(), "{room}: {text}");
    }
}
