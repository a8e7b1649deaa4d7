//! Keys of log records (PROTOCOL section 12). The one place that forms and reads them.

use sha2::{Digest, Sha256};

use crate::checksum::hex;
use crate::journal::RecordOutcome;

/// Where the records of one sync task stand in its log bucket.
#[derive(Clone, Debug)]
pub(super) struct RecordKeys {
    /// The log bucket's prefix and the task: `<prefix>oms_source_record/<task>/`.
    base: String,
    max_key_bytes: usize,
}

/// A record's object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordObject {
    pub(super) key: String,
    /// Empty, but for keys too long to be part of the record's own key.
    pub(super) body: Vec<u8>,
}

fn folder(outcome: RecordOutcome) -> &'static str {
    match outcome {
        RecordOutcome::Success => "success_object/",
        RecordOutcome::Failed => "failed_object/",
    }
}

impl RecordKeys {
    pub(super) fn new(prefix: &str, task: &str, max_key_bytes: usize) -> Self {
        RecordKeys { base: format!("{prefix}oms_source_record/{task}/"), max_key_bytes }
    }

    /// What all records of an outcome begin with.
    pub(super) fn folder(&self, outcome: RecordOutcome) -> String {
        format!("{}{}", self.base, folder(outcome))
    }

    /// Whether the record of this key carries the key in its own.
    pub(super) fn is_plain(&self, outcome: RecordOutcome, key: &str) -> bool {
        self.base.len() + folder(outcome).len() + key.len() <= self.max_key_bytes
    }

    /// The record of a key. Whether a key is too long is decided by `success_object/`, the longer
    /// folder, for both: so a record and its twin always have the same form.
    pub(super) fn object(&self, outcome: RecordOutcome, key: &str) -> RecordObject {
        let folder = self.folder(outcome);
        if self.is_plain(RecordOutcome::Success, key) {
            return RecordObject { key: format!("{folder}{key}"), body: Vec::new() };
        }
        let digest = hex(&Sha256::digest(key.as_bytes()));
        RecordObject { key: format!("{folder}long/{digest}"), body: key.as_bytes().to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stand_where_oms_users_look_for_them() {
        let keys = RecordKeys::new("logs/", "t1", 850);
        let record = keys.object(RecordOutcome::Success, "data/a b.txt");
        assert_eq!(record.key, "logs/oms_source_record/t1/success_object/data/a b.txt");
        assert!(record.body.is_empty());
        assert_eq!(keys.object(RecordOutcome::Failed, "data/a").key, "logs/oms_source_record/t1/failed_object/data/a");
    }

    #[test]
    fn a_key_too_long_for_a_record_becomes_its_body() {
        let keys = RecordKeys::new("", "t1", 850);
        let room = 850 - "oms_source_record/t1/success_object/".len();
        let fits = "k".repeat(room);
        assert_eq!(keys.object(RecordOutcome::Success, &fits).key.len(), 850);
        let long = "k".repeat(room + 1);
        for outcome in [RecordOutcome::Success, RecordOutcome::Failed] {
            let record = keys.object(outcome, &long);
            assert_eq!(record.key, format!("{}long/{}", keys.folder(outcome), hex(&Sha256::digest(long.as_bytes()))));
            assert_eq!(record.body, long.as_bytes());
        }
    }
}
