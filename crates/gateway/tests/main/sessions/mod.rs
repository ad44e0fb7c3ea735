//! The way to sessions, with real programs at its end.

mod bound;
pub mod feed;
mod http;
mod ports;
mod programs;
mod table;
mod tls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lyra_gateway::{Config, IngressConfig};
use lyra_types::resources::Protocol;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

use crate::client::{Gateway, deps, serve};
use crate::doubles::FakeControl;

/// An address of this host that no other test uses, so that ports can be had by number. `which`: of several in one test.
fn own_address(which: u8) -> IpAddr {
    let process = std::process::id();
    let [_, high, middle, low] = process.to_be_bytes();
    Ipv4Addr::new(127, 32 + (high << 3) + (which & 7), middle, low.max(1)).into()
}

fn config() -> Config {
    let ingress = IngressConfig { address: Some(own_address(0)), ..IngressConfig::default() };
    Config { ingress, ..Config::default() }
}

async fn start(config: Config) -> Gateway {
    let (deps, control, worker, logs) = deps();
    serve(config, deps, control, worker, logs).await
}

/// Another gateway of the same control.
async fn start_beside(control: &Arc<FakeControl>, config: Config) -> Gateway {
    let (mut deps, _, worker, logs) = deps();
    deps.control = control.clone();
    serve(config, deps, Arc::clone(control), worker, logs).await
}

/// Opens a session with one TCP port, which is reached by path, and at `public` where it is given.
fn open(gateway: &Gateway, name: &str, address: SocketAddr, public: Option<u16>) {
    gateway.control.sessions.open(&feed::route(name, name, &[("main", Protocol::Tcp, address, public)]));
}

/// Waits until something holds; what it waits for must come in the end, however slow the machine is.
async fn until<F, Fut>(what: &str, holds: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    let clock = lyra_kit::Clock::system();
    for _ in 0..6_000 {
        if holds().await {
            return;
        }
        clock.sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came that {what}");
}

/// The value of a metric without labels, or with those written out.
async fn metric(gateway: &Gateway, name: &str) -> i64 {
    let answer = gateway.get("/metrics").await;
    let line = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
}

/// A connection to a port of a session, once it is listened on and `greeting` comes.
async fn connect(address: SocketAddr, greeting: &str) -> TcpStream {
    let clock = lyra_kit::Clock::system();
    for _ in 0..6_000 {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let mut seen = vec![0; greeting.len()];
            if stream.read_exact(&mut seen).await.is_ok() {
                assert_eq!(String::from_utf8_lossy(&seen), greeting);
                return stream;
            }
        }
        clock.sleep(Duration::from_millis(5)).await;
    }
    panic!("{address} never answered {greeting:?}");
}

/// All that comes until the connection ends, or breaks.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut all = Vec::new();
    drop(stream.read_to_end(&mut all).await);
    String::from_utf8_lossy(&all).into_owned()
}
