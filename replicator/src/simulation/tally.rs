//! What a campaign has seen: one that never saw a torn tail proves nothing about torn tails.

use std::fmt;

macro_rules! tally {
    ($($(#[$meta:meta])* $name:ident $text:literal $least:literal,)*) => {
        /// How often what happened.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct Tally {
            $($(#[$meta])* pub $name: u64,)*
        }

        impl Tally {
            /// Both together.
            pub fn add(&mut self, other: &Tally) {
                $(self.$name += other.$name;)*
            }

            /// What a thousand seeds should have seen more often than this one says, if anything.
            #[must_use]
            pub fn missing(&self, seeds: u64) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $(if self.$name * 1000 < $least * seeds { missing.push($text); })*
                missing
            }
        }

        impl fmt::Display for Tally {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "  {:>12}  {}", self.$name, $text)?;)*
                Ok(())
            }
        }
    };
}

tally! {
    /// Events of the simulation.
    steps "steps, each followed by the checkers" 1000,
    /// Terms with a leader.
    elections "elections" 1000,
    /// Client requests answered.
    acknowledged "requests acknowledged" 5000,
    /// Requests that were asked again.
    retried "requests asked again" 500,
    /// Requests done.
    done "requests done" 5000,
    /// kill -9.
    killed "processes killed" 200,
    /// Power lost.
    power_lost "machines without power" 200,
    /// Power lost while a write or a sync was under way.
    power_cut "machines without power in the midst of a write" 50,
    /// Torn tails found.
    torn "torn tails cut" 20,
    /// Uncommitted frames cut away.
    cut_back "conflicts cut back" 20,
    /// Nodes alone, or split.
    partitions "partitions" 100,
    /// One direction only.
    one_way "one-way partitions" 30,
    /// Two sides that share one node.
    bridges "bridge partitions" 20,
    /// Connections lost.
    resets "connections reset" 100,
    /// Messages lost.
    dropped "messages lost" 500,
    /// Messages doubled.
    doubled "messages doubled" 100,
    /// Messages with a flipped bit.
    flipped "messages with a flipped bit" 50,
    /// Messages.
    delivered "messages delivered" 10000,
    /// SIGSTOP.
    paused "pauses" 100,
    /// Slow disks.
    slow "slow disks" 100,
    /// Errors of write and sync.
    disk_errors "errors of a disk" 30,
    /// No room.
    disk_full "full disks" 30,
    /// Rotten bytes that were refused.
    rotten "rotten journals refused" 1,
    /// Disks lost for ever.
    wiped "disks lost for ever" 5,
    /// Faults that only do harm one behind the other.
    staged "scenarios staged" 200,
    /// Wall clocks that jumped.
    jumps "clocks that jumped" 50,
    /// Changes of members.
    changes "changes of members" 50,
    /// Where the other site is waited for.
    gated "commits that two sites had, where that was asked for" 1000,
    /// An operator's word that it is not.
    degraded "times that an operator gave the other site up" 5,
    /// An operator's word that it is again.
    regated "times that it was waited for again" 2,
    /// By hash, of states that a leader came to before their events were committed.
    ahead "states ahead of their gate that were right" 1000,
    /// Such states of leaders that were deposed.
    taken_back "states ahead of their gate that were taken back" 50,
    /// Events on which the logic panics, and which a majority passes over.
    quarantined "events put into quarantine" 50,
    /// Nodes whose logic alone panicked.
    panicked_alone "nodes that stopped since their logic alone panicked" 10,
    /// One node that goes on alone.
    forced "times that an operator forced one node to go on alone" 20,
    /// What only the others had.
    lost_by_force "committed frames that were lost by that choice" 20,
    /// From who was left behind.
    of_another_epoch "messages of another epoch that were refused" 20,
    /// Snapshots of any node.
    snapshots "snapshots taken" 1000,
    /// Frames whose rows were given up.
    given_up "frames given up behind snapshots" 1000,
    /// Snapshots of a leader.
    begun_anew "logs that began anew behind a snapshot of the leader" 50,
    /// Power lost in that.
    begun_in_two "times that power was cut in the midst of that" 5,
    /// Bytes changed where they were read.
    changed_pieces "pieces of a snapshot that were changed at their source" 20,
    /// Leaders that handed over.
    transfers "transfers of leadership" 20,
}
