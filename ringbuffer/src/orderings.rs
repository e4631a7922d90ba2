//! Every memory ordering of this crate, by name, with its partner.
//!
//! The numbers are the crate's invariants (`docs` of the crate root): what must
//! hold between two threads, and which pair of orderings makes it hold. Under
//! `--cfg loom` each of them can be weakened to `Relaxed` by name, and
//! `tests/loom` shows for each that its model then fails.

use crate::sync::Ordering;

/// Declares an ordering with its name for [`weaken`].
macro_rules! ordering {
    ($(#[doc = $doc:literal])* $function:ident, $strong:ident) => {
        $(#[doc = $doc])*
        #[inline(always)]
        pub(crate) fn $function() -> Ordering {
            #[cfg(loom)]
            if weaken::is(stringify!($function)) {
                return Ordering::Relaxed;
            }
            Ordering::$strong
        }
    };
}

ordering! {
    /// ORDERING: Release, pairs with [`cursor_get`] (R1): the slots' bytes before the number.
    cursor_advance, Release
}
ordering! {
    /// ORDERING: Acquire, pairs with [`cursor_advance`] (R1, R2): who sees the number
    /// sees what was written, and that what was read is no longer needed.
    cursor_get, Acquire
}
ordering! {
    /// ORDERING: Release, pairs with [`stamp_get`] (R1): the slot's bytes before its stamp.
    stamp_set, Release
}
ordering! {
    /// ORDERING: Acquire, pairs with [`stamp_set`] (R1).
    stamp_get, Acquire
}
ordering! {
    /// ORDERING: Release, pairs with [`finished_get`] (R6): the last number before the flag.
    finished_set, Release
}
ordering! {
    /// ORDERING: Acquire, pairs with [`finished_set`] (R6): who sees the flag sees the last
    /// number behind it.
    finished_get, Acquire
}
ordering! {
    /// ORDERING: Release, pairs with [`state_get`] (R5): the fault and the cursor it stands
    /// at before the flag.
    state_set, Release
}
ordering! {
    /// ORDERING: Acquire, pairs with [`state_set`] (R5).
    state_get, Acquire
}
ordering! {
    /// ORDERING: Acquire and Release, pairs with [`seat_free`]: who takes a seat sees that
    /// whoever sat there is gone. (The Release half keeps two takers in one order.)
    seat_take, AcqRel
}
ordering! {
    /// ORDERING: Release, pairs with [`seat_take`].
    seat_free, Release
}
ordering! {
    /// ORDERING: Release, pairs with [`tap_stamp_get`] (T1): the copied words before the even stamp.
    tap_stamp_set, Release
}
ordering! {
    /// ORDERING: Acquire, pairs with [`tap_stamp_set`] (T1).
    tap_stamp_get, Acquire
}

/// ORDERING: Relaxed, wherever nothing needs to be seen through the value itself: the
/// writer reads back its own number, or a hint is re-checked by what follows it.
pub(crate) const OWN: Ordering = Ordering::Relaxed;

/// The full fence of both sides of a store-then-load race (Dekker): one side stores
/// A and loads B, the other stores B and loads A, and at least one of them must see
/// the other. Pairs with itself. Used off the hot path only: by a thread about to
/// park and whoever may have to wake it (R4), and by a reader that joins and the
/// producer's slow path (R7).
#[inline(always)]
pub(crate) fn full_fence(name: &'static str) {
    #[cfg(loom)]
    if weaken::is(name) {
        return;
    }
    let _ = name;
    crate::sync::fence(Ordering::SeqCst);
}

/// A fence of one side, weakened by name under loom: `Release` before, or `Acquire`
/// after, accesses that are themselves `Relaxed` (the words of a tap, T1).
#[inline(always)]
pub(crate) fn half_fence(name: &'static str, ordering: Ordering) {
    #[cfg(loom)]
    if weaken::is(name) {
        return;
    }
    let _ = name;
    crate::sync::fence(ordering);
}

/// Which ordering is weakened, for the models that show each of them to be needed.
#[cfg(loom)]
pub mod weaken {
    use std::cell::Cell;

    std::thread_local! {
        static WEAKENED: Cell<&'static str> = const { Cell::new("") };
    }

    /// Runs `model` with the ordering called `name` weakened. loom runs all threads of
    /// a model on the calling thread, so a thread-local reaches them all.
    pub fn with<R>(name: &'static str, model: impl FnOnce() -> R) -> R {
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                WEAKENED.set("");
            }
        }
        let _restore = Restore;
        WEAKENED.set(name);
        model()
    }

    pub(crate) fn is(name: &str) -> bool {
        WEAKENED.get() == name
    }
}
