//! The state of a shard and the one step that changes it: the logic, with what the engine
//! itself keeps in the replicated state.
//!
//! Live, following, recovering, replaying, taking a snapshot and testing all go through
//! [`Core::step`]: that is why they agree.
//!
//! # Invariants
//!
//! * `CO1` One event is one step: it is applied as a whole, refused, or passed over, and
//!   the position rises by one.
//! * `CO2` The log's time never goes back.
//! * `CO3` A step is a function of state and event: not of role, clock or configuration.
//! * `CO4` At every multiple of `beacon_every` the state is hashed; a beacon in the log that
//!   names another hash for that position stops whoever reads it.

use std::collections::{BTreeSet, VecDeque};

use bytemuck::Zeroable;
use lockstep_journaler::Position;
use thiserror::Error;

use crate::cluster::Administration;
use crate::event::{Header, Kinds, SYSTEM_KINDS, Slot};
use crate::logic::{Context, EventOf, Logic, Reject};
use crate::outputs::Outputs;
use crate::principal::{Principal, SessionOpenAs};
use crate::requests::{Look, Opening, Reply, Requests};
use crate::state::{LoadError, State, StateReader, StateWriter};
use crate::system::{
    Beacon, Membership, Parameters, Quarantine, Quarantined, Quotas, Repeated, SessionChanged,
    SessionClose, SessionOpen, Tick, VersionSwitch, code, known_version,
};
use crate::upcast::{UnknownVersion, Upcasters};

/// Own hashes that are remembered until their beacon comes: it comes within a ring.
const BEACONS_KEPT: usize = 64;

/// The version of the engine's own part of a snapshot.
const SNAPSHOT_VERSION: u32 = 1;

/// The same where the logic's rules are not in their first version any more: it is in there.
const SNAPSHOT_WITH_VERSION: u32 = 2;

/// The same with that version and the quotas, where there are any.
const SNAPSHOT_WITH_QUOTAS: u32 = 3;

/// The version of the rules that a log begins in.
pub(crate) const FIRST_VERSION: u32 = 1;

/// What the steps go by and what they have made.
#[derive(Debug)]
pub struct Core<L: Logic> {
    logic: L,
    requests: Requests,
    parameters: Parameters,
    /// Positions that were passed over because the logic panicked there.
    quarantined: BTreeSet<u64>,
    /// The next event's position.
    position: u64,
    time_ns: u64,
    /// Of the logic's rules, as the log says.
    version: u32,
    /// How many sessions a principal may have; 0: no limit.
    sessions_per_principal: u32,
    // What follows is not state: it is made from the log, or only speeds things up.
    /// Positions that the log says are to be passed over, known ahead in a replay.
    skip: BTreeSet<u64>,
    beacons: VecDeque<Beacon>,
    /// Made, and not told yet.
    due: VecDeque<Beacon>,
    upcasters: Upcasters<EventOf<L>>,
    /// The newest version of each kind, by the kind's number.
    versions: Box<[u16]>,
    is_validating: bool,
    /// Whether beacons of the log count: not for another version of the logic.
    heeds_beacons: bool,
}

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// 0: applied; else why not.
    pub code: u16,
}

/// Why an engine cannot go on behind an event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StepError {
    /// The state is not what it was when the log was written.
    #[error(
        "the state at position {position} has hash {found:016x}, the beacon in the log says {expected:016x}: \
         the logic is not deterministic, or another version of it wrote the log; \
         compare the two with `lockstep replay --compare`"
    )]
    Diverged {
        /// Where the state was hashed.
        position: Position,
        /// In the log.
        expected: u64,
        /// Ours.
        found: u64,
    },
    /// An invariant of the logic does not hold.
    #[error("an invariant of the logic is broken before position {position}: {what}")]
    Broken {
        /// The next event's position.
        position: Position,
        /// What does not hold.
        what: String,
    },
    /// A mark in the log says that an event before it is in quarantine, and it was applied:
    /// whoever replays has to begin again, and pass it over.
    #[error(
        "the event at position {position} is in quarantine, by a mark in the log, and was applied"
    )]
    Marked {
        /// The event's position.
        position: Position,
    },
    /// The log is in a version of the logic's rules that this build does not have.
    #[error(
        "the log is in version {version} of the logic at position {position}, this build runs {oldest} to {newest}: \
         start a build that can run version {version}"
    )]
    Version {
        /// The event's position.
        position: Position,
        /// Of the log.
        version: u32,
        /// The oldest that this build has.
        oldest: u32,
        /// The newest.
        newest: u32,
    },
    /// An event that this logic cannot read.
    #[error("position {position}: {source}")]
    Unknown {
        /// The event's position.
        position: Position,
        /// Which kind and version.
        source: UnknownVersion,
    },
}

