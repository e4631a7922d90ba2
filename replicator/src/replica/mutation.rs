//! What the simulator must notice: ways in which a node can be wrong, one at a time.

/// Ways to break a node, one at a time, so that the simulator can prove that it sees them. Options of
/// a program never lead here.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// An answer leaves before the sync.
    AcknowledgeBeforeSync,
    /// What a majority has counts as committed, whatever term it is of.
    CommitWithoutOwnTerm,
    /// The application does a request twice.
    SkipDeduplication,
    /// The logic runs before its gate.
    LogicBeforeGate,
    /// Bytes from the network are taken without a look at CRC and chain.
    NoChain,
    /// What a majority of voters and learners has counts as committed.
    LearnerCountedAsVoter,
    /// Votes and answers leave before what they rest on is durable.
    MessagesLetOutEarly,
    /// A frame is sealed again, with the sender's own commit, when it is sent again.
    RecutOnResend,
    /// What was applied is remembered without the members.
    AppliedApartFromMembers,
    /// A failed sync is tried again, and believed.
    RetryFailedSync,
    /// A leader is elected and does not wait for the other site.
    ForgetGroups,
    /// What is written and acknowledged is the descriptor; the events are not there.
    AcknowledgeWithoutEvents,
    /// A node votes after an unclean start under a promise of memory.
    VoteAfterForgetting,
    /// A conflict is cut back without having been decided durably.
    CutWithoutIntent,
    /// A log begins behind a snapshot that nobody has looked at.
    SnapshotTakenUnverified,
    /// A log begins anew behind a snapshot, with the members of before.
    AnewWithOldMembers,
    /// A leader is elected and does not look for the last word in the log behind what is applied.
    WordInTheLogNotSeen,
    /// A leader that is elected again goes by the word that it was told when it led before.
    WordOutlivesItsTerm,
    /// An event on which the logic panics is passed over without a mark in the log.
    PassesOverUnmarked,
    /// The mark of such an event counts before it is committed.
    UncommittedMarkCounts,
    /// A leader marks the event at which it stands, whoever else does.
    MarksAlone,
    /// A leader that stands where another went past leads on.
    LeadsOnWhereItStands,
    /// A node is forced to go on alone, and the log does not say so.
    AloneNotInTheLog,
    /// A node is forced to go on alone, and its directory does not remember the epoch.
    EpochNotRemembered,
    /// A node goes by the epoch in its file, though nobody forced it.
    EpochTakenFromTheFile,
    /// A logic that runs ahead of its gate answers at once.
    OutputBeforeItsGate,
    /// A deposed leader keeps what its logic had applied ahead of its gate.
    KeepsAStateThatDidNotCommit,
}

impl Mutation {
    /// All of them.
    pub const ALL: &[Mutation] = &[
        Mutation::AcknowledgeBeforeSync,
        Mutation::CommitWithoutOwnTerm,
        Mutation::SkipDeduplication,
        Mutation::LogicBeforeGate,
        Mutation::NoChain,
        Mutation::LearnerCountedAsVoter,
        Mutation::MessagesLetOutEarly,
        Mutation::RecutOnResend,
        Mutation::AppliedApartFromMembers,
        Mutation::RetryFailedSync,
        Mutation::ForgetGroups,
        Mutation::AcknowledgeWithoutEvents,
        Mutation::VoteAfterForgetting,
        Mutation::CutWithoutIntent,
        Mutation::SnapshotTakenUnverified,
        Mutation::AnewWithOldMembers,
        Mutation::PassesOverUnmarked,
        Mutation::UncommittedMarkCounts,
        Mutation::MarksAlone,
        Mutation::LeadsOnWhereItStands,
        Mutation::WordInTheLogNotSeen,
        Mutation::WordOutlivesItsTerm,
        Mutation::AloneNotInTheLog,
        Mutation::EpochNotRemembered,
        Mutation::EpochTakenFromTheFile,
        Mutation::OutputBeforeItsGate,
        Mutation::KeepsAStateThatDidNotCommit,
    ];

    /// Its name on the command line of the campaign.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mutation::AcknowledgeBeforeSync => "acknowledge-before-sync",
            Mutation::CommitWithoutOwnTerm => "commit-without-own-term",
            Mutation::SkipDeduplication => "skip-deduplication",
            Mutation::LogicBeforeGate => "logic-before-gate",
            Mutation::NoChain => "no-chain",
            Mutation::LearnerCountedAsVoter => "learner-counted-as-voter",
            Mutation::MessagesLetOutEarly => "messages-let-out-early",
            Mutation::RecutOnResend => "recut-on-resend",
            Mutation::AppliedApartFromMembers => "applied-apart-from-members",
            Mutation::RetryFailedSync => "retry-failed-sync",
            Mutation::ForgetGroups => "forget-groups",
            Mutation::AcknowledgeWithoutEvents => "acknowledge-without-events",
            Mutation::VoteAfterForgetting => "vote-after-forgetting",
            Mutation::CutWithoutIntent => "cut-without-intent",
            Mutation::SnapshotTakenUnverified => "snapshot-taken-unverified",
            Mutation::PassesOverUnmarked => "passes-over-unmarked",
            Mutation::UncommittedMarkCounts => "uncommitted-mark-counts",
            Mutation::MarksAlone => "marks-alone",
            Mutation::LeadsOnWhereItStands => "leads-on-where-it-stands",
            Mutation::AnewWithOldMembers => "anew-with-old-members",
            Mutation::WordInTheLogNotSeen => "word-in-the-log-not-seen",
            Mutation::WordOutlivesItsTerm => "word-outlives-its-term",
            Mutation::AloneNotInTheLog => "alone-not-in-the-log",
            Mutation::EpochNotRemembered => "epoch-not-remembered",
            Mutation::EpochTakenFromTheFile => "epoch-taken-from-the-file",
            Mutation::OutputBeforeItsGate => "output-before-its-gate",
            Mutation::KeepsAStateThatDidNotCommit => "keeps-a-state-that-did-not-commit",
        }
    }
}
