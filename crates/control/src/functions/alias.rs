//! Aliases: put, deleted, rolled back.

use std::collections::BTreeMap;

use lyra_types::api::AliasRequest;
use lyra_types::{Alias, AliasName, Code, Error, FieldError, FunctionName, Result, TenantName};
use lyra_wire::control::{Changed, Route};

use super::Functions;
use super::deploy::moved;
use super::record::{Record, delete_alias, put_alias, put_meta};

/// Most versions that an alias points at.
const MAX_VERSIONS: usize = 16;
/// Most weight of a version.
const MAX_WEIGHT: u32 = 1_000_000;

impl Functions {
    pub(crate) async fn put_alias(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        alias: &AliasName,
        request: AliasRequest,
    ) -> Result<Changed<Alias>> {
        let now = self.clock.now();
        self.update(tenant, function, |record| {
            let record = existing(record, function)?;
            let weights = weights(&request, &record.route)?;
            let old = record.route.aliases.get(alias);
            if old.is_none() && record.route.aliases.len() >= self.config.max_aliases {
                let detail =
                    format!("function {function} has {} aliases, the most it may have", self.config.max_aliases);
                return Err(Error::new(Code::Conflict, detail));
            }
            let alias = moved(old, alias.clone(), weights, now);
            Ok((vec![put_meta(tenant, function, record.meta)?, put_alias(tenant, function, &alias)?], alias))
        })
        .await
    }

    pub(crate) async fn delete_alias(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        alias: &AliasName,
    ) -> Result<Changed<()>> {
        self.update(tenant, function, |record| {
            let record = existing(record, function)?;
            if !record.route.aliases.contains_key(alias) {
                return Err(Error::not_found("alias", format_args!("{alias} of function {function}")));
            }
            if *alias == AliasName::live() {
                return Err(Error::new(
                    Code::Conflict,
                    "the alias live can't be deleted: calls that name no version go to it; move it, or delete the function",
                ));
            }
            Ok((vec![put_meta(tenant, function, record.meta)?, delete_alias(tenant, function, alias)], ()))
        })
        .await
    }

    pub(crate) async fn rollback(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<Alias>> {
        let now = self.clock.now();
        self.update(tenant, function, |record| {
            let record = existing(record, function)?;
            let weights = before(&record.route)?;
            // No `previous`: one more rollback goes further back, never forward to what was just left.
            let live = Alias { name: AliasName::live(), weights, previous: None, updated_at: now };
            Ok((vec![put_meta(tenant, function, record.meta)?, put_alias(tenant, function, &live)?], live))
        })
        .await
    }
}

fn existing<'a>(record: Option<&'a Record>, function: &FunctionName) -> Result<&'a Record> {
    record.ok_or_else(|| Error::not_found("function", function))
}

/// The weights that a request asks for.
fn weights(request: &AliasRequest, route: &Route) -> Result<BTreeMap<u64, u32>> {
    let refuse = |field: &str, reason: String| Err(Error::field(Code::InvalidField, field, reason));
    let weights = match (&request.weights, request.version) {
        (Some(weights), None) => weights.clone(),
        (None, Some(version)) => [(version, 1)].into(),
        (Some(_), Some(_)) => return refuse("weights", "give either weights or version, not both".to_owned()),
        (None, None) => return refuse("weights", "give weights or version".to_owned()),
    };
    if weights.is_empty() || weights.len() > MAX_VERSIONS {
        return refuse("weights", format!("has {} versions; an alias takes 1 to {MAX_VERSIONS}", weights.len()));
    }
    let mut faults = Vec::new();
    for (version, weight) in &weights {
        let field = if request.version.is_some() { "version".to_owned() } else { format!("weights.{version}") };
        if !route.versions.contains_key(version) {
            faults.push(FieldError::new(field, format!("version {version} of {} does not exist", route.function)));
        } else if *weight == 0 {
            faults.push(FieldError::new(field, "the weight is 0: leave the version out, so that no call goes to it"));
        } else if *weight > MAX_WEIGHT {
            faults.push(FieldError::new(field, format!("the weight {weight} is more than {MAX_WEIGHT}")));
        }
    }
    match faults.first() {
        None => Ok(weights),
        Some(first) => {
            let mut error = Error::new(Code::InvalidField, format!("{}: {}", first.field, first.reason));
            error.errors = faults;
            Err(error)
        }
    }
}

/// Where `live` goes on a rollback: to what it pointed at before its last change; where that is not known or gone, to
/// the newest version below the lowest that it points at.
fn before(route: &Route) -> Result<BTreeMap<u64, u32>> {
    let live = route
        .aliases
        .get("live")
        .ok_or_else(|| Error::new(Code::Conflict, format!("the alias live of {} points nowhere", route.function)))?;
    if let Some(previous) = &live.previous
        && !previous.is_empty()
        && previous.keys().all(|version| route.versions.contains_key(version))
    {
        return Ok(previous.clone());
    }
    let lowest = live.weights.keys().next().copied().unwrap_or(0);
    match route.versions.range(..lowest).next_back() {
        Some((version, _)) => Ok([(*version, 1)].into()),
        None => {
            let detail = format!("{} has no version before {lowest} to roll back to", route.function);
            Err(Error::new(Code::Conflict, detail))
        }
    }
}

#[cfg(test)]
#[path = "alias_tests.rs"]
mod tests;
