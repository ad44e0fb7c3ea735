//! Starts sandboxed processes.
//!
//! A process of Lyra's own, the *launcher*, is the parent of all sandboxes, since a program with threads can't fork
//! safely: [`Launcher`] talks with it over a socket, [`serve`] is what runs in it. What a sandbox shuts out, and how, is
//! told in `docs/design/process-sandbox.md`.
//!
//! What always holds: a sandbox ends when its [`Process`] is dropped, when Lyra ends in whatever way, and when the
//! launcher ends; nothing of it is left then but what a start that follows removes. Nothing is half-started: a
//! failed [`Launcher::spawn`] leaves nothing. This module knows nothing of functions, calls or runtimes.

mod abilities;
mod cgroup;
mod connection;
mod error;
mod launcher;
mod members;
mod plan;
mod process;
mod spawner;
mod system;
mod wire;

pub use self::abilities::{Abilities, Cgroups, Privilege};
pub use self::error::{Fault, LaunchError};
pub use self::launcher::{Config, Launcher};
pub use self::plan::{Bind, Device, Limits, MAX_ENTRIES, MIN_MEMORY, Plan, Program};
pub use self::process::Process;
pub use self::spawner::serve;
pub use crate::session::Exit;
