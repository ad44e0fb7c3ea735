//! Which addresses may be called by deliveries and triggers: public ones, and those that the operator allows.
//!
//! A tenant says where deliveries go, and they come from within the operator's network: what only hosts there should reach (this host,
//! its neighbours, a cloud's metadata) is refused. What must hold: the address that is looked at is the one that is called. The
//! client connects to what this resolver gives it and asks nobody else; hosts that are written as addresses pass no resolver, and are
//! looked at before each call.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Networks that are not public (the special-purpose registries of IANA, RFC 6890).
const NOT_PUBLIC_4: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

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

fn is_public_4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    !NOT_PUBLIC_4.iter().any(|(net, length)| (bits ^ Ipv4Addr::from(*net).to_bits()) >> (32 - length) == 0)
}

fn is_public_6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        // Addresses of IPv4 in other forms are what they lead to: NAT64 and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_4(embedded(high, low)),
        [0x2002, high, low, ..] => is_public_4(embedded(high, low)),
        // Documentation and Teredo.
        [0x2001, 0xdb8, ..] | [0x2001, 0, ..] => false,
        // Global unicast is what is in 2000::/3.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

impl Allowed {
    /// Whether an address may be called.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let public = match address {
            IpAddr::V4(address) => is_public_4(address),
            IpAddr::V6(address) => is_public_6(address),
        };
        public || self.0.iter().any(|net| net.contains(&address))
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
