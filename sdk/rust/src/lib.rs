//! For programs that serve sessions of Lyra.
//!
//! A program connects, takes a session when it is told to open one, says who joins and leaves, and closes it in time:
//!
//! ```no_run
//! use lyra_session_sdk::{Event, Lyra};
//!
//! # async fn serve(_session: &lyra_session_sdk::Session) {}
//! #[tokio::main]
//! async fn main() -> Result<(), lyra_session_sdk::Error> {
//!     let mut lyra = Lyra::connect()?;
//!     while let Some(event) = lyra.next().await {
//!         match event {
//!             Event::Open(session) => {
//!                 serve(&session).await; // bind ports, load data
//!                 session.ready();
//!             }
//!             Event::Close(close) => close.session.closed().await,
//!             Event::Configuration(new) => println!("version {}", new.version),
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! What must hold: a program that is told something twice is not told so by this library; all that it says is kept
//! until the worker has it, also while the worker is away; it never blocks, and holds no more than the session's own state.
//! Reconnecting and answering pings need nothing from the program, but a runtime of tokio that is not blocked.
#![expect(clippy::disallowed_methods, reason = "a library for programs outside of Lyra, which has no lyra-kit")]

mod connection;
mod directory;
mod local;
mod lyra;
mod protocol;
mod wire;

pub use directory::{Directory, SessionFile};
pub use lyra::{Close, Configuration, Event, Lyra, Session, TooManyClients};
pub use wire::Address;

/// Name of the environment variable with the address of the session server: `host:port`, or `unix:/path`.
pub const ADDRESS: &str = "LYRA_SESSION_ADDRESS";
/// Name of the environment variable with the directory of the session's files.
pub const DIRECTORY: &str = "LYRA_SESSION_DIR";

/// Why a program can't serve sessions.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program does not run as an instance.
    #[error(
        "{0} is not set: this program must be started by Lyra, as an application with \"usingNodeSessionService\": true"
    )]
    NotAnInstance(&'static str),
    /// An address can't be understood.
    #[error("{0:?} is no address: write host:port or unix:/path")]
    BadAddress(String),
    /// A file of the session's directory can't be read.
    #[error("can't read {path}")]
    Read {
        /// Which file.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// `session.json` is not what this version of the library knows.
    #[error("can't understand session.json")]
    Understand(#[source] serde_json::Error),
}
