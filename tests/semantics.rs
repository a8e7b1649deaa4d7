//! src/vfs/SEMANTICS.md names the tests that prove its promises: they exist.

use std::fs;
use std::path::Path;

#[test]
fn every_promise_is_there_and_every_test_that_it_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("src/vfs/SEMANTICS.md")).unwrap();
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    let names: Vec<&str> = sections.iter().filter_map(|section| Some(section.split_once(':')?.0)).collect();
    assert_eq!(names, ["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "N1", "N2", "N3"]);
    for section in sections {
        // What stands between backquotes is every other piece.
        let quoted = section.split('`').skip(1).step_by(2);
        let tests: Vec<(&str, &str)> = quoted.filter_map(|quote| quote.split_once(".rs: ")).collect();
        assert!(!tests.is_empty(), "no test proves {section}");
        for (file, test) in tests {
            let code = fs::read_to_string(root.join(format!("{file}.rs"))).unwrap();
            let found = code.match_indices(&format!("fn {test}(")).next();
            let (at, _) = found.unwrap_or_else(|| panic!("{file}.rs has no {test}"));
            let before = code[..at].trim_end_matches("async ").trim_end();
            assert!(before.ends_with(']') && before[before.len().saturating_sub(80)..].contains("test"), "{test}");
        }
    }
}
