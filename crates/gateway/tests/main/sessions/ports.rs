//! TCP and UDP ports of sessions.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lyra_gateway::{Config, IngressConfig};
use lyra_types::resources::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::{config, connect, feed, metric, open, own_address, programs, rest, start, start_beside, until};

const PORT: u16 = 20_001;

fn at(port: u16) -> SocketAddr {
    (own_address(0), port).into()
}

#[tokio::test]
async fn bytes_go_both_ways_and_the_end_of_one_leaves_the_other_open() {
    let gateway = start(config()).await;
    open(&gateway, "echo", programs::echo("echo:").await, Some(PORT));
    let mut stream = connect(at(PORT), "echo:").await;
    stream.write_all(b"hello").await.unwrap();
    let mut seen = [0; 5];
    stream.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"hello");
    stream.write_all(b", world").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(stream).await, ", world;12");
    until("its place is free", || async { metric(&gateway, "lyra_ingress_connections{kind=\"tcp\"}").await == 0 })
        .await;
    assert_eq!(metric(&gateway, "lyra_ingress_bytes_total{direction=\"up\",kind=\"tcp\"}").await, 12);
}

#[tokio::test]
async fn much_goes_through_unharmed() {
    let gateway = start(config()).await;
    open(&gateway, "echo", programs::echo("").await, Some(PORT));
    let stream = connect(at(PORT), "").await;
    let (mut reader, mut writer) = stream.into_split();
    let sent: Vec<u8> = (0..8_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let expected = sent.clone();
    let write = lyra_kit::tasks::spawn("writer", async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut seen = Vec::new();
    reader.read_to_end(&mut seen).await.unwrap();
    write.await.unwrap();
    assert!(seen.starts_with(&expected));
    assert_eq!(&seen[expected.len()..], b";8000000");
}

#[tokio::test]
async fn a_slow_reader_slows_the_program_and_is_not_held_for_in_memory() {
    const PIECES: u64 = 1_600;
    let gateway = start(config()).await;
    let (address, sent) = programs::flood(PIECES).await;
    open(&gateway, "flood", address, Some(PORT));
    let mut stream = connect(at(PORT), "").await;
    // Until the program gets no further: what was written then stands in buffers of the system and of the gateway.
    let clock = lyra_kit::Clock::system();
    let mut before = u64::MAX;
    while before != sent.load(Ordering::SeqCst) {
        before = sent.load(Ordering::SeqCst);
        clock.sleep(Duration::from_millis(200)).await;
    }
    assert!(before < PIECES / 2, "{before} pieces of 64 KiB are held somewhere");
    let mut all = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        all += length as u64;
    }
    assert_eq!(all, PIECES << 16);
}

#[tokio::test]
async fn closing_a_session_cuts_its_connections_and_refuses_its_port() {
    let gateway = start(config()).await;
    open(&gateway, "echo", programs::echo("echo:").await, Some(PORT));
    let stream = connect(at(PORT), "echo:").await;
    gateway.control.sessions.close("echo");
    assert_eq!(rest(stream).await, "");
    until("the port is closed", || async { TcpStream::connect(at(PORT)).await.is_err() }).await;
    assert_eq!(metric(&gateway, "lyra_ingress_ports").await, 0);
}

#[tokio::test]
async fn a_port_that_passes_to_another_session_leads_only_to_it() {
    let gateway = start(config()).await;
    let (first, second) = (programs::echo("first:").await, programs::echo("second").await);
    open(&gateway, "first", first, Some(PORT));
    for round in 0..20 {
        let (name, greeting, address) = [("first", "first:", first), ("second", "second", second)][round % 2];
        let (next, next_greeting, next_address) = [("second", "second", second), ("first", "first:", first)][round % 2];
        let old = connect(at(PORT), greeting).await;
        // In either order: the port may be given away before its former session is said to be over.
        if round % 4 < 2 {
            open(&gateway, next, next_address, Some(PORT));
            gateway.control.sessions.close(name);
        } else {
            gateway.control.sessions.close(name);
            open(&gateway, next, next_address, Some(PORT));
        }
        assert_eq!(rest(old).await, "", "of the session at {address}");
        // A connection that is taken is the next one's from its first byte, or is refused.
        loop {
            if let Ok(mut stream) = TcpStream::connect(at(PORT)).await {
                let mut seen = [0; 6];
                if stream.read_exact(&mut seen).await.is_ok() {
                    assert_eq!(seen, next_greeting.as_bytes());
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_session_that_moves_is_reached_at_its_new_place() {
    let gateway = start(config()).await;
    open(&gateway, "echo", programs::echo("old:").await, Some(PORT));
    let old = connect(at(PORT), "old:").await;
    open(&gateway, "echo", programs::echo("new:").await, Some(PORT + 1));
    assert_eq!(rest(old).await, "");
    drop(connect(at(PORT + 1), "new:").await);
    until("the port is closed", || async { TcpStream::connect(at(PORT)).await.is_err() }).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_tried_until_it_is_free() {
    let gateway = start(config()).await;
    let taken = std::net::TcpListener::bind(at(PORT)).unwrap();
    open(&gateway, "echo", programs::echo("echo:").await, Some(PORT));
    until("it was tried", || async { metric(&gateway, "lyra_ingress_bind_failures_total").await > 1 }).await;
    assert_eq!(metric(&gateway, "lyra_ingress_ports").await, 0);
    drop(taken);
    drop(connect(at(PORT), "echo:").await);
}

#[tokio::test]
async fn a_client_of_a_program_that_is_not_there_is_not_left_waiting() {
    let ingress = IngressConfig { max_session_connections: 1, ..config().ingress };
    let gateway = start(Config { ingress, ..config() }).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    open(&gateway, "nobody", nobody, Some(PORT));
    open(&gateway, "echo", programs::echo("echo:").await, Some(PORT + 1));
    until("it is listened on", || async { metric(&gateway, "lyra_ingress_ports").await == 2 }).await;
    assert_eq!(rest(TcpStream::connect(at(PORT)).await.unwrap()).await, "");
    let first = connect(at(PORT + 1), "echo:").await;
    assert_eq!(rest(TcpStream::connect(at(PORT + 1)).await.unwrap()).await, "", "there is place for one");
    drop(first);
    drop(connect(at(PORT + 1), "echo:").await);
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_ends() {
    let ingress = IngressConfig { tcp_idle_timeout: Duration::from_millis(200), ..config().ingress };
    let gateway = start(Config { ingress, ..config() }).await;
    open(&gateway, "echo", programs::echo("echo:").await, Some(PORT));
    let stream = connect(at(PORT), "echo:").await;
    assert_eq!(rest(stream).await, "");
    assert!(metric(&gateway, "lyra_ingress_idle_total").await >= 1);
}

async fn answer(socket: &UdpSocket, to: SocketAddr, text: &str) -> Option<String> {
    // Datagrams may be lost: on a port that is not listened on yet, for one.
    for _ in 0..600 {
        // The error of a datagram before may be told here.
        drop(socket.send_to(text.as_bytes(), to).await);
        let mut buffer = vec![0; 64 << 10];
        let wait = Duration::from_millis(50);
        if let Ok(Ok((length, from))) = tokio::time::timeout(wait, socket.recv_from(&mut buffer)).await {
            assert_eq!(from, to, "the answer comes from where the question went");
            return Some(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    None
}

#[tokio::test]
async fn clients_of_a_udp_port_are_told_apart_and_answered() {
    let ingress = IngressConfig { udp_idle_timeout: Duration::from_secs(2), ..config().ingress };
    let gateway = start(Config { ingress, ..config() }).await;
    let (udp, tcp) = (programs::datagrams("game").await, programs::echo("echo:").await);
    let ports = [("game", Protocol::Udp, udp, Some(PORT)), ("chat", Protocol::Tcp, tcp, Some(PORT))];
    gateway.control.sessions.open(&feed::route("game", "game", &ports));
    let first = UdpSocket::bind((own_address(0), 0)).await.unwrap();
    let second = UdpSocket::bind((own_address(0), 0)).await.unwrap();
    let seen = |answer: String| {
        let mut words = answer.splitn(3, ' ').map(str::to_owned);
        let (name, port, text) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        assert_eq!(name, "game");
        (port, text)
    };
    let (one, text) = seen(answer(&first, at(PORT), "hello").await.unwrap());
    assert_eq!(text, "hello");
    let (other, _) = seen(answer(&second, at(PORT), "hello").await.unwrap());
    assert_ne!(one, other);
    let large = "x".repeat(30_000);
    let (again, text) = loop {
        // An answer to a datagram that was sent twice may still come.
        let (port, text) = seen(answer(&first, at(PORT), &large).await.unwrap());
        if text != "hello" {
            break (port, text);
        }
    };
    assert_eq!((again, text.len()), (one, large.len()), "a client keeps its place");
    drop(connect(at(PORT), "echo:").await);
    assert!(metric(&gateway, "lyra_ingress_connections{kind=\"udp\"}").await >= 2);
    until("silent clients are forgotten", || async {
        metric(&gateway, "lyra_ingress_connections{kind=\"udp\"}").await == 0
    })
    .await;
    assert!(answer(&first, at(PORT), "hello").await.is_some(), "they may come again");
    gateway.control.sessions.close("game");
    until("the port is closed", || async { UdpSocket::bind(at(PORT)).await.is_ok() }).await;
}

#[tokio::test]
async fn the_first_datagrams_of_a_client_reach_the_session() {
    let gateway = start(config()).await;
    let ports = [("game", Protocol::Udp, programs::datagrams("game").await, Some(PORT))];
    gateway.control.sessions.open(&feed::route("game", "game", &ports));
    let early = UdpSocket::bind((own_address(0), 0)).await.unwrap();
    assert!(answer(&early, at(PORT), "is the port open").await.is_some());
    let socket = UdpSocket::bind((own_address(0), 0)).await.unwrap();
    // Said at once, and never again.
    for number in 0..5 {
        socket.send_to(format!("{number}").as_bytes(), at(PORT)).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let mut buffer = [0; 100];
        let received = tokio::time::timeout(Duration::from_secs(60), socket.recv_from(&mut buffer)).await;
        let (length, _) = received.unwrap_or_else(|_| panic!("only {seen:?} came")).unwrap();
        seen.extend(String::from_utf8_lossy(&buffer[..length]).split(' ').next_back().map(str::to_owned));
    }
    seen.sort();
    assert_eq!(seen, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_udp_port_passes_to_another_session_with_all_its_clients() {
    let gateway = start(config()).await;
    let (first, second) = (programs::datagrams("first").await, programs::datagrams("second").await);
    let socket = UdpSocket::bind((own_address(0), 0)).await.unwrap();
    gateway.control.sessions.open(&feed::route("first", "first", &[("", Protocol::Udp, first, Some(PORT))]));
    assert!(answer(&socket, at(PORT), "x").await.unwrap().starts_with("first "));
    gateway.control.sessions.close("first");
    gateway.control.sessions.open(&feed::route("second", "second", &[("", Protocol::Udp, second, Some(PORT))]));
    while !answer(&socket, at(PORT), "y").await.unwrap().starts_with("second ") {}
    for _ in 0..20 {
        assert!(answer(&socket, at(PORT), "z").await.unwrap().starts_with("second "));
    }
}

#[tokio::test]
async fn several_gateways_serve_the_same_session_and_one_that_ends_costs_only_its_own() {
    let first = start(config()).await;
    let ingress = IngressConfig { address: Some(own_address(1)), drain: Duration::ZERO, ..IngressConfig::default() };
    let mut second = start_beside(&first.control, Config { ingress, ..Config::default() }).await;
    open(&first, "echo", programs::echo("echo:").await, Some(PORT));
    let mut here = connect(at(PORT), "echo:").await;
    let there = connect((own_address(1), PORT).into(), "echo:").await;
    second.shutdown.cancel();
    assert_eq!(rest(there).await, "");
    second.served.take().unwrap().await.unwrap().unwrap();
    assert!(TcpStream::connect((own_address(1), PORT)).await.is_err());
    here.write_all(b"still").await.unwrap();
    here.shutdown().await.unwrap();
    assert_eq!(rest(here).await, "still;5");
}

#[tokio::test]
async fn a_gateway_that_does_not_listen_serves_by_path() {
    let ingress = IngressConfig { enabled: false, ..config().ingress };
    let gateway = start(Config { ingress, ..config() }).await;
    let program = programs::http("web").await;
    open(&gateway, "web", program.address, Some(PORT));
    until("it is known", || async { gateway.get("/s/default/web/").await.status == 200 }).await;
    assert!(TcpStream::connect(at(PORT)).await.is_err());
}
