//! Journals made by hand for tests: from the formats alone, without the writer,
//! so that a tool is not tested against the same mistake twice.

use std::io::IoSlice;

use bytemuck::{Pod, Zeroable};

use crate::directory::{MetaFile, MetaSlot, POOL, QUARANTINE};
use crate::frame::{FrameDraft, FrameHeader, GroupMark, MarkDraft, padded};
use crate::index::{IndexRow, SparseIndex};
use crate::position::{Position, Reached, SegmentId};
use crate::segment::{SegmentFooter, SegmentHeader, Summary, Tail};
use crate::storage::{File, Open, Simulated, Storage};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Order {
    time_ns: u64,
    kind: u32,
    side: u8,
    symbol: [u8; 3],
    price: i64,
    quantity: u64,
}

crate::schema! {
    /// Orders of the tests.
    pub(crate) ORDERS: "test.orders" version 1 for Order, kind by kind;
    header { time_ns: time; kind: plain; }
    1 = "new" as Order {
        side: enumeration { buy = 1, sell = 2 };
        symbol: chars;
        price: decimal(4);
        quantity: plain;
    }
}

pub(crate) const SEGMENT_BYTES: u64 = 256 * 1024;

/// A journal on a simulated disk, everything durable.
pub(crate) struct Made {
    pub(crate) storage: Simulated,
    /// Of each segment: the offset of each group's mark, and behind the last.
    pub(crate) groups: Vec<Vec<u64>>,
    pub(crate) tail: Tail,
}

/// How a journal is made.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) segments: u64,
    pub(crate) groups: u64,
    pub(crate) frames: u64,
    pub(crate) events: u32,
    pub(crate) seals_last: bool,
    pub(crate) journal_id: u8,
    /// Frames from this one on are different from those of a plan without.
    pub(crate) differs_from: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            segments: 3,
            groups: 5,
            frames: 2,
            events: 4,
            seals_last: false,
            journal_id: 2,
            differs_from: u64::MAX,
        }
    }
}

pub(crate) fn order(position: u64) -> Order {
    Order {
        time_ns: 1_000 + position,
        kind: 1,
        side: u8::try_from(position % 2).unwrap() + 1,
        symbol: *b"ABC",
        price: 1_234_500,
        quantity: position,
    }
}

pub(crate) fn made(plan: Plan) -> Made {
    let storage = Simulated::new(1);
    let mut tail = Tail::default();
    let mut groups = Vec::new();
    for id in 0..plan.segments {
        let is_sealed = plan.seals_last || id + 1 < plan.segments;
        groups.push(segment(&storage, SegmentId(id), &mut tail, plan, is_sealed));
    }
    let mut slot = MetaSlot::new([1; 16], [plan.journal_id; 16]);
    slot.open_epoch = 1;
    slot.window_bytes = 64 * 1024;
    slot.segment_bytes = SEGMENT_BYTES;
    MetaFile::create(&storage, slot).unwrap();
    storage.create_dir(POOL).unwrap();
    storage.create_dir(QUARANTINE).unwrap();
    storage.sync_directory("").unwrap();
    Made {
        storage,
        groups,
        tail,
    }
}

fn segment(
    storage: &Simulated,
    id: SegmentId,
    tail: &mut Tail,
    plan: Plan,
    is_sealed: bool,
) -> Vec<u64> {
    let schema = ORDERS.encode().unwrap();
    let mut schema_name = [0; 64];
    schema_name[..ORDERS.name.len()].copy_from_slice(ORDERS.name.as_bytes());
    let mut header = SegmentHeader::new([1; 16], [plan.journal_id; 16], id).continuing(tail);
    header.segment_bytes = SEGMENT_BYTES;
    header.window_bytes = 64 * 1024;
    header.open_epoch = 1;
    header.schema_version = 1;
    header.event_size = 32;
    header.schema_bytes = u32::try_from(schema.len()).unwrap();
    header.alignment = 64;
    header.engine = 1;
    header.mode = 2;
    header.schema_hash = ORDERS.hash();
    header.schema_name = schema_name;
    let file = storage.open(&id.file_name(), Open::CREATE).unwrap();
    let write = |bytes: &[u8], at: u64| file.write_at(&[IoSlice::new(bytes)], at).unwrap();
    file.set_len(SEGMENT_BYTES).unwrap();
    write(&header.block(), 0);
    write(&schema, 4096);
    let mut at = header.data_start();
    let mut summary = Summary::default();
    let mut index = SparseIndex::with_room(SEGMENT_BYTES);
    let mut marks = Vec::new();
    for _ in 0..plan.groups {
        let before = *tail;
        let mut body = Vec::new();
        for _ in 0..plan.frames {
            push_frame(&mut body, tail, plan);
        }
        let mark = MarkDraft {
            open_epoch: 1,
            at,
            durable_at: at,
            length: body.len() as u64,
            durable: before.reached,
            frames: before.reached.frames,
            chain: before.chain,
        };
        write(
            bytemuck::bytes_of(&GroupMark::seal(mark, header.salt())),
            at,
        );
        write(&body, at + 64);
        index.note(IndexRow {
            position: before.reached.position.0,
            time_ns: 1_000 + before.reached.position.0,
            offset: at,
            frames: before.reached.frames,
        });
        marks.push(at);
        at += 64 + body.len() as u64;
        summary.groups += 1;
    }
    marks.push(at);
    summary.tail = *tail;
    summary.first_time_ns = 1_000 + header.first_position;
    summary.data_end = at;
    if is_sealed {
        write(
            &SegmentFooter::new(&header, &summary).block(),
            header.data_limit(),
        );
        let bytes = index.encode(&header.journal_id, id);
        let beside = storage.open(&id.index_name(), Open::CREATE).unwrap();
        beside.write_at(&[IoSlice::new(&bytes)], 0).unwrap();
        beside.sync_all().unwrap();
    }
    file.sync_all().unwrap();
    if is_sealed {
        storage.set_read_only(&id.file_name()).unwrap();
    }
    marks
}

fn push_frame(group: &mut Vec<u8>, tail: &mut Tail, plan: Plan) {
    let first = tail.reached.position.0;
    let mut events: Vec<Order> = (0..u64::from(plan.events))
        .map(|at| order(first + at))
        .collect();
    if tail.reached.frames >= plan.differs_from {
        events[1].quantity ^= 1;
    }
    let body: &[u8] = bytemuck::cast_slice(&events);
    let draft = FrameDraft {
        time_ns: 1_000 + first,
        schema_version: 1,
        ..FrameDraft::default()
    };
    let header = FrameHeader::seal(
        &draft,
        Position(first),
        plan.events,
        [body, &[]],
        tail.chain,
    );
    group.extend_from_slice(header.as_bytes());
    group.extend_from_slice(body);
    let padding = padded(body.len() as u64) - body.len() as u64;
    group.resize(group.len() + usize::try_from(padding).unwrap(), 0);
    *tail = tail.behind(&header);
    assert_eq!(
        tail.reached,
        Reached {
            position: Position(first + u64::from(plan.events)),
            ..tail.reached
        }
    );
}
