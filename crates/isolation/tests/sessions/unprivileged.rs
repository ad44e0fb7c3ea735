//! Sessions of a worker that is an ordinary user's.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;

use super::*;

const USER: u32 = 61235;

/// Runs one of the tests below as an ordinary user, in a directory of that user's.
fn as_user(test: &str, dir: &Path) -> std::process::Command {
    let mut command = std::process::Command::new("/usr/bin/setpriv");
    command
        .args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups", "--"])
        .arg(dir.join("tests"))
        .args(["--exact", &format!("sessions::unprivileged::{test}"), "--ignored", "--nocapture"])
        .arg(dir)
        .env_remove("CARGO_TARGET_TMPDIR")
        .current_dir(dir)
        .process_group(0);
    command
}

fn place() -> std::path::PathBuf {
    std::env::args().next_back().expect("the directory").into()
}

#[tokio::test]
#[ignore = "is run by another test, which kills it"]
async fn first() {
    let worker = Worker::start(&place()).await;
    let (hosted, _) = worker.up(lasting()).await;
    let address = expose(&*hosted).await[0];
    std::fs::write(place().join("said"), format!("{address}\n")).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
#[ignore = "is run by another test"]
async fn next() {
    let worker = Worker::start(&place()).await;
    let adopted = worker.processes.adopt().await;
    assert_eq!(adopted.len(), 1);
    let files = [("session.json".to_owned(), Bytes::from("new"))].into();
    adopted[0].write(&files).await.unwrap();
    assert_eq!(order(&*adopted[0], json!({"read": "session.json"})).await, Ok(json!("new")));
    assert_eq!(order(&*adopted[0], json!({"write": "session.json"})).await, Err("OSError".to_owned()));
    assert!(adopted[0].hibernate().await && adopted[0].wake().await);
    assert_eq!(timeout(adopted[0].stop(PATIENCE)).await, exited(3));
    drop(adopted);
    worker.finish(&place()).await;
    std::fs::write(place().join("fine"), "").unwrap();
}

#[tokio::test]
async fn an_ordinary_users_sessions_outlive_their_worker_too() {
    let dir = directory();
    std::fs::copy(std::env::current_exe().unwrap(), dir.path().join("tests")).expect("copied");
    std::fs::copy(env!("CARGO_BIN_EXE_lyra-sandbox"), dir.path().join("lyra-sandbox")).expect("copied");
    std::os::unix::fs::chown(dir.path(), Some(USER), Some(USER)).expect("as root");
    let mut worker = as_user("first", dir.path()).spawn().expect("setpriv runs: apt-get install util-linux");
    let said = dir.path().join("said");
    until(|| std::fs::read_to_string(&said).is_ok_and(|said| said.ends_with('\n'))).await;
    let address = std::fs::read_to_string(&said).unwrap().trim().to_owned();
    let mut stream = std::net::TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    worker.kill().unwrap();
    worker.wait().unwrap();
    stream.write_all(b"still").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"STILL");
    let mut next = as_user("next", dir.path()).spawn().unwrap();
    let status = lyra_kit::tasks::blocking(move || next.wait()).await.unwrap().unwrap();
    assert!(status.success() && dir.path().join("fine").exists());
}
