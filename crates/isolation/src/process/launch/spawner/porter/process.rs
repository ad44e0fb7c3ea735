//! The porter's own process: carries what comes in at ports of the node to programs in sandboxes, and back.
//!
//! It gets sockets that listen on the node, each with the network namespace that it belongs to, and makes sockets in that
//! network to reach the program. It has one thread, opens no file and listens to nobody but the launcher.
//!
//! What must hold: nothing gets from one sandbox's network to another's; after an order to hide is answered, no socket of
//! that sandbox is left here; nothing that was carried stays in memory. It ends with the launcher.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use super::super::super::error::Fault;
use super::super::super::system;
use super::super::super::wire::{self, MAX_MESSAGE};
use super::super::network::Networks;
use super::counts::Counts;
use super::datagram::Datagrams;
use super::stream::Streams;
use super::{Order, Task, Told};
use crate::session::{Protocol, Traffic};

/// The capability to enter network namespaces (`CAP_SYS_ADMIN`).
const ENTER: u32 = 21;

/// What a port needs, whatever comes over it.
pub(super) struct Inside {
    pub(super) networks: Arc<Networks>,
    /// The sandbox's.
    pub(super) network: Arc<OwnedFd>,
    /// The port in the sandbox.
    pub(super) port: u16,
    pub(super) counts: Arc<Counts>,
    pub(super) scratch: Arc<Scratch>,
}

/// Where bytes are for the moment between reading and writing; nothing is left in it over an await.
pub(super) type Scratch = parking_lot::Mutex<Vec<u8>>;

/// Bytes that are carried at once; no datagram is longer.
const SCRATCH: usize = 64 << 10;

/// Runs the porter; `socket` leads to the launcher.
pub(super) fn run(socket: OwnedFd) -> ! {
    // Nothing may unwind into the copy of the launcher's loop.
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| live(socket)));
    system::exit_now(if matches!(lived, Ok(Ok(()))) { 0 } else { 1 })
}

fn live(socket: OwnedFd) -> io::Result<()> {
    system::set_control(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    // What the launcher holds, the lock of its directory above all, is not for here.
    let nothing = std::fs::File::open("/dev/null")?;
    system::duplicate_to(nothing.as_fd(), 1)?;
    drop(nothing);
    system::close_all_but(&mut [0, 1, 2, socket.as_raw_fd()])?;
    let _cosmetic = system::set_process_name(c"lyra-porter");
    system::reset_signals();
    system::ignore(libc::SIGPIPE);
    system::set_control(libc::PR_SET_DUMPABLE, 0)?;
    let networks = Arc::new(Networks::here()?);
    system::keep_capability(ENTER)?;
    system::set_control(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(serve(socket, networks))
}

/// Serves the launcher's orders until it is gone.
async fn serve(socket: OwnedFd, networks: Arc<Networks>) -> io::Result<()> {
    system::set_nonblocking(socket.as_fd())?;
    let socket = system::watched(socket, Interest::READABLE | Interest::WRITABLE)?;
    let scratch = Arc::new(Scratch::new(vec![0; SCRATCH]));
    let mut exposures: HashMap<u64, Exposure> = HashMap::new();
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let mut ready = socket.readable().await?;
        let received = ready.try_io(|socket| {
            let (bytes, descriptors) = wire::receive(socket.as_fd(), &mut buffer)?;
            Ok((bytes.len(), descriptors))
        });
        let (length, descriptors) = match received {
            Ok(received) => received?,
            Err(_would_block) => continue,
        };
        if length == 0 {
            return Ok(());
        }
        let Order { number, sandbox, task } = wire::decode(&buffer[..length])?;
        let result = match task {
            Task::Expose { ports, bounds } => {
                let exposed = Exposure::new(&ports, bounds, descriptors, &networks, &scratch);
                exposed.map(|exposure| drop(exposures.insert(sandbox, exposure))).map(|()| Traffic::default())
            }
            Task::Hide => match exposures.remove(&sandbox) {
                Some(mut exposure) => {
                    exposure.ports.shutdown().await;
                    Ok(exposure.counts.traffic())
                }
                None => Ok(Traffic::default()),
            },
            Task::Count => Ok(exposures.get(&sandbox).map(|exposure| exposure.counts.traffic()).unwrap_or_default()),
        };
        let result = result.map_err(|error| Fault::new("carrying the ports of a sandbox", &error));
        answer(&socket, &Told { number, result }).await?;
    }
}

async fn answer(socket: &AsyncFd<OwnedFd>, told: &Told) -> io::Result<()> {
    let bytes = wire::encode(told).unwrap_or_default();
    loop {
        let mut ready = socket.writable().await?;
        if let Ok(sent) = ready.try_io(|socket| wire::send(socket.as_fd(), &bytes, &[])) {
            return sent;
        }
    }
}

/// The ports of one sandbox.
struct Exposure {
    /// A task for each. Each owns all that has come in at it.
    ports: JoinSet<()>,
    counts: Arc<Counts>,
}

impl Exposure {
    fn new(
        ports: &[crate::session::Port],
        bounds: super::Bounds,
        descriptors: Vec<OwnedFd>,
        networks: &Arc<Networks>,
        scratch: &Arc<Scratch>,
    ) -> io::Result<Exposure> {
        let mut descriptors = descriptors.into_iter();
        let lacking = || io::Error::from_raw_os_error(libc::EBADF);
        let network = Arc::new(descriptors.next().ok_or_else(lacking)?);
        let counts = Arc::new(Counts::new(bounds));
        let mut tasks = JoinSet::new();
        for port in ports {
            let socket = descriptors.next().ok_or_else(lacking)?;
            system::set_nonblocking(socket.as_fd())?;
            let inside = Inside {
                networks: Arc::clone(networks),
                network: Arc::clone(&network),
                port: port.port,
                counts: Arc::clone(&counts),
                scratch: Arc::clone(scratch),
            };
            match port.protocol {
                Protocol::Tcp => {
                    let listener = tokio::net::TcpListener::from_std(socket.into())?;
                    tasks.spawn(async move { Streams::new(inside).serve(listener).await });
                }
                Protocol::Udp => {
                    let socket = tokio::net::UdpSocket::from_std(socket.into())?;
                    tasks.spawn(async move { Datagrams::new(inside, socket).serve().await });
                }
            }
        }
        Ok(Exposure { ports: tasks, counts })
    }
}
