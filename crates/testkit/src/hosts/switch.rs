//! What joins the hosts: takes each packet that a host sends and hands it to the host that it is for, late or never
//! where that is asked for.
//!
//! It stands in for a kernel's bridge with traffic control, which few kernels for tests have (netem is a module of its
//! own), and a seed repeats which packets are lost. A packet for nobody is dropped, as are those that wait beyond a bound.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lyra_kit::{Clock, Random};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::Instant;

use super::link::Link;

/// Packets that may be on their way at once.
const LATE: usize = 50_000;
/// Packets that are taken from one host before the next one's turn.
const TURN: usize = 32;
/// Largest packet of IPv4.
const PACKET: usize = 65_535;

/// The links of all hosts to all.
#[derive(Debug)]
pub(super) struct Links {
    hosts: usize,
    links: Vec<Link>,
}

impl Links {
    pub(super) fn new(hosts: usize) -> Links {
        Links { hosts, links: vec![Link::default(); hosts * hosts] }
    }

    pub(super) fn get(&self, from: usize, to: usize) -> Link {
        self.links[from * self.hosts + to]
    }

    pub(super) fn set(&mut self, from: usize, to: usize, link: Link) {
        self.links[from * self.hosts + to] = link;
    }

    pub(super) fn heal(&mut self) {
        self.links.fill(Link::default());
    }
}

/// A packet that is on its way. The earliest is the greatest, and of two the one that was sent first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    due: Reverse<(Instant, u64)>,
    to: usize,
    packet: Vec<u8>,
}

/// Packets so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// That hosts have sent.
    pub(super) sent: AtomicU64,
    /// Of these: that a link has lost.
    pub(super) lost: AtomicU64,
}

pub(super) struct Switch {
    pub(super) links: Arc<Mutex<Links>>,
    pub(super) counts: Arc<Counts>,
    pub(super) ports: Vec<(Ipv4Addr, File)>,
    pub(super) random: Random,
    pub(super) clock: Clock,
}

impl Switch {
    /// Hands packets on until the other end of `stop` is closed.
    pub(super) fn run(self, stop: &io::PipeReader) {
        let mut late = BinaryHeap::new();
        let mut buffer = vec![0; PACKET];
        loop {
            self.deliver(&mut late);
            let mut files: Vec<_> = self.ports.iter().map(|(_, file)| PollFd::new(file, PollFlags::IN)).collect();
            files.push(PollFd::new(stop, PollFlags::IN));
            let wait = late.peek().map(|next: &Late| next.due.0.0.saturating_duration_since(self.clock.instant()));
            let wait = wait.and_then(|wait| Timespec::try_from(wait.max(Duration::from_micros(100))).ok());
            // Interrupted by a signal: look again.
            let _ = poll(&mut files, wait.as_ref());
            let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
            if ready.last() == Some(&true) {
                return;
            }
            for (from, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
                for _ in 0..TURN {
                    let Ok(length @ 1..) = (&self.ports[from].1).read(&mut buffer) else { break };
                    let number = self.counts.sent.load(Ordering::Relaxed);
                    self.forward(from, &buffer[..length], number, &mut late);
                    self.counts.sent.store(number + 1, Ordering::Relaxed);
                }
            }
        }
    }

    fn forward(&self, from: usize, packet: &[u8], number: u64, late: &mut BinaryHeap<Late>) {
        let Some(destination) = destination(packet) else { return };
        let Some(to) = self.ports.iter().position(|(address, _)| *address == destination) else { return };
        let link = self.links.lock().get(from, to);
        if link.cut || (link.loss > 0.0 && self.random.unit() < link.loss) {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if link.delay.is_zero() {
            self.write(to, packet);
        } else if late.len() < LATE {
            let due = Reverse((self.clock.instant() + link.delay, number));
            late.push(Late { due, to, packet: packet.to_vec() });
        }
    }

    /// Hands over what is due.
    fn deliver(&self, late: &mut BinaryHeap<Late>) {
        let now = self.clock.instant();
        while late.peek().is_some_and(|next| next.due.0.0 <= now) {
            if let Some(Late { to, packet, .. }) = late.pop() {
                self.write(to, &packet);
            }
        }
    }

    fn write(&self, to: usize, packet: &[u8]) {
        // A host that can't take it now has lost it, as hosts do.
        drop((&self.ports[to].1).write(packet));
    }
}

/// Whom an IPv4 packet is for.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (packet[0] >> 4 == 4).then(|| Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_read_from_ipv4_only() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 77, 0, 3]);
        assert_eq!(destination(&packet), Some(Ipv4Addr::new(10, 77, 0, 3)));
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None, "IPv6");
        assert_eq!(destination(&packet[..19]), None, "too short");
        assert_eq!(destination(&[]), None);
    }

    #[test]
    fn packets_arrive_in_the_order_of_their_time_then_of_their_sending() {
        let now = Clock::system().instant();
        let at = |ms, number| Late {
            due: Reverse((now + Duration::from_millis(ms), number)),
            to: 0,
            packet: vec![u8::try_from(number).expect("small")],
        };
        let mut late = BinaryHeap::from([at(5, 1), at(3, 2), at(3, 3), at(9, 0)]);
        let order: Vec<_> = std::iter::from_fn(|| late.pop()).map(|late| late.packet[0]).collect();
        assert_eq!(order, [2, 3, 1, 0]);
    }
}
