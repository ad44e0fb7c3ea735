//! How a site is laid out, and started.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;

use super::{Node, Site};
use crate::Cli;
use crate::engines::{Etcd, Nats, NatsOptions, Place, S3};
use crate::hosts::Network;
use crate::server::binary;

/// Members of etcd: three survive the loss of one.
const MEMBERS: usize = 3;
/// Where control and workers serve.
const GRPC: u16 = 7_070;

/// What a site is made of.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Control processes: `c1`, `c2`, …
    pub controls: usize,
    /// Workers: `w1`, `w2`, …
    pub workers: usize,
    /// Gateways: `g1`, `g2`, …
    pub gateways: usize,
    /// Servers of NATS: one, `nats`; or three that form a cluster, `n1`, `n2` and `n3`.
    pub nats: usize,
    /// First and last port on the gateways that sessions are given; else they are reached at ports of workers.
    pub ports: Option<(u16, u16)>,
    /// Processes for workflows: `f1`, `f2`, …; where there are none, control runs them.
    pub workflows: usize,
    /// Hosts of their own (which needs root), or addresses of the loopback.
    pub apart: bool,
    /// A leader that is not heard for so long is one no more. Longer than as it ships where a test asks who leads: three members of
    /// etcd on one busy disk can stand still for as long as a short lease.
    pub leader_lease: Duration,
    /// Says which packets are lost.
    pub seed: u64,
    /// The `lyra` binary; else the one that this test run has built.
    pub binary: Option<PathBuf>,
    /// Where logs and data are kept; else in a temporary directory.
    pub directory: Option<PathBuf>,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout {
            controls: 1,
            workers: 2,
            gateways: 1,
            ports: None,
            workflows: 0,
            nats: 1,
            apart: true,
            leader_lease: Duration::from_secs(2),
            seed: 1,
            binary: None,
            directory: None,
        }
    }
}

fn names(letter: char, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{letter}{number}")).collect()
}

/// Names of the servers of NATS.
pub(super) fn nats_names(count: usize) -> Vec<String> {
    if count == 1 { vec!["nats".to_owned()] } else { names('n', count) }
}

async fn start_nats(network: &Network, count: usize) -> Result<Vec<Nats>> {
    let names = nats_names(count);
    let places: Result<Vec<_>> = names.iter().map(|name| network.host(name).map(Place::Host)).collect();
    match places?[..] {
        [alone] => Ok(vec![Nats::start_at(alone, &NatsOptions::default()).await?]),
        ref several => Nats::cluster_at(several).await,
    }
}

impl Site {
    /// Starts a site with no data, waits until it is whole, and moves the calling thread onto the client's host.
    ///
    /// # Errors
    /// With what to do where a part is missing; with what a process wrote where it is not ready in time.
    pub async fn start(layout: Layout) -> Result<Site> {
        let binary = layout.binary.clone().map_or_else(binary, Ok)?;
        let scratch = match layout.directory {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("lyra-site-").tempdir()?),
        };
        let directory = match (&layout.directory, &scratch) {
            (Some(directory), _) => directory.clone(),
            (None, scratch) => scratch.as_ref().map(|scratch| scratch.path().to_owned()).unwrap_or_default(),
        };
        std::fs::create_dir_all(&directory)?;
        let roles = [
            ("control", 'c', layout.controls),
            ("worker", 'w', layout.workers),
            ("workflow", 'f', layout.workflows),
            ("gateway", 'g', layout.gateways),
        ];
        let nodes: Vec<(&str, String)> = roles
            .into_iter()
            .flat_map(|(role, letter, count)| names(letter, count).into_iter().map(move |name| (role, name)))
            .collect();
        let network = network(&layout, &nodes)?;
        network.host("client")?.enter()?;
        certificates(&Cli::new(&binary).within(&directory), &nodes).await?;

