//! What calls are signed with, sealed with the keys for secrets.
//!
//! What must hold: no secret of a destination is stored that is not sealed, wherever it stands: with its function or workflow, in the
//! notice of a job or a run, in a delivery. It is bound to its tenant and its URL, so it signs no call of another place. What an earlier
//! Lyra stored in the clear is read, and sealed by the leader when it begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use lyra_store::objects::{Check, Entry, Pages};
use lyra_types::{Code, Error, Result, Secret, TenantName};
use serde::{Deserialize, Serialize};

use super::Deliveries;
use super::record::{ALL, DESTINATIONS, Delivery, Destinations, Target, parse_key, put, read};
use crate::secrets::{SealError, Sealed, Sealer};

/// Records read at once: a delivery may hold a result.
const PAGE: usize = 50;
/// Tries of a change that loses against others.
const TRIES: u32 = 50;

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Kept {
    /// Sealed.
    Sealed(Sealed),
    /// As an earlier Lyra stored it.
    Clear(Secret),
}

impl Kept {
    /// Id of the key that sealed it.
    fn key(&self) -> Option<&str> {
        match self {
            Kept::Sealed(sealed) => Some(&sealed.key),
            Kept::Clear(_) => None,
        }
    }
}

/// Seals and opens what calls are signed with.
#[derive(Debug, Clone)]
pub(super) struct Vault(pub(super) Arc<Sealer>);

impl Vault {
    /// Seals the secret of a URL.
    ///
    /// # Errors
    /// [`Code::Unavailable`] where there is no key to seal with.
    pub(super) fn seal(&self, tenant: &TenantName, url: &str, secret: &Secret) -> Result<Kept> {
        let sealed = self.0.seal(&context(tenant, url), secret.reveal().as_bytes());
        sealed.map(Kept::Sealed).map_err(|error| Error::new(Code::Unavailable, error.to_string()))
    }

    /// Opens the secret of a URL.
    ///
    /// # Errors
    /// Why it can't be; none of the reasons holds a secret.
    pub(super) async fn open(&self, tenant: &TenantName, url: &str, kept: &Kept) -> Result<Secret, SealError> {
        let sealed = match kept {
            Kept::Sealed(sealed) => sealed,
            Kept::Clear(secret) => return Ok(secret.clone()),
        };
        let mut opened = self.0.open(&context(tenant, url), sealed);
        if matches!(opened, Err(SealError::UnknownKey { .. } | SealError::NoKey)) {
            // The file may have changed.
            if let Err(error) = self.0.reload().await {
                tracing::warn!(%error, "the keys for secrets can't be read anew");
            }
            opened = self.0.open(&context(tenant, url), sealed);
        }
        let text = String::from_utf8(opened?.reveal().to_vec()).map_err(|_| SealError::Broken)?;
        Ok(Secret::new(text))
    }

    /// Whether what was sealed can be opened with the keys that are there.
    pub(super) fn has_key_of(&self, kept: &Kept) -> bool {
        kept.key().is_none_or(|key| self.0.ids().iter().any(|id| id == key))
    }

    /// Seals it anew where another key than `first` sealed it, or none; `None`: it stays.
    async fn renewed(&self, tenant: &TenantName, target: &Target, first: &str) -> Result<Option<Target>, SealError> {
        let Target::Url { url, secret: kept } = target else { return Ok(None) };
        if kept.key() == Some(first) {
            return Ok(None);
        }
        let secret = self.open(tenant, url, kept).await?;
        let sealed = self.0.seal(&context(tenant, url), secret.reveal().as_bytes())?;
        Ok(Some(Target::Url { url: url.clone(), secret: Kept::Sealed(sealed) }))
    }
}

fn context<'a>(tenant: &'a TenantName, url: &'a str) -> [&'a str; 3] {
    ["webhook", tenant.as_str(), url]
}

/// A record that holds what calls are signed with.
trait Holds: Serialize + serde::de::DeserializeOwned {
    /// One that can't be opened is an error: somebody has to set it again. What is over in some days is only told of.
    const LASTS: bool;

    fn targets(&mut self) -> Vec<&mut Target>;
}

impl Holds for Destinations {
    const LASTS: bool = true;

    fn targets(&mut self) -> Vec<&mut Target> {
        [&mut self.on_success, &mut self.on_failure].into_iter().flatten().collect()
    }
}

impl Holds for Delivery {
    const LASTS: bool = false;

    fn targets(&mut self) -> Vec<&mut Target> {
        vec![&mut self.target]
    }
}

