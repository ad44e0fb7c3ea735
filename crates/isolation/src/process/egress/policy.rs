//! What instances with a way out may reach.
//!
//! Two lists of rules: what is denied is denied whatever the other says; of the rest, what is allowed may be reached.
//! A rule names hosts as the program names them, or a network that the address must lie in. Whatever the rules say,
//! addresses of this machine, of links (where cloud machines keep their credentials) and reserved ones are refused;
//! addresses of private networks are, unless a rule allows their network by its address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What instances with `network: egress` may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What may be reached; any of the rules suffices.
    pub allow: Vec<Rule>,
    /// What may not, whatever `allow` says.
    pub deny: Vec<Rule>,
    /// Addresses of private networks may be reached too. This machine's own never.
    pub allow_private: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        let all = Rule { host: Host::Name("*".to_owned()), port: None };
        Policy { allow: vec![all], deny: Vec::new(), allow_private: false }
    }
}

/// Hosts and a port, written as `HOST` or `HOST:PORT`: `api.example.com`, `*.example.com:443`, `10.1.0.0/16`, `[::1]:80`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    /// Which hosts.
    pub host: Host,
    /// The port; `None`: any.
    pub port: Option<u16>,
}

/// Hosts of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name; `*.example.com` is every name below `example.com`, `*` is every host.
    Name(String),
    /// Addresses, whatever the program calls them.
    Network(IpNet),
}

/// Why something is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no rule of an egress policy: write HOST or HOST:PORT, with a name, *.name, an address or a network"
)]
pub struct InvalidRule(String);

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Rule, InvalidRule> {
        let invalid = || InvalidRule(text.to_owned());
        let network = |text: &str| {
            let address = |text: &str| text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or_else(|_| address(text)).map(|network| network.trunc()).ok()
        };
        if let Some(network) = network(text) {
            return Ok(Rule { host: Host::Network(network), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| invalid())?)),
            None => (text, None),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Some(network) = network(bare) {
            return Ok(Rule { host: Host::Network(network), port });
        }
        let name = host.strip_prefix("*.").unwrap_or(host);
        let is_name = |name: &str| {
            let part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !name.is_empty() && name.len() < 256 && name.chars().all(part)
        };
        // Digits and dots alone are an address that was mistyped.
        let is_address = name.chars().all(|c| c.is_ascii_digit() || c == '.');
        if host != "*" && (!is_name(name) || is_address) {
            return Err(invalid());
        }
        Ok(Rule { host: Host::Name(host.trim_end_matches('.').to_ascii_lowercase()), port })
    }
}

impl TryFrom<String> for Rule {
    type Error = InvalidRule;

    fn try_from(text: String) -> Result<Rule, InvalidRule> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> String {
        rule.to_string()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Name(name), None) => f.write_str(name),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Network(network), None) => network.fmt(f),
            (Host::Network(network), Some(port)) => write!(f, "[{network}]:{port}"),
        }
    }
}

impl Rule {
    fn is_for_name(&self, host: &str, port: u16) -> bool {
        let Host::Name(pattern) = &self.host else { return false };
        let named = match pattern.strip_prefix('*') {
            Some(rest) => host.len() > rest.len() && host.ends_with(rest),
            None => host == pattern,
        };
        named && self.is_for_port(port)
    }

    fn is_for_address(&self, address: IpAddr, port: u16) -> bool {
        matches!(self.host, Host::Network(network) if network.contains(&address)) && self.is_for_port(port)
    }

    fn is_for_port(&self, port: u16) -> bool {
        self.port.is_none_or(|allowed| allowed == port)
    }
}

impl Policy {
    /// Whether a host is refused by its name alone, before its address is looked for.
    pub fn denies(&self, host: &str, port: u16) -> bool {
        let host = plain(host);
        let by_address = |rule: &Rule| matches!(rule.host, Host::Network(_)) && rule.is_for_port(port);
        self.deny.iter().any(|rule| rule.is_for_name(&host, port))
            || !self.allow.iter().any(|rule| rule.is_for_name(&host, port) || by_address(rule))
    }

    /// Whether an address that a host's name stands for may be connected to.
    pub fn allows(&self, host: &str, target: SocketAddr) -> bool {
        let (address, port) = (embedded(target.ip()), target.port());
        let listed = |rules: &[Rule]| rules.iter().any(|rule| rule.is_for_address(address, port));
        let allowed = listed(&self.allow) || self.allow.iter().any(|rule| rule.is_for_name(&plain(host), port));
        let reachable = match reach(address) {
            Reach::Public => true,
            Reach::Private => self.allow_private || listed(&self.allow),
            Reach::Nowhere => false,
        };
        reachable && allowed && !self.denies(host, port) && !listed(&self.deny)
    }
}

/// A host's name in the one form that rules are compared with.
fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Public,
    /// Private networks and those of carriers.
    Private,
    /// This machine, links, groups, what is reserved.
    Nowhere,
}

