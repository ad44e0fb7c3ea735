//! Secrets of tenants: sealed in the store, opened for workers only.
//!
//! # Layout in the store
//! ```text
//! secrets/{tenant}/{name}    the newest value, sealed; how many there were; when it was set
//! ```
//! A deploy that names a secret writes the secret's record again, as it is. Who deletes a secret, or gives it another value, looks at the
//! functions that name it, at the record's revision or a later one, and is refused where the record was written since. So of a deploy and
//! a deletion at the same time one is refused, in whatever process each is.
//!
//! What must hold: no value is stored that is not sealed, and none is in an error, a log or an answer but
//! [`Secrets::fetch`]'s, which only workers may ask for. The keys are in a file that the operator keeps ([`key_file`]) and in no store.

pub mod key_file;
mod seal;
pub(crate) mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lyra_kit::{Clock, Random, Tasks};
use lyra_resources::ResourceApi;
use lyra_store::objects::{Change, Check, Entry, Pages, Txn};
use lyra_store::{Objects, TxnError};
use lyra_types::api::Page;
use lyra_types::secret::{MAX_FUNCTION_SECRET_BYTES, MAX_SECRET, MAX_SECRETS};
use lyra_types::{Code, Error, FunctionName, Result, SecretName, SecretUse, TenantName};
use lyra_wire::control::PageQuery;
use lyra_wire::secrets::{PutSecret, Resealed, SealingKey, SecretInfo, SecretKey, SecretPut, SecretValue};

use crate::following::{Follows, follow};
use crate::functions::{Table, page_limit};
use key_file::KeyFileError;
pub use seal::{KEY_BYTES, Key, SealError, Sealed, Sealer};
pub(crate) use table::SecretTable;
use table::{Record, path};

/// Tries of a change that loses against others.
const TRIES: u32 = 50;
/// How long it may take until the functions are known that name a secret.
const SHOWN: Duration = Duration::from_secs(10);
/// Secrets that are sealed anew with one look at the store.
const PAGE: usize = 100;

/// Where the keys that seal secrets are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretsConfig {
    /// The key file; `None`: there can be no secrets.
    pub key_file: Option<PathBuf>,
    /// Make the file where it is not there and nothing is sealed yet.
    pub make_key: bool,
}

/// The secrets.
pub(crate) struct Secrets {
    config: SecretsConfig,
    objects: Arc<dyn Objects>,
    table: Arc<SecretTable>,
    functions: Arc<Table>,
    /// There once this control process has started.
    resources: OnceLock<Arc<ResourceApi>>,
    sealer: Arc<Sealer>,
    clock: Clock,
    random: Random,
}

impl Secrets {
    pub(crate) fn new(
        config: SecretsConfig,
        deps: &crate::Deps,
        table: Arc<SecretTable>,
        functions: Arc<Table>,
    ) -> Secrets {
        let sealer = Arc::new(Sealer::new(config.key_file.clone(), deps.random.clone()));
        let (objects, clock, random) = (Arc::clone(&deps.objects), deps.clock.clone(), deps.random.clone());
        Secrets { config, objects, table, functions, resources: OnceLock::new(), sealer, clock, random }
    }

    /// What seals, for other parts of control that keep something secret.
    pub(crate) fn sealer(&self) -> &Arc<Sealer> {
        &self.sealer
    }

    /// Reads what is stored and the keys, then follows the store in the background.
    ///
    /// # Errors
    /// [`Code::InvalidField`] where the keys can't be read, or one is missing that something is sealed with.
    pub(crate) async fn start(self: &Arc<Self>, tasks: &Tasks) -> Result<()> {
        self.table.fill().await?;
        self.read_keys().await?;
        let table = Arc::clone(&self.table);
        tasks.spawn_cancellable("follow-secrets", async move { follow(&*table, &*table.objects, &table.clock).await });
        Ok(())
    }

