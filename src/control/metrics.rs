//! [`Status`] as Prometheus text.

use std::fmt::Write;

use super::status::Status;

/// The text exposition format: one line of type, one line per value.
pub(super) fn render(status: &Status) -> String {
    let counters = &status.counters;
    let gauges = [
        ("uploads_files", status.uploads_files),
        ("uploads_bytes", status.uploads_bytes),
        ("uploads_in_flight", status.in_flight.len() as u64),
        ("removals_owed", status.removals_owed),
        ("copies_owed", status.copies_owed),
        ("announcements_owed", status.announcements_owed),
        ("announcements_failed", status.announcements_failed),
        ("records_owed", status.records_owed),
        ("torn_files", status.torn.len() as u64),
        ("held_files", status.held.len() as u64),
        ("failed_files", status.failed.len() as u64),
        ("cache_used_bytes", status.cache.used_bytes),
        ("cache_limit_bytes", status.cache.limit_bytes),
        ("cache_files", status.cache.files),
        ("cache_pinned_bytes", status.cache.pinned_bytes),
        ("cache_tight", u64::from(status.cache.tight)),
        ("cache_waiting", status.cache.waiting),
        ("disk_available_bytes", status.cache.disk_available_bytes),
        ("disk_full", u64::from(status.cache.disk_full)),
        ("passthrough", u64::from(status.passthrough.enabled)),
        ("journal_failed", u64::from(status.journal_failure.is_some())),
        ("uptime_seconds", status.uptime_s),
    ];
    let totals = [
        ("puts", counters.puts),
        ("multiparts", counters.multiparts),
        ("parts", counters.parts),
        ("uploaded_bytes", counters.uploaded_bytes),
        ("copies", counters.copies),
        ("removals", counters.removals),
        ("retries", counters.retries),
        ("downloaded_bytes", counters.downloaded_bytes),
        ("announced", counters.announced),
        ("gone", counters.gone),
        ("records", counters.records),
        ("conflicts", counters.conflicts),
        ("marks_taken_back", counters.marks_taken_back),
        ("corrupt", counters.corrupt),
        ("cache_refused", status.cache.refused),
    ];
    let mut text = String::new();
    for (name, value) in gauges {
        line(&mut text, &format!("ferryfs_{name}"), "gauge", "", value);
    }
    for (name, value) in totals {
        line(&mut text, &format!("ferryfs_{name}_total"), "counter", "", value);
    }
    for (index, (operation, count)) in status.requests.iter().enumerate() {
        let kind = if index == 0 { "counter" } else { "" };
        line(&mut text, "ferryfs_requests_total", kind, &format!("{{operation=\"{operation}\"}}"), *count);
    }
    for (index, mapping) in status.mappings.iter().enumerate() {
        let labels = format!("{{path=\"{}\",url=\"{}\"}}", escape(&mapping.path), escape(&mapping.url));
        let kind = if index == 0 { "gauge" } else { "" };
        line(&mut text, "ferryfs_mapping_online", kind, &labels, u64::from(mapping.online));
    }
    text
}

fn line(text: &mut String, name: &str, kind: &str, labels: &str, value: u64) {
    if !kind.is_empty() {
        writeln!(text, "# TYPE {name} {kind}").expect("invariant: writing to a string does not fail");
    }
    writeln!(text, "{name}{labels} {value}").expect("invariant: writing to a string does not fail");
}

/// Label values escape backslash, quote and newline.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
