//! A fleet over scripted workers and a scripted registry.
#![expect(clippy::unwrap_used, reason = "a test that meets an error shall fail")]

mod doubles;
mod fleet;
mod policies;
mod requests;
