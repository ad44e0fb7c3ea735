//! Documents and what becomes of them.

mod golden;
mod interpreter;
mod nesting;
mod shapes;