    async fn read_keys(&self) -> Result<()> {
        let used = self.table.keys();
        let stored: u64 = used.values().sum();
        let refused = |reason: String| Err(Error::field(Code::InvalidField, "secrets.key_file", reason));
        if self.sealer.path().is_none() {
            return match stored {
                0 => Ok(()),
                n => refused(format!("names no file, and {n} secrets are sealed: give the file with their keys")),
            };
        }
        match self.sealer.reload().await {
            Err(KeyFileError::Missing { .. }) if self.config.make_key && stored == 0 => self.make_key().await?,
            Err(error) => return refused(error.to_string()),
            Ok(()) => {}
        }
        let known = self.sealer.ids();
        let missing: Vec<_> = used.iter().filter(|(id, _)| !known.contains(id)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<_> = missing.iter().map(|(id, count)| format!("{id} ({count} secrets)")).collect();
        let (file, missing) = (self.shown_path(), missing.join(", "));
        refused(format!("{file} lacks keys that secrets are sealed with: {missing}; it holds {}", known.join(", ")))
    }

    fn shown_path(&self) -> String {
        self.sealer.path().map(|path| path.display().to_string()).unwrap_or_default()
    }

    async fn make_key(&self) -> Result<()> {
        let Some(path) = self.config.key_file.clone() else { return Ok(()) };
        let (file, random) = (path.clone(), self.random.clone());
        let made = lyra_kit::tasks::blocking(move || key_file::make(&file, &random)).await;
        let made = made.map_err(|_| Error::internal("the key for secrets could not be made"))?;
        let failed = |error: KeyFileError| Error::field(Code::InvalidField, "secrets.key_file", error.to_string());
        made.map_err(failed)?;
        self.sealer.reload().await.map_err(failed)?;
        tracing::info!(path = %path.display(), "a key for secrets was made; keep a copy of it elsewhere");
        Ok(())
    }

    /// The table, for other parts of control.
    pub(crate) fn table(&self) -> &Arc<SecretTable> {
        &self.table
    }

    /// Applications are known from now on.
    pub(crate) fn know(&self, resources: &Arc<ResourceApi>) {
        let _ = self.resources.set(Arc::clone(resources));
    }

    /// What is given secrets of the tenant, by secret.
    fn users(&self, tenant: &TenantName) -> BTreeMap<SecretName, Users> {
        let mut users: BTreeMap<_, Users> = BTreeMap::new();
        for object in self.resources.get().iter().flat_map(|of| of.applications().list(Some(tenant))) {
            for name in object.spec.secrets.iter().filter_map(|name| SecretName::new(name).ok()) {
                users.entry(name).or_default().applications.insert(object.metadata.name.clone());
            }
        }
        for name in self.functions.names_of(tenant) {
            let Some(route) = self.functions.get(tenant, &name) else { continue };
            for secret in route.versions.values().flat_map(|version| &version.secrets) {
                users.entry(secret.name.clone()).or_default().functions.insert(name.clone());
            }
        }
        users
    }

    fn users_of(&self, key: &SecretKey) -> Users {
        self.users(&key.tenant).remove(&key.name).unwrap_or_default()
    }

    /// Functions of which a version is given the secret as a variable.
    fn wanted_as_text(&self, key: &SecretKey) -> Option<FunctionName> {
        self.functions.names_of(&key.tenant).into_iter().find(|name| {
            let route = self.functions.get(&key.tenant, name);
            let mut uses = route.iter().flat_map(|route| route.versions.values()).flat_map(|version| &version.secrets);
            uses.any(|secret| secret.name == key.name && secret.env.is_some())
        })
    }

    fn check_value(&self, put: &PutSecret) -> Result<()> {
        let refused = |reason: String| Err(Error::field(Code::InvalidField, "value", reason));
        match put.value.len() {
            0 => return refused("is empty".to_owned()),
            1..=MAX_SECRET => {}
            n => return refused(format!("has {n} bytes; at most {MAX_SECRET} are taken")),
        }
        match self.wanted_as_text(&put.key).filter(|_| put.value.as_variable().is_none()) {
            Some(function) => refused(format!(
                "is not UTF-8 text without NUL, and function {function} is given this secret as a variable"
            )),
            None => Ok(()),
        }
    }

    /// Waits until the functions are known that named a secret before its record was written.
    async fn know_users(&self, entry: &Entry) -> Result<()> {
        if tokio::time::timeout(SHOWN, self.functions.reaches(entry.modified)).await.is_err() {
            return Err(Error::new(Code::Unavailable, "the route table is behind; try again"));
        }
        Ok(())
    }

    /// Sets a secret.
    pub(crate) async fn put(&self, put: PutSecret) -> Result<SecretPut> {
        self.check_value(&put)?;
        self.look_for_keys().await;
        let (key, place) = (&put.key, path(&put.key));
        for _ in 0..TRIES {
            let old = self.objects.get(&place).await?;
            if let Some(entry) = &old {
                self.know_users(entry).await?;
                self.check_value(&put)?;
            }
            let check = match &old {
                Some(entry) => Check::Modified(place.clone(), entry.modified),
                None if self.table.count(&key.tenant) >= MAX_SECRETS => return Err(full()),
                None => Check::Absent(place.clone()),
            };
            let before = old.as_ref().and_then(Record::read);
            let (now, stamp) = (self.clock.now(), self.random.u64() >> 11);
            let version = before.as_ref().map_or(0, |record| record.version) + 1;
            let value = put.value.reveal();
            let sealed = Record::sealed_for(key, version, stamp, |context| self.sealer.seal(context, value));
            let record = Record {
                version,
                stamp,
                size: value.len(),
                text: put.value.as_variable().is_some(),
                created_at: before.as_ref().map_or(now, |record| record.created_at),
                updated_at: now,
                sealed: sealed.map_err(|error| unusable(key, &error))?,
            };
            let txn = Txn { checks: vec![check], changes: vec![record.put(key)?] };
            match self.objects.txn(txn).await {
                Ok(revision) => {
                    self.table.shown(revision).await;
                    tracing::info!(tenant = %key.tenant, secret = %key.name, version, "secret set");
                    let info = info(key, &record, self.users_of(key));
                    return Ok(SecretPut { info, created: old.is_none() });
                }
                Err(TxnError::Failed { .. }) => {}
                Err(TxnError::Store(error)) => return Err(error.into()),
            }
        }
        Err(too_many_changes(key))
    }

    /// Reads the key file, which may have changed. Where it can't be read now, what it held goes on to hold.
    async fn look_for_keys(&self) {
        if let Err(error) = self.sealer.reload().await {
            tracing::warn!(%error, "the keys for secrets can't be read anew");
        }
    }

    pub(crate) async fn get(&self, key: &SecretKey) -> Result<SecretInfo> {
        let record = self.table.find(key).await?.ok_or_else(|| missing(key))?;
        Ok(info(key, &record, self.users_of(key)))
    }

    pub(crate) fn list(&self, tenant: &TenantName, page: &PageQuery) -> Result<Page<SecretInfo>> {
        let limit = page_limit(page.limit);
        let after = page.cursor.as_deref().map(SecretName::new).transpose();
        let after = after.map_err(|_| Error::field(Code::BadRequest, "cursor", "is not one that a list gave"))?;
        let mut found = self.table.list(tenant, after, limit + 1);
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(key, _)| key.name.to_string());
        let mut users = self.users(tenant);
        let show = |(key, record): (SecretKey, Arc<Record>)| {
            let users = users.remove(&key.name).unwrap_or_default();
            info(&key, &record, users)
        };
        Ok(Page { items: found.into_iter().map(show).collect(), next })
    }

