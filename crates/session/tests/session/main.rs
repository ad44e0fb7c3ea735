//! The session server against programs.
