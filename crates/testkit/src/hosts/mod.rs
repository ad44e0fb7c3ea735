//! Hosts for tests: network namespaces with addresses of their own, on which real processes run, and faults between any
//! two of them.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! use lyra_testkit::hosts::{Link, Network};
//! let network = Network::new(&["client", "a", "b"], 1)?;
//! let server = network.host("a")?.command("python3").args(["-m", "http.server", "80"]).spawn()?;
//! network.host("client")?.enter()?;              // this thread is now there: http://10.77.0.2 answers
//! network.between("a", "b", Link::cut())?;       // a partition
//! network.one_way("a", "client", Link::lossy(0.1))?;
//! network.heal();
//! # drop(server); Ok(())
//! # }
//! ```
//!
//! Nothing outlives this process: its processes are killed with it, and namespaces and devices, which have no names, go
//! with the last file and process that hold them. So there is nothing to clean up after a test that was killed, and any
//! number of tests run beside each other with the same addresses.

mod link;
mod namespace;
mod switch;

use std::io::PipeWriter;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use lyra_kit::{Clock, Random};
use parking_lot::Mutex;
use tokio::process::Command;

pub use link::Link;
use namespace::Namespace;
use switch::{Counts, Links, Switch};

/// Most hosts of a network.
const MOST: usize = 200;
/// Length of the network's prefix.
const PREFIX: u8 = 24;

/// A host: processes run there, with the network as it sees it.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    /// None: it shares the network of this process.
    namespace: Option<Arc<Namespace>>,
}

impl Host {
    /// Its name in the network.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address in the network.
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// A command that runs `program` here. The kernel kills it with the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(self.prefix()).arg(program).kill_on_drop(true);
        command
    }

    /// What stands before a program, after `setpriv`, to have it run here: both are of util-linux, and become the program
    /// without a process in between.
    pub(crate) fn prefix(&self) -> Vec<String> {
        let mut prefix = ["--pdeathsig", "KILL", "--"].map(str::to_owned).to_vec();
        if let Some(namespace) = &self.namespace {
            let file = format!("--net=/proc/{}/fd/{}", std::process::id(), namespace.file.as_raw_fd());
            prefix.extend(["nsenter".to_owned(), file, "--".to_owned()]);
        }
        prefix
    }

    /// Moves the calling thread here, for good: sockets that it opens, processes and threads that it starts are here.
    /// For tests whose runtime is one thread, which `#[tokio::test]` makes.
    ///
    /// # Errors
    /// Where this process may not do that.
    pub fn enter(&self) -> Result<()> {
        self.namespace.as_ref().map_or(Ok(()), |namespace| namespace.enter())
    }
}

/// Hosts that reach each other.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
    links: Arc<Mutex<Links>>,
    counts: Arc<Counts>,
    switch: Option<(PipeWriter, JoinHandle<()>)>,
}

impl Network {
    /// A network of hosts with these names; the first has the address 10.77.0.1, the second 10.77.0.2. The seed says
    /// which packets are lost where a link loses some.
    ///
    /// # Errors
    /// With what to do, where this process may not make namespaces.
    pub fn new(names: &[&str], seed: u64) -> Result<Network> {
        ensure!(names.len() <= MOST, "a network has {MOST} hosts at most");
        let mut hosts = Vec::with_capacity(names.len());
        let mut ports = Vec::with_capacity(names.len());
        for (number, name) in (1..).zip(names) {
            let address = Ipv4Addr::new(10, 77, 0, number);
            let namespace = Namespace::new(address, PREFIX)?;
            ports.push((address, namespace.packets.try_clone()?));
            hosts.push(Host { name: (*name).to_owned(), address, namespace: Some(Arc::new(namespace)) });
        }
        let links = Arc::new(Mutex::new(Links::new(hosts.len())));
        let counts = Arc::new(Counts::default());
        let (random, clock) = (Random::seeded(seed), Clock::system());
        let switch = Switch { links: Arc::clone(&links), counts: Arc::clone(&counts), ports, random, clock };
        let (until, stop) = std::io::pipe()?;
        let thread = std::thread::Builder::new().name("switch".to_owned()).spawn(move || switch.run(&until))?;
        Ok(Network { hosts, links, counts, switch: Some((stop, thread)) })
    }

    /// No network: every name is an address of this machine's loopback, `127.X.Y.Z` with X and Y of this process. It needs
    /// no rights, and knows no faults.
    ///
    /// # Errors
    /// When there are too many names.
    pub fn loopback(names: &[&str]) -> Result<Network> {
        ensure!(names.len() <= MOST, "a network has {MOST} hosts at most");
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let host = |(number, name): (u8, &&str)| {
            let address = Ipv4Addr::new(127, high | 0x80, low, number);
            Host { name: (*name).to_owned(), address, namespace: None }
        };
        let hosts: Vec<_> = (1..).zip(names).map(host).collect();
        let links = Arc::new(Mutex::new(Links::new(hosts.len())));
        Ok(Network { hosts, links, counts: Arc::default(), switch: None })
    }

    /// Whether the hosts are apart, so that there are links between them.
    pub fn is_apart(&self) -> bool {
        self.switch.is_some()
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts.iter().find(|host| host.name == name).with_context(|| format!("there is no host {name}"))
    }

    fn number(&self, name: &str) -> Result<usize> {
        let number = self.hosts.iter().position(|host| host.name == name);
        number.with_context(|| format!("there is no host {name}"))
    }

    /// Says what the way from one host to another is like from now on; the way back stays as it is.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn one_way(&self, from: &str, to: &str, link: Link) -> Result<()> {
        ensure!(self.is_apart(), "hosts that share a network have no links to make worse");
        let (from, to) = (self.number(from)?, self.number(to)?);
        self.links.lock().set(from, to, link);
        Ok(())
    }

    /// Says what the way between two hosts is like from now on, there and back.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn between(&self, one: &str, other: &str, link: Link) -> Result<()> {
        self.one_way(one, other, link)?;
        self.one_way(other, one, link)
    }

    /// Says what the ways between a host and all others are like from now on.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn around(&self, name: &str, link: Link) -> Result<()> {
        for other in self.hosts.iter().filter(|host| host.name != name) {
            self.between(name, &other.name, link)?;
        }
        Ok(())
    }

    /// Every way is as good as new. What is late arrives late still.
    pub fn heal(&self) {
        self.links.lock().heal();
    }

    /// Packets that links have lost so far, because they were cut or lossy.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Packets that hosts have sent so far and that are delivered, late, or lost.
    pub fn passed(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.switch.take() {
            drop(stop);
            drop(thread.join());
        }
    }
}
