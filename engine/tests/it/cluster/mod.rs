//! Three whole nodes in one thread, from a seed: real order, agreement, journal, logic and egress over
//! simulated disks and a network that loses, delays and cuts. What a client was told holds.
//!
//! | file | what |
//! |---|---|
//! | `world` | the nodes, their disks, the network, and what goes wrong |
//! | `clients` | who asks, and what was heard |
//! | `flaky` | the logic, in two versions, wrong on one node if a test says so |
//! | `life` | crashes, partitions, transfers, starts: what clients were told holds |
//! | `ahead` | the gates in front of the outputs: leaders that ran ahead are deposed |
//! | `states`, `panics` | one node does another thing than the others, or panics |
//! | `passive` | a node without a logic journals and votes, and takes over once it has one |
//! | `lagging` | a node that lags behind the beginning of the log |
//! | `upgrade` | a version of the logic takes over, under load |
//! | `sites` | answers that wait for the other site |
//! | `refusals` | what cannot work is refused by name |

mod ahead;
mod clients;
mod flaky;
mod lagging;
mod life;
mod panics;
mod passive;
mod refusals;
mod sites;
mod states;
mod upgrade;
mod world;

/// How many seeds a campaign has; `None`: it is the short one.
fn seeds() -> Option<u64> {
    std::env::var("LOCKSTEP_SEEDS").ok()?.parse().ok()
}
