//! Versions of applications: numbered, made from the containers of a spec, never changed. Each is an object of its own:
//! `app-versions/{tenant}/{uid of the application}/{number}`.
//!
//! A version holds the version of the function that its container names, as it was when the version was made: where an alias
//! moves later, or the function is deleted, nothing changes for the application.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lyra_store::objects::{Change, Check, Objects, Pages, Txn, TxnError};
use lyra_types::function::{Contract, Digest, limit};
use lyra_types::name::Qualifier;
use lyra_types::resources::{Application, ApplicationSpec, Container, Protocol, Quantity};
use lyra_types::{Error, FunctionName, FunctionVersion, Result, Runtime, TenantName};
use lyra_wire::sessions::{AppConfig, AppKey, AppPort, AppVersion};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::functions::Table;

/// What all keys start with.
pub(crate) const ALL: &str = "app-versions/";
/// Versions that are read at once.
const PAGE: usize = 200;

/// A version as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Version {
    /// Stands for what it was made from.
    pub(super) template: String,
    /// What workers are told.
    pub(super) version: Arc<AppVersion>,
}

/// Why no version can be made of a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// One word, for conditions.
    pub(super) reason: &'static str,
    /// The same for people.
    pub(super) message: String,
}

fn fault(reason: &'static str, message: impl Into<String>) -> Fault {
    Fault { reason, message: message.into() }
}