        let members: Result<Vec<_>> =
            names('e', MEMBERS).iter().map(|name| network.host(name).map(Place::Host)).collect();
        let members = members?;
        let (etcd, nats, s3) = tokio::try_join!(
            Etcd::cluster_at(&members),
            start_nats(&network, layout.nats),
            S3::start_at(Place::Host(network.host("s3")?)),
        )?;
        let token = "a-token-of-the-test-site".to_owned();
        std::fs::write(directory.join("tokens"), &token)?;
        let mut site = Site {
            layout,
            binary,
            directory,
            token,
            nodes: std::collections::BTreeMap::new(),
            etcd,
            nats,
            s3,
            network,
            _scratch: scratch,
        };
        for (role, name) in nodes {
            let node = site.node(role, &name)?;
            site.nodes.insert(name, node);
        }
        // A gateway that finds control and workers starts at once.
        for role in ["control", "worker", "workflow", "gateway"] {
            let of_role = site.nodes.values_mut().filter(|node| node.role == role);
            try_join_all(of_role.map(Node::start)).await?;
        }
        site.until_ready().await?;
        Ok(site)
    }

    fn node(&self, role: &'static str, name: &str) -> Result<Node> {
        let host = self.network.host(name)?.clone();
        let at = |port: u16| format!("{}:{port}", host.address());
        let file = |name: &str| self.directory.join(name).display().to_string();
        let mut arguments = vec!["node".to_owned(), "--role".to_owned(), role.to_owned(), "--name".to_owned()];
        arguments.push(name.to_owned());
        let mut flag = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        flag("--data-dir", file(name));
        flag("--tls-dir", file(&format!("tls/{name}")));
        let blobs = format!("s3://{}?endpoint={}", S3::BUCKET, self.s3.url());
        if role == "control" || role == "workflow" {
            let members: Vec<_> = self.etcd.iter().map(Etcd::address).collect();
            flag("--store", format!("etcd://{}", members.join(",")));
            let servers: Vec<_> = self.nats.iter().map(Nats::address).collect();
            flag("--jobs", format!("nats://{}?replicas={}", servers.join(","), servers.len()));
        }
        if role != "control" {
            let controls: Result<Vec<_>> = names('c', self.layout.controls)
                .iter()
                .map(|name| Ok(format!("{}:{GRPC}", self.network.host(name)?.address())))
                .collect();
            flag("--control", controls?.join(","));
        }
        if role == "gateway" {
            flag("--listen", at(8_080));
            flag("--token-file", file("tokens"));
        } else {
            flag("--listen-grpc", at(GRPC));
            flag("--blobs", blobs);
        }
        if role == "worker" {
            // They share a machine.
            flag("--memory-mb", "2048".to_owned());
        }
        let leader_lease = format!("{}ms", self.layout.leader_lease.as_millis());
        let env = [
            ("AWS_ACCESS_KEY_ID", S3::ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", S3::SECRET_KEY),
            // Short leases, so that tests see workers lost.
            ("LYRA__CONTROL__REGISTRY__HEARTBEAT", "500ms"),
            ("LYRA__CONTROL__REGISTRY__LEASE", "2s"),
            ("LYRA__CONTROL__LEADER_LEASE", &leader_lease),
            ("LYRA__WORKFLOW__LEASE", "3s"),
            ("LYRA__WORKFLOW__WITH_CONTROL", if self.layout.workflows > 0 { "false" } else { "true" }),
            // Every worker gets calls, also of a single function.
            ("LYRA__CLUSTER__FLEET__BALANCE", "power-of-two"),
        ];
        let mut env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        if let Some((first, last)) = self.layout.ports {
            // Clients of a test know the gateways by their own addresses.
            for (setting, value) in
                [("ADDRESS", "gateways".to_owned()), ("FIRST_PORT", first.to_string()), ("LAST_PORT", last.to_string())]
            {
                env.push((format!("LYRA__CONTROL__SESSIONS__INGRESS_{setting}"), value));
            }
        }
        let log = self.directory.join(format!("{name}.log"));
        Ok(Node { role, host, binary: self.binary.clone(), arguments, env, log, child: None })
    }
}

fn network(layout: &Layout, nodes: &[(&str, String)]) -> Result<Network> {
    ensure!(layout.controls > 0 && layout.gateways > 0, "a site has a control and a gateway at least");
    let members = names('e', MEMBERS);
    let mut hosts = vec!["client"];
    hosts.extend(members.iter().map(String::as_str));
    let nats = nats_names(layout.nats);
    hosts.extend(nats.iter().map(String::as_str).chain(["s3"]));
    hosts.extend(nodes.iter().map(|(_, name)| name.as_str()));
    match layout.apart {
        true => Network::new(&hosts, layout.seed),
        false => Network::loopback(&hosts),
    }
}

/// Makes a certificate for every node.
async fn certificates(lyra: &Cli, nodes: &[(&str, String)]) -> Result<()> {
    let nodes: Vec<_> = nodes.iter().map(|(role, name)| format!("{name}:{role}")).collect();
    let mut arguments = ["tls", "init", "--tls-dir", "tls"].map(str::to_owned).to_vec();
    arguments.extend(nodes);
    lyra.run(&arguments).await?.ok()?;
    Ok(())
}
