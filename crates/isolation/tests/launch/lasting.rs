//! Sandboxes that outlive the Lyra that started them, and the ports that reach them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;

use lyra_isolation::process::launch::{Adopted, Bounds, Lasting};
use lyra_isolation::{Exposed, Port, Protocol};

use super::*;

/// Echoes on TCP port 7000 in upper case, and writes a line for each connection.
const ECHO: &str = "
import socket, sys, threading
def serve(one):
    print('client', flush=True)
    while data := one.recv(65536): one.sendall(data.upper())
    one.close()
door = socket.create_server(('127.0.0.1', 7000))
print('up', flush=True)
while True: threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()
";

pub fn lasting(plan: Plan, label: &str) -> Plan {
    Plan { lasting: Some(Lasting { label: label.to_owned(), kill_grace: Duration::from_secs(5) }), ..plan }
}

/// Exposes TCP ports of a process on free ports of this machine.
async fn expose(process: &Process, ports: &[u16]) -> Vec<SocketAddr> {
    let listeners: Vec<TcpListener> =
        ports.iter().map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port")).collect();
    let addresses: Vec<SocketAddr> = listeners.iter().map(|one| one.local_addr().expect("bound")).collect();
    let exposed = ports.iter().zip(&addresses).map(|(port, address)| Exposed {
        port: Port { name: format!("p{port}"), port: *port, protocol: Protocol::Tcp },
        address: *address,
    });
    let sockets: Vec<OwnedFd> = listeners.into_iter().map(OwnedFd::from).collect();
    process.expose(exposed.collect(), &sockets, Bounds::default()).await.expect("exposed");
    addresses
}

/// A client; gives up after [`PATIENCE`].
fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

fn say(client: &mut TcpStream, words: &str) -> String {
    client.write_all(words.as_bytes()).expect("sent");
    let mut answer = vec![0; words.len()];
    client.read_exact(&mut answer).expect("answered");
    String::from_utf8(answer).expect("text")
}

/// A test of this file that runs as a process of its own, with a directory, until it is killed.
struct Victim {
    process: std::process::Child,
    directory: tempfile::TempDir,
}

impl Victim {
    async fn start(test: &str) -> (Victim, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let process = std::process::Command::new(std::env::current_exe().expect("it is known"))
            .args(["--exact", &format!("launch::lasting::{test}"), "--ignored", "--nocapture"])
            .arg(directory.path())
            .process_group(0)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        let victim = Victim { process, directory };
        let said = victim.said().await;
        (victim, said)
    }

