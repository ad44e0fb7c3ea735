//! Which addresses may be called: where tenants are told apart, public ones and those that the operator allows; else all but those
//! that only the host itself has business with, such as a cloud's metadata.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use lyra_types::address::is_public;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Networks of one link.
const LINK: [&str; 3] = ["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128"];

/// Which addresses are called.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Public ones only, rather than all but those of one link.
    pub(super) public_only: bool,
    /// Networks that are called all the same.
    pub(super) allow: Arc<[IpNet]>,
}

impl Rule {
    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.allow.iter().any(|net| net.contains(&address)) {
            return true;
        }
        match self.public_only {
            true => is_public(address),
            false => !LINK.iter().any(|net| net.parse::<IpNet>().is_ok_and(|net| net.contains(&address))),
        }
    }

    /// Whether the URL's host may be called as far as it is an address. Names are looked at when they are resolved.
    pub(super) fn allows_host_of(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Ipv4(address)) => self.allows(address.into()),
            Some(Host::Ipv6(address)) => self.allows(address.into()),
            Some(Host::Domain(_)) | None => true,
        }
    }
}

/// All addresses of a name are refused.
#[derive(Debug)]
pub(super) struct Forbidden;

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host's address may not be called; the operator can allow it (workflow.http.allow)")
    }
}

impl std::error::Error for Forbidden {}

/// The system's resolver, less what is refused: a name can't be turned to a refused address between look and call.
impl Resolve for Rule {
    fn resolve(&self, name: Name) -> Resolving {
        let rule = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.iter().copied().filter(|address| rule.allows(address.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(Forbidden.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
