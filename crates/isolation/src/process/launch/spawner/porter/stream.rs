//! TCP: each connection from the node has one to the program; bytes go both ways until both directions have ended.
//!
//! What must hold: a direction that ends is ended at the other side while the other direction goes on; whoever reads
//! slowly slows down its own sender only; a connection that breaks is broken at the other side too, so that what was cut
//! never looks whole. No connection holds a buffer, neither an idle one nor one whose reader is slow.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::super::super::system;
use super::counts::{Of, Place};
use super::process::{Inside, Scratch};

/// Longest wait for the program to take a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause after no connection could be taken, which is for lack of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// When a client that says nothing is asked whether it is still there, how often, and how many times.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// A TCP port of a sandbox.
pub(super) struct Streams {
    inside: Inside,
}

impl Streams {
    pub(super) fn new(inside: Inside) -> Streams {
        Streams { inside }
    }

    /// Serves the port until it is dropped.
    pub(super) async fn serve(&self, listener: TcpListener) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                client = accept(&listener) => match self.inside.counts.take(Of::Connections) {
                    Some(place) => connections.push(self.carry(client, place)),
                    None => reset(&client),
                },
                // How a connection ends is known to its two ends.
                Some(()) = connections.next() => {}
            }
        }
    }

    async fn carry(&self, client: TcpStream, _place: Place) {
        let Ok(program) = self.connect().await else {
            self.inside.counts.refuse();
            return reset(&client);
        };
        self.inside.counts.accept();
        let _as_far_as_possible = prepare(&client).and_then(|()| program.set_nodelay(true));
        let (counts, scratch) = (&self.inside.counts, &*self.inside.scratch);
        let there = pass(&client, &program, counts.received(), scratch);
        let back = pass(&program, &client, counts.sent(), scratch);
        if tokio::try_join!(there, back).is_err() {
            reset(&client);
            reset(&program);
        }
    }

    /// Connects to the program, by either of the addresses that it may listen at.
    async fn connect(&self) -> io::Result<TcpStream> {
        let port = self.inside.port;
        match self.connect_to((Ipv4Addr::LOCALHOST, port).into()).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.connect_to((Ipv6Addr::LOCALHOST, port).into()).await
            }
            other => other,
        }
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let make = || system::tcp_socket(address.is_ipv6());
        let socket = self.inside.networks.inside(&self.inside.network, make)?;
        let connect = TcpSocket::from_std_stream(socket.into()).connect(address);
        tokio::time::timeout(PATIENCE, connect).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// The next client, however often none can be taken.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn prepare(client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (idle, interval, count) = KEEP_ALIVE;
    sockopt::set_socket_keepalive(client, true)?;
    sockopt::set_tcp_keepidle(client, idle)?;
    sockopt::set_tcp_keepintvl(client, interval)?;
    sockopt::set_tcp_keepcnt(client, count)?;
    Ok(())
}

/// Has the other end see that the connection broke, as soon as it is closed here.
fn reset(stream: &TcpStream) {
    let _gone = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// What came of one look at a connection.
enum Step {
    /// Nothing was there, or something was passed on.
    Done,
    /// The other side takes no more now.
    Full,
    /// The direction has ended.
    Over,
}

/// Carries one direction to its end.
async fn pass(from: &TcpStream, to: &TcpStream, count: &AtomicU64, scratch: &Scratch) -> io::Result<()> {
    loop {
        from.readable().await?;
        match step(from, to, count, scratch)? {
            Step::Done => {}
            Step::Full => to.writable().await?,
            Step::Over => return Ok(rustix::net::shutdown(to.as_fd(), Shutdown::Write)?),
        }
        tokio::task::consume_budget().await;
    }
}

/// Passes on what is there. Bytes stay with the kernel until the other side has taken them, so that a slow reader costs
/// no memory here.
fn step(from: &TcpStream, to: &TcpStream, count: &AtomicU64, scratch: &Scratch) -> io::Result<Step> {
    let mut buffer = scratch.lock();
    let look = || Ok(rustix::net::recv(from, &mut buffer[..], RecvFlags::PEEK)?.1);
    let length = match from.try_io(Interest::READABLE, look) {
        Ok(0) => return Ok(Step::Over),
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Done),
        Err(error) => return Err(error),
    };
    let put = || Ok(rustix::net::send(to, &buffer[..length], SendFlags::NOSIGNAL)?);
    let written = match to.try_io(Interest::WRITABLE, put) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Full),
        Err(error) => return Err(error),
    };
    count.fetch_add(written as u64, Ordering::Relaxed);
    let mut left = written;
    while left > 0 {
        // With this flag the kernel forgets them without copying.
        match rustix::net::recv(from, &mut buffer[..left], RecvFlags::TRUNC)?.1 {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => left -= taken.min(left),
        }
    }
    Ok(Step::Done)
}
