//! Documents and what becomes of them.

mod cutting;
mod dialects;
mod drawing;
mod errors;
mod golden;
mod hostile;
mod interpreter;
mod nesting;
mod pages;
mod schema;
mod shapes;
