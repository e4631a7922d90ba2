//! What was typed.

use lockstep_replicator::replica::Mutation;

/// The options of the campaign.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Args {
    /// The first seed.
    pub(crate) from: u64,
    /// How many.
    pub(crate) seeds: u64,
    /// Whether every step is printed.
    pub(crate) is_traced: bool,
    /// After so many failures it stops.
    pub(crate) failures_max: u64,
    /// Code changed on purpose.
    pub(crate) mutation: Option<Mutation>,
}

const USAGE: &str = "sim --seeds N --from S | --seed S [--trace] [--failures N] [--mutation NAME]";

impl Args {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Args, String> {
        let mut args = Args {
            from: 1,
            seeds: 100,
            is_traced: false,
            failures_max: 10,
            mutation: None,
        };
        let mut words = words;
        // Ends: each turn takes a word.
        while let Some(word) = words.next() {
            if word == "--trace" {
                args.is_traced = true;
                continue;
            }
            let value = words
                .next()
                .ok_or_else(|| format!("{word} wants a value\n{USAGE}"))?;
            let number = || {
                let parsed = value.parse::<u64>();
                parsed.map_err(|_| format!("{word} wants a number, found `{value}`\n{USAGE}"))
            };
            match word.as_str() {
                "--from" => args.from = number()?,
                "--seeds" => args.seeds = number()?.max(1),
                "--seed" => (args.from, args.seeds) = (number()?, 1),
                "--failures" => args.failures_max = number()?,
                "--mutation" => args.mutation = Some(mutation(&value)?),
                _ => return Err(format!("no option is called `{word}`\n{USAGE}")),
            }
        }
        Ok(args)
    }
}

fn mutation(name: &str) -> Result<Mutation, String> {
    let found = Mutation::ALL
        .iter()
        .find(|mutation| mutation.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = Mutation::ALL
            .iter()
            .map(|mutation| mutation.name())
            .collect();
        format!("no mutation is called `{name}`: {}", names.join(", "))
    })
}
