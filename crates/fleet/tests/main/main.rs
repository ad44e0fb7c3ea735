//! A fleet over scripted workers and a scripted registry.

mod doubles;
mod fleet;
