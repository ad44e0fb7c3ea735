//! Programs without the library, behind the wrapper.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lyra_session::{End, How, Phase, SessionHandle};
use lyra_types::Code;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{SOON, is_open, open, port, serve, socket, until, until_attached};

struct Wrapped {
    handle: SessionHandle,
    wrapper: Child,
    folder: tempfile::TempDir,
}

impl Wrapped {
    /// Starts the wrapper around a shell script, which runs in a directory of its own.
    async fn start(options: &[&str], script: &str, env: &[(&str, &str)]) -> Wrapped {
        let (folder, path) = socket();
        let handle = serve(&path);
        let mut command = Command::new(env!("CARGO_BIN_EXE_lyra-session-wrapper"));
        command.args(options).args(["sh", "-c", script]).current_dir(folder.path());
        command.env_remove("PORT").env("LYRA_SESSION_ADDRESS", format!("unix:{}", path.display()));
        command.env("TMPDIR", folder.path()).envs(env.iter().copied());
        let wrapper = command.stdin(Stdio::null()).kill_on_drop(true).spawn().expect("cargo builds it for tests");
        until_attached(&handle).await;
        Wrapped { handle, wrapper, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn end(&self) -> End {
        let state = until(&self.handle, "over", |state| matches!(state.phase, Phase::Ended(_))).await;
        let Phase::Ended(end) = state.phase else { unreachable!("just looked at") };
        end
    }
}

/// Waits until a file has this content.
async fn content(path: &Path) -> String {
    let wait = async {
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text.trim_end().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{} is not written", path.display()))
}

/// Waits until there is no process of this id, or only what is left of one.
async fn until_ended(pid: &str) {
    let wait = async {
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{pid} lives"));
}

#[tokio::test]
async fn a_program_is_started_with_the_session_and_ended_by_sigterm() {
    let script = r#"trap 'echo bye > bye; exit 3' TERM
        echo "$LYRA_SESSION_NAME $LYRA_SESSION_DATA $(cat $LYRA_SESSION_DATA_FILE) ${LYRA_SESSION_ADDRESS:-none}" > env
        while :; do sleep 0.01; done"#;
    let wrapped = Wrapped::start(&[], script, &[]).await;
    assert!(!wrapped.file("env").exists());
    wrapped.handle.open(open("a", "map=1"), SOON).await.expect("opened");
    assert_eq!(content(&wrapped.file("env")).await, "name-of-a map=1 map=1 none");
    assert_eq!(wrapped.handle.close(SOON).await, How::Closed);
    assert_eq!(content(&wrapped.file("bye")).await, "bye");
    let reason = "the program ended with exit code 3".to_owned();
    assert_eq!(wrapped.end().await, End::Closed { reason, exit_code: Some(3) });
    // The next one.
    wrapped.handle.open(open("b", ""), SOON).await.expect("opened");
    assert_eq!(wrapped.handle.close(SOON).await, How::Closed);
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed_with_all_that_it_started() {
    // A grandchild that has a session of its own, so that no signal to the group reaches it, dies with the wrapper.
    let script = r#"trap '' TERM
        sh -c 'trap "" TERM; echo $$ > child; while :; do sleep 0.01; done' &
        echo $$ > parent
        while :; do sleep 0.01; done"#;
    let wrapped = Wrapped::start(&[], script, &[]).await;
    wrapped.handle.open(open("a", ""), SOON).await.expect("opened");
    let pids = [content(&wrapped.file("parent")).await, content(&wrapped.file("child")).await];
    let closed = wrapped.handle.close(Duration::from_millis(200)).await;
    // The wrapper kills at the end of the grace, when the server gives up waiting.
    assert!(matches!(closed, How::Late | How::Closed), "{closed:?}");
    for pid in pids {
        until_ended(&pid).await;
    }
}

#[tokio::test]
async fn a_session_is_open_when_the_port_answers() {
    let port = port();
    let script = "while [ ! -e go ]; do sleep 0.01; done; exec python3 -c \"
import socket, os, time
s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))
while True: s.accept()
\"";
    let wrapped = Wrapped::start(&[], script, &[("PORT", &port.to_string())]).await;
    let error = wrapped.handle.open(open("a", ""), Duration::from_millis(300)).await.expect_err("no port");
    assert_eq!(error.code, Code::Timeout);
    until(&wrapped.handle, "free again", |_| true).await;
    std::fs::write(wrapped.file("go"), "").expect("written");
    // It has to end the first program before it can take another session.
    let opened = async {
        while let Err(error) = wrapped.handle.open(open("b", ""), SOON).await {
            assert_eq!(error.code, Code::Conflict, "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, opened).await.expect("in time");
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("it answers");
}

#[tokio::test]
async fn the_end_of_the_program_is_the_end_of_the_session() {
    let wrapped = Wrapped::start(&["--ready", "at-once"], "sleep 0.2; exit 7", &[]).await;
    wrapped.handle.open(open("a", ""), SOON).await.expect("opened");
    let reason = "the program ended with exit code 7".to_owned();
    assert_eq!(wrapped.end().await, End::Closed { reason, exit_code: Some(7) });

    let wrapped = Wrapped::start(&["--ready", "1"], "kill -9 $$", &[]).await;
    let error = wrapped.handle.open(open("a", ""), SOON).await.expect_err("it ended before it was ready");
    assert_eq!(error.code, Code::Cancelled);
    let reason = "the program was ended by signal 9".to_owned();
    assert_eq!(wrapped.end().await, End::Closed { reason, exit_code: Some(137) });
}

#[tokio::test]
async fn a_program_dies_with_its_wrapper() {
    let mut wrapped = Wrapped::start(&[], "echo $$ > pid; exec sleep 1000", &[]).await;
    wrapped.handle.open(open("a", ""), SOON).await.expect("opened");
    let pid = content(&wrapped.file("pid")).await;
    wrapped.wrapper.kill().await.expect("killed");
    until_ended(&pid).await;
}

#[tokio::test]
async fn signals_are_passed_on_and_sigterm_closes_the_session() {
    let script = r#"trap 'echo hup > hup' HUP
        trap 'echo term > term; exit 0' TERM
        echo go > go
        while :; do sleep 0.01; done"#;
    let mut wrapped = Wrapped::start(&[], script, &[]).await;
    wrapped.handle.open(open("a", ""), SOON).await.expect("opened");
    content(&wrapped.file("go")).await;
    let pid = wrapped.wrapper.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    let pid = pid.expect("it runs");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("sent");
    assert_eq!(content(&wrapped.file("hup")).await, "hup");
    assert!(is_open(&wrapped.handle.state().borrow().clone()));
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    let status = timeout(SOON, wrapped.wrapper.wait()).await.expect("in time").expect("a status");
    assert!(status.success(), "{status}");
    assert_eq!(content(&wrapped.file("term")).await, "term");
    assert!(matches!(wrapped.end().await, End::Closed { exit_code: Some(0), .. }));
}

#[tokio::test]
async fn children_that_are_left_behind_are_reaped() {
    let script = "(sleep 0.05 & echo $! > orphan; exit 0); exec sleep 1000";
    let wrapped = Wrapped::start(&[], script, &[]).await;
    wrapped.handle.open(open("a", ""), SOON).await.expect("opened");
    let orphan = content(&wrapped.file("orphan")).await;
    let gone = async {
        while Path::new(&format!("/proc/{orphan}")).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.expect("reaped");
}

#[tokio::test]
async fn a_wrapper_without_a_command_says_how_to_call_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lyra-session-wrapper"));
    let output = command.env_remove("SESSION_WRAPPER_OPEN_SESSION_CMD").output().await.expect("started");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: lyra-session-wrapper"));
}
