//! The example, as a real program.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;

use lyra_session::{End, Phase, Resumed};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::{SOON, is_open, open, port, serve, socket, until, until_attached};

async fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    timeout(SOON, client.read_line(&mut line)).await.expect("in time").expect("a line");
    line.trim_end().to_owned()
}

/// Where cargo puts this package's examples (`./test` builds the one that is run here).
fn example(name: &str) -> std::path::PathBuf {
    let mut path = std::env::current_exe().expect("a test has a file");
    path.pop();
    path.pop();
    path.join("examples").join(name)
}

#[tokio::test]
async fn a_board_game_is_a_session() {
    let (_folder, path) = socket();
    let handle = serve(&path);
    let port = port();
    let mut command = Command::new(example("board_game"));
    command.env("PORT", port.to_string()).env("LYRA_SESSION_ADDRESS", format!("unix:{}", path.display()));
    let _child = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("cargo build --workspace --bins --example board_game, as ./test does");
    until_attached(&handle).await;
    let error = handle.open(open("a", "huge"), SOON).await.expect_err("no size");
    assert!(error.detail.contains("a size from 1 to 26"), "{error}");

    handle.configure(1, Arc::new(BTreeMap::from([("motto".to_owned(), "play fair".to_owned())])));
    handle.open(open("b", "2"), SOON).await.expect("opened");
    let connect = async || BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.expect("the game listens"));
    let (mut one, mut two) = (connect().await, connect().await);
    for player in [&mut one, &mut two] {
        assert!(line(player).await.starts_with("you are player"));
        assert_eq!(line(player).await, "play fair");
    }
    until(&handle, "in use by two", |state| state.clients == 2).await;
    one.write_all(b"claim 0 0\nclaim 7 0\n").await.expect("written");
    while line(&mut one).await != "no such field" {}
    assert!(line(&mut two).await.ends_with("claims 0 0"));

    // The game goes on while the worker is away.
    handle.stop().await;
    two.write_all(b"claim 1 0\n").await.expect("written");
    assert!(line(&mut two).await.ends_with("claims 1 0"));
    let handle = serve(&path);
    handle.resume(open("b", "2"), Resumed::Open).expect("nothing else is there");
    until(&handle, "open and in use by two", |state| is_open(state) && state.clients == 2).await;

    two.write_all(b"claim 0 1\nclaim 1 1\n").await.expect("written");
    while line(&mut two).await != "the board is full" {}
    let state = until(&handle, "over", |state| matches!(state.phase, Phase::Ended(_))).await;
    let end = End::Closed { reason: "the board is full".to_owned(), exit_code: None };
    assert_eq!(state.phase, Phase::Ended(end));
}
