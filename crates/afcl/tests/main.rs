//! Documents and what becomes of them.

mod golden;