impl<L: Logic> Core<L> {
    /// A fresh state in front of the log.
    #[must_use]
    pub fn new(logic: L) -> Self {
        Self {
            logic,
            requests: Requests::default(),
            parameters: Parameters::default(),
            quarantined: BTreeSet::new(),
            position: 0,
            time_ns: 0,
            version: FIRST_VERSION,
            sessions_per_principal: 0,
            skip: BTreeSet::new(),
            beacons: VecDeque::with_capacity(BEACONS_KEPT),
            due: VecDeque::with_capacity(BEACONS_KEPT),
            upcasters: L::upcasters(),
            versions: versions::<L>(),
            is_validating: false,
            heeds_beacons: true,
        }
    }

    /// Beacons of the log do not count from here on: another logic wrote them.
    #[must_use]
    pub fn without_beacons(self) -> Self {
        Self {
            heeds_beacons: false,
            ..self
        }
    }

    /// The state of a snapshot at `position`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says what the bytes are not.
    pub fn load(bytes: &[u8], position: Position) -> Result<Self, LoadError> {
        let mut reader = StateReader::new(bytes);
        let from = &mut reader;
        let found = u32::load(from)?;
        if !(SNAPSHOT_VERSION..=SNAPSHOT_WITH_QUOTAS).contains(&found) {
            return Err(LoadError::Version {
                what: "the engine",
                found,
                known: SNAPSHOT_WITH_QUOTAS,
            });
        }
        let (time_ns, parameters) = (State::load(from)?, State::load(from)?);
        let version = match found {
            SNAPSHOT_VERSION => FIRST_VERSION,
            _ => u32::load(from)?,
        };
        let sessions_per_principal = match found {
            SNAPSHOT_WITH_QUOTAS => u32::load(from)?,
            _ => 0,
        };
        let (requests, quarantined) = (State::load(from)?, State::load(from)?);
        let logic = L::load(from)?;
        reader.end()?;
        let own = Self {
            requests,
            parameters,
            quarantined,
            position: position.0,
            time_ns,
            version,
            sessions_per_principal,
            ..Self::new(logic)
        };
        Ok(own)
    }

    /// The canonical bytes, for a snapshot at [`position`](Self::position).
    pub fn save(&self, out: &mut StateWriter<'_>) {
        let own = match (self.version, self.sessions_per_principal) {
            (FIRST_VERSION, 0) => SNAPSHOT_VERSION,
            (_, 0) => SNAPSHOT_WITH_VERSION,
            (_, _) => SNAPSHOT_WITH_QUOTAS,
        };
        own.save(out);
        self.time_ns.save(out);
        self.parameters.save(out);
        if own != SNAPSHOT_VERSION {
            self.version.save(out);
        }
        if own == SNAPSHOT_WITH_QUOTAS {
            self.sessions_per_principal.save(out);
        }
        self.requests.save(out);
        self.quarantined.save(out);
        self.logic.save(out);
    }

