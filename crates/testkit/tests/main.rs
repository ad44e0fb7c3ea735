//! Hosts of tests: each fault between two of them does what it says, and heals.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use lyra_testkit::engines::{Etcd, Place};
use lyra_testkit::hosts::{Host, Link, Network};

const PORT: u16 = 5_000;

/// A socket on a host.
fn socket(host: &Host) -> Result<UdpSocket> {
    let (host, address) = (host.clone(), SocketAddr::new(host.address(), PORT));
    let opened = std::thread::spawn(move || {
        host.enter()?;
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        anyhow::Ok(socket)
    });
    opened.join().expect("it does not panic")
}

fn two(seed: u64) -> Result<(Network, UdpSocket, UdpSocket)> {
    let network = Network::new(&["a", "b"], seed)?;
    let (a, b) = (socket(network.host("a")?)?, socket(network.host("b")?)?);
    a.connect(b.local_addr()?)?;
    b.connect(a.local_addr()?)?;
    Ok((network, a, b))
}

fn received(socket: &UdpSocket) -> Result<u8> {
    let mut byte = [0];
    socket.recv(&mut byte).context("nothing arrives")?;
    Ok(byte[0])
}

/// Waits until links have lost so many packets.
fn until_lost(network: &Network, packets: u64) {
    while network.lost() < packets {
        std::thread::yield_now();
    }
}

#[test]
fn hosts_have_addresses_of_their_own_and_reach_each_other() -> Result<()> {
    let (network, a, b) = two(1)?;
    assert_eq!(a.local_addr()?.to_string(), "10.77.0.1:5000");
    assert_eq!(b.local_addr()?.to_string(), "10.77.0.2:5000");
    a.send(&[1])?;
    assert_eq!(received(&b)?, 1);
    b.send(&[2])?;
    assert_eq!(received(&a)?, 2);
    assert!(network.host("c").is_err());
    Ok(())
}

#[test]
fn a_cut_is_in_one_direction_or_both_and_heals() -> Result<()> {
    let (network, a, b) = two(1)?;
    network.one_way("a", "b", Link::cut())?;
    a.send(&[1])?;
    until_lost(&network, 1);
    b.send(&[2])?;
    assert_eq!(received(&a)?, 2, "the way back is open");
    network.between("a", "b", Link::cut())?;
    a.send(&[3])?;
    b.send(&[4])?;
    until_lost(&network, 3);
    network.heal();
    a.send(&[5])?;
    b.send(&[6])?;
    assert_eq!((received(&b)?, received(&a)?), (5, 6), "what was sent meanwhile is gone");
    Ok(())
}

#[test]
fn a_delay_holds_packets_for_so_long_and_keeps_their_order() -> Result<()> {
    let (network, a, b) = two(1)?;
    let delay = Duration::from_millis(300);
    network.one_way("a", "b", Link::delayed(delay))?;
    let clock = lyra_kit::Clock::system();
    let sent = clock.instant();
    for number in 0..10 {
        a.send(&[number])?;
    }
    let order: Result<Vec<_>> = (0..10).map(|_| received(&b)).collect();
    assert_eq!(order?, (0..10).collect::<Vec<_>>());
    let took = clock.instant() - sent;
    assert!(took >= delay, "{took:?}");
    Ok(())
}

/// Which of 200 packets arrive over a link that loses half of them.
fn arriving(seed: u64) -> Result<Vec<u8>> {
    let (network, a, b) = two(seed)?;
    network.one_way("a", "b", Link::lossy(0.5))?;
    // No faster than they are taken: a host's own queue loses packets too.
    for number in 0..200 {
        let before = network.passed();
        a.send(&[number])?;
        while network.passed() == before {
            std::thread::yield_now();
        }
    }
    // Packets keep their order, so what is not here when the last one is, is lost.
    network.heal();
    a.send(&[255])?;
    let all: Result<Vec<_>> =
        std::iter::repeat_with(|| received(&b)).take_while(|one| !matches!(one, Ok(255))).collect();
    all
}

#[test]
fn a_lossy_link_loses_its_share_and_the_same_seed_the_same_packets() -> Result<()> {
    let arrived = arriving(7)?;
    assert!((50..150).contains(&arrived.len()), "{} of 200 arrived", arrived.len());
    assert_eq!(arrived, arriving(7)?);
    assert_ne!(arrived, arriving(8)?);
    Ok(())
}

#[tokio::test]
async fn processes_run_on_their_host() -> Result<()> {
    let network = Network::new(&["a", "b"], 1)?;
    let shown = network.host("b")?.command("ip").args(["-4", "-brief", "address", "show", "eth0"]).output().await?;
    let shown = String::from_utf8(shown.stdout)?;
    assert!(shown.contains("10.77.0.2/24"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn an_etcd_of_three_hosts_goes_on_without_one() -> Result<()> {
    let network = Network::new(&["client", "a", "b", "c"], 1)?;
    network.host("client")?.enter()?;
    let places: Vec<_> = network.hosts()[1..].iter().map(Place::Host).collect();
    let mut members = Etcd::cluster_at(&places).await?;
    assert_eq!(members[2].address(), "10.77.0.4:2379");
    members[0].kill().await?;
    // It is ready when it has found the others, so they have gone on.
    members[0].restart().await?;
    network.around("b", Link::cut())?;
    members[2].kill().await?;
    network.heal();
    members[2].restart().await?;
    Ok(())
}