    pub(crate) async fn delete(&self, key: &SecretKey, force: bool) -> Result<()> {
        let place = path(key);
        for _ in 0..TRIES {
            let entry = self.objects.get(&place).await?.ok_or_else(|| missing(key))?;
            if !force {
                self.know_users(&entry).await?;
                if let Some(refused) = self.users_of(key).refusal(key) {
                    return Err(Error::new(Code::Conflict, refused));
                }
            }
            let checks = vec![Check::Modified(place.clone(), entry.modified)];
            match self.objects.txn(Txn { checks, changes: vec![Change::Delete(place.clone())] }).await {
                Ok(revision) => {
                    self.table.shown(revision).await;
                    tracing::info!(tenant = %key.tenant, secret = %key.name, "secret deleted");
                    return Ok(());
                }
                Err(TxnError::Failed { .. }) => {}
                Err(TxnError::Store(error)) => return Err(error.into()),
            }
        }
        Err(too_many_changes(key))
    }

    /// Values for an instance.
    pub(crate) async fn fetch(&self, tenant: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>> {
        let mut values = Vec::with_capacity(names.len());
        for name in names {
            let key = SecretKey { tenant: tenant.clone(), name };
            let record = self.table.find(&key).await?.ok_or_else(|| missing(&key))?;
            let open =
                || Record::sealed_for(&key, record.version, record.stamp, |of| self.sealer.open(of, &record.sealed));
            let mut opened = open();
            if matches!(opened, Err(SealError::UnknownKey { .. } | SealError::NoKey)) {
                self.look_for_keys().await;
                opened = open();
            }
            values.push(SecretValue { stamp: record.stamp, value: opened.map_err(|error| unusable(&key, &error))? });
        }
        Ok(values)
    }

    pub(crate) fn stamps(&self, keys: &[SecretKey]) -> Vec<Option<u64>> {
        keys.iter().map(|key| self.table.get(key).map(|record| record.stamp)).collect()
    }

    /// The keys, with how many secrets each has sealed, of which those that `others` counts are kept elsewhere.
    pub(crate) async fn keys(&self, others: BTreeMap<String, u64>) -> Vec<SealingKey> {
        self.look_for_keys().await;
        let mut used = self.table.keys();
        for (id, count) in others {
            *used.entry(id).or_default() += count;
        }
        let known = self.sealer.ids();
        let mut keys: Vec<_> = known
            .into_iter()
            .enumerate()
            .map(|(at, id)| SealingKey { seals: at == 0, known: true, secrets: used.remove(&id).unwrap_or(0), id })
            .collect();
        keys.extend(used.into_iter().map(|(id, secrets)| SealingKey { id, seals: false, known: false, secrets }));
        keys
    }

    /// Seals everything with the first key of the file. Each secret is a change of its own, so doing it again goes on where it was
    /// broken off.
    pub(crate) async fn reseal(&self) -> Result<Resealed> {
        let refused = |error: KeyFileError| Error::field(Code::InvalidField, "secrets.key_file", error.to_string());
        self.sealer.reload().await.map_err(refused)?;
        let first = self.sealer.ids().into_iter().next();
        let key = first.ok_or_else(|| Error::new(Code::Unavailable, SealError::NoKey.to_string()))?;
        let (mut resealed, mut newest) = (0, 0);
        // The store is asked, not the table: a process with other keys may just have set one.
        let mut pages = Pages::of(self.objects.as_ref(), table::ALL, PAGE);
        while let Some(entries) = pages.next().await? {
            for secret in entries.iter().filter_map(|entry| table::parse(&entry.key)) {
                if let Some(revision) = self.reseal_one(&secret, &key).await? {
                    (resealed, newest) = (resealed + 1, revision);
                }
            }
        }
        self.table.shown(newest).await;
        tracing::info!(key, resealed, "secrets are sealed with the first key");
        Ok(Resealed { key, resealed })
    }

    /// Seals one anew, if it is sealed with another key than `first`; says with which revision.
    pub(crate) async fn reseal_one(&self, key: &SecretKey, first: &str) -> Result<Option<u64>> {
        for _ in 0..TRIES {
            let Some(entry) = self.objects.get(&path(key)).await? else { return Ok(None) };
            let Some(record) = Record::read(&entry) else { return Ok(None) };
            if record.sealed.key == first {
                return Ok(None);
            }
            let sealed = Record::sealed_for(key, record.version, record.stamp, |context| {
                let value = self.sealer.open(context, &record.sealed)?;
                self.sealer.seal(context, value.reveal())
            });
            let record = Record { sealed: sealed.map_err(|error| unusable(key, &error))?, ..record };
            let checks = vec![Check::Modified(entry.key, entry.modified)];
            match self.objects.txn(Txn { checks, changes: vec![record.put(key)?] }).await {
                Ok(revision) => return Ok(Some(revision)),
                Err(TxnError::Failed { .. }) => {}
                Err(TxnError::Store(error)) => return Err(error.into()),
            }
        }
        Err(too_many_changes(key))
    }
}

impl SecretTable {
    /// Checks that what a deploy wants is there, and can be given so.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with each that is not.
    pub(crate) async fn check(&self, tenant: &TenantName, uses: &[SecretUse]) -> Result<()> {
        let mut found = BTreeMap::new();
        for secret in uses {
            let key = SecretKey { tenant: tenant.clone(), name: secret.name.clone() };
            if let Some(record) = self.find(&key).await? {
                found.insert(&secret.name, record);
            }
        }
        check_uses(tenant, uses, &found)
    }

