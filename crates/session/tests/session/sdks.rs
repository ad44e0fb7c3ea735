//! The SDKs of Node.js and Python against the server: their own tests, and their examples as real programs.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use lyra_session::{End, How, Phase, Resumed, SessionHandle, Settings, Why};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{SOON, is_open, open, serve, socket, until, until_attached};

fn sdk(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk").join(path)
}

fn program(name: &str) -> Command {
    let package = if name == "node" { "nodejs" } else { name };
    let found = std::process::Command::new(name).arg("--version").output().is_ok();
    assert!(found, "{name} is missing: apt-get install {package}");
    let mut command = Command::new(name);
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// A port that is free now.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

async fn passes(mut command: Command) {
    let output = timeout(SOON, command.output()).await.expect("in time").expect("it can be started");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{text}");
}

#[tokio::test]
async fn the_tests_of_the_sdk_for_nodejs_pass() {
    let mut command = program("node");
    command.arg("--test").arg(sdk("nodejs/test"));
    passes(command).await;
}

#[tokio::test]
async fn the_tests_of_the_sdk_for_python_pass() {
    let mut command = program("python3");
    command.args(["-m", "unittest", "discover", "tests"]).current_dir(sdk("python"));
    command.env("PYTHONPATH", "src").env("PYTHONDONTWRITEBYTECODE", "1");
    passes(command).await;
}

/// An example that runs, and the server that it is attached to.
struct Example {
    handle: SessionHandle,
    child: Child,
    port: u16,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Example {
    async fn start(interpreter: &str, file: &str) -> Example {
        let (folder, socket) = socket();
        let handle = serve(&socket, settings());
        let port = port();
        let mut command = program(interpreter);
        command.arg(sdk(file)).env("PORT", port.to_string()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("LYRA_SESSION_ADDRESS", format!("unix:{}", socket.display()));
        let child = command.spawn().expect("it can be started");
        until_attached(&handle, true).await;
        Example { handle, child, port, socket, _folder: folder }
    }

    async fn client(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await.expect("the example listens"))
    }

    /// Another server in place of the first one, which knows what that one knew.
    async fn restart(&mut self, resume: lyra_session::Open) {
        self.handle.stop().await;
        self.handle = serve(&self.socket, settings());
        self.handle.resume(resume, Resumed::Open).expect("nothing else is there");
        until_attached(&self.handle, true).await;
    }

    async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
        let state = until(&self.handle, "gone", |state| state.gone.is_some()).await;
        assert_eq!(state.phase, Phase::Ended(End::Gone(Why::Detached)));
    }
}

fn settings() -> Settings {
    Settings { reattach: Duration::from_secs(5), ..Settings::default() }
}

async fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    timeout(SOON, client.read_line(&mut line)).await.expect("in time").expect("a line");
    line.trim_end().to_owned()
}

#[tokio::test]
async fn a_counter_in_python_is_a_session() {
    let mut example = Example::start("python3", "python/examples/counter/server.py").await;
    example.handle.open(open("a", "40"), SOON).await.expect("opened");
    let mut client = example.client().await;
    assert_eq!(line(&mut client).await, "40");
    until(&example.handle, "in use", |state| state.clients == 1).await;
    client.write_all(b"2\n").await.expect("written");
    assert_eq!(line(&mut client).await, "42");

    // The worker is restarted: clients notice nothing, and the session is as it was.
    example.restart(open("a", "40")).await;
    until(&example.handle, "open and in use", |state| is_open(state) && state.clients == 1).await;
    example.handle.configure(1, Arc::new(BTreeMap::from([("most".to_owned(), "5".to_owned())])));
    // Told in order, so it is there when the answer to a ping is.
    example.handle.ping().await.expect("it lives");
    let mut value = 42;
    while value == 42 || value > 47 {
        client.write_all(b"100\n").await.expect("written");
        let now: i64 = line(&mut client).await.parse().expect("a number");
        if now == value + 5 {
            break;
        }
        value = now;
    }
    drop(client);
    until(&example.handle, "not in use", |state| state.clients == 0).await;

    assert_eq!(example.handle.close(SOON).await, How::Closed);
    // Another session in the same instance; this one is refused.
    let error = example.handle.open(open("b", "many"), SOON).await.expect_err("no number");
    assert!(error.detail.contains("invalid literal"), "{error}");
    example.handle.open(open("c", "1"), SOON).await.expect("opened");
    example.kill().await;
}

#[tokio::test]
async fn a_chat_room_in_nodejs_is_a_session() {
    let mut example = Example::start("node", "nodejs/examples/chat/server.js").await;
    example.handle.open(open("a", "the blue room"), SOON).await.expect("opened");
    let mut guest = Guest::join(&example).await;
    assert_eq!(guest.next().await, "the blue room");
    assert!(guest.next().await.ends_with("joined"));
    until(&example.handle, "in use", |state| state.clients == 1).await;

    example.restart(open("a", "the blue room")).await;
    until(&example.handle, "open and in use", |state| is_open(state) && state.clients == 1).await;
    let mut other = Guest::join(&example).await;
    assert_eq!(other.next().await, "the blue room");
    until(&example.handle, "in use by two", |state| state.clients == 2).await;
    guest.say("hello").await;
    while !other.next().await.ends_with(": hello") {}
    example.handle.configure(1, Arc::new(BTreeMap::from([("motd".to_owned(), "be nice".to_owned())])));
    while other.next().await != "be nice" {}
    drop(other);
    until(&example.handle, "in use by one", |state| state.clients == 1).await;

    assert_eq!(example.handle.close(SOON).await, How::Closed);
    example.handle.open(open("b", ""), SOON).await.expect("opened");
    example.kill().await;
}

/// A WebSocket, as far as a chat needs it.
struct Guest(BufReader<TcpStream>);

impl Guest {
    async fn join(example: &Example) -> Guest {
        let mut client = example.client().await;
        let request = "GET /ws HTTP/1.1\r\nhost: c\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
        client.write_all(request.as_bytes()).await.expect("written");
        let mut accepted = false;
        loop {
            match line(&mut client).await.as_str() {
                // The sample of RFC 6455, 1.3.
                "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" => accepted = true,
                "" => break,
                _ => {}
            }
        }
        assert!(accepted);
        Guest(client)
    }

    async fn next(&mut self) -> String {
        let read = async {
            let length = [self.0.read_u8().await?, self.0.read_u8().await?][1];
            let mut text = vec![0; usize::from(length)];
            self.0.read_exact(&mut text).await?;
            std::io::Result::Ok(text)
        };
        let text = timeout(SOON, read).await.expect("in time").expect("a frame");
        String::from_utf8(text).expect("text")
    }

    async fn say(&mut self, text: &str) {
        let length = u8::try_from(text.len()).expect("a short line");
        let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame).await.expect("written");
    }
}
