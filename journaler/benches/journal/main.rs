//! `cargo bench -p lockstep-journaler`: what the journal reaches beside what the disk allows.
//!
//! One process, several rounds. In each round every work runs ours and the bare system calls
//! that it cannot do without, on files of the same file system in the same state (written full
//! of zeros), in turns; a ratio is formed within a round, so what the machine does meanwhile
//! hits both. Medians and the whole spread are shown.
//!
//! | where | what |
//! |---|---|
//! | `group` | one group made durable, against one bare write made durable, one by one in turns |
//! | `stream` | an open loop with natural batching: publish to durable, from intended times |
//! | `saturation` | groups as large as they get, against bare writes of the best size |
//! | `scan` | reading back with every CRC, from the page cache and from the disk |
//! | `roll` | groups around a change of segments, against the others |
//! | `opening` | opening behind a snapshot after a crash, small and large, and the memory it takes |
//! | `ours`, `raw`, `event`, `place` | what is measured, and where |
//! | `rounds`, `results`, `statistics`, `table`, `json`, `args`, `machine` | how, in and out |

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is its purpose"
)]

mod args;
mod event;
mod group;
mod json;
mod machine;
mod opening;
mod ours;
mod place;
mod raw;
mod results;
mod roll;
mod rounds;
mod saturation;
mod scan;
mod statistics;
mod stream;
mod table;

use std::process::ExitCode;

use rounds::Work;

fn works() -> Vec<Box<dyn Work>> {
    vec![
        Box::new(group::Group),
        Box::new(stream::Stream),
        Box::new(saturation::Saturation::default()),
        Box::new(scan::Scan::default()),
        Box::new(roll::Roll),
        Box::new(opening::Opening::default()),
    ]
}

fn main() -> ExitCode {
    let done = rounds::perform(
        works(),
        |line| println!("{line}"),
        |what| eprintln!("{what}"),
    );
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("journal: {error}");
            ExitCode::FAILURE
        }
    }
}
