//! Which addresses may be called: not those that only the host itself has business with, such as a cloud's metadata.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Networks that are never called.
#[derive(Debug, Clone)]
pub(super) struct Refused(pub(super) Arc<[IpNet]>);

impl Refused {
    fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }

    /// Whether the URL's host is an address that is refused. Names are looked at when they are resolved.
    pub(super) fn holds_host_of(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Ipv4(address)) => self.holds(address.into()),
            Some(Host::Ipv6(address)) => self.holds(address.into()),
            Some(Host::Domain(_)) | None => false,
        }
    }
}

/// All addresses of a name are refused.
#[derive(Debug)]
pub(super) struct Forbidden;

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host's address may not be called")
    }
}

impl std::error::Error for Forbidden {}

/// The system's resolver, less what is refused: a name can't be turned to a refused address between look and call.
impl Resolve for Refused {
    fn resolve(&self, name: Name) -> Resolving {
        let refused = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.iter().copied().filter(|address| !refused.holds(address.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(Forbidden.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
