//! The table of `acceptance` is complete, and what it names exists.

use std::collections::BTreeSet;
use std::path::Path;

#[cfg(not(miri))]
#[test]
fn the_table_names_every_number_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("src/acceptance.rs")).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("//! |"))
        .collect();

    let first_cell = |row: &&str| row.split('|').nth(1).unwrap().trim().replace(" (e)", "");
    let numbers: Vec<String> = rows.iter().map(first_cell).collect();
    let has = |number: &str| numbers.iter().any(|n| n == number);
    for number in 1..=82 {
        assert!(has(&number.to_string()), "{number} is missing");
    }
    for defect in [
        "U1", "U2", "L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8", "L9",
    ] {
        assert!(has(defect), "{defect} is missing");
    }

    let mut named = BTreeSet::new();
    for token in rows
        .iter()
        .flat_map(|row| row.split('`').skip(1).step_by(2))
    {
        let Some((file, test)) = token.split_once("::") else {
            continue;
        };
        let places = [
            format!("tests/it/{file}.rs"),
            format!("tests/{file}.rs"),
            format!("src/{file}.rs"),
        ];
        let holds = |place: &String| {
            let text = std::fs::read_to_string(root.join(place)).unwrap_or_default();
            text.contains(&format!("fn {test}("))
        };
        assert!(places.iter().any(holds), "{token} does not exist");
        named.insert(test.to_owned());
    }

    // And the other way round: every numbered test is in the table.
    for file in std::fs::read_dir(root.join("tests/it")).unwrap().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap();
        for line in text.lines() {
            let name = line
                .trim_start()
                .strip_prefix("fn ")
                .and_then(|rest| rest.split('(').next());
            let Some(name) = name else { continue };
            let numbered = matches!(name.as_bytes(), [b'a' | b'l' | b'u', b'0'..=b'9', ..]);
            assert!(
                !numbered || named.contains(name),
                "{name} is not in the table"
            );
        }
    }
}
