//! The SDK, its example and the wrapper against the session server.
#![expect(
    clippy::disallowed_methods,
    reason = "the library under test needs a runtime and an environment, not lyra-kit"
)]

mod game;
mod library;
mod wrapper;

use std::path::{Path, PathBuf};
use std::time::Duration;

use lyra_kit::Clock;
use lyra_session::{Open, Phase, SessionHandle, SessionServer, SessionState, Settings};
use tokio::net::UnixListener;

/// Longest wait for anything that must happen; only a test that fails takes so long.
const SOON: Duration = Duration::from_secs(60);

/// Starts a server on a Unix socket, in place of one that may have been there.
fn serve(path: &Path) -> SessionHandle {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).expect("a socket in a directory of the test's own");
    let settings = Settings { reattach: Duration::from_secs(5), ..Settings::default() };
    SessionServer::start(lyra_session::unix(listener), settings, Clock::system())
}

/// A directory with a socket to be.
fn socket() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("session.sock");
    (folder, path)
}

fn open(id: &str, data: &'static str) -> Open {
    Open {
        id: id.into(),
        name: format!("name-of-{id}"),
        tenant: "acme".to_owned(),
        application: "game".to_owned(),
        application_version: 3,
        data: data.into(),
    }
}

/// Waits until the session is so.
async fn until(handle: &SessionHandle, what: &str, is_so: impl FnMut(&SessionState) -> bool) -> SessionState {
    let mut state = handle.state();
    let found = tokio::time::timeout(SOON, state.wait_for(is_so)).await;
    match found {
        Ok(state) => state.expect("the server runs").clone(),
        Err(_) => panic!("not {what}: {:?}", handle.state().borrow()),
    }
}

async fn until_attached(handle: &SessionHandle) {
    let mut watch = handle.attached();
    let changed = tokio::time::timeout(SOON, watch.wait_for(Option::is_some)).await;
    changed.expect("in time").expect("the server runs");
}

fn is_open(state: &SessionState) -> bool {
    state.phase == Phase::Open
}

/// A port that is free now.
fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}
