//! A worker over gRPC against one that acts by script: on real connections of this machine.
#![expect(clippy::unwrap_used, reason = "a test that meets an error shall fail")]

mod logs;
mod scripted;
mod tls;
mod worker;
mod workflows;
