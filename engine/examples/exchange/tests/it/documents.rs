//! The tables in `docs/EXCHANGE.md` are true.

use lockstep_exchange::event::Kind;
use lockstep_exchange::output::OutputKind;
use lockstep_exchange::reject::RejectCode;

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/EXCHANGE.md");
    std::fs::read_to_string(path).expect("docs/EXCHANGE.md is part of the repository")
}

#[test]
fn every_reject_code_is_in_the_table_and_no_other() {
    let document = document();
    let row = |code: RejectCode| {
        format!(
            "| {} | `{}` | {} |",
            code as u16,
            code.name(),
            code.meaning()
        )
    };
    for &code in RejectCode::ALL {
        assert!(document.contains(&row(code)), "missing: {}", row(code));
    }
    let rows = section(&document, "## Reject codes")
        .lines()
        .filter(|line| is_row(line))
        .count();
    assert_eq!(rows, RejectCode::ALL.len());
}

#[test]
fn every_kind_is_in_the_tables() {
    let document = document();
    let events = section(&document, "## Events");
    for &kind in Kind::ALL {
        let row = format!("| {} | `{}` |", kind as u16, kind.name());
        assert!(events.contains(&row), "missing: {row}");
    }
    let outputs = section(&document, "## Outputs");
    for &kind in OutputKind::ALL {
        let row = format!("| {} | `{}` |", kind as u16, kind.name());
        assert!(outputs.contains(&row), "missing: {row}");
    }
}

fn is_row(line: &str) -> bool {
    line.strip_prefix("| ")
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn section<'a>(document: &'a str, title: &str) -> &'a str {
    let (_, rest) = document.split_once(title).expect("the section is there");
    rest.split_once("\n## ")
        .map_or(rest, |(section, _)| section)
}
