//! Documents and what becomes of them.

mod dialects;
mod errors;
mod golden;
mod hostile;
mod interpreter;
mod nesting;
mod shapes;
