//! What a node counts.

/// What a node has done since it was opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Frames cut here.
    pub frames_cut: u64,
    /// Frames that went behind the log, cut here or taken from a leader.
    pub frames_appended: u64,
    /// Times that uncommitted frames were cut away for a leader's.
    pub cuts: u64,
    /// Messages taken.
    pub received: u64,
    /// Messages said.
    pub sent: u64,
    /// Turns in which the disk had no room.
    pub turns_full: u64,
    /// Times that this node was elected.
    pub elected: u64,
    /// Pieces of snapshots that were sent to nodes that lag.
    pub pieces_lent: u64,
    /// Pieces of a leader's snapshot that were taken.
    pub pieces_taken: u64,
    /// Snapshots of a leader that did not hold, or for which there was no room.
    pub fetches_failed: u64,
}