    /// The secrets that a deploy names, as the store has them now.
    ///
    /// # Errors
    /// As [`SecretTable::check`].
    pub(crate) async fn named(&self, tenant: &TenantName, uses: &[SecretUse]) -> Result<Named> {
        let (mut found, mut named) = (BTreeMap::new(), Named::default());
        for name in uses.iter().map(|secret| &secret.name).collect::<BTreeSet<_>>() {
            let place = path(&SecretKey { tenant: tenant.clone(), name: name.clone() });
            let Some(entry) = self.objects.get(&place).await? else { continue };
            if let Some(record) = Record::read(&entry) {
                found.insert(name, Arc::new(record));
            }
            named.checks.push(Check::Modified(place.clone(), entry.modified));
            named.changes.push(Change::Put(place, entry.value));
        }
        check_uses(tenant, uses, &found)?;
        Ok(named)
    }
}

/// What a deploy holds of the secrets that it names: it goes through only while they are as they were, and leaves them so.
#[derive(Default)]
pub(crate) struct Named {
    pub(crate) checks: Vec<Check>,
    pub(crate) changes: Vec<Change>,
}

/// Checks that secrets can be given as a deploy wants.
fn check_uses(tenant: &TenantName, uses: &[SecretUse], found: &BTreeMap<&SecretName, Arc<Record>>) -> Result<()> {
    let mut bytes = 0;
    for (at, secret) in uses.iter().enumerate() {
        let refused = |reason: String| Err(Error::field(Code::InvalidField, format!("secrets[{at}]"), reason));
        let Some(record) = found.get(&secret.name) else {
            return refused(format!("there is no secret {} in tenant {tenant}; set it first", secret.name));
        };
        if secret.env.is_some() && !record.text {
            let reason = format!("the value of secret {} is not UTF-8 text without NUL: use a file", secret.name);
            return refused(reason);
        }
        bytes += record.size;
        if bytes > MAX_FUNCTION_SECRET_BYTES {
            return refused(format!(
                "the secrets of a function have at most {MAX_FUNCTION_SECRET_BYTES} bytes together"
            ));
        }
    }
    Ok(())
}

/// Who is given a secret.
#[derive(Default)]
struct Users {
    functions: BTreeSet<FunctionName>,
    applications: BTreeSet<String>,
}

impl Users {
    /// Why the secret is not deleted.
    fn refusal(&self, key: &SecretKey) -> Option<String> {
        let functions = self.functions.iter().map(|name| (format!("function {name}"), "deploy"));
        let applications = self.applications.iter().map(|name| (format!("application {name}"), "apply"));
        let (first, verb) = functions.chain(applications).next()?;
        let more = match self.functions.len() + self.applications.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        Some(format!(
            "{first}{more} is given secret {}: its instances could not start any more; {verb} it without, or force the \
             deletion",
            key.name
        ))
    }
}

fn info(key: &SecretKey, record: &Record, users: Users) -> SecretInfo {
    SecretInfo {
        key: key.clone(),
        version: record.version,
        functions: users.functions.into_iter().collect(),
        applications: users.applications.into_iter().collect(),
        created_at: record.created_at,
        updated_at: record.updated_at,
    }
}

fn missing(key: &SecretKey) -> Error {
    Error::not_found("secret", &key.name)
}

fn full() -> Error {
    Error::new(Code::LimitReached, format!("there are {MAX_SECRETS} secrets, the most that there may be; delete some"))
        .with_retry_after(Duration::from_secs(60))
}

fn too_many_changes(key: &SecretKey) -> Error {
    Error::new(Code::Conflict, format!("secret {} is being changed by too many others; try again", key.name))
}

/// What is said of a secret that can't be sealed or opened. None of the causes holds a value.
fn unusable(key: &SecretKey, error: &SealError) -> Error {
    tracing::error!(tenant = %key.tenant, secret = %key.name, %error, "a secret can't be used");
    match error {
        SealError::NoKey => Error::new(Code::Unavailable, error.to_string()),
        _ => Error::new(Code::Unavailable, format!("secret {} can't be opened: {error}", key.name)),
    }
}
