//! For programs that serve sessions.
