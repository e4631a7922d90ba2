//! Hand events from stage to stage, in order, without a lock.
