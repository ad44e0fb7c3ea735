//! Two gateways that lead to the same sessions at the same ports: one that is lost costs what went through it, and nothing
//! else.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_testkit::{Layout, Site};
use lyra_types::resources::{ApplicationSession, Protocol, SessionStatus};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};

/// Longest wait for what is to come about.
const PATIENCE: Duration = Duration::from_secs(90);
/// Wait before a datagram is sent again: any may be lost.
const AGAIN: Duration = Duration::from_millis(500);

/// Answers each line, and each datagram, with it and a word that no other instance says.
const PROGRAM: &str = "#!/usr/bin/python3
import os, socket, threading, uuid
own = uuid.uuid4().hex.encode()
def lines(client):
    with client, client.makefile('rwb', buffering=0) as stream:
        while line := stream.readline():
            stream.write(own + b' ' + line)
def datagrams():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(('0.0.0.0', 9000))
    while True:
        data, peer = server.recvfrom(2048)
        server.sendto(own + b' ' + data, peer)
threading.Thread(target=datagrams, daemon=True).start()
listener = socket.create_server(('0.0.0.0', int(os.environ['PORT'])))
while True:
    threading.Thread(target=lines, args=(listener.accept()[0],), daemon=True).start()
";

const APPLICATION: &str = "apiVersion: lyra.dev/v1
kind: Application
metadata: {name: twice}
spec:
  scalingPolicy: {maximumInstance: 4, scalingPolicyType: idle_session_number, idleSessionNumThreshold: {low: 1, high: 1}}
  containers:
    - name: main
      function: twice
      ports: [{name: tcp, containerPort: 8080}, {name: udp, containerPort: 9000, protocol: UDP}]
      resources: {limits: {memory: 64Mi}}
";

/// A TCP connection to a session.
struct Line(BufReader<TcpStream>);

impl Line {
    /// Connects; a gateway may not know the session yet.
    async fn open(gateway: IpAddr, port: u16) -> Result<Line> {
        let connected = async {
            loop {
                if let Ok(stream) = TcpStream::connect((gateway, port)).await {
                    let mut line = Line(BufReader::new(stream));
                    // What is connected may be cut off still, where the gateway can't reach the program yet.
                    if line.ask("hello").await.is_ok() {
                        return line;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connected).await.with_context(|| format!("{gateway}:{port} takes no connection"))
    }

    /// The word of the instance that answers.
    async fn ask(&mut self, text: &str) -> Result<String> {
        let asked = async {
            self.0.write_all(format!("{text}\n").as_bytes()).await?;
            let mut line = String::new();
            self.0.read_line(&mut line).await?;
            let (own, said) = line.trim_end().split_once(' ').with_context(|| format!("it broke off: {line:?}"))?;
            ensure!(said == text, "{line}");
            Ok(own.to_owned())
        };
        tokio::time::timeout(PATIENCE, asked).await.context("no answer")?
    }

    /// Waits until it is broken.
    async fn broken(&mut self) -> Result<()> {
        while self.ask("are you there").await.is_ok() {}
        Ok(())
    }
}

/// Sends a datagram until it is answered; the word of the instance that does.
async fn datagram(socket: &UdpSocket, text: &str) -> Result<String> {
    let mut buffer = [0; 2048];
    let asked = async {
        loop {
            // An error that is told is one of a datagram before.
            let _ = socket.send(text.as_bytes()).await;
            while let Ok(Ok(length)) = tokio::time::timeout(AGAIN, socket.recv(&mut buffer)).await {
                let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if let Some((own, _)) = answer.split_once(' ').filter(|(_, said)| *said == text) {
                    return own.to_owned();
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.with_context(|| format!("no answer to {text:?}"))
}

async fn udp(gateway: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).await?;
    socket.connect((gateway, port)).await?;
    Ok(socket)
}

/// The session of this name, once it is open: its TCP port, its UDP port, its instance.
async fn session(site: &Site, gateway: &str, name: &str) -> Result<(u16, u16, String)> {
    let is_open =
        |of: Option<&ApplicationSession>| of.is_some_and(|of| of.status.session_status == SessionStatus::Available);
    let opened = site.client(gateway)?.wait_object::<ApplicationSession>(name, PATIENCE, is_open).await;
    let status = opened.with_context(|| format!("{name} is not open"))?.context("it is there")?.value.status;
    let port = |protocol: Protocol| {
        let endpoint = status.access_end_points.iter().find(|of| of.protocol == protocol).context("an endpoint")?;
        ensure!(endpoint.ip_address == "gateways", "{endpoint:?}");
        Ok(u16::try_from(endpoint.port)?)
    };
    Ok((port(Protocol::Tcp)?, port(Protocol::Udp)?, status.instance.clone()))
}

#[tokio::test]
async fn a_session_is_reached_through_two_gateways_and_a_lost_one_costs_only_its_own_connections() -> Result<()> {
    let layout = Layout { workers: 1, gateways: 2, ports: Some((30_000, 30_009)), ..Layout::default() };
    let mut site = Site::start(layout).await?;
    let program = site.directory().join("twice/bootstrap");
    std::fs::create_dir(site.directory().join("twice"))?;
    std::fs::write(&program, PROGRAM)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(site.directory().join("twice.yaml"), APPLICATION)?;
    let lyra = site.commands();
    lyra.run(["deploy", "twice", "--name", "twice", "--runtime", "http"]).await?.ok()?;
    lyra.run(["app", "apply", "-f", "twice.yaml"]).await?.ok()?;
    let mut object = ApplicationSession::default();
    (object.metadata.name, object.spec.application_name) = ("one".to_owned(), "twice".to_owned());
    (object.spec.open_timeout_seconds, object.spec.close_grace_period_seconds) = (90, 1);
    site.client("g1")?.create_object(&object).await?;
    let (tcp_port, udp_port, instance) = session(&site, "g1", "one").await?;

    let address = |name: &str| -> Result<IpAddr> { Ok(site.host(name)?.address()) };
    let (first, second) = (address("g1")?, address("g2")?);
    let (mut line, mut other) = (Line::open(first, tcp_port).await?, Line::open(second, tcp_port).await?);
    let (socket, other_socket) = (udp(first, udp_port).await?, udp(second, udp_port).await?);
    let own = line.ask("through the first").await?;
    assert_eq!(other.ask("through the second").await?, own, "one instance");
    assert_eq!(datagram(&socket, "one").await?, own);
    assert_eq!(datagram(&other_socket, "two").await?, own);

    site.kill("g1").await?;
    line.broken().await?;
    ensure!(TcpStream::connect((first, tcp_port)).await.is_err(), "nobody listens there any more");
    assert_eq!(other.ask("still the same connection").await?, own);
    assert_eq!(datagram(&other_socket, "still the same socket").await?, own);
    assert_eq!(Line::open(second, tcp_port).await?.ask("a new one").await?, own);
    assert_eq!(session(&site, "g2", "one").await?, (tcp_port, udp_port, instance.clone()));

    site.restart("g1").await?;
    assert_eq!(Line::open(first, tcp_port).await?.ask("it is back").await?, own);
    assert_eq!(datagram(&socket, "three").await?, own);
    assert_eq!(other.ask("it cost nobody else anything").await?, own);

    // The end of the session is one at both.
    let mut line = Line::open(first, tcp_port).await?;
    site.client("g2")?.delete_object::<ApplicationSession>("one").await?;
    line.broken().await?;
    other.broken().await?;
    Ok(())
}