    /// The canonical bytes at once.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut sink = |bytes: &[u8]| all.extend_from_slice(bytes);
        self.save(&mut StateWriter::new(&mut sink));
        all
    }

    /// The hash of the whole state: that of the logic, and of the engine's part.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        let own = (
            self.time_ns,
            self.position,
            self.parameters,
            HashOf(&self.requests),
        );
        let hash = crate::state::state_hash(&Mixed {
            own: &own,
            quarantined: &self.quarantined,
            logic: self.logic.state_hash(),
        });
        // A state in its first version hashes as it did before there were versions, and one without
        // quotas as before there were any (`PR2`).
        match (self.version, self.sessions_per_principal) {
            (FIRST_VERSION, 0) => hash,
            (version, 0) => crate::state::state_hash(&(hash, version)),
            (version, most) => crate::state::state_hash(&(hash, version, most)),
        }
    }

    /// Takes one event: applied, refused or passed over (`CO1`).
    ///
    /// # Errors
    ///
    /// [`StepError`]; the state is not to be used any more.
    #[inline]
    pub fn step(
        &mut self,
        event: &EventOf<L>,
        out: &mut Outputs<'_, L::Out>,
    ) -> Result<Outcome, StepError> {
        let header = *event.header();
        self.time_ns = self.time_ns.max(header.time);
        out.begin(self.position, self.time_ns);
        let code = if !self.skip.is_empty() && self.skip.remove(&self.position) {
            self.pass_over(&header, out)
        } else if header.kind != 0 && header.kind < SYSTEM_KINDS {
            self.application(event, out)?
        } else {
            self.system(event, out)?
        };
        self.end_step()?;
        Ok(Outcome { code })
    }

    #[inline]
    fn end_step(&mut self) -> Result<(), StepError> {
        self.position += 1;
        let every = self.parameters.beacon_every;
        if every != 0 && self.position.is_multiple_of(every) {
            self.look_around()?;
        }
        Ok(())
    }

    /// Passes the next event over: the state stays as it is, but for the mark (`CO1`).
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn step_over(
        &mut self,
        event: &EventOf<L>,
        out: &mut Outputs<'_, L::Out>,
    ) -> Result<Outcome, StepError> {
        self.skip.insert(self.position);
        self.step(event, out)
    }

    /// Refuses the next event because `validate` panicked on it.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn step_refused(
        &mut self,
        event: &EventOf<L>,
        out: &mut Outputs<'_, L::Out>,
    ) -> Result<Outcome, StepError> {
        let code = code::VALIDATE_PANICKED;
        self.time_ns = self.time_ns.max(event.header().time);
        out.begin(self.position, self.time_ns);
        self.is_validating = false;
        self.refuse(event, Reject::new(code, code::meaning(code)), out);
        self.answer(event.header(), code);
        self.end_step()?;
        Ok(Outcome { code })
    }

    #[inline]
    fn application(
        &mut self,
        event: &EventOf<L>,
        out: &mut Outputs<'_, L::Out>,
    ) -> Result<u16, StepError> {
        if !L::VERSIONS.contains(&self.version) {
            return Err(self.cannot_run(self.version));
        }
        let header = event.header();
        let known = self
            .versions
            .get(usize::from(header.kind))
            .copied()
            .unwrap_or(0);
        if known == header.version && known != 0 {
            return Ok(self.checked(event, out));
        }
        let mut newer = *event;
        self.upcasters
            .bring_up::<L::In>(&mut newer)
            .map_err(|source| StepError::Unknown {
                position: Position(self.position),
                source,
            })?;
        Ok(self.checked(&newer, out))
    }

    /// The session first: a request that comes again is not applied again.
    #[inline]
    fn checked(&mut self, event: &EventOf<L>, out: &mut Outputs<'_, L::Out>) -> u16 {
        let header = *event.header();
        if header.session == 0 || self.parameters.sessions_max == 0 {
            return self.apply(event, Principal::NOBODY, out);
        }
        match self.requests.look(
            header.session,
            header.request,
            self.time_ns,
            &self.parameters,
        ) {
            Look::Fresh(principal) => {
                let code = self.apply(event, principal, out);
                let reply = Reply {
                    request: header.request,
                    code,
                    position: self.position,
                };
                self.requests
                    .keep(header.session, reply, self.time_ns, &self.parameters);
                code
            }
            Look::Repeated(first) => {
                out.write(&Repeated {
                    session: header.session,
                    first: first.position,
                    request: header.request,
                    code: first.code,
                    spare: 0,
                });
                code::REPEATED
            }
            Look::Refused(code) => self.refuse(event, Reject::new(code, code::meaning(code)), out),
        }
    }

    #[inline]
    fn apply(
        &mut self,
        event: &EventOf<L>,
        principal: Principal,
        out: &mut Outputs<'_, L::Out>,
    ) -> u16 {
        let context = Context::new(self.position, self.time_ns, self.version).of(principal);
        let view = L::In::view(event).expect("CO1: the kind is among the logic's versions");
        self.is_validating = true;
        let verdict = self.logic.validate(view, &context);
        self.is_validating = false;
        match verdict {
            Ok(()) => {
                self.logic.apply(view, &context, out);
                out.code()
            }
            Err(reject) => self.refuse(event, reject, out),
        }
    }

    /// A request on which the logic panicked is answered as any other: it is not done when it comes again,
    /// and the next one follows it.
    fn answer(&mut self, header: &Header, code: u16) {
        let (session, request) = (header.session, header.request);
        if session == 0 || self.parameters.sessions_max == 0 {
            return;
        }
        let rules = &self.parameters;
        let look = self.requests.look(session, request, self.time_ns, rules);
        if matches!(look, Look::Fresh(_)) {
            let reply = Reply {
                request,
                code,
                position: self.position,
            };
            self.requests.keep(session, reply, self.time_ns, rules);
        }
    }

    fn refuse(&mut self, event: &EventOf<L>, reject: Reject, out: &mut Outputs<'_, L::Out>) -> u16 {
        let context = Context::new(self.position, self.time_ns, self.version);
        self.logic.refused(event, reject, &context, out);
        reject.code
    }

    /// An event of the engine's own.
    #[cold]
    fn system(
        &mut self,
        event: &EventOf<L>,
        out: &mut Outputs<'_, L::Out>,
    ) -> Result<u16, StepError> {
        use crate::event::Body;
        let (kind, found) = (event.header().kind, event.header().version);
        match kind {
            0 => return Ok(code::VOID),
            // SY2
            _ if !(1..=known_version(kind)).contains(&found) => {
                return Err(self.unknown_own(kind, found));
            }
            Tick::KIND if !L::VERSIONS.contains(&self.version) => {
                return Err(self.cannot_run(self.version));
            }
            Tick::KIND => {
                self.requests.expire(self.time_ns, &self.parameters);
                let context = Context::new(self.position, self.time_ns, self.version);
                self.logic.tick(&context, out);
            }
            Beacon::KIND => self.compare(event.body_as())?,
            Quarantine::KIND => {
                // By now it has been passed over, live or by what a replay knew ahead.
                let at = event.body_as::<Quarantine>().position;
                if !self.quarantined.contains(&at) {
                    return Err(StepError::Marked {
                        position: Position(at),
                    });
                }
            }
            SessionOpen::KIND => {
                let tag = event.body_as::<SessionOpen>().tag;
                return Ok(self.open_session(tag, Principal::NOBODY, out));
            }
            SessionOpenAs::KIND => {
                let Some(open) = SessionOpenAs::in_body(event.body()) else {
                    return Err(self.unknown_own(kind, found));
                };
                return Ok(self.open_session(open.tag, open.principal(), out));
            }
            SessionClose::KIND => return Ok(self.close_session(event.body_as(), out)),
            Parameters::KIND => self.parameters = *event.body_as(),
            Quotas::KIND => {
                self.sessions_per_principal = event.body_as::<Quotas>().sessions_per_principal;
            }
            VersionSwitch::KIND => return self.switch_version(event.body_as()),
            // The consensus has read it; it is in the log like everything that was decided.
            Membership::KIND | Administration::KIND => {}
            _ => return Err(self.unknown_own(kind, found)),
        }
        Ok(0)
    }

    fn unknown_own(&self, kind: u16, found: u16) -> StepError {
        let source = UnknownVersion {
            name: "a kind that is not known here".to_owned(),
            kind,
            found,
            known: known_version(kind),
        };
        StepError::Unknown {
            position: Position(self.position),
            source,
        }
    }

    /// From the next event on the rules are those of another version.
    fn switch_version(&mut self, switch: &VersionSwitch) -> Result<u16, StepError> {
        if switch.version < self.version {
            return Ok(code::VERSION_BACK);
        }
        if !L::VERSIONS.contains(&switch.version) {
            return Err(self.cannot_run(switch.version));
        }
        self.version = switch.version;
        Ok(0)
    }

    #[cold]
    fn cannot_run(&self, version: u32) -> StepError {
        StepError::Version {
            position: Position(self.position),
            version,
            oldest: *L::VERSIONS.start(),
            newest: *L::VERSIONS.end(),
        }
    }

    fn open_session(
        &mut self,
        tag: u64,
        principal: Principal,
        out: &mut Outputs<'_, L::Out>,
    ) -> u16 {
        let session = self.position + 1;
        let of = Opening {
            tag,
            principal,
            most: self.sessions_per_principal,
        };
        match self
            .requests
            .open(session, of, self.time_ns, &self.parameters)
        {
            Ok(()) => {
                out.write(&SessionChanged {
                    session,
                    tag,
                    is_open: 1,
                    spare: 0,
                });
                0
            }
            Err(code) => code,
        }
    }

    fn close_session(&mut self, close: &SessionClose, out: &mut Outputs<'_, L::Out>) -> u16 {
        let Some(closed) = self.requests.close(close.session) else {
            return code::SESSION_UNKNOWN;
        };
        out.write(&SessionChanged {
            session: close.session,
            tag: closed.tag,
            is_open: 0,
            spare: 0,
        });
        0
    }

    #[cold]
    fn pass_over(&mut self, header: &Header, out: &mut Outputs<'_, L::Out>) -> u16 {
        self.is_validating = false;
        self.quarantined.insert(self.position);
        self.answer(header, code::QUARANTINED);
        out.write(&Quarantined {
            position: self.position,
        });
        code::QUARANTINED
    }

    /// At a multiple of `beacon_every`: invariants and hash (`CO4`).
    #[cold]
    fn look_around(&mut self) -> Result<(), StepError> {
        self.logic.check().map_err(|what| StepError::Broken {
            position: Position(self.position),
            what: what.into_owned(),
        })?;
        let beacon = Beacon {
            position: self.position,
            hash: self.state_hash(),
        };
        if self.beacons.len() == BEACONS_KEPT {
            self.beacons.pop_front();
        }
        self.beacons.push_back(beacon);
        if self.due.len() == BEACONS_KEPT {
            self.due.pop_front();
        }
        self.due.push_back(beacon);
        Ok(())
    }

    fn compare(&mut self, beacon: &Beacon) -> Result<(), StepError> {
        let own = self
            .beacons
            .iter()
            .find(|own| own.position == beacon.position);
        match own {
            Some(own) if own.hash != beacon.hash && self.heeds_beacons => {
                Err(StepError::Diverged {
                    position: Position(beacon.position),
                    expected: beacon.hash,
                    found: own.hash,
                })
            }
            _ => Ok(()),
        }
    }

    /// The newest beacon that was made, once; older ones that nobody took are forgotten.
    pub(crate) fn take_due_beacon(&mut self) -> Option<Beacon> {
        self.due.drain(..).next_back()
    }

    /// All that were made since the last time, each once.
    pub(crate) fn take_due_beacons(&mut self) -> Option<impl Iterator<Item = Beacon>> {
        (!self.due.is_empty()).then(|| self.due.drain(..))
    }

    /// The newest that this state has passed, told or not.
    pub(crate) fn newest_beacon(&self) -> Option<Beacon> {
        self.beacons.back().copied()
    }

    /// Positions to be passed over, known ahead.
    pub(crate) fn skip(&mut self, positions: &BTreeSet<u64>) {
        let ahead = positions.range(self.position..);
        self.skip.extend(ahead);
    }

    /// Whether the step that panicked was still looking: the state is untouched (`LG1`).
    pub(crate) fn was_validating(&self) -> bool {
        self.is_validating
    }

    /// The logic.
    #[must_use]
    pub fn logic(&self) -> &L {
        &self.logic
    }

    /// The sessions and what they had done.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// What the engine's part of the state goes by.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// How many sessions one principal may have; 0: as many as there may be.
    #[must_use]
    pub fn sessions_per_principal(&self) -> u32 {
        self.sessions_per_principal
    }

    /// Positions in quarantine.
    #[must_use]
    pub fn quarantined(&self) -> &BTreeSet<u64> {
        &self.quarantined
    }

    /// The version of the logic's rules that the log is in.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The next event's position: the state is that behind all events before it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// The log's time.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }
}

