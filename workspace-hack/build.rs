//! Only here so that `[build-dependencies]` count.
fn main() {}
