//! Colour on a terminal: the few words that say whether something is well.
//!
//! What a word means is in the word; the colour only helps to find it. So there is none where
//! nobody looks: in a file, a pipe, or where `NO_COLOR` is set.

use std::io::IsTerminal as _;

use clap::ColorChoice;

/// When there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl From<When> for ColorChoice {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::Always => Self::Always,
            When::Never => Self::Never,
        }
    }
}

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// What is coloured: where a line begins so, or ends so, the word behind or there.
const BEGINNINGS: [(&str, &str, &str); 8] = [
    ("valid    ", "clean", GREEN),
    ("valid    ", "noisy", YELLOW),
    ("valid    ", "invalid", RED),
    ("  ", "bad", RED),
    ("  ", "warn", YELLOW),
    ("  ", "ok", GREEN),
    ("verdict   ", "unfit", RED),
    ("verdict   ", "fit", GREEN),
];
const ENDS: [(&str, &str); 2] = [("WORSE", RED), ("better", GREEN)];

/// Whether stdout takes colours.
pub(crate) fn is_wanted(when: When) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
        }
    }
}

/// The same text with its verdicts coloured.
pub(crate) fn verdicts(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(line: &str) -> String {
    for (beginning, word, colour) in BEGINNINGS {
        let Some(behind) = line
            .strip_prefix(beginning)
            .and_then(|rest| rest.strip_prefix(word))
        else {
            continue;
        };
        if behind.starts_with(|c: char| !c.is_alphanumeric()) {
            return format!("{beginning}{colour}{word}{PLAIN}{behind}");
        }
    }
    let bare = line.trim_end_matches('\n');
    for (word, colour) in ENDS {
        if let Some(before) = bare.strip_suffix(word) {
            return format!("{before}{colour}{word}{PLAIN}{}", &line[bare.len()..]);
        }
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_of_a_verdict_have_a_colour() {
        for (plain, coloured) in [
            (
                "valid    noisy: preempted\n",
                "valid    \x1b[33mnoisy\x1b[0m: preempted\n",
            ),
            ("  bad   load\n", "  \x1b[31mbad\x1b[0m   load\n"),
            ("p99  1us  WORSE", "p99  1us  \x1b[31mWORSE\x1b[0m"),
            ("  badge  of honour\n", "  badge  of honour\n"),
            ("rate     1 M/s\n", "rate     1 M/s\n"),
            ("", ""),
        ] {
            assert_eq!(verdicts(plain), coloured);
        }
    }

    #[test]
    fn without_its_colours_a_text_is_what_it_was() {
        let text = "valid    clean\n  warn  thp  never\np50  better\nresult   no regression\n";
        let mut bare = verdicts(text);
        assert_ne!(bare, text);
        for colour in [RED, YELLOW, GREEN, PLAIN] {
            bare = bare.replace(colour, "");
        }
        assert_eq!(bare, text);
    }

    #[test]
    fn who_says_always_or_never_is_believed() {
        assert!(is_wanted(When::Always));
        assert!(!is_wanted(When::Never));
    }
}
