//! The variables by which the classic system's components find each other: `DB_URL`, `JQ_URL`, `PORT`.
//!
//! | role | classic component | `DB_URL` | `JQ_URL` | `PORT` |
//! |---|---|---|---|---|
//! | gateway | frontend | `cluster.control` | `cluster.control` | port of `listen` |
//! | control | database and job-queue manager | `cluster.store` | `cluster.jobs` | port of `cluster.listen_grpc` |
//! | worker | worker | `cluster.control` | `cluster.control` | port of `cluster.listen_grpc` |
//! | scaler | scaler | | `cluster.control` | |
//!
//! They are a layer of settings of their own, over the file and under Lyra's own variables and flags. A `PORT` leaves the address as it
//! is: what listens beyond loopback is asked for by name. Nothing here reads the environment: the values are handed in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use figment::Figment;
use lyra_wire::Role;

use crate::settings::{ClusterFlags, Flags, SettingsError};

/// The classic variables of a process, with the role that they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Classic {
    /// The role; none: they say nothing.
    pub role: Option<Role>,
    /// `DB_URL`.
    pub db_url: Option<String>,
    /// `JQ_URL`.
    pub jq_url: Option<String>,
    /// `PORT`.
    pub port: Option<String>,
}

const DB_URL: &str = "DB_URL";
const JQ_URL: &str = "JQ_URL";
const PORT: &str = "PORT";

fn invalid(variable: &str, value: &str, expected: &str) -> SettingsError {
    // A store's address may hold a password.
    let shown = if value.contains('@') { "the value" } else { value };
    SettingsError::Invalid(format!("{shown} (in {variable}) is not {expected}"))
}

/// `HOST:PORT` of `tcp://HOST:PORT`, the form of the classic system's addresses.
fn address(variable: &str, value: &str) -> Result<String, SettingsError> {
    let refused = || invalid(variable, value, "an address of control: tcp://HOST:PORT");
    let rest = value.strip_prefix("tcp://").unwrap_or(value).trim_end_matches('/');
    let (host, port) = rest.rsplit_once(':').ok_or_else(refused)?;
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    match !host.is_empty() && host.bytes().all(is_host) && port.parse::<u16>().is_ok_and(|port| port > 0) {
        true => Ok(rest.to_owned()),
        false => Err(refused()),
    }
}

impl Classic {
    /// Layers of settings, each with the name of the variables that it comes from.
    pub(crate) fn layers(&self, below: &Figment) -> Result<Vec<(String, Flags)>, SettingsError> {
        let Some(role) = self.role else { return Ok(Vec::new()) };
        let mut layers = match role {
            Role::Control => self.stores()?,
            Role::Gateway | Role::Worker => controls(&[(DB_URL, &self.db_url), (JQ_URL, &self.jq_url)])?,
            Role::Scaler => controls(&[(JQ_URL, &self.jq_url)])?,
            // The classic system has no such role.
            Role::Workflow => return Ok(Vec::new()),
        };
        if let Some(flags) = self.listens(role, below)? {
            layers.push((PORT.to_owned(), flags));
        }
        Ok(layers)
    }

    fn stores(&self) -> Result<Vec<(String, Flags)>, SettingsError> {
        let mut layers = Vec::new();
        if let Some(store) = given(&self.db_url) {
            let known = store == "sqlite" || store.starts_with("etcd://") || store.starts_with("etcds://");
            if !known {
                let expected = "where control keeps objects: sqlite, etcd://HOST:PORT or etcds://HOST:PORT";
                return Err(invalid(DB_URL, store, expected));
            }
            let cluster = ClusterFlags { store: Some(store.to_owned()), ..ClusterFlags::default() };
            layers.push((DB_URL.to_owned(), Flags { cluster: Some(cluster), ..Flags::default() }));
        }
        if let Some(jobs) = given(&self.jq_url) {
            let known = jobs == "sqlite" || jobs.starts_with("nats://") || jobs.starts_with("tls://");
            if !known {
                let expected = "where control keeps jobs: sqlite, nats://HOST:PORT or tls://HOST:PORT";
                return Err(invalid(JQ_URL, jobs, expected));
            }
            let cluster = ClusterFlags { jobs: Some(jobs.to_owned()), ..ClusterFlags::default() };
            layers.push((JQ_URL.to_owned(), Flags { cluster: Some(cluster), ..Flags::default() }));
        }
        Ok(layers)
    }

