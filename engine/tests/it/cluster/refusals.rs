//! What cannot work in a cluster is refused by name.

use lockstep_engine::cluster::{ClusterNode, NodeOptions};
use lockstep_engine::{Clock, JournalMode};
use lockstep_journaler::storage::Simulated;
use lockstep_replicator::{NodeId, Sites};

use super::world::options;
use crate::bank::Bank;

#[test]
fn what_cannot_work_in_a_cluster_is_refused_by_name() {
    let clock = Clock::manual(0);
    let refused = |change: fn(&mut NodeOptions)| {
        let mut options = options(1, 1, &clock);
        change(&mut options);
        let node = ClusterNode::open(Simulated::new(1), &options, Bank::default);
        node.unwrap_err().to_string()
    };
    let journal = refused(|options| options.config.journal = JournalMode::None);
    assert!(journal.contains("journal = none in a cluster"), "{journal}");
    let segment = refused(|options| options.config.segment_bytes = 1 << 19);
    assert!(segment.contains("segment_bytes = 524288"), "{segment}");
    let sites = refused(|options| {
        let of = (1..=3).map(|node| (NodeId(node), "paris".to_owned()));
        options.replica.sites = Sites::new(of).gated();
    });
    assert!(sites.contains("all voters are at one site"), "{sites}");
    // A directory belongs to one node of one cluster.
    let disk = Simulated::new(3);
    drop(ClusterNode::open(disk.clone(), &options(1, 1, &clock), Bank::default).unwrap());
    let other = ClusterNode::open(disk.clone(), &options(2, 1, &clock), Bank::default).unwrap_err();
    assert!(other.to_string().contains("of node 1"), "{other}");
    let mut foreign = options(1, 1, &clock);
    foreign.replica.cluster = "elsewhere".parse().unwrap();
    let other = ClusterNode::open(disk, &foreign, Bank::default).unwrap_err();
    assert!(other.to_string().contains("bench"), "{other}");
}
