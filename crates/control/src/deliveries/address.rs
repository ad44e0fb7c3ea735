//! Which addresses may be called by deliveries and triggers: public ones, and those that the operator allows.
//!
//! A tenant says where deliveries go, and they come from within the operator's network: what only hosts there should reach (this host,
//! its neighbours, a cloud's metadata) is refused. What must hold: the address that is looked at is the one that is called. The
//! client connects to what this resolver gives it and asks nobody else; hosts that are written as addresses pass no resolver, and are
//! looked at before each call.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use lyra_types::address::is_public;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Networks that may be called although they are not public.
#[derive(Debug, Clone)]
pub(crate) struct Allowed(pub(crate) Arc<[IpNet]>);

/// All addresses of a host are refused.
#[derive(Debug)]
pub(super) struct Forbidden;

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host's address is not public, and the operator does not allow it (control.webhooks.allow)")
    }
}

impl std::error::Error for Forbidden {}

impl Allowed {
    /// Whether an address may be called.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.0.iter().any(|net| net.contains(&address))
    }

    /// Checks a URL whose host is an address. Names are looked at when they are resolved.
    pub(super) fn check(&self, url: &Url) -> Result<(), Forbidden> {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) if !self.holds(address) => Err(Forbidden),
            _ => Ok(()),
        }
    }
}

impl Resolve for Allowed {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let may: Vec<SocketAddr> = found.filter(|address| allowed.holds(address.ip())).collect();
            if may.is_empty() {
                return Err(Forbidden.into());
            }
            Ok(Box::new(may.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(nets: &[&str]) -> Allowed {
        Allowed(nets.iter().map(|net| net.parse().unwrap()).collect())
    }

    #[test]
    fn only_public_addresses_are_called_unless_others_are_allowed() {
        let none = allowed(&[]);
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:db8::1",
        ] {
            assert!(!none.holds(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(none.holds(public.parse().unwrap()), "{public}");
        }
        let some = allowed(&["10.0.0.0/8", "::1/128"]);
        assert!(some.holds("10.1.2.3".parse().unwrap()) && some.holds("::ffff:10.1.2.3".parse().unwrap()));
        assert!(some.holds("::1".parse().unwrap()) && !some.holds("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_host_in_any_form_of_an_address_is_looked_at() {
        let none = allowed(&[]);
        for url in ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]:80/", "http://127.1/"] {
            assert!(none.check(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        assert!(none.check(&Url::parse("https://example.org/").unwrap()).is_ok());
    }

    #[tokio::test]
    async fn a_name_of_a_refused_address_leads_nowhere() {
        let resolved = allowed(&[]).resolve("localhost".parse().unwrap()).await;
        assert!(resolved.is_err_and(|error| error.is::<Forbidden>()));
        let resolved = allowed(&["127.0.0.0/8", "::1/128"]).resolve("localhost".parse().unwrap()).await;
        assert!(resolved.is_ok_and(|mut found| found.next().is_some()));
    }
}