/// What stands for the part of a spec that makes a version.
pub(super) fn template(spec: &ApplicationSpec) -> String {
    let (containers, service) = (&spec.containers, spec.using_node_session_service);
    let part = match &spec.secrets[..] {
        // As it was written before there were any.
        [] => serde_json::to_vec(&(containers, service)),
        secrets => serde_json::to_vec(&(containers, service, secrets)),
    };
    let part = part.unwrap_or_default();
    hex(&sha2::Sha256::digest(part)[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files that an application's configuration is, as of a revision.
pub(super) fn config(spec: &ApplicationSpec, revision: u64) -> AppConfig {
    let files = spec.config_data.iter().map(|(name, content)| (format!("config/{name}"), content.clone()));
    AppConfig { revision, files: files.collect() }
}

/// Makes a version out of an application's spec.
pub(super) fn make(
    table: &Table,
    application: &Application,
    tenant: &TenantName,
    number: u64,
    config: Arc<AppConfig>,
) -> Result<Version, Fault> {
    let spec = &application.spec;
    let [container] = &spec.containers[..] else {
        return Err(fault(
            "ContainerEngineMissing",
            "an instance with several containers needs a container engine, which no worker has",
        ));
    };
    if container.function.is_empty() {
        return Err(fault(
            "ContainerEngineMissing",
            format!("image {} needs a container engine, which no worker has; name a function instead", container.image),
        ));
    }
    let function = function(table, tenant, container)?;
    check_means(spec, container, function.runtime)?;
    let ports = container.ports.iter().map(|port| AppPort {
        name: port.name.clone(),
        // Checked when the object was written.
        port: u16::try_from(port.container_port).unwrap_or(u16::MAX),
        protocol: port.protocol,
    });
    let key = AppKey {
        tenant: tenant.clone(),
        application: application.metadata.name.clone(),
        uid: application.metadata.uid.clone(),
        version: number,
    };
    let version = AppVersion {
        key,
        function: Arc::new(function),
        cpu_request: container.resources.requests.get("cpu").map_or(0, millis),
        ports: ports.collect(),
        service: spec.using_node_session_service,
        liveness: container.liveness_probe.clone(),
        readiness: container.readiness_probe.clone(),
        config,
        secrets: super::secrets::named(spec),
    };
    Ok(Version { template: template(spec), version: Arc::new(version) })
}

/// Refuses what code that is called, and does not listen by itself, can't have.
fn check_means(spec: &ApplicationSpec, container: &Container, runtime: Runtime) -> Result<(), Fault> {
    if !matches!(runtime, Runtime::Js | Runtime::Wasm) {
        return Ok(());
    }
    let refused = |what: &str| {
        let processes = "programs that run as processes (http, native, nodejs, python) can";
        Err(fault("RuntimeNotSupported", format!("runtime {runtime} can't {what}; {processes}")))
    };
    if container.ports.iter().any(|port| port.protocol != Protocol::Tcp) {
        return refused("take datagrams");
    }
    if spec.using_node_session_service {
        return refused("reach the session service");
    }
    Ok(())
}

/// The function version that a container names now.
fn named(table: &Table, tenant: &TenantName, named: &str) -> Result<Arc<FunctionVersion>, Fault> {
    let invalid = |error: Error| fault("InvalidFunction", format!("function {named:?}: {}", error.detail));
    let (name, qualifier) = match named.split_once('@') {
        Some((name, of)) => (name, Qualifier::parse(of).map_err(invalid)?),
        None => (named, Qualifier::Live),
    };
    let name = FunctionName::new(name).map_err(invalid)?;
    let missing = |why: String| fault("FunctionNotFound", why);
    let route = table
        .get(tenant, &name)
        .ok_or_else(|| missing(format!("there is no function {name}; deploy it, and a version is made")))?;
    route.resolve(&qualifier, 0).cloned().map_err(|error| missing(error.detail))
}

/// Which version of its function an application's version has, and which one the same name stands for now, where that is
/// another: what is deployed later makes no version of an application.
pub(super) fn moved(table: &Table, application: &Application, version: &AppVersion) -> Option<(u64, u64)> {
    let [container] = &application.spec.containers[..] else { return None };
    let now = named(table, &version.key.tenant, &container.function).ok()?;
    let had = &version.function;
    ((now.version, now.generation) != (had.version, had.generation)).then_some((had.version, now.version))
}

/// The function version that a container names, with the environment and the limits that the container asks for.
fn function(table: &Table, tenant: &TenantName, container: &Container) -> Result<FunctionVersion, Fault> {
    let mut version = (*named(table, tenant, &container.function)?).clone();
    if version.contract == Contract::Command && version.runtime == Runtime::Wasm {
        let why =
            format!("function {} is a command, which ends with its call, and serves no session", version.function);
        return Err(fault("RuntimeNotSupported", why));
    }
    version.env.extend(container.env.iter().map(|of| (of.name.clone(), of.value.clone())));
    let asked = |what: &str| {
        let resources = &container.resources;
        resources.limits.get(what).or_else(|| resources.requests.get(what))
    };
    if let Some(bytes) = asked("memory").and_then(Quantity::bytes) {
        let mb = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        version.memory_mb = mb.max(limit::MIN_MEMORY_MB);
    }
    if let Some(cpu) = asked("cpu") {
        version.cpu_millis = millis(cpu).max(1);
    }
    Ok(version)
}

/// Processor time in thousandths of a core.
fn millis(cpu: &Quantity) -> u32 {
    cpu.millis().map_or(0, |millis| u32::try_from(millis).unwrap_or(u32::MAX))
}

fn prefix(tenant: &TenantName, uid: &str) -> String {
    format!("{ALL}{tenant}/{uid}/")
}

/// The versions of an application, by number.
pub(super) async fn load(objects: &dyn Objects, tenant: &TenantName, uid: &str) -> Result<BTreeMap<u64, Version>> {
    let (mut versions, prefix) = (BTreeMap::new(), prefix(tenant, uid));
    let mut pages = Pages::of(objects, &prefix, PAGE);
    while let Some(entries) = pages.next().await? {
        for entry in &entries {
            let version: Version = serde_json::from_slice(&entry.value)
                .map_err(|error| Error::internal(format!("{} can't be read: {error}", entry.key)))?;
            versions.insert(version.version.key.version, version);
        }
    }
    Ok(versions)
}

/// Stores a version. False: there is one of this number.
pub(super) async fn store(objects: &dyn Objects, version: &Version) -> Result<bool> {
    let key = &version.version.key;
    let key = format!("{}{:010}", prefix(&key.tenant, &key.uid), key.version);
    let value = serde_json::to_vec(version)
        .map_err(|error| Error::internal(format!("a version of an application can't be written: {error}")))?;
    let txn = Txn { checks: vec![Check::Absent(key.clone())], changes: vec![Change::Put(key, Bytes::from(value))] };
    match objects.txn(txn).await {
        Ok(_) => Ok(true),
        Err(TxnError::Failed { .. }) => Ok(false),
        Err(TxnError::Store(error)) => Err(error.into()),
    }
}

/// Deletes versions; all of them where no numbers are given.
pub(super) async fn delete(
    objects: &dyn Objects,
    tenant: &TenantName,
    uid: &str,
    numbers: Option<Vec<u64>>,
) -> Result<()> {
    let prefix = prefix(tenant, uid);
    let changes = match numbers {
        Some(numbers) => numbers.into_iter().map(|of| Change::Delete(format!("{prefix}{of:010}"))).collect(),
        None => vec![Change::DeletePrefix(prefix)],
    };
    match objects.txn(Txn { checks: Vec::new(), changes }).await {
        Ok(_) | Err(TxnError::Failed { .. }) => Ok(()),
        Err(TxnError::Store(error)) => Err(error.into()),
    }
}

/// Code that versions of applications use, of all tenants.
pub(crate) async fn codes(objects: &dyn Objects) -> Result<Vec<Digest>> {
    let (mut codes, mut pages) = (Vec::new(), Pages::of(objects, ALL, PAGE));
    while let Some(entries) = pages.next().await? {
        let version = |entry: &lyra_store::objects::Entry| serde_json::from_slice::<Version>(&entry.value).ok();
        codes.extend(entries.iter().filter_map(version).map(|of| of.version.function.code.clone()));
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_without_secrets_has_the_template_that_it_always_had() {
        let container = Container { name: "main".to_owned(), function: "code".to_owned(), ..Container::default() };
        let mut spec = ApplicationSpec { containers: vec![container], ..ApplicationSpec::default() };
        let before = serde_json::to_vec(&(&spec.containers, false)).unwrap();
        assert_eq!(template(&spec), hex(&sha2::Sha256::digest(before)[..16]));
        let without = template(&spec);
        spec.secrets = vec!["a".to_owned()];
        let with = template(&spec);
        spec.secrets.push("b".to_owned());
        assert!(with != without && template(&spec) != with);
    }
}
