//! What comes in at ports of the node reaches the program, and back.

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};

use super::*;

async fn client(address: SocketAddr) -> TcpStream {
    timeout(TcpStream::connect(address)).await.expect("connects")
}

/// Whether a new connection is hung up on, which it may learn of while it connects.
async fn is_turned_away(address: SocketAddr) -> bool {
    match TcpStream::connect(address).await {
        Ok(mut stream) => matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)),
        Err(_) => true,
    }
}

async fn say(client: &mut TcpStream, words: &str) -> String {
    client.write_all(words.as_bytes()).await.expect("sent");
    let mut answer = vec![0; words.len()];
    timeout(client.read_exact(&mut answer)).await.expect("answered");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn three_ports_of_two_kinds_lead_to_their_own_ports_of_the_program() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let (hosted, _) = worker.up(hosting()).await;
    let (other, _) = worker.up(hosting()).await;
    let addresses = expose(&*hosted).await;
    let others = expose(&*other).await;
    assert_eq!(addresses, expose(&*hosted).await, "asking again changes nothing");
    let distinct: std::collections::BTreeSet<_> = addresses.iter().chain(&others).map(SocketAddr::port).collect();
    assert_eq!(distinct.len(), 6);
    assert_eq!(say(&mut client(addresses[0]).await, "echo").await, "ECHO");
    let answer = order_over(client(addresses[1]).await, json!({"env": "LYRA_INSTANCE"})).await;
    assert_eq!(answer, Ok(json!(hosted.id().to_string())));
    let answer = order_over(client(others[1]).await, json!({"env": "LYRA_INSTANCE"})).await;
    assert_eq!(answer, Ok(json!(other.id().to_string())), "each address leads to its own instance");

    let clients = [UdpSocket::bind((LOCAL, 0)).await.unwrap(), UdpSocket::bind((LOCAL, 0)).await.unwrap()];
    let mut seen = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        client.connect(addresses[2]).await.unwrap();
        for words in [format!("one {number}"), format!("two {number}")] {
            client.send(words.as_bytes()).await.unwrap();
            let mut answer = [0; 100];
            let length = timeout(client.recv(&mut answer)).await.unwrap();
            let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
            let (from, text) = answer.split_once(' ').unwrap();
            assert_eq!(text, words.to_uppercase());
            seen.push(from.to_owned());
        }
    }
    assert!(seen[0] == seen[1] && seen[2] == seen[3] && seen[0] != seen[2], "clients are told apart: {seen:?}");
    let large = vec![b'x'; 60_000];
    clients[0].send(&large).await.unwrap();
    let length = timeout(clients[0].recv(&mut vec![0; 65_536])).await.unwrap();
    assert!(length > large.len(), "a large datagram passes whole");
    let traffic = hosted.traffic().await;
    assert_eq!((traffic.associations, traffic.refused), (2, 0));
    assert_eq!(traffic.accepted, 4);
    assert!(traffic.received > 60_000 && traffic.sent > 60_000);
    drop((hosted, other));
    worker.finish(dir.path()).await;
}

#[tokio::test]
async fn one_direction_may_end_before_the_other() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let (hosted, _) = worker.up(hosting()).await;
    let address = expose(&*hosted).await[0];
    let mut stream = client(address).await;
    stream.write_all(b"some words").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    timeout(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "SOME WORDSbye");
    // Much more than all buffers on the way hold, both ways at once.
    let (mut from, mut to) = client(address).await.into_split();
    let sent = vec![b'a'; 32 << 20];
    let send = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let receive = async { from.read_to_end(&mut got).await.unwrap() };
    timeout(async { tokio::join!(send, receive) }).await;
    assert_eq!(got.len(), sent.len() + 3);
    assert!(got[..sent.len()].iter().all(|byte| *byte == b'A'));
    drop(hosted);
    worker.finish(dir.path()).await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_its_own_sender_only() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let deaf = Hosting { env: vec![("DEAF".to_owned(), "1".to_owned())], ..hosting() };
    let (hosted, _) = worker.up(deaf).await;
    let addresses = expose(&*hosted).await;
    let mut stuck = client(addresses[0]).await;
    let chunk = vec![0; 1 << 20];
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), stuck.write(&chunk)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "somebody takes it all");
    }
    assert_eq!(order_over(client(addresses[1]).await, json!({"env": "DEAF"})).await, Ok(json!("1")));
    drop(hosted);
    worker.finish(dir.path()).await;
}

