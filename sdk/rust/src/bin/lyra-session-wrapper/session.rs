//! The life of a session around a program: opened, ready, closed, or ended by itself.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use lyra_session_sdk::{Event, Lyra, Session};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::child::{self, Child};
use crate::options::{Options, Ready};

/// First and longest pause between looks at a port.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// How long a program may take to end when the wrapper itself is told to.
const LAST_GRACE: Duration = Duration::from_secs(10);
/// Longest data that also stands in the environment, in bytes.
const SHORT: usize = 16 << 10;

/// The program of the current session.
type Current = Rc<RefCell<Option<Rc<Child>>>>;

/// Serves one session after the other until the wrapper is told to end.
pub(crate) async fn serve(options: &Options) -> Result<(), String> {
    child::take_in_orphans()?;
    let mut lyra = Lyra::connect().map_err(|error| error.to_string())?;
    let current = Current::default();
    let listen = |kind| signal(kind).map_err(|error| format!("can't listen for signals: {error}"));
    let (mut ended, mut terminate, mut interrupt) =
        (listen(SignalKind::child())?, listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (mut hangup, mut first, mut second) =
        (listen(SignalKind::hangup())?, listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?);
    let mut running: Option<JoinHandle<()>> = None;
    let mut closing: Option<JoinHandle<()>> = None;
    loop {
        let forward = tokio::select! {
            event = lyra.next() => {
                match event {
                    Some(Event::Open(session)) => running = Some(open(options, session, &current)),
                    Some(Event::Close(close)) => {
                        if let Some(child) = current.borrow().clone() {
                            closing.take().inspect(JoinHandle::abort);
                            closing = Some(tokio::task::spawn_local(close_in(child, close.grace)));
                        }
                    }
                    // Programs without the library read the session's directory.
                    Some(Event::Configuration(_)) => {}
                    None => break,
                }
                continue;
            }
            _ = ended.recv() => {
                child::reap(current.borrow().as_deref());
                continue;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => Signal::HUP,
            _ = first.recv() => Signal::USR1,
            _ = second.recv() => Signal::USR2,
        };
        if let Some(child) = current.borrow().as_ref() {
            child.signal(forward);
        }
    }
    let child = current.borrow().clone();
    let (Some(child), Some(mut running)) = (child, running) else { return Ok(()) };
    let closed = close_in(child, LAST_GRACE);
    tokio::pin!(closed);
    let mut is_closed = false;
    loop {
        tokio::select! {
            () = &mut closed, if !is_closed => is_closed = true,
            _ = ended.recv() => child::reap(current.borrow().as_deref()),
            _ = &mut running => return Ok(()),
        }
    }
}

/// SIGTERM, and SIGKILL when the grace is over.
async fn close_in(child: Rc<Child>, grace: Duration) {
    child.signal(Signal::TERM);
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        child.signal(Signal::KILL);
        child.wait().await;
    }
}

/// Starts the program for a session, and follows it to its end.
fn open(options: &Options, session: Session, current: &Current) -> JoinHandle<()> {
    let (command, ready, current) = (options.command.clone(), options.ready, Rc::clone(current));
    tokio::task::spawn_local(async move {
        let data = match DataFile::write(&session) {
            Ok(data) => data,
            Err(error) => return session.fail(format!("can't write the session's data: {error}")),
        };
        let child = match Child::start(&command, &env(&session, &data)) {
            Ok(child) => Rc::new(child),
            Err(error) => return session.fail(error),
        };
        *current.borrow_mut() = Some(Rc::clone(&child));
        let exit = tokio::select! {
            biased;
            exit = child.wait() => exit,
            () = answers(ready) => {
                session.ready();
                child.wait().await
            }
        };
        // What it has started must not outlive it.
        child.signal(Signal::KILL);
        *current.borrow_mut() = None;
        session.closed_because(exit.to_string(), Some(exit.code())).await;
    })
}

async fn answers(ready: Ready) {
    let Ready::Port(port) = ready else { return };
    let mut pause = PAUSES.0;
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn env(session: &Session, data: &DataFile) -> Vec<(&'static str, OsString)> {
    let mut env = vec![
        ("LYRA_SESSION_ID", session.id().into()),
        ("LYRA_SESSION_NAME", session.name().into()),
        ("LYRA_SESSION_TENANT", session.tenant().into()),
        ("LYRA_SESSION_APPLICATION", session.application().into()),
        ("LYRA_SESSION_DATA_FILE", data.path.clone().into()),
    ];
    if session.data().len() <= SHORT && !session.data().contains(&0) {
        env.push(("LYRA_SESSION_DATA", OsString::from_vec(session.data().to_vec())));
    }
    env
}

/// A session's data as a file, which goes with the session.
struct DataFile {
    path: PathBuf,
}

impl DataFile {
    fn write(session: &Session) -> std::io::Result<DataFile> {
        // A session's id is no file name.
        let path = std::env::temp_dir().join(format!("lyra-session-{}", std::process::id()));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        let written = DataFile { path };
        file.write_all(session.data())?;
        Ok(written)
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        // The directory may be gone.
        let _ = std::fs::remove_file(&self.path);
    }
}
