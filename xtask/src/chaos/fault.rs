//! Faults: what may happen to a site, and how it is undone.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use lyra_kit::Random;
use lyra_testkit::Site;
use lyra_testkit::hosts::Link;

/// Something that happens to a site.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// A process is killed, and started again.
    Kill(String),
    /// A process stops where it stands, and goes on.
    Freeze(String),
    /// A node is told to end, and started again.
    Restart(String),
    /// A worker is drained, and let in again.
    Drain(String),
    /// Nothing arrives between two hosts, in both directions.
    Cut(String, String),
    /// Nothing arrives at one host from the other.
    CutOneWay(String, String),
    /// Packets between two hosts take their time.
    Delay(String, String, Duration),
    /// Of the packets between two hosts, one in a hundred is lost.
    Loss(String, String),
}

/// A number below `bound`.
pub fn below(random: &Random, bound: usize) -> usize {
    ((random.unit() * bound as f64) as usize).min(bound.saturating_sub(1))
}

fn one_of(random: &Random, names: &[String]) -> String {
    names.get(below(random, names.len())).cloned().unwrap_or_default()
}

/// Two hosts that speak with each other, and are not the client's.
fn pair(site: &Site, random: &Random) -> (String, String) {
    let (workers, controls, gateways) = (site.names("worker"), site.names("control"), site.names("gateway"));
    let members = ["e1", "e2", "e3"].map(str::to_owned);
    let engines = ["nats", "s3"].map(str::to_owned);
    let (one, other) = match below(random, 6) {
        0 => (&workers, &controls),
        1 => (&gateways, &controls),
        2 => (&gateways, &workers),
        3 => (&controls, &members.to_vec()),
        4 => (&members.to_vec(), &members.to_vec()),
        _ => (&controls, &engines.to_vec()),
    };
    let (one, other) = (one_of(random, one), one_of(random, other));
    if one == other { ("e1".to_owned(), "e2".to_owned()) } else { (one, other) }
}

impl Fault {
    /// The next fault by chance.
    pub fn draw(site: &Site, random: &Random) -> Fault {
        let nodes: Vec<_> = ["control", "worker", "gateway"].iter().flat_map(|role| site.names(role)).collect();
        let engines = ["e1", "e2", "e3", "nats"].map(str::to_owned);
        let kinds = if site.network().is_apart() { 12 } else { 7 };
        match below(random, kinds) {
            0 | 1 => Fault::Kill(one_of(random, &nodes)),
            2 => Fault::Kill(one_of(random, &engines)),
            3 => Fault::Freeze(one_of(random, &nodes)),
            4 => Fault::Freeze(one_of(random, &engines)),
            5 => Fault::Restart(one_of(random, &nodes)),
            6 => Fault::Drain(one_of(random, &site.names("worker"))),
            kind => {
                let (one, other) = pair(site, random);
                match kind {
                    7 | 8 => Fault::Cut(one, other),
                    9 => Fault::CutOneWay(one, other),
                    10 => Fault::Delay(one, other, Duration::from_millis(20 + 10 * below(random, 49) as u64)),
                    _ => Fault::Loss(one, other),
                }
            }
        }
    }

    /// The codes that calls may fail with because of it.
    pub fn allows(&self, site: &Site) -> Vec<&'static str> {
        let is = |role: &str, names: &[&String]| names.iter().any(|name| site.names(role).contains(name));
        let lone = site.names("gateway").len() == 1;
        match self {
            Fault::Kill(name) | Fault::Freeze(name) if is("worker", &[name]) => vec!["worker_lost"],
            // Its own calls time out while it stands still.
            Fault::Freeze(name) if is("gateway", &[name]) => vec!["worker_lost", "broken", "timeout"],
            Fault::Kill(name) if is("gateway", &[name]) && lone => vec!["broken", "no_gateway"],
            Fault::Kill(name) if is("gateway", &[name]) => vec!["broken"],
            Fault::Restart(name) if is("gateway", &[name]) && lone => vec!["no_gateway"],
            Fault::Cut(one, other) | Fault::CutOneWay(one, other) if is("worker", &[one, other]) => vec!["worker_lost"],
            _ => Vec::new(),
        }
    }

    /// Has it happen.
    ///
    /// # Errors
    /// When it does not.
    pub async fn begin(&self, site: &mut Site) -> Result<()> {
        match self {
            Fault::Kill(name) => site.kill(name).await,
            Fault::Freeze(name) => site.freeze(name).await,
            Fault::Restart(name) => {
                let status = site.terminate(name).await?;
                ensure!(status.code() == Some(0), "{name} ended with {status}");
                Ok(())
            }
            Fault::Drain(name) => {
                site.commands().run(["worker", "drain", name]).await?.ok()?;
                Ok(())
            }
            Fault::Cut(one, other) => site.network().between(one, other, Link::cut()),
            Fault::CutOneWay(from, to) => site.network().one_way(from, to, Link::cut()),
            Fault::Delay(one, other, delay) => site.network().between(one, other, Link::delayed(*delay)),
            Fault::Loss(one, other) => site.network().between(one, other, Link::lossy(0.01)),
        }
    }

    /// Undoes it.
    ///
    /// # Errors
    /// When what was stopped does not come back.
    pub async fn end(&self, site: &mut Site) -> Result<()> {
        match self {
            Fault::Kill(name) | Fault::Restart(name) => site.restart(name).await,
            Fault::Freeze(name) => site.thaw(name).await,
            Fault::Drain(name) => {
                site.commands().run(["worker", "uncordon", name]).await?.ok()?;
                Ok(())
            }
            _ => {
                site.network().heal();
                Ok(())
            }
        }
    }

    /// What kind it is, for counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Kill(_) => "kill",
            Fault::Freeze(_) => "freeze",
            Fault::Restart(_) => "restart",
            Fault::Drain(_) => "drain",
            Fault::Cut(..) => "cut",
            Fault::CutOneWay(..) => "cut one way",
            Fault::Delay(..) => "delay",
            Fault::Loss(..) => "loss",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(name) | Fault::Freeze(name) | Fault::Restart(name) | Fault::Drain(name) => {
                write!(f, "{} {name}", self.kind())
            }
            Fault::Cut(one, other) => write!(f, "cut {one} and {other} apart"),
            Fault::CutOneWay(from, to) => write!(f, "cut what {from} sends to {to}"),
            Fault::Delay(one, other, delay) => write!(f, "delay between {one} and {other} by {} ms", delay.as_millis()),
            Fault::Loss(one, other) => write!(f, "lose 1 % between {one} and {other}"),
        }
    }
}
