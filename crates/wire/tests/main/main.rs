//! A worker over gRPC against one that acts by script: on real connections of this machine.

mod scripted;
mod worker;
