//! `ferryfs outbox`

use std::time::Duration;

use super::Failure;
use super::args::{OutboxListArgs, OutboxReconcileArgs, OutboxRetryArgs};
use super::output::{columns, count, print, print_json, shown, span};
use super::wait::within;
use crate::control::{Client, OutboxEntry, OutboxState};

pub(super) fn list(args: &OutboxListArgs) -> Result<(), Failure> {
    let entries = Client::find(&args.dir)?.outbox_list(args.limit)?;
    if args.json {
        return print_json(&entries);
    }
    if entries.is_empty() {
        return print("nothing owed, nothing failed\n");
    }
    print(&table(&entries))
}

fn table(entries: &[OutboxEntry]) -> String {
    let mut rows: Vec<Vec<String>> = vec![["STATE", "AGE", "TRIES", "KEY", "LAST REFUSAL"].map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        let state = match entry.state {
            OutboxState::Owed => "owed",
            OutboxState::Sending => "sending",
            OutboxState::Recording => "recording",
            OutboxState::Failed => "failed",
        };
        vec![
            state.to_owned(),
            span(Duration::from_secs(entry.age_s)),
            entry.attempts.to_string(),
            shown(&entry.key),
            shown(entry.error.as_deref().unwrap_or_default()),
        ]
    }));
    columns(&rows)
}

pub(super) fn retry(args: &OutboxRetryArgs) -> Result<(), Failure> {
    let number = Client::find(&args.dir)?.outbox_retry()?;
    print(&format!("{} sent again\n", count(number, "announcement is", "announcements are")))
}

pub(super) fn reconcile(args: &OutboxReconcileArgs) -> Result<(), Failure> {
    let client = Client::find(&args.dir)?;
    let path = args.path.as_deref().map(|path| within(&client.address().mount, &args.dir, path)).transpose()?;
    let found = client.outbox_reconcile(path.as_deref())?;
    if args.json {
        return print_json(&found);
    }
    let (objects, owed) = (count(found.objects, "object", "objects"), count(found.owed, "is", "are"));
    print(&format!("{objects} compared with their records: {owed} announced now, {} on their way\n", found.pending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_a_table() {
        let entry = OutboxEntry {
            key: "data/a".into(),
            state: OutboxState::Failed,
            attempts: 2,
            age_s: 65,
            error: Some("HTTP 400".into()),
            ..Default::default()
        };
        assert_eq!(table(&[entry]), "STATE   AGE  TRIES  KEY     LAST REFUSAL\nfailed  1m   2      data/a  HTTP 400\n");
    }
}
