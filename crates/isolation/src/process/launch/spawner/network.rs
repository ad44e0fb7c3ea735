//! Networks of sandboxes: namespaces with nothing but a loopback interface.
//!
//! A used one is never used again.
//!
//! The launcher goes into a sandbox's network to make sockets there and comes back at once; if it could not come back it
//! must end, since it would make the next sandbox in the network of another.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use super::super::system;

/// The launcher's way into networks and back.
pub(super) struct Networks {
    home: File,
}

impl Networks {
    /// The launcher leaves the machine's network for an empty one: it needs none, and an ordinary user
    /// could not come back to the machine's.
    pub(super) fn new() -> io::Result<Networks> {
        system::unshare(libc::CLONE_NEWNET)?;
        Ok(Networks { home: current()? })
    }

    /// The network that this process is in, to come back to.
    pub(super) fn here() -> io::Result<Networks> {
        Ok(Networks { home: current()? })
    }

    /// A network that nobody has used.
    pub(super) fn make(&self) -> io::Result<OwnedFd> {
        system::unshare(libc::CLONE_NEWNET)?;
        let made = system::loopback_up().and_then(|()| current());
        self.go_home();
        made.map(OwnedFd::from)
    }

    /// Does something inside of a network.
    pub(super) fn inside<T>(&self, network: &OwnedFd, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        system::enter(network.as_fd(), libc::CLONE_NEWNET)?;
        let done = work();
        self.go_home();
        done
    }

    fn go_home(&self) {
        if system::enter(self.home.as_fd(), libc::CLONE_NEWNET).is_err() {
            system::exit_now(super::NO_WAY_HOME);
        }
    }
}

fn current() -> io::Result<File> {
    File::open("/proc/self/ns/net")
}

/// Listens on ports of 127.0.0.1, in the network that this process is in.
pub(super) fn listen(ports: &[u16]) -> io::Result<Vec<TcpListener>> {
    let listener = |port: &u16| {
        let listener = TcpListener::bind(("127.0.0.1", *port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    ports.iter().map(listener).collect()
}
