//! Limits on what control stores: functions and bytes of code.
//!
//! Whoever makes a version in a tenant with such a limit writes the tenant's *gate* in the same transaction, if it is as it was when the
//! limit was looked at: so of two deploys that would pass together one comes later, and sees the other. Deletions need not: they only
//! make room.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use lyra_store::Objects;
use lyra_store::objects::{Change, Check};
use lyra_types::function::Digest;
use lyra_types::quota::{LimitKind, Quota, QuotaKey};
use lyra_types::{FunctionName, FunctionVersion, Result, TenantName};

use super::book;

/// There is room again when somebody has deleted something; nobody knows when.
const LATER: Duration = Duration::from_secs(60);

/// The limits that a deploy must keep.
pub(crate) struct Gate {
    of_tenant: (QuotaKey, Quota),
    of_function: Option<(QuotaKey, Quota)>,
    /// That nobody else made something meanwhile.
    pub(crate) check: Check,
    /// What is stored counts up to this revision.
    pub(crate) revision: u64,
}

fn limits(quota: &Quota) -> bool {
    quota.functions.is_some() || quota.stored_bytes.is_some()
}

impl Gate {
    /// The gate that a deploy has to pass; `None`: there is no limit.
    pub(crate) async fn of(
        objects: &dyn Objects,
        default: &Quota,
        tenant: &TenantName,
        function: &FunctionName,
    ) -> Result<Option<Gate>> {
        let own = QuotaKey { tenant: tenant.clone(), function: None };
        let functions = QuotaKey { tenant: tenant.clone(), function: Some(function.clone()) };
        let read = async |key: &QuotaKey| -> Result<Option<Quota>> {
            Ok(objects.get(&book::key(key)).await?.as_ref().and_then(book::read))
        };
        let of_tenant = read(&own).await?.unwrap_or_else(|| default.clone());
        let of_function = read(&functions).await?.filter(limits);
        if !limits(&of_tenant) && of_function.is_none() {
            return Ok(None);
        }
        let key = format!("quota-gates/{tenant}");
        let (check, revision) = match objects.get(&key).await? {
            Some(entry) => (Check::Modified(key, entry.modified), entry.modified),
            None => (Check::Absent(key), 0),
        };
        let of_function = of_function.map(|quota| (functions, quota));
        Ok(Some(Gate { of_tenant: (own, of_tenant), of_function, check, revision }))
    }

    /// What passing it changes.
    pub(crate) fn change(&self) -> Change {
        Change::Put(self.check.key().to_owned(), Bytes::new())
    }

    /// Says whether so much may be stored: `others` are the versions of the tenant's other functions, `own` those that this one will have;
    /// `functions` is how many functions there will be, and `is_new` whether this is one that was not there before.
    ///
    /// # Errors
    /// [`lyra_types::Code::LimitReached`] with the limit.
    pub(crate) fn admit<'a>(
        &self,
        functions: usize,
        is_new: bool,
        others: impl Iterator<Item = &'a FunctionVersion>,
        own: impl Iterator<Item = &'a FunctionVersion>,
    ) -> Result<()> {
        let (key, quota) = &self.of_tenant;
        if let Some(most) = quota.functions
            && is_new
            && functions as u64 > u64::from(most)
        {
            let there = functions - 1;
            return Err(LimitKind::Functions.refusal(key, most, format!("there are {there}"), LATER));
        }
        let mut codes: HashMap<&Digest, u64> = own.map(|version| (&version.code, version.code_size)).collect();
        if let Some((key, quota)) = &self.of_function {
            hold(key, quota, codes.values().sum())?;
        }
        if quota.stored_bytes.is_some() {
            codes.extend(others.map(|version| (&version.code, version.code_size)));
            hold(key, quota, codes.values().sum())?;
        }
        Ok(())
    }
}

fn hold(key: &QuotaKey, quota: &Quota, bytes: u64) -> Result<()> {
    match quota.stored_bytes {
        Some(most) if bytes > most => {
            let counted = format!("with this version there would be {bytes}");
            Err(LimitKind::StoredBytes.refusal(key, most, counted, LATER))
        }
        _ => Ok(()),
    }
}

/// Bytes of code of these versions; the same code counts once.
pub(super) fn stored<'a>(versions: impl Iterator<Item = &'a FunctionVersion>) -> u64 {
    versions.map(|version| (&version.code, version.code_size)).collect::<HashMap<_, _>>().values().sum()
}
