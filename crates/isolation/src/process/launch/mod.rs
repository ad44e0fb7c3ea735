//! Starts sandboxed processes.
//!
//! A process of Lyra's own, the *launcher*, is the parent of all sandboxes, since a program with threads can't fork
//! safely: [`Launcher`] talks with it over a socket, [`serve`] is what runs in it. What a sandbox shuts out, and how, is
//! told in `docs/design/process-sandbox.md`.
//!
//! What always holds: a sandbox ends when its [`Process`] is dropped, when Lyra ends in whatever way, and when the
//! launcher ends; only a lasting one goes on without Lyra, for a bounded time, until the next Lyra takes it over; nothing of it is left then but what a start that follows removes. Nothing is half-started: a
//! failed [`Launcher::spawn`] leaves nothing. This module knows nothing of functions, calls or runtimes.

/// Name of the socket, in Lyra's directory, where a launcher waits that has lost its Lyra.
const DOOR: &str = "launcher.socket";

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
pub use self::launcher::{Adopted, Config, Launcher};
pub use self::plan::{Bind, Device, Lasting, Limits, MAX_ENTRIES, MAX_LABEL, MIN_MEMORY, Plan, Program, SecretFile};
pub use self::process::Process;
pub use self::spawner::{Bounds, serve};
pub use crate::session::Exit;
