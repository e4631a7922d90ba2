//! The harness of `lockstep`: what the program measures with, for your own logic too.

pub mod exit;
