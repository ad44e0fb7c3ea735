//! Traces: which function is called when, and how long each call takes.

pub mod azure;
pub mod files;
pub mod generate;
mod popularity;
pub mod summary;

pub use generate::{Settings, generate};
pub use summary::Summary;

/// A function of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Its name, unlike any other's in the trace.
    pub name: String,
    /// Its owner; functions of one owner share what is fair among owners.
    pub tenant: String,
    /// From nothing to an instance that takes a call, in ms.
    pub start_ms: f64,
    /// A usual call on a warm instance, in ms.
    pub exec_ms: f64,
    /// Memory of an instance, in MiB.
    pub memory_mb: u32,
}

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it comes, in ms since the trace's begin.
    pub at_ms: u64,
    /// Whose call it is: an index into the functions.
    pub function: u32,
    /// How long it takes on a warm instance, in ms.
    pub exec_ms: u32,
}

/// Functions and their calls in the order of time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// The functions.
    pub functions: Vec<Function>,
    /// The calls, by time.
    pub arrivals: Vec<Arrival>,
}

impl Trace {
    /// Puts the calls in order; those of the same moment by function.
    pub(crate) fn sorted(mut self) -> Trace {
        self.arrivals.sort_by_key(|call| (call.at_ms, call.function, call.exec_ms));
        self
    }

    /// When the last call comes, in ms.
    pub fn length_ms(&self) -> u64 {
        self.arrivals.last().map_or(0, |call| call.at_ms)
    }
}

/// Whole milliseconds, 1 at least: what a clock that ticks in ms can tell apart.
pub(crate) fn whole_ms(ms: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    let whole = ms.round().clamp(1.0, f64::from(u32::MAX)) as u32;
    whole
}
