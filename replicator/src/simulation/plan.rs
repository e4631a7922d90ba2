//! What a seed decides before anything runs: how large, how fast, and what goes wrong how often.

use super::random::Random;
use crate::policy::Policy;
use crate::replica::Mutation;

const MS: u64 = 1_000_000;

/// The configuration of one run; everything in it comes from the seed, and may be changed to see what
/// a failure needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Founders.
    pub voters: u16,
    /// Clients, each with one request at a time.
    pub clients: u64,
    /// How long things go wrong.
    pub chaos_ns: u64,
    /// How long it may take until all is well again.
    pub heal_ns: u64,
    /// Between two faults.
    pub fault_every_ns: u64,
    /// Between two acts of an operator; 0: there is none.
    pub operator_every_ns: u64,
    /// Between two snapshots, each of any node; 0: none are taken, and nothing of a log is given up.
    pub snapshot_every_ns: u64,
    /// Of a message, least and most.
    pub delay_ns: (u64, u64),
    /// Of a write with its sync, least and most.
    pub disk_ns: (u64, u64),
    /// Of a thousand messages on the control connection.
    pub lost: u64,
    /// Of a thousand messages on the control connection.
    pub doubled: u64,
    /// Of a hundred thousand messages.
    pub flipped: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Frames in one append.
    pub frames_per_append: u16,
    /// Between two ticks.
    pub tick_ns: u64,
    /// What an acknowledgement means; in memory only minorities lose power, and no disk fails.
    pub policy: Policy,
    /// Whether commits wait for two sites: nodes with even numbers are at one, the others at another.
    pub has_sites: bool,
    /// Whether, under a policy of memory, power goes between a write and its sync too.
    pub cuts_memory: bool,
    /// Whether the logic of who leads runs ahead of its gate, and only what it says waits there.
    pub runs_ahead: bool,
    /// Whether what a process had said when it ended still arrives.
    pub hears_last_words: bool,
    /// Whether faults that only do harm one behind the other are staged.
    pub stages: bool,
    /// Whether the logic panics on some events, on every node.
    pub panics: bool,
    /// When an operator forces one node to go on alone, since the others are lost; 0: never.
    pub forces_at_ns: u64,
    /// Whether processes, machines and disks fail.
    pub breaks_nodes: bool,
    /// Whether the network is cut.
    pub breaks_network: bool,
    /// Code changed on purpose.
    #[doc(hidden)]
    pub mutation: Option<Mutation>,
    /// Whether every step is printed.
    pub is_traced: bool,
}

impl Plan {
    /// The plan of this seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Plan {
        let mut random = Random::new(seed ^ 0x5eed);
        // Of its own, so that the numbers of older seeds stay what they were.
        let is_gated = Random::new(seed ^ 0x0517_e5ed).chance(200);
        let mut snapshots = Random::new(seed ^ 0x005a_4b07);
        let delays = [(20_000, 200_000), (100_000, 2 * MS), (MS / 2, 8 * MS)];
        let disks = [(50_000, 300_000), (200_000, 3 * MS), (MS, 15 * MS)];
        let plan = Plan {
            seed,
            voters: [1, 3, 3, 3, 3, 5][usize::try_from(random.below(6)).unwrap_or(1)],
            clients: random.between(1, 4),
            chaos_ns: random.between(1000, 8000) * MS,
            heal_ns: 20_000 * MS,
            fault_every_ns: random.between(20, 150) * MS,
            operator_every_ns: [0, 60 * MS, 200 * MS]
                [usize::try_from(random.below(3)).unwrap_or(0)],
            snapshot_every_ns: [0, 0, 40 * MS, 150 * MS]
                [usize::try_from(snapshots.below(4)).unwrap_or(0)],
            delay_ns: *random.pick(&delays).unwrap_or(&delays[0]),
            disk_ns: *random.pick(&disks).unwrap_or(&disks[0]),
            lost: random.below(60),
            doubled: random.below(40),
            flipped: random.below(200),
            segment_bytes: [32 << 10, 64 << 10, 256 << 10]
                [usize::try_from(random.below(3)).unwrap_or(0)],
            frames_per_append: [1, 3, 64][usize::try_from(random.below(3)).unwrap_or(0)],
            tick_ns: 10 * MS,
            policy: [Policy::Memory, Policy::DiskAndMemory, Policy::Disks]
                [usize::try_from(random.below(10)).unwrap_or(2).min(2)],
            has_sites: false,
            cuts_memory: Random::new(seed ^ 0x0ff_5eed).chance(700),
            runs_ahead: Random::new(seed ^ 0x0a_4ead).chance(400),
            hears_last_words: Random::new(seed ^ 0x1a57_303d).chance(700),
            stages: Random::new(seed ^ 0x057a_6e5d).chance(500),
            panics: Random::new(seed ^ 0x0bad_e7e7).chance(200),
            forces_at_ns: 0,
            breaks_nodes: !random.chance(100),
            breaks_network: !random.chance(100),
            mutation: None,
            is_traced: false,
        };
        let mut force = Random::new(seed ^ 0x00f0_4ce5);
        let is_forced = force.chance(100) && plan.voters >= 3;
        let forces_at_ns = plan.chaos_ns / 1000 * force.between(200, 800);
        Plan {
            forces_at_ns: if is_forced { forces_at_ns } else { 0 },
            has_sites: is_gated && plan.policy == Policy::Disks && plan.voters >= 3,
            ..plan
        }
    }
}