#[tokio::test]
async fn a_thousand_connections_are_carried_and_more_are_turned_away() {
    let dir = directory();
    let worker = Worker::with(dir.path(), |config| {
        config.settings.session_connections = 1000;
        config.settings.pids = 2000;
        config.settings.open_files = 4000;
    })
    .await;
    let (hosted, _) = worker.up(hosting()).await;
    let address = expose(&*hosted).await[0];
    let mut clients = Vec::new();
    for number in 0..1000 {
        let mut client = client(address).await;
        if number % 100 == 0 {
            assert_eq!(say(&mut client, "x").await, "X");
        }
        clients.push(client);
    }
    assert!(timeout(is_turned_away(address)).await, "one more is turned away");
    for client in &mut clients {
        assert_eq!(say(client, "still").await, "STILL");
    }
    let traffic = hosted.traffic().await;
    assert_eq!((traffic.connections, traffic.accepted, traffic.refused), (1000, 1000, 1));
    drop(clients);
    let left = async {
        while hosted.traffic().await.connections > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(left).await;
    assert_eq!(say(&mut client(address).await, "again").await, "AGAIN");
    drop(hosted);
    worker.finish(dir.path()).await;
}

#[tokio::test]
async fn what_is_hidden_is_cut_off_and_its_ports_are_free() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let (hosted, _) = worker.up(hosting()).await;
    let addresses = expose(&*hosted).await;
    let mut stream = client(addresses[0]).await;
    assert_eq!(say(&mut stream, "here").await, "HERE");
    hosted.hide().await.unwrap();
    assert!(hosted.exposed().is_empty());
    assert!(matches!(timeout(stream.read(&mut [0; 1])).await, Ok(0) | Err(_)));
    for address in &addresses[..2] {
        TcpListener::bind(address).await.expect("free");
    }
    UdpSocket::bind(addresses[2]).await.expect("free");
    assert!(TcpStream::connect(addresses[0]).await.is_err());
    assert_eq!(order(&*hosted, json!({"env": "PORT"})).await, Ok(json!("7000")), "the instance goes on");
    let again = expose(&*hosted).await;
    assert_eq!(say(&mut client(again[0]).await, "again").await, "AGAIN");
    // The end of the instance frees them too, before it is told.
    assert_eq!(timeout(hosted.stop(PATIENCE)).await, exited(3));
    for address in &again[..2] {
        TcpListener::bind(address).await.expect("free");
    }
    UdpSocket::bind(again[2]).await.expect("free");
    drop(hosted);
    worker.finish(dir.path()).await;
}

#[tokio::test]
async fn a_client_of_a_program_that_does_not_listen_is_turned_away() {
    let dir = directory();
    let worker = Worker::of(dir.path(), |_| {}, Settings::of(Runtime::Http), b"#!/bin/sh\nsleep 1000").await;
    let hosted = worker.host(hosting()).await;
    let address = expose(&*hosted).await[0];
    assert!(timeout(is_turned_away(address)).await);
    assert_eq!(hosted.traffic().await.refused, 1);
    drop(hosted);
    worker.finish(dir.path()).await;
}

#[tokio::test]
async fn a_porter_that_dies_is_replaced_and_the_ports_stay() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let (hosted, _) = worker.up(hosting()).await;
    let address = expose(&*hosted).await[0];
    let mut stream = client(address).await;
    assert_eq!(say(&mut stream, "here").await, "HERE");
    assert_eq!(hosted.traffic().await.accepted, 1);
    let porter = porter_of(dir.path());
    assert!(std::process::Command::new("/bin/kill").args(["-9", &porter.to_string()]).status().unwrap().success());
    assert!(matches!(timeout(stream.read(&mut [0; 1])).await, Ok(0) | Err(_)));
    assert_eq!(say(&mut client(address).await, "again").await, "AGAIN");
    assert_ne!(porter_of(dir.path()), porter);
    assert_eq!(hosted.exit(), None);
    drop(hosted);
    worker.finish(dir.path()).await;
}

/// Processes of a name.
fn named(name: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let name = format!("{name}\n");
    pids.filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == name)).collect()
}

/// The launcher of a worker, which holds the lock of its directory.
pub fn launcher_of(dir: &Path) -> u32 {
    let lock = dir.join("launch/launcher.lock");
    let holds = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/fd/1")).is_ok_and(|file| file == lock);
    named("lyra-launcher").into_iter().find(holds).expect("there is a launcher")
}

fn porter_of(dir: &Path) -> u32 {
    let parent = format!("PPid:\t{}", launcher_of(dir));
    let is_its = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == parent)
    };
    named("lyra-porter").into_iter().find(is_its).expect("there is a porter")
}