impl Deliveries {
    /// Seals everything with the first key of the file; returns how many records that were sealed otherwise, or not at all. Each is a
    /// change of its own, so doing it again goes on where it was broken off.
    pub(crate) async fn reseal(&self) -> Result<u64> {
        Ok(self.reseal_all::<Destinations>(DESTINATIONS).await? + self.reseal_all::<Delivery>(ALL).await?)
    }

    /// How many secrets each key has sealed.
    pub(crate) async fn sealed_by(&self) -> Result<BTreeMap<String, u64>> {
        let mut keys = BTreeMap::new();
        self.count::<Destinations>(DESTINATIONS, &mut keys).await?;
        self.count::<Delivery>(ALL, &mut keys).await?;
        Ok(keys)
    }

    async fn count<T: Holds>(&self, prefix: &str, keys: &mut BTreeMap<String, u64>) -> Result<()> {
        let mut pages = Pages::of(self.objects.as_ref(), prefix, PAGE);
        while let Some(entries) = pages.next().await? {
            for entry in &entries {
                let Ok(mut record) = read::<T>(entry) else { continue };
                for target in record.targets() {
                    if let Target::Url { secret: Kept::Sealed(sealed), .. } = target {
                        *keys.entry(sealed.key.clone()).or_default() += 1;
                    }
                }
            }
        }
        Ok(())
    }

    async fn reseal_all<T: Holds>(&self, prefix: &str) -> Result<u64> {
        let Some(first) = self.vault.0.ids().into_iter().next() else { return Ok(0) };
        let (mut pages, mut changed) = (Pages::of(self.objects.as_ref(), prefix, PAGE), 0);
        while let Some(entries) = pages.next().await? {
            for entry in entries {
                changed += u64::from(self.reseal_one::<T>(prefix, entry, &first).await?);
            }
        }
        Ok(changed)
    }

    async fn reseal_one<T: Holds>(&self, prefix: &str, entry: Entry, first: &str) -> Result<bool> {
        let Some((tenant, name)) = parse_key(prefix, &entry.key) else { return Ok(false) };
        let (key, shown) = (entry.key.clone(), name.to_owned());
        let mut entry = Some(entry);
        for _ in 0..TRIES {
            let found = match entry.take() {
                Some(found) => found,
                None => match self.objects.get(&key).await? {
                    Some(found) => found,
                    None => return Ok(false),
                },
            };
            // The log says what can't be read; it holds up nothing else.
            let Ok(mut record) = read::<T>(&found) else { return Ok(false) };
            let mut changed = false;
            for target in record.targets() {
                match self.vault.renewed(&tenant, target, first).await {
                    Ok(Some(renewed)) => (*target, changed) = (renewed, true),
                    Ok(None) => {}
                    Err(error) if !T::LASTS => {
                        tracing::warn!(%tenant, delivery = %shown, %error, "what a delivery is signed with can't be opened");
                    }
                    Err(error) => {
                        tracing::error!(%tenant, of = %shown, %error, "the secret of a destination can't be opened");
                        let detail = format!("the secret of destination {shown} can't be opened: {error}");
                        return Err(Error::new(Code::Unavailable, detail));
                    }
                }
            }
            if !changed {
                return Ok(false);
            }
            let check = Check::Modified(key.clone(), found.modified);
            if self.commit(vec![check], vec![put(key.clone(), &record)?]).await? {
                return Ok(true);
            }
        }
        Err(Error::new(Code::Conflict, format!("destination {shown} is being changed by too many others; try again")))
    }

    /// Seals what an earlier Lyra stored in the clear, where there is a key.
    pub(super) async fn seal_what_is_clear(&self) {
        match self.reseal().await {
            Ok(0) => {}
            Ok(sealed) => tracing::info!(sealed, "secrets of destinations are sealed with the first key"),
            Err(error) => tracing::warn!(%error, "secrets of destinations can't be sealed anew; reseal them by hand"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_lyra_stored_is_read_and_what_is_sealed_is_told_apart() {
        let clear: Kept = serde_json::from_str(r#""whsec_x""#).unwrap();
        assert_eq!((clear.key(), &clear), (None, &Kept::Clear(Secret::new("whsec_x"))));
        let sealed: Kept = serde_json::from_str(r#"{"key":"abc","data":"AAAA"}"#).unwrap();
        assert_eq!(sealed.key(), Some("abc"));
        assert_eq!(serde_json::to_string(&sealed).unwrap(), r#"{"key":"abc","data":"AAAA"}"#);
    }
}
