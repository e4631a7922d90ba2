//! What the documents say of configuration and tests is so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lockstep_engine::Config;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands between single backticks in a line, in order.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn every_key_of_the_configuration_is_documented_with_its_default() {
    let page = read("docs/OPERATIONS.md");
    let section = page
        .split("\n## ")
        .find(|part| part.starts_with("Configuration"));
    let rows = section
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("| `"));
    let documented: BTreeMap<&str, &str> = rows
        .map(|row| {
            let mut cells = row.trim_matches('|').split(" | ").map(str::trim);
            let mut cell = || cells.next().unwrap().trim_matches('`');
            (cell(), cell())
        })
        .collect();
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    for (key, default) in &defaults {
        let said = documented.get(key.as_str()).copied();
        assert_eq!(said, Some(default.to_string().as_str()), "{key}");
    }
    for (key, default) in documented {
        // What has no default is none of a table; the key is one all the same.
        assert!(defaults.contains_key(key) || default == "none", "{key}");
        let is_known = format!("{key} = 0").parse::<Config>();
        let is_unknown = is_known.is_err_and(|error| error.to_string().contains("unknown field"));
        assert!(!is_unknown, "{key} is no key");
    }
}

#[test]
fn what_the_guarantees_name_is_there() {
    let page = read("docs/GUARANTEES.md");
    let mut named = 0;
    for line in page.lines() {
        let mut file: Option<(&str, String)> = None;
        for word in quoted(line) {
            if word.ends_with(".rs") {
                file = Some((word, read(word)));
            } else if let Some((path, source)) = &file {
                let is_there = source.contains(&format!("fn {word}("));
                assert!(is_there, "{path} has no test {word}");
                named += 1;
            }
        }
    }
    assert!(named > 20, "only {named} tests are named");
}

#[test]
fn the_glossary_leads_to_files_that_are_there() {
    let page = read("docs/GLOSSARY.md");
    let paths = page.lines().filter(|line| line.starts_with("| **"));
    let paths = paths.flat_map(quoted).filter(|word| word.contains("/src"));
    for path in paths {
        assert!(repository().join(path).exists(), "{path} is not there");
    }
}
