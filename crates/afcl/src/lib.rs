//! AFCL, the language of workflows: from a document to an enactment graph.
//!
//! The Abstract Function Choreography Language (Ristov, Pedratscher, Fahringer, FGCS 114, 2021) comes in two dialects:
//! 1.1, in which order follows from data alone, and 1.0, with sequences and loops over counters, which is lowered to
//! the same [`Graph`]. What is wrong with a document is found here, with line and column, before anything is called.
//!
//! No I/O, no clock, no randomness: the same document gives the same graph on every machine.

pub mod graph;

pub use graph::Graph;
