//! The mount helper: what mount(8) and fstab call.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::args::MountArgs;
use super::{Failure, Serve, mount, remount};

/// The names under which mount(8) looks for the helper: of the type in fstab, and of the type that the
/// kernel shows of a mount, which is what a remount goes by.
const NAMES: [&str; 2] = ["mount.ferryfs", "mount.fuse.ferryfs"];

/// What mount(8) passes: `SPEC DIR [-sfnv] [-N namespace] [-o options] [-t type]`, in any order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    positional: Vec<PathBuf>,
    options: Vec<String>,
    sloppy: bool,
    fake: bool,
    verbose: bool,
}

const USAGE: &str = "usage: mount.ferryfs SPEC DIR [-sfnv] [-o options]";

/// Whether mount(8) calls: by one of the helper's names, or through libfuse's `mount.fuse`, which knows
/// no other than to run `ferryfs SPEC DIR -o options`.
pub(super) fn is_called(arguments: &[OsString]) -> bool {
    let [program, rest @ ..] = arguments else { return false };
    let name = Path::new(program).file_name();
    if NAMES.iter().any(|known| name.is_some_and(|name| name == *known)) {
        return true;
    }
    // Of the commands only `mount` has such an option: any other word is the name of a mount.
    matches!(rest, [spec, _, flag, _] if flag == "-o" && spec != "mount" && !spec.as_encoded_bytes().starts_with(b"-"))
}

/// Mounts in the background, as mount(8) expects, or changes a mount that is there.
pub(super) fn run(arguments: &[OsString], serve: Serve) -> Result<(), Failure> {
    let call = parse(arguments)?;
    if let Some(dir) = call.positional.last().filter(|_| remount::is_asked(&call.options)) {
        return if call.fake { Ok(()) } else { remount::run(dir, &call.options) };
    }
    // `mount -a` finds what is mounted already by the source and the directory that fstab names.
    let source = call.positional.first().map(|spec| spec.to_string_lossy().into_owned());
    let args = MountArgs {
        config: None,
        options: call.options,
        foreground: false,
        debug: call.verbose,
        report: false,
        sloppy: call.sloppy,
        source,
        positional: call.positional,
    };
    mount::run_as(args, call.fake, serve)
}

fn parse(arguments: &[OsString]) -> Result<Call, Failure> {
    let mut call = Call::default();
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        let Some(flags) = argument.to_str().and_then(|text| text.strip_prefix('-')).filter(|flags| !flags.is_empty())
        else {
            call.positional.push(PathBuf::from(argument));
            continue;
        };
        for (at, flag) in flags.char_indices() {
            match flag {
                's' => call.sloppy = true,
                'f' => call.fake = true,
                'v' => call.verbose = true,
                'n' => {}
                'o' | 'N' | 't' => {
                    // The value is the rest of the word, or the next word.
                    let after = flags.get(at + 1..).filter(|after| !after.is_empty()).map(str::to_owned);
                    let value = match after {
                        Some(value) => value,
                        None => match rest.next().map(|next| next.to_str()) {
                            Some(Some(value)) => value.to_owned(),
                            _ => return Err(Failure::refused(format!("-{flag} needs a value; {USAGE}"))),
                        },
                    };
                    if flag == 'o' {
                        call.options.push(value);
                    } else if flag == 'N' {
                        return Err(Failure::refused("-N: mounting into another namespace is not supported"));
                    }
                    break;
                }
                _ => return Err(Failure::refused(format!("-{flag}: no such flag; {USAGE}"))),
            }
        }
    }
    if call.positional.len() != 2 {
        return Err(Failure::refused(USAGE));
    }
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Call, Failure> {
        let words: Vec<OsString> = ["mount.ferryfs"].iter().chain(words).map(OsString::from).collect();
        parse(&words)
    }

    #[test]
    fn flags_come_in_any_order() {
        let wanted = Call {
            positional: vec!["demo".into(), "/mnt".into()],
            options: vec!["rw,_netdev".into()],
            sloppy: true,
            ..Default::default()
        };
        assert_eq!(parsed(&["demo", "/mnt", "-s", "-o", "rw,_netdev"]), Ok(wanted));
        let call = parsed(&["-fnv", "-orw", "demo", "-t", "fuse.ferryfs", "/mnt"]).unwrap();
        assert!(call.fake && call.verbose && !call.sloppy);
        assert_eq!(call.options, ["rw"]);
    }

    #[test]
    fn libfuse_calls_without_the_name_of_a_command() {
        let called = |words: &[&str]| is_called(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(called(&["/sbin/mount.ferryfs"]) && called(&["/sbin/mount.fuse.ferryfs", "demo", "/mnt"]));
        assert!(called(&["ferryfs", "demo", "/mnt", "-o", "rw,dev,suid"]));
        assert!(!called(&["ferryfs", "mount", "/mnt", "-o", "ro"]) && !called(&["ferryfs", "demo", "/mnt"]));
        assert!(!called(&["ferryfs", "--config", "demo", "-o"]) && !called(&["ferryfs"]) && !called(&[]));
    }

    #[test]
    fn bad_calls_are_usage_errors() {
        for words in [&["demo"][..], &["a", "b", "c"], &["a", "b", "-o"], &["a", "b", "-x"], &["a", "b", "-N", "1"]] {
            let failure = parsed(words).unwrap_err();
            assert_eq!((failure.code(), failure.helper_code()), (2, 1), "{words:?}");
        }
        assert_eq!(Failure::failed("x").helper_code(), 32);
    }
}
