//! Sandboxes that are processes of the operating system.

pub mod launch;