/// An IPv4 address that is dressed as an IPv6 one, undressed: compatible, mapped, translated, 6to4.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => address,
    }
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    let nowhere = a == 0 || a >= 224 || address.is_loopback() || address.is_link_local();
    let reserved = (a == 192 && b == 0 && c == 0) || (a == 198 && b & 0xfe == 18) || address.is_documentation();
    let shared = address.is_private() || (a == 100 && b & 0xc0 == 64);
    match (nowhere || reserved, shared) {
        (true, _) => Reach::Nowhere,
        (false, true) => Reach::Private,
        (false, false) => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let segments = address.segments();
    let nowhere = address.is_multicast() || address.is_unicast_link_local() || segments[0] & 0xffc0 == 0xfec0;
    let reserved = segments[0] == 0x2001 && (segments[1] == 0xdb8 || segments[1] == 0);
    match (nowhere || reserved, address.is_unique_local()) {
        (true, _) => Reach::Nowhere,
        (false, true) => Reach::Private,
        (false, false) => Reach::Public,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        Policy { allow: rules(allow), deny: rules(deny), allow_private: false }
    }

    /// Whether a program that names an address itself may reach it.
    fn reaches(policy: &Policy, address: &str) -> bool {
        let ip: IpAddr = address.parse().expect(address);
        !policy.denies(address, 443) && policy.allows(address, SocketAddr::new(ip, 443))
    }

    #[test]
    fn addresses_that_are_not_public_are_refused_in_every_form() {
        let policy = Policy::default();
        for refused in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(!reaches(&policy, refused), "{refused}");
        }
        for allowed in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert!(reaches(&policy, allowed), "{allowed}");
        }
        let private = Policy { allow_private: true, ..Policy::default() };
        assert!(reaches(&private, "10.1.2.3") && reaches(&private, "fc00::1"));
        assert!(!reaches(&private, "127.0.0.1") && !reaches(&private, "169.254.169.254"));
    }

    #[test]
    fn hosts_are_matched_by_pattern_and_port() {
        let policy = policy(&["*.example.com:443", "API.test"], &["secret.example.com"]);
        for (host, port, denied) in [
            ("a.example.com", 443, false),
            ("A.Example.com.", 443, false),
            ("api.test", 1, false),
            ("example.com", 443, true),
            ("a.example.com", 80, true),
            ("evilexample.com", 443, true),
            ("x.api.test", 1, true),
            ("secret.example.com", 443, true),
            ("SECRET.example.com.", 443, true),
        ] {
            assert_eq!(policy.denies(host, port), denied, "{host}:{port}");
        }
    }

    #[test]
    fn networks_are_matched_by_the_address_whatever_its_name() {
        let at = |address: &str| address.parse().expect(address);
        let some = policy(&["*"], &["203.0.114.0/24", "2606:4700::/32", "1.1.1.1:80"]);
        assert!(!some.denies("hidden.test", 443));
        assert!(!some.allows("hidden.test", at("203.0.114.9:443")), "its name hides nothing");
        assert!(!some.allows("hidden.test", at("[::ffff:203.0.114.9]:443")));
        assert!(!some.allows("hidden.test", at("[2606:4700::1]:443")));
        assert!(!some.allows("a.test", at("1.1.1.1:80")) && some.allows("a.test", at("1.1.1.1:443")));
        let only = policy(&["10.1.0.0/16", "8.8.8.8"], &["10.1.9.0/24"]);
        assert!(only.allows("db.test", at("10.1.2.3:5432")), "named by its address, a private network may be reached");
        assert!(!only.allows("db.test", at("10.1.9.3:5432")) && !only.allows("db.test", at("10.2.0.1:5432")));
        assert!(only.allows("dns.test", at("8.8.8.8:53")) && !only.allows("dns.test", at("8.8.4.4:53")));
        let own = policy(&["127.0.0.0/8", "169.254.0.0/16", "::1"], &[]);
        for refused in ["127.0.0.1:80", "169.254.169.254:80", "[::1]:80"] {
            assert!(!own.allows("x", at(refused)), "{refused}");
        }
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        for (text, written) in [
            ("API.test", "api.test"),
            ("*", "*"),
            ("*:443", "*:443"),
            ("*.example.com:443", "*.example.com:443"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3:80", "[10.1.2.3/32]:80"),
            ("fc00::/7", "fc00::/7"),
            ("[::1]:80", "[::1/128]:80"),
        ] {
            let rule: Rule = text.parse().expect(text);
            assert_eq!(rule.to_string(), written);
            assert_eq!(written.parse::<Rule>(), Ok(rule), "{written}");
        }
        for wrong in
            ["", ":80", "a b", "*a.test", "a.test:99999", "a.test:", "10.0.0.0/99", "10.0.0.300", "http://a.test"]
        {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_rules_no_machine_is_reached_through_its_own_address(
            allow in prop::collection::vec("[a-z*.]{1,6}|127.0.0.0/8|::/0|0.0.0.0/0", 0..4),
            private: bool,
            last: u8,
        ) {
            let allow = allow.iter().filter_map(|rule| rule.parse().ok()).collect();
            let policy = Policy { allow, deny: Vec::new(), allow_private: private };
            let own = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            prop_assert!(own.into_iter().all(|ip| !policy.allows("a", SocketAddr::new(ip, 80))));
        }
    }
}
