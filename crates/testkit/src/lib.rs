//! Starts real parts for tests: the `lyra` binary as a process of its own, on a free port, in a temporary
//! directory. What a test starts ends with the test, also when it fails.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! let mut lyra = lyra_testkit::Lyra::start().await?;
//! lyra.cli(["deploy", "hello.js"]).await?.ok()?;
//! lyra.kill().await?;        // as kill -9 does
//! lyra.restart().await?;     // on the same data, at the same address
//! # Ok(())
//! # }
//! ```

mod cli;
mod cluster;
pub mod control;
pub mod engines;
pub mod hosts;
mod server;
mod site;
pub mod traffic;

pub use cli::{Cli, Output};
pub use cluster::Cluster;
pub use server::{Lyra, Options, binary};
pub use site::{Checked, Layout, Rooms, Site};