    fn listens(&self, role: Role, below: &Figment) -> Result<Option<Flags>, SettingsError> {
        let Some(text) = given(&self.port).filter(|_| role != Role::Scaler) else { return Ok(None) };
        let port: u16 = text.parse().map_err(|_| invalid(PORT, text, "a port"))?;
        let at = |setting: &str| {
            let below: Option<SocketAddr> = below.extract_inner(setting).ok();
            let ip = below.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
            Some(SocketAddr::new(ip, port))
        };
        Ok(Some(match role {
            Role::Gateway => Flags { listen: at("listen"), ..Flags::default() },
            _ => {
                let cluster = ClusterFlags { listen_grpc: at("cluster.listen_grpc"), ..ClusterFlags::default() };
                Flags { cluster: Some(cluster), ..Flags::default() }
            }
        }))
    }
}

/// An empty variable counts as one that is not set.
fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|text| !text.is_empty())
}

/// The control processes that the variables name, each once.
fn controls(variables: &[(&str, &Option<String>)]) -> Result<Vec<(String, Flags)>, SettingsError> {
    let (mut names, mut addresses) = (Vec::new(), Vec::<String>::new());
    for (name, value) in variables {
        let Some(value) = given(value) else { continue };
        names.push(*name);
        for one in value.split(',') {
            let one = address(name, one.trim())?;
            if !addresses.contains(&one) {
                addresses.push(one);
            }
        }
    }
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let cluster = ClusterFlags { control: Some(addresses), ..ClusterFlags::default() };
    Ok(vec![(names.join(", "), Flags { cluster: Some(cluster), ..Flags::default() })])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Layers, Over};

    fn classic(role: Role, db_url: &str, jq_url: &str, port: &str) -> Classic {
        let text = |value: &str| Some(value.to_owned());
        Classic { role: Some(role), db_url: text(db_url), jq_url: text(jq_url), port: text(port) }
    }

    fn read(classic: &Classic, flags: &Flags) -> Result<Layers, SettingsError> {
        let roles = classic.role.as_slice();
        Layers::read(Over { roles, classic: classic.clone(), flags: flags.clone(), ..Over::default() })
    }

    #[test]
    fn a_frontend_finds_control_by_the_classic_names_and_says_so() {
        let variables = classic(Role::Gateway, "tcp://db:27444", "tcp://jq:27445", "8123");
        let layers = read(&variables, &Flags::default()).unwrap();
        let settings = layers.settings().unwrap();
        assert_eq!(settings.cluster.control, ["db:27444", "jq:27445"]);
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8123");
        let origins = layers.origins().unwrap();
        assert_eq!(origins["cluster.control"].source, "DB_URL, JQ_URL");
        assert_eq!(origins["listen"].source, "PORT");
    }

    #[test]
    fn one_address_in_both_variables_is_one_control() {
        let variables = classic(Role::Worker, "tcp://c1:7070", "tcp://c1:7070", "");
        let settings = read(&variables, &Flags::default()).unwrap().settings().unwrap();
        assert_eq!(settings.cluster.control, ["c1:7070"]);
        assert_eq!(settings.cluster.listen_grpc.port(), 0, "an empty variable is none");
    }

    #[test]
    fn a_manager_finds_its_stores() {
        let variables = classic(Role::Control, "etcd://e1:2379", "nats://n1:4222", "27444");
        let cluster = read(&variables, &Flags::default()).unwrap().settings().unwrap().cluster;
        assert_eq!((cluster.store.as_str(), cluster.jobs.as_str()), ("etcd://e1:2379", "nats://n1:4222"));
        assert_eq!(cluster.listen_grpc.port(), 27444);
    }

    #[test]
    fn a_flag_goes_before_a_classic_variable() {
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 9)));
        let flags = Flags { listen, ..Flags::default() };
        let settings = read(&classic(Role::Gateway, "", "", "8123"), &flags).unwrap().settings().unwrap();
        assert_eq!(settings.listen.port(), 9);
    }

    #[test]
    fn a_scaler_needs_the_queue_only() {
        let variables = classic(Role::Scaler, "anything", "tcp://jq:27445", "not a port");
        let settings = read(&variables, &Flags::default()).unwrap().settings().unwrap();
        assert_eq!(settings.cluster.control, ["jq:27445"]);
    }

    #[test]
    fn what_nothing_can_be_made_of_is_refused_by_name() {
        for (variables, says) in [
            (classic(Role::Control, "mongodb://u:secret@m:27017", "", ""), "DB_URL"),
            (classic(Role::Control, "", "tcp://jq:1", ""), "JQ_URL"),
            (classic(Role::Gateway, "http://x", "", ""), "DB_URL"),
            (classic(Role::Worker, "", "tcp://host:0", ""), "JQ_URL"),
            (classic(Role::Gateway, "", "", "99999"), "PORT"),
        ] {
            let said = read(&variables, &Flags::default()).err().expect("it is refused").to_string();
            assert!(said.contains(says) && !said.contains("secret"), "{said}");
        }
    }
}
