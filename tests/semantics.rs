//! src/vfs/SEMANTICS.md and packaging/RELIABILITY.md name the tests that prove what they say: they exist.

use std::fs;
use std::path::Path;

#[test]
fn every_promise_is_there_and_every_test_that_it_names_exists() {
    let text = fs::read_to_string(root().join("src/vfs/SEMANTICS.md")).unwrap();
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    let names: Vec<&str> = sections.iter().filter_map(|section| Some(section.split_once(':')?.0)).collect();
    assert_eq!(names, ["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "N1", "N2", "N3"]);
    for section in sections {
        assert_tests_exist(section);
    }
}

#[test]
fn every_fault_has_a_test_that_exists() {
    let text = fs::read_to_string(root().join("packaging/RELIABILITY.md")).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault")).collect();
    assert!(rows.len() >= 30, "{}", rows.len());
    for row in rows {
        assert_eq!(row.matches(" | ").count(), 3, "{row}");
        assert_tests_exist(row);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `text` names at least one test, and each that it names is there.
fn assert_tests_exist(text: &str) {
    // What stands between backquotes is every other piece.
    let quoted = text.split('`').skip(1).step_by(2);
    let tests: Vec<(&str, &str)> = quoted.filter_map(|quote| quote.split_once(".rs: ")).collect();
    assert!(!tests.is_empty(), "no test proves {text}");
    for (file, test) in tests {
        let code = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap();
        let found = code.match_indices(&format!("fn {test}(")).next();
        let (at, _) = found.unwrap_or_else(|| panic!("{file}.rs has no {test}"));
        let before = code[..at].trim_end_matches("async ").trim_end();
        assert!(before.ends_with(']') && before[before.len().saturating_sub(80)..].contains("test"), "{test}");
    }
}
