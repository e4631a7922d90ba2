//! The program `lockstep`: run, measure, tune and examine.

fn main() {}
