//! Finding free ports of the node for the ports of an instance.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use lyra_types::{Code, Error};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::{Exposed, Port, Protocol};

/// Connections that may wait to be taken, of each port.
const BACKLOG: i32 = 1024;

/// Where the next search starts. It goes round, so that a port that has just become free is taken late: clients of the
/// session before may still try it.
#[derive(Debug, Default)]
pub(crate) struct Cursor(AtomicU32);

impl Cursor {
    /// Takes a free port of the range for each port.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when there are too few, [`Code::InvalidField`] when nobody may listen there.
    pub(crate) fn bind(
        &self,
        ip: IpAddr,
        range: &RangeInclusive<u16>,
        ports: &[Port],
    ) -> Result<(Vec<Exposed>, Vec<OwnedFd>), Error> {
        let first = u32::from(*range.start());
        let count = (u32::from(*range.end()) + 1).saturating_sub(first);
        let invalid = |reason: String| Error::field(Code::InvalidField, "ports", reason);
        if count == 0 || first == 0 {
            return Err(invalid(format!("{} to {} is no range of ports", range.start(), range.end())));
        }
        let (mut exposed, mut sockets) = (Vec::new(), Vec::new());
        for port in ports {
            let mut left = count;
            let (address, socket) = loop {
                if left == 0 {
                    let detail = format!("no port from {} to {} is free at {ip}", range.start(), range.end());
                    return Err(Error::new(Code::Overloaded, detail));
                }
                left -= 1;
                let number = first + self.0.fetch_add(1, Ordering::Relaxed) % count;
                let address = SocketAddr::new(ip, u16::try_from(number).unwrap_or(u16::MAX));
                match listen(address, port.protocol) {
                    Ok(socket) => break (address, socket),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                    Err(error) => return Err(invalid(format!("nobody can listen at {address}: {error}"))),
                }
            };
            exposed.push(Exposed { port: port.clone(), address });
            sockets.push(socket);
        }
        Ok((exposed, sockets))
    }
}

fn listen(address: SocketAddr, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if protocol == Protocol::Tcp {
        // Connections that were cut here a moment ago don't keep the port.
        net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn port(protocol: Protocol) -> Port {
        Port { name: "p".into(), port: 80, protocol }
    }

    #[test]
    fn ports_that_are_taken_are_passed_over_and_none_is_taken_where_one_is_lacking() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let taken = TcpListener::bind((ip, 0)).unwrap();
        let number = taken.local_addr().unwrap().port();
        let cursor = Cursor::default();
        let only = number..=number;
        assert_eq!(cursor.bind(ip, &only, &[port(Protocol::Tcp)]).unwrap_err().code, Code::Overloaded);
        let (exposed, sockets) = cursor.bind(ip, &only, &[port(Protocol::Udp)]).unwrap();
        assert_eq!((exposed[0].address.port(), sockets.len()), (number, 1));
        drop((taken, sockets));
        let two = [port(Protocol::Udp), port(Protocol::Tcp), port(Protocol::Tcp)];
        assert_eq!(cursor.bind(ip, &only, &two).unwrap_err().code, Code::Overloaded);
        let (exposed, _sockets) = cursor.bind(ip, &only, &two[..2]).unwrap();
        assert_eq!(exposed.iter().map(|one| one.address.port()).collect::<Vec<_>>(), [number, number]);
    }

    #[test]
    fn a_place_where_nobody_can_listen_is_refused() {
        let cursor = Cursor::default();
        let elsewhere = "192.0.2.1".parse().unwrap();
        let error = cursor.bind(elsewhere, &(20_000..=20_010), &[port(Protocol::Tcp)]).unwrap_err();
        assert_eq!(error.code, Code::InvalidField, "{error}");
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is tried")]
        let empty = 9..=8;
        let error = cursor.bind(Ipv4Addr::LOCALHOST.into(), &empty, &[]).unwrap_err();
        assert_eq!(error.code, Code::InvalidField);
    }
}