    /// What it says once it is up.
    async fn said(&self) -> String {
        let path = self.directory.path().join("up");
        let up = async {
            loop {
                match std::fs::read_to_string(&path) {
                    Ok(said) if said.ends_with('\n') => return said.trim_end().to_owned(),
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("the victim is up")
    }

    fn kill(&mut self) {
        self.process.kill().expect("it is a child");
        self.process.wait().expect("it is a child");
    }

    async fn next(&self) -> (Launcher, Vec<Adopted>) {
        let launcher = Launcher::start(config(self.directory.path())).await.expect("the next one starts");
        let adopted = launcher.adopt();
        (launcher, adopted)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _dead = self.process.kill();
        let _dead = self.process.wait();
    }
}

fn place() -> PathBuf {
    PathBuf::from(std::env::args().next_back().expect("the directory"))
}

fn tell(words: &str) {
    std::fs::write(place().join("up"), format!("{words}\n")).expect("written");
}

async fn line(process: &mut Process) -> String {
    let stdout = process.stdout.as_mut().expect("untaken");
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(stdout.read_u8().await.expect("more"));
    }
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

#[tokio::test]
#[ignore = "is run by another test, which kills it"]
async fn echoing() {
    let launcher = Launcher::start(config(&place())).await.unwrap();
    let mut mortal = launcher.spawn(shell("echo up; while :; do sleep 1; done")).await.unwrap();
    let mut process = launcher.spawn(lasting(python(ECHO), "the echo")).await.unwrap();
    assert_eq!((line(&mut mortal).await, line(&mut process).await), ("up".to_owned(), "up".to_owned()));
    let address = expose(&process, &[7000]).await[0];
    tell(&format!("{address} {}", mortal.pid));
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_client_stays_connected_while_lyra_is_killed_and_the_next_one_takes_over() {
    let (mut victim, said) = Victim::start("echoing").await;
    let (address, mortal) = said.split_once(' ').unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let mut one = client(address);
    assert_eq!(say(&mut one, "before"), "BEFORE");
    victim.kill();
    assert_eq!(say(&mut one, "between"), "BETWEEN");
    let mut two = client(address);
    assert_eq!(say(&mut two, "new"), "NEW", "new clients come in as well");
    let (launcher, mut adopted) = victim.next().await;
    assert!(!Path::new(&format!("/proc/{mortal}")).exists(), "what does not last has ended");
    let Adopted { mut process, label, earlier, lost, exposed } = adopted.pop().expect("one was left");
    assert!(adopted.is_empty());
    assert_eq!((label.as_str(), lost), ("the echo", 0));
    // The first line may have been read by the one that was killed.
    let early = String::from_utf8(earlier[0].clone()).unwrap();
    assert!(early.ends_with("client\n"), "{early:?}");
    assert_eq!(exposed.iter().map(|one| one.address).collect::<Vec<_>>(), [address]);
    assert_eq!(say(&mut one, "after"), "AFTER");
    let mut three = client(address);
    assert_eq!(say(&mut three, "three"), "THREE");
    assert_eq!(line(&mut process).await, "client", "what is written from now on is read as before");
    let traffic = process.traffic().await.unwrap();
    assert_eq!((traffic.connections, traffic.accepted), (3, 3));
    assert_eq!((traffic.received, traffic.sent), (26, 26));
    process.hide().await.unwrap();
    assert_eq!(one.read(&mut [0; 1]).unwrap_or(0), 0, "hiding cuts connections");
    TcpListener::bind(address).expect("the port is free again");
    process.kill();
    assert_eq!(process.wait().await.signal, Some(9));
    drop(process);
    assert!(launcher.stop(PATIENCE).await);
    assert_eq!(groups_of(victim.directory.path()), Vec::<PathBuf>::new());
}

/// Says something to a launcher that waits; what it answers.
fn knock(directory: &Path, words: &[&str]) -> Vec<String> {
    use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType};
    let socket = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    net::connect(&socket, &SocketAddrUnix::new(directory.join("launcher.socket")).expect("short")).expect("it waits");
    let mut answers = Vec::new();
    for words in words {
        net::send(&socket, words.as_bytes(), SendFlags::NOSIGNAL).expect("sent");
        let mut buffer = vec![0; 4096];
        let (length, _) = net::recv(&socket, &mut buffer, RecvFlags::empty()).expect("answered or hung up");
        answers.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    answers
}

async fn waits(directory: &Path) {
    let waits = async {
        while !directory.join("launcher.socket").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("the launcher waits");
}

#[tokio::test]
async fn a_lyra_of_another_protocol_takes_nothing_over_and_has_all_ended() {
    let (mut victim, said) = Victim::start("echoing").await;
    let address: SocketAddr = said.split_once(' ').unwrap().0.parse().unwrap();
    victim.kill();
    let directory = victim.directory.path().to_owned();
    waits(&directory).await;
    let hello = r#"{"Hello":{"name":"x","cgroups":true,"first_user":1,"protocol":999,"new":{}}}"#;
    let answers = lyra_kit::tasks::blocking(move || knock(&directory, &[hello, "\"End\""])).await.unwrap();
    assert!(answers[0].contains("Unable") && answers[1].is_empty(), "{answers:?}");
    let (launcher, adopted) = victim.next().await;
    assert!(adopted.is_empty());
    TcpListener::bind(address).expect("free");
    assert!(launcher.stop(PATIENCE).await);
    assert_eq!(groups_of(victim.directory.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn one_who_says_nonsense_does_not_keep_the_next_lyra_out() {
    let (mut victim, said) = Victim::start("echoing").await;
    let address: SocketAddr = said.split_once(' ').unwrap().0.parse().unwrap();
    victim.kill();
    let directory = victim.directory.path().to_owned();
    waits(&directory).await;
    let mode = std::os::unix::fs::MetadataExt::mode(&directory.join("launcher.socket").metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let answers = lyra_kit::tasks::blocking(move || knock(&directory, &["nonsense"])).await.unwrap();
    assert!(answers[0].contains("Unable"), "{answers:?}");
    let (launcher, adopted) = victim.next().await;
    assert_eq!(adopted.len(), 1);
    assert_eq!(say(&mut client(address), "still"), "STILL");
    drop(adopted);
    assert!(launcher.stop(PATIENCE).await);
}
