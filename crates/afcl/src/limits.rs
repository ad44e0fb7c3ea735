//! Limits on documents and graphs: what is beyond ends in a clear error, fast.

/// Largest document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 10 << 20;

/// Most values in a document, with those that its aliases stand for.
pub const MAX_VALUES: usize = 1_000_000;

/// Most bytes of text that aliases may add to a document.
pub const MAX_ALIAS_BYTES: usize = 10 << 20;

/// Deepest nesting of YAML or JSON values.
pub const MAX_VALUE_DEPTH: usize = 256;

/// Deepest nesting of compounds, calls of sub-choreographies included.
pub const MAX_NESTING: usize = 64;

/// Most tasks of a graph, the engine's own included.
pub const MAX_TASKS: usize = 100_000;

/// Most data of a graph.
pub const MAX_DATA: usize = 1_000_000;

/// Most orders between tasks that `sequence` may ask for: two `parallel` of n functions, one after the other, need n².
pub const MAX_ORDERS: usize = 1_000_000;

/// Most cuts of a workflow.
pub const MAX_CUTS: usize = 32;

/// Most findings that are reported for a document.
pub const MAX_FINDINGS: usize = 50;
