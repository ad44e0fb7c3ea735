//! How a node speaks with others: by TLS with the certificates in its directory, or in plain text on one host.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use lyra_kit::Clock;
use lyra_types::{Code, Error as LyraError};
use lyra_wire::Role;
use lyra_wire::grpc::Security;
use lyra_wire::tls::Directory;

use crate::apart::Config;
use crate::embedded::Error;

const PLAIN: &str = "roles speak plain text on one host only; make certificates (`lyra tls init`) and give --tls-dir";

/// What the settings ask for.
///
/// # Errors
/// Where the certificates can't be used, or are not this node's; without any, where an address is not of this host.
pub(crate) fn of(config: &Config, clock: &Clock) -> Result<Security, Error> {
    let Some(dir) = config.tls_dir.as_deref() else {
        check_plain(config)?;
        return Ok(Security::Plain);
    };
    let directory = open(dir, config, clock).map_err(|error| Error::Refused(error.into()))?;
    Ok(Security::Mutual(directory))
}

fn open(dir: &Path, config: &Config, clock: &Clock) -> Result<Directory, lyra_wire::tls::TlsError> {
    let directory = Directory::open(dir, clock.clone())?;
    let material = directory.last();
    material.check(dir, &config.roles, &config.name)?;
    if material.ends_soon(clock) {
        let until = material.dates.until;
        tracing::warn!(%until, "this node's certificate ends soon; `lyra tls init --renew` makes a new one");
    }
    Ok(directory)
}

fn check_plain(config: &Config) -> Result<(), Error> {
    let refused = |field: &str, what: &str| {
        let reason = format!("{what} is not a loopback address; {PLAIN}");
        Err(Error::Refused(LyraError::field(Code::InvalidField, field, reason)))
    };
    let grpc = [Role::Control, Role::Worker, Role::Workflow].iter().any(|role| config.roles.contains(role));
    if grpc && !config.listen_grpc.ip().is_loopback() {
        return refused("listen_grpc", &config.listen_grpc.ip().to_string());
    }
    match config.control.iter().find(|address| !is_here(address)) {
        Some(address) => refused("control", address),
        None => Ok(()),
    }
}

/// Whether `HOST:PORT` is certainly on this host. What is not of that form is refused where it is used.
fn is_here(address: &str) -> bool {
    let Some((host, _)) = address.rsplit_once(':') else { return true };
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where others reach a node that serves gRPC on `bound`; empty where it serves none, or does not know.
///
/// # Errors
/// Where others have to reach it and could not.
pub(crate) fn reached(config: &Config, bound: Option<SocketAddr>) -> Result<String, Error> {
    match bound {
        None => Ok(String::new()),
        // Those who ask control know where it is.
        Some(bound) if config.advertise.is_empty() && !is_looked_for(config) => Ok(told(bound)),
        Some(bound) => advertised(&config.advertise, bound),
    }
}

/// What a node that nobody has to look for says of where it is. One that listens on every address does not know which of
/// them is good for others: `0.0.0.0` is whoever connects to it.
fn told(bound: SocketAddr) -> String {
    if bound.ip().is_unspecified() { String::new() } else { bound.to_string() }
}

/// Whether others look for this node where it says that it is.
fn is_looked_for(config: &Config) -> bool {
    config.roles.contains(&Role::Worker) || config.roles.contains(&Role::Workflow)
}

/// Where others reach a node that listens on `bound`: as `advertised`, `HOST` or `HOST:PORT`; where that is empty, there.
///
/// # Errors
/// When nobody could reach it there.
fn advertised(advertised: &str, bound: SocketAddr) -> Result<String, Error> {
    let refused = |reason| Err(Error::Refused(LyraError::field(Code::InvalidField, "advertise", reason)));
    if advertised.is_empty() {
        return match bound.ip().is_unspecified() {
            true => {
                refused("is needed where --listen-grpc takes every address: the one that others reach this node at")
            }
            false => Ok(bound.to_string()),
        };
    }
    // Anything but a host, with or without a port, would be found out only by those who can't connect.
    let with_port = match advertised.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, bound.port()).to_string(),
        Err(_) if advertised.ends_with(']') || !advertised.contains(':') => format!("{advertised}:{}", bound.port()),
        Err(_) => advertised.to_owned(),
    };
    let good = |(host, port): (&str, &str)| {
        let name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        !host.is_empty() && host.bytes().all(name) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    match with_port.rsplit_once(':').is_some_and(good) {
        true => Ok(with_port),
        false => refused("is not HOST or HOST:PORT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_one_host() {
        for here in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:7070", "localhost:7070"] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in ["10.0.0.1:1", "0.0.0.0:1", "c1:7070", "localhost.example:1", "[::]:1", "127.0.0.1.nip.io:1"] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn a_node_says_where_others_reach_it() {
        let bound = "10.0.0.5:7071".parse().unwrap();
        let ok = |text: &str| advertised(text, bound).unwrap();
        assert_eq!(ok(""), "10.0.0.5:7071");
        assert_eq!(ok("w1"), "w1:7071");
        assert_eq!(ok("w1.example:80"), "w1.example:80");
        assert_eq!(ok("192.0.2.1"), "192.0.2.1:7071");
        assert_eq!(ok("2001:db8::1"), "[2001:db8::1]:7071");
        assert_eq!(ok("[2001:db8::1]"), "[2001:db8::1]:7071");
        assert_eq!(ok("[2001:db8::1]:9"), "[2001:db8::1]:9");
        for bad in ["w1:", "w1:x", ":7", "w1:0", "http://w1:7", "w 1"] {
            assert!(advertised(bad, bound).is_err(), "{bad}");
        }
        assert!(advertised("", "0.0.0.0:7071".parse().unwrap()).is_err());
        assert!(advertised("w1", "0.0.0.0:7071".parse().unwrap()).is_ok());
        assert_eq!(told(bound), "10.0.0.5:7071");
        for everywhere in ["0.0.0.0:7070", "[::]:7070"] {
            assert_eq!(told(everywhere.parse().unwrap()), "", "nobody would reach it there");
        }
    }
}
