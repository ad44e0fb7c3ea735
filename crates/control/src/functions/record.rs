//! A function as it is stored, and how it becomes a route.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lyra_store::objects::{Change, Entry};
use lyra_types::{Alias, AliasName, Error, FunctionName, FunctionVersion, Result, TenantName, Timestamp};
use lyra_wire::control::Route;
use serde::{Deserialize, Serialize};

use super::Functions;
use super::keys::{self, Part};

/// Objects of a function read at once; a function has fewer unless its versions are all pinned.
const PAGE: usize = 1_000;

/// What belongs to the function and to none of its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) generation: u64,
    pub(super) created_at: Timestamp,
    /// The highest number that a version ever had.
    pub(super) newest: u64,
}

/// A function as it was read.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) meta: Meta,
    /// The revision that last changed it.
    pub(super) modified: u64,
    pub(super) route: Route,
}

impl Functions {
    /// Reads a function from the store.
    pub(super) async fn read(&self, tenant: &TenantName, function: &FunctionName) -> Result<Option<Record>> {
        let prefix = keys::function(tenant, function);
        // A change between two pages would leave a mixture: read again then.
        for _ in 0..super::TRIES {
            let first = self.objects.list(&prefix, PAGE, None).await?;
            let (revision, mut more, mut entries) = (first.revision, first.more, first.entries);
            let mut whole = true;
            while more {
                let page = self.objects.list(&prefix, PAGE, entries.last().map(|entry| entry.key.as_str())).await?;
                whole &= page.revision == revision;
                more = page.more;
                entries.extend(page.entries);
            }
            if whole {
                let known = self.table.get(tenant, function);
                return Ok(assemble(tenant, function, &entries, known.as_deref()));
            }
        }
        Err(Error::new(
            lyra_types::Code::Conflict,
            format!("function {function} changes too fast to be read; try again"),
        ))
    }
}

/// Puts a function together from its objects. Versions that `known` has are taken from there, so that there is one
/// copy of each in memory.
pub(super) fn assemble(
    tenant: &TenantName,
    function: &FunctionName,
    entries: &[Entry],
    known: Option<&Route>,
) -> Option<Record> {
    let meta_entry = entries.iter().find(|entry| matches!(keys::parse(&entry.key), Some((_, _, Part::Meta))))?;
    let meta: Meta = read(meta_entry)?;
    let known = known.filter(|route| route.generation == meta.generation);
    let (mut versions, mut aliases) = (BTreeMap::new(), BTreeMap::new());
    for entry in entries {
        match keys::parse(&entry.key) {
            Some((_, _, Part::Version)) => {
                let number = entry.key.rsplit('/').next().and_then(|digits| digits.parse().ok());
                let old = number.and_then(|number: u64| known.and_then(|route| route.versions.get(&number)));
                let version = match old {
                    Some(version) => Arc::clone(version),
                    None => {
                        let mut version: FunctionVersion = read(entry)?;
                        (version.tenant, version.function) = (tenant.clone(), function.clone());
                        Arc::new(version)
                    }
                };
                versions.insert(version.version, version);
            }
            Some((_, _, Part::Alias(_))) => {
                let alias: Alias = read(entry)?;
                aliases.insert(alias.name.clone(), alias);
            }
            _ => {}
        }
    }
    let route = Route {
        tenant: tenant.clone(),
        function: function.clone(),
        generation: meta.generation,
        created_at: meta.created_at,
        versions,
        aliases,
    };
    Some(Record { meta, modified: meta_entry.modified, route })
}

fn read<T: serde::de::DeserializeOwned>(entry: &Entry) -> Option<T> {
    match serde_json::from_slice(&entry.value) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(key = entry.key, %error, "an object can't be read; its function is left out");
            None
        }
    }
}

fn put(key: String, value: &impl Serialize) -> Result<Change> {
    let json = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(key, %error, "an object can't be written");
        Error::internal("the function can't be stored")
    })?;
    Ok(Change::Put(key, Bytes::from(json)))
}

pub(super) fn put_meta(tenant: &TenantName, function: &FunctionName, meta: Meta) -> Result<Change> {
    put(keys::meta(tenant, function), &meta)
}

pub(super) fn put_version(version: &FunctionVersion) -> Result<Change> {
    put(keys::version(&version.tenant, &version.function, version.version), version)
}

pub(super) fn put_alias(tenant: &TenantName, function: &FunctionName, alias: &Alias) -> Result<Change> {
    put(keys::alias(tenant, function, &alias.name), alias)
}

pub(super) fn delete_alias(tenant: &TenantName, function: &FunctionName, alias: &AliasName) -> Change {
    Change::Delete(keys::alias(tenant, function, alias))
}
