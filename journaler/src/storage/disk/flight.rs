#![expect(
    unsafe_code,
    reason = "asynchronous direct writes (io_submit) have no safe face in std or libc"
)]
//! Direct writes that are under way while the next piece is made ready.
//!
//! A direct write blocks until the disk has the bytes, and the processor idles; then the next
//! bytes are copied, and the disk idles. Here the pieces of one long write are handed over as
//! they are filled, and all of them are waited for together.
//!
//! ```text
//!  fill 0 │ fill 1 │ fill 2 │ fill 3 │ wait ─────────┐
//!         └ disk: piece 0, piece 1, piece 2, piece 3 ┴► the caller's fdatasync
//! ```
//!
//! # Invariants
//!
//! * `FL1` When `write_filled` is left, by a panic of `fill` too, no piece is under way.
//! * `FL2` A piece that is under way is not written to: it is split off the buffer.
//! * `FL3` A piece is written whole and without an error, or the caller hears of it.

use std::io;
use std::io::IoSlice;
use std::os::fd::RawFd;
use std::sync::Mutex;

use super::write_pieces;

/// Room for the pieces of one write.
const EVENTS_MAX: usize = 32;
/// Into so many pieces at most, so `EVENTS_MAX` is never met.
const PIECES: usize = 16;

/// Of `linux/aio_abi.h`, which the C library does not have. 64 bytes.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Order {
    data: u64,
    key_and_flags: [u32; 2],
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    more_flags: u32,
    event_file: u32,
}

/// Of `linux/aio_abi.h`. 32 bytes.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Done {
    data: u64,
    order: u64,
    result: i64,
    result2: i64,
}

const PWRITE: u16 = 1;
const _: () = assert!(size_of::<Order>() == 64 && size_of::<Done>() == 32);

/// A queue of the kernel's for writes under way; one write uses it at a time.
#[derive(Debug)]
pub(super) struct Queue(Mutex<Context>);

#[derive(Debug)]
struct Context(libc::c_ulong);

impl Queue {
    /// `None` where the system has none, or no more.
    pub(super) fn new() -> Option<Queue> {
        let mut context: libc::c_ulong = 0;
        let events = libc::c_long::try_from(EVENTS_MAX).ok()?;
        // SAFETY: `io_setup` wants a number and room for one context, which is zero: `context`.
        let answer = unsafe { libc::syscall(libc::SYS_io_setup, events, &raw mut context) };
        (answer == 0).then(|| Queue(Mutex::new(Context(context))))
    }

    /// Writes `buffer`, of which the first `filled` bytes are ready and the others come from `fill`,
    /// in order; `false` if another write uses the queue, and nothing was done.
    pub(super) fn write_filled(
        &self,
        file: RawFd,
        buffer: &mut [u8],
        filled: usize,
        at: u64,
        piece: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> io::Result<bool> {
        let Ok(context) = self.0.try_lock() else {
            return Ok(false);
        };
        let piece = piece.max(buffer.len().div_ceil(PIECES).next_multiple_of(piece));
        let mut flight = Flight {
            context: context.0,
            under_way: 0,
        };
        let (mut rest, mut ready, mut at) = (buffer, filled, at);
        while !rest.is_empty() {
            let (next, behind) = rest.split_at_mut(piece.min(rest.len()));
            if ready < next.len() {
                fill(&mut next[ready..]);
            }
            ready = ready.saturating_sub(next.len());
            let next: &[u8] = next;
            if !flight.begin(file, next, at) {
                // No room in the kernel: this one blocks, as all did before.
                write_pieces(file, &[IoSlice::new(next)], at, 0)?;
            }
            at += next.len() as u64;
            rest = behind;
        }
        flight.end()?;
        Ok(true)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: `io_destroy` wants a context: ours, of `io_setup`, and nothing uses it any more.
        let _ = unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// The pieces of one write that are under way. Dropping it waits for them (`FL1`).
struct Flight {
    context: libc::c_ulong,
    under_way: usize,
}

impl Flight {
    /// Hands one piece over; `false` if the kernel does not take it.
    fn begin(&mut self, file: RawFd, piece: &[u8], at: u64) -> bool {
        let (Ok(file), Ok(offset)) = (u32::try_from(file), i64::try_from(at)) else {
            return false;
        };
        let mut order = Order {
            data: piece.len() as u64,
            opcode: PWRITE,
            file,
            buffer: piece.as_ptr().expose_provenance() as u64,
            length: piece.len() as u64,
            offset,
            ..Order::default()
        };
        let orders = [&raw mut order];
        // SAFETY: `io_submit` wants (1) a context: of `io_setup`, and our caller holds its lock;
        // (2) one order, which it copies; (3) bytes that stay where they are and are not written to
        // until it is done: `piece` is split off the buffer that our caller borrows (FL2), which
        // waits for all before it returns (FL1).
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_submit,
                self.context,
                1 as libc::c_long,
                orders.as_ptr(),
            )
        };
        self.under_way += usize::from(taken == 1);
        taken == 1
    }

    /// Waits for all that is under way.
    fn end(&mut self) -> io::Result<()> {
        let mut fault = Ok(());
        // Ends: each turn takes at least one of those that are under way, or the call was interrupted.
        while self.under_way > 0 {
            let mut done = [Done::default(); EVENTS_MAX];
            let least = libc::c_long::try_from(self.under_way).map_err(io::Error::other)?;
            // SAFETY: `io_getevents` wants (1) a context: of `io_setup`, and our caller holds its
            // lock; (2) room for as many events as it may give: `least` is at most `PIECES`, and
            // `done` has room for more; (3) a time limit, or none.
            let count = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.context,
                    least,
                    least,
                    done.as_mut_ptr(),
                    std::ptr::null_mut::<libc::timespec>(),
                )
            };
            match usize::try_from(count) {
                Ok(count) => {
                    self.under_way = self.under_way.saturating_sub(count);
                    for done in &done[..count] {
                        fault = fault.and(judged(done));
                    }
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        // The kernel does not know its own queue: it may write on from memory that
                        // is about to be used again, and nobody could say what is in the file.
                        std::process::abort();
                    }
                }
            }
        }
        fault
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Whoever leaves early has an error already, or panics.
        let _ = self.end();
    }
}

/// What became of one piece (`FL3`).
fn judged(done: &Done) -> io::Result<()> {
    match u64::try_from(done.result) {
        Ok(count) if count == done.data => Ok(()),
        Ok(count) => Err(io::Error::new(
            io::ErrorKind::WriteZero,
            format!("short write: {count} of {} bytes", done.data),
        )),
        Err(_) => Err(io::Error::from_raw_os_error(
            i32::try_from(-done.result).unwrap_or(libc::EIO),
        )),
    }
}
