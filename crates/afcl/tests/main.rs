//! Documents and what becomes of them.

#![expect(clippy::unwrap_used, reason = "a test that meets an error shall fail")]

mod cutting;
mod dialects;
mod drawing;
mod errors;
mod golden;
mod hostile;
mod interpreter;
mod meaning;
mod nesting;
mod pages;
mod schema;
mod shapes;
