//! Packages as programs of sessions: started as they are, not called.
//!
//! [`Program`] of a package becomes a sandbox with the session's files, its service and its way out; [`hosted`] is what the
//! worker then holds. What must hold: nothing is left of a start that fails; a lasting instance carries with it, in its
//! label, all that a later worker needs to take it over.

mod hosted;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use lyra_types::{Code, Error, FunctionVersion, InstanceId, Network};
use serde::{Deserialize, Serialize};

use self::hosted::HostedProcess;
use super::Shared;
use super::instance::Instance;
use super::launch::{self, Bind, Lasting};
use super::package::Package;
use super::plan::{Ground, PROXY_PORT, env_of, secret_files};
use crate::Grant;
use crate::session::places::Places;
use crate::session::{
    ADDRESS_VARIABLE, DIRECTORY, DIRECTORY_VARIABLE, Hosted, Hosting, Port, Protocol, check_hosting, told_port,
};

/// Port of the session service, on the sandbox's own loopback.
const SERVICE_PORT: u16 = 9003;

/// What a later worker needs to take over an instance.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    id: InstanceId,
    label: String,
    ports: Vec<Port>,
    service: bool,
    egress: bool,
}

/// What is to be started.
pub(super) struct Start<'a> {
    pub(super) id: InstanceId,
    pub(super) version: &'a FunctionVersion,
    pub(super) grant: &'a Grant,
    pub(super) hosting: Hosting,
    pub(super) package: &'a Package,
    /// The program and its arguments, inside of the sandbox.
    pub(super) program: Vec<String>,
}

/// Starts a program for a session.
pub(super) async fn host(shared: &Arc<Shared>, start: Start<'_>) -> Result<Box<dyn Hosted>, Error> {
    let Start { id, version, grant, hosting, package, program } = start;
    let egress = version.network == Network::Egress;
    check(&hosting, egress)?;
    let note =
        Note { id, label: hosting.label.clone(), ports: hosting.ports.clone(), service: hosting.service, egress };
    let files = shared.places.make(id, &hosting.files)?;
    let interpreters = shared.interpreters().await;
    let ground =
        Ground { config: &shared.config, support: &shared.support, interpreters: interpreters.iter().collect() };
    let mut env = environment(id, version, grant, &hosting);
    shared.driver().tell(&mut env, grant);
    let mut plan = ground.plan_for(id, package, version, program, env);
    shared.driver().add(&mut plan, grant);
    plan.secrets = secret_files(grant);
    plan.binds.push(Bind::new(files.shown(), DIRECTORY));
    plan.listen.extend(hosting.service.then_some(SERVICE_PORT));
    plan.listen.extend(egress.then_some(PROXY_PORT));
    if hosting.lasting {
        let label = serde_json::to_string(&note).map_err(|error| Error::internal(error.to_string()))?;
        if label.len() > launch::MAX_LABEL {
            return Err(Error::field(Code::InvalidField, "label", "the label is too long"));
        }
        plan.lasting = Some(Lasting { label, kill_grace: hosting.kill_grace });
    }
    let written = hosting.files;
    let files = lyra_kit::tasks::blocking(move || files.create(&written).map(|()| files));
    let files = files.await.map_err(|_| super::broken_off())??;
    let (instance, sockets) = Instance::spawn(&shared.launcher, plan).await?;
    let hosted = HostedProcess::new(shared, note, instance, sockets, Vec::new(), files)?;
    Ok(Box::new(if hosting.lasting { hosted.lasting() } else { hosted }))
}

/// Takes over what a former worker has left.
pub(super) fn adopt(shared: &Arc<Shared>) -> Vec<Box<dyn Hosted>> {
    let mut found: Vec<Box<dyn Hosted>> = Vec::new();
    for adopted in shared.launcher.adopt() {
        let pid = adopted.process.pid;
        match take_over(shared, adopted) {
            Ok(hosted) => found.push(Box::new(hosted)),
            Err(error) => tracing::warn!(pid, %error, "a sandbox of an earlier Lyra can't be taken over, and is ended"),
        }
    }
    found
}

fn take_over(shared: &Arc<Shared>, adopted: launch::Adopted) -> Result<HostedProcess, Error> {
    let launch::Adopted { process, label, earlier, lost, exposed } = adopted;
    let unknown = |error: serde_json::Error| Error::internal(format!("its label is not a session's: {error}"));
    let note: Note = serde_json::from_str(&label).map_err(unknown)?;
    let files = shared.places.of(note.id);
    let (instance, sockets) = Instance::take_over(process, &earlier, lost)?;
    Ok(HostedProcess::new(shared, note, instance, sockets, exposed, files)?.lasting())
}

/// Removes the files of instances that are gone. Before any is started.
pub(super) fn sweep(places: &Places, labels: &[String]) {
    let notes = labels.iter().filter_map(|label| serde_json::from_str::<Note>(label).ok());
    places.sweep(&notes.map(|note| note.id.to_string()).collect());
}

fn check(hosting: &Hosting, egress: bool) -> Result<(), Error> {
    check_hosting(hosting)?;
    let taken = [(PROXY_PORT, egress), (SERVICE_PORT, hosting.service)];
    match hosting.ports.iter().find(|port| port.protocol == Protocol::Tcp && taken.contains(&(port.port, true))) {
        Some(port) => Err(crate::session::not_a_port(port)),
        None => Ok(()),
    }
}

/// The environment: what is usual, the version's, the session's, its secrets, and what the platform says.
fn environment(id: InstanceId, version: &FunctionVersion, grant: &Grant, hosting: &Hosting) -> Vec<(String, String)> {
    let mut merged = version.clone();
    merged.env.extend(hosting.env.iter().cloned());
    let mut env = env_of(id, &merged, merged.handler.as_deref().unwrap_or_default(), grant);
    // Of the Lambda interface, which there is none of here.
    env.retain(|(name, _)| {
        !name.starts_with("AWS_LAMBDA_") && !matches!(name.as_str(), "_HANDLER" | "LAMBDA_RUNTIME_DIR")
    });
    let mut set = |name: &str, value: String| {
        env.retain(|(known, _)| known != name);
        env.push((name.to_owned(), value));
    };
    if let Some(port) = told_port(hosting) {
        set("PORT", port.to_string());
    }
    if hosting.service {
        set(ADDRESS_VARIABLE, SocketAddr::from((Ipv4Addr::LOCALHOST, SERVICE_PORT)).to_string());
    }
    set(DIRECTORY_VARIABLE, DIRECTORY.to_owned());
    set("LYRA_INSTANCE", id.to_string());
    env
}
