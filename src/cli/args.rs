//! Subcommands and flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config::parse_duration;
use crate::types::ByteSize;

/// Mounts bucket prefixes as directories: local speed, verified uploads, announced to OMS.
#[derive(Debug, Parser)]
#[command(name = "ferryfs", version, propagate_version = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mount a bucket; returns when the mount answers
    Mount(MountArgs),
    /// Upload what is left, then unmount
    Umount(UmountArgs),
    /// Show queues, uploads, failures and cache of a mount
    Status(StatusArgs),
    /// Say what is wrong with a mount and what to do; list keys that have no path of their own
    Doctor(StatusArgs),
    /// Wait until a file, or everything, is uploaded, announced and recorded
    Wait(WaitArgs),
    /// Ask the bucket at once for what others may have changed
    Refresh(RefreshArgs),
    /// Let cached content go, or read it again and compare it with the bucket's
    Cache {
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// Look at announcements, or send failed ones again
    Outbox {
        #[command(subcommand)]
        command: OutboxCommand,
    },
    /// Look at files that are held back, decide what becomes of them, rebuild a lost journal
    Recover(RecoverArgs),
    /// Run a COS and OMS emulator on loopback
    Emulator(EmulatorArgs),
    /// Show all of it against the emulator
    Demo(DemoArgs),
    /// Look at a configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct MountArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Options as name[=value],... (mount(8) conventions; they override the file)
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub(super) options: Vec<String>,
    /// Stay in the foreground
    #[arg(short, long)]
    pub(super) foreground: bool,
    /// Log more
    #[arg(short, long)]
    pub(super) debug: bool,
    /// For the process in the background: tell its parent on stdout how the mount went
    #[arg(long, hide = true)]
    pub(super) report: bool,
    /// Ignore unknown options
    #[arg(long, hide = true)]
    pub(super) sloppy: bool,
    /// What mount(8) shows as mounted, instead of the bucket
    #[arg(long, hide = true, value_name = "SPEC")]
    pub(super) source: Option<String>,
    /// DIR, or SPEC and DIR, where SPEC (without --config) is a bucket URL, a configuration file, or the name of one in
    /// /etc/ferryfs. DIR may be left out if the configuration says `[mount] dir`
    #[arg(value_name = "SPEC|DIR", num_args = 0..=2)]
    pub(super) positional: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct UmountArgs {
    /// Mount directory
    pub(super) dir: PathBuf,
    /// How long uploads may take; what is left goes on at the next mount
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Mount directory
    pub(super) dir: PathBuf,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RefreshArgs {
    /// Mount directory
    pub(super) dir: PathBuf,
    /// File or directory, with all below it that was looked at before: absolute, or relative to DIR; without,
    /// everything
    pub(super) path: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Let all content go that the bucket has and no program uses: it is fetched again when it is read
    Prune(CacheArgs),
    /// Read all content that the bucket has from the disk, and let go what does not have the bucket's CRC64 any more.
    /// Exit code 1 if there was such
    Verify(CacheArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct CacheArgs {
    /// Mount directory
    pub(super) dir: PathBuf,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Mount directory
    pub(super) dir: PathBuf,
    /// File or directory: absolute, or relative to DIR
    pub(super) path: Option<PathBuf>,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
    /// For programs: what is left
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum OutboxCommand {
    /// List announcements that are owed or failed
    List(OutboxListArgs),
    /// Send failed announcements again
    Retry(OutboxRetryArgs),
    /// Compare the bucket with the success records in the log bucket, and announce what has none or an older one
    Reconcile(OutboxReconcileArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct OutboxListArgs {
    /// Mount directory
    pub(super) dir: PathBuf,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
    /// At most this many
    #[arg(long, default_value_t = 1000)]
    pub(super) limit: usize,
}

#[derive(Debug, clap::Args)]
pub(super) struct OutboxReconcileArgs {
    /// Mount directory
    pub(super) dir: PathBuf,
    /// Directory: absolute, or relative to DIR; without, all of the mount
    pub(super) path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct OutboxRetryArgs {
    /// Mount directory
    pub(super) dir: PathBuf,
}

/// Look at files that are held back, decide what becomes of them, rebuild a lost journal.
///
/// A file is held when nobody can say that it is whole: it was open when the daemon or the machine went
/// down, its writer was killed, the disk was full. The bucket keeps the last good version meanwhile. A
/// program that writes the file anew, or removes it, settles it; these commands settle it otherwise.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = RECOVER_HELP)]
pub(super) struct RecoverArgs {
    #[command(subcommand)]
    pub(super) command: Option<RecoverCommand>,
    /// Rebuild a lost or damaged journal from the files in the state and cache directories
    #[arg(long, requires = "config")]
    pub(super) scan: bool,
    /// Configuration file of the mount, which must not be mounted
    #[arg(long, value_name = "FILE", requires = "scan")]
    pub(super) config: Option<PathBuf>,
    /// Tell what --scan would do, and change nothing
    #[arg(long, requires = "scan")]
    pub(super) dry_run: bool,
    /// Scan although the journal is good, and put it aside
    #[arg(long, requires = "scan")]
    pub(super) force: bool,
}

const RECOVER_HELP: &str = "Examples:
  ferryfs recover list /mnt/demo
  ferryfs recover accept /mnt/demo report.csv        upload it as it is
  ferryfs recover discard /mnt/demo report.csv       back to the bucket's version
  ferryfs recover save /mnt/demo report.csv --to /tmp/report.csv
  ferryfs recover --scan --config demo.toml --dry-run

Exit codes: 0 done, 1 something could not be done or is left, 2 the command line or configuration is wrong.";

#[derive(Debug, Subcommand)]
pub(super) enum RecoverCommand {
    /// List what is held, why, and what the bucket has instead
    List(RecoverListArgs),
    /// Upload held content as it is
    Accept(RecoverSettleArgs),
    /// Let held content go: the bucket's version comes back, or the name goes if there is none
    Discard(RecoverDiscardArgs),
    /// Copy held content to another place; it stays held
    Save(RecoverSaveArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct RecoverListArgs {
    /// Mount directory
    #[arg(required_unless_present = "config")]
    pub(super) dir: Option<PathBuf>,
    /// Configuration file of a mount that is not mounted now
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    pub(super) config: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RecoverSettleArgs {
    /// Mount directory
    pub(super) dir: PathBuf,
    #[command(flatten)]
    pub(super) which: RecoverWhich,
}

#[derive(Debug, clap::Args)]
pub(super) struct RecoverDiscardArgs {
    /// Mount directory
    pub(super) dir: PathBuf,
    #[command(flatten)]
    pub(super) which: RecoverWhich,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RecoverSaveArgs {
    /// Mount directory; left out with --config
    pub(super) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) which: RecoverWhich,
    /// Configuration file of a mount that is not mounted now
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// File to make, or directory to make it in
    #[arg(long, value_name = "FILE|DIR")]
    pub(super) to: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub(super) force: bool,
}

/// Which held files are meant.
#[derive(Debug, clap::Args)]
pub(super) struct RecoverWhich {
    /// Held files: absolute, or relative to DIR
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// A held file by its number in the list, where several have one path; may be repeated
    #[arg(long, value_name = "NUMBER")]
    pub(super) id: Vec<u64>,
    /// All that is held
    #[arg(long, conflicts_with_all = ["paths", "id"])]
    pub(super) all: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct EmulatorArgs {
    /// Address to listen on; port 0 lets the kernel choose
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(super) listen: SocketAddr,
    /// Where objects are kept
    #[arg(long)]
    pub(super) root: PathBuf,
    /// A bucket, with its appid; may be repeated
    #[arg(long, value_name = "NAME", required = true)]
    pub(super) bucket: Vec<String>,
    /// A key pair that may sign store requests; may be repeated
    #[arg(long, value_name = "ID:KEY", required = true, value_parser = parse_pair)]
    pub(super) credentials: Vec<Pair>,
    /// The key pair that may sign OMS requests
    #[arg(long, value_name = "AK:SK", value_parser = parse_pair)]
    pub(super) oms_credentials: Option<Pair>,
    /// Delay of every request
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_duration)]
    pub(super) latency: Duration,
    /// Bytes per second in each direction
    #[arg(long, value_name = "SIZE")]
    pub(super) bandwidth: Option<ByteSize>,
}

/// A key pair on the command line (of an emulator: it guards nothing).
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) id: String,
    pub(super) key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:...", self.id)
    }
}

fn parse_pair(text: &str) -> Result<Pair, String> {
    match text.split_once(':') {
        Some((id, key)) if !id.is_empty() && !key.is_empty() => Ok(Pair { id: id.to_owned(), key: key.to_owned() }),
        _ => Err("write it as ID:KEY".to_owned()),
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Leave it mounted, and tell how to look at it and how to stop it
    #[arg(long)]
    pub(super) keep: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration file
    Check {
        /// The file
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_issues_lines_parse() {
        for line in [
            "ferryfs mount --config demo.toml /mnt/demo",
            "ferryfs mount cos://a-1/x /mnt/demo -o region=ap-guangzhou,ro -f",
            "ferryfs mount --config demo.toml --foreground",
            "ferryfs umount /mnt/demo --timeout 60s",
            "ferryfs status /mnt/demo --json",
            "ferryfs wait /mnt/demo a/b --timeout 10m",
            "ferryfs outbox list /mnt/demo",
            "ferryfs outbox retry /mnt/demo",
            "ferryfs emulator --listen 127.0.0.1:0 --root d --bucket a-1 --bucket b-1 --credentials i:k \
             --oms-credentials a:s --latency 20ms --bandwidth 100MiB",
            "ferryfs demo --keep",
            "ferryfs recover list /mnt/demo --json",
            "ferryfs recover list --config demo.toml",
            "ferryfs recover accept /mnt/demo a b/c",
            "ferryfs recover accept /mnt/demo --all",
            "ferryfs recover discard /mnt/demo a --yes",
            "ferryfs recover discard /mnt/demo --id 7",
            "ferryfs recover save /mnt/demo a --to /tmp",
            "ferryfs recover save --config demo.toml --all --to /tmp",
            "ferryfs recover --scan --config demo.toml --dry-run",
            "ferryfs config check demo.toml",
        ] {
            let words = line.split_whitespace();
            assert!(Args::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "ferryfs",
            "ferryfs wait /m --timeout soon",
            "ferryfs emulator --root d",
            "ferryfs mount a b c",
            "ferryfs recover --scan",
            "ferryfs recover --config demo.toml",
            "ferryfs recover list",
            "ferryfs recover list /m --config demo.toml",
            "ferryfs recover accept /m a --all",
            "ferryfs recover save /m a",
        ] {
            let error = Args::try_parse_from(line.split_whitespace()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