/// What a log that this build begins has to say first, if anything: it is in the oldest version that the
/// build can run.
pub(crate) fn first_version<L: Logic>() -> Option<VersionSwitch> {
    let oldest = *L::VERSIONS.start();
    (oldest > FIRST_VERSION).then_some(VersionSwitch {
        version: oldest,
        spare: 0,
    })
}

/// The engine's own part, as it is hashed.
struct Mixed<'a, O> {
    own: &'a O,
    quarantined: &'a BTreeSet<u64>,
    logic: u64,
}

/// Written by reference.
struct HashOf<'a, T>(&'a T);

impl<T: State> State for HashOf<'_, T> {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.0.save(out);
    }

    fn load(_: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Err(LoadError::Value {
            what: "a reference",
            found: 0,
        })
    }
}

impl<O: State> State for Mixed<'_, O> {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.own.save(out);
        self.quarantined.save(out);
        self.logic.save(out);
    }

    fn load(_: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Err(LoadError::Value {
            what: "a reference",
            found: 0,
        })
    }
}

fn versions<L: Logic>() -> Box<[u16]> {
    let most = L::In::VERSIONS
        .iter()
        .map(|(kind, _)| usize::from(*kind))
        .max();
    let mut versions = vec![0; most.map_or(0, |most| most + 1)];
    for (kind, version) in L::In::VERSIONS {
        versions[usize::from(*kind)] = *version;
    }
    versions.into_boxed_slice()
}

/// Slots and spill for those who run a core without an output ring.
#[derive(Debug)]
pub struct Scratch<K: Kinds> {
    slots: Vec<K::Slot>,
    spill: Vec<K::Slot>,
}

impl<K: Kinds> Default for Scratch<K> {
    fn default() -> Self {
        Self {
            slots: vec![K::Slot::zeroed(); 256],
            spill: Vec::new(),
        }
    }
}

impl<K: Kinds> Scratch<K> {
    /// Outputs into here; what was there is forgotten.
    pub fn outputs(&mut self) -> Outputs<'_, K> {
        self.spill.clear();
        Outputs::new(&mut self.slots, &mut [], &mut self.spill)
    }
}
