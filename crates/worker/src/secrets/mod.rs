//! Secrets that instances are given: fetched from control when an instance starts, kept in memory, and looked after.
//!
//! What must hold: values are in this memory and in the instances that are given them, and nowhere else; a call waits for control only
//! where the version's secrets are not known yet, so instances start while control is away. Every [`LOOK`] control is asked what has
//! changed. Idle instances of functions with an old value are ended then, and busy ones after their call; instances of applications
//! are told of files that have changed, and replaced where it is a variable ([`crate::sessions`]).

mod masks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use lyra_isolation::Given;
use lyra_kit::Clock;
use lyra_types::{Code, Error, FunctionVersion, SecretBytes, SecretName, SecretUse, TenantName};
use lyra_wire::Control;
use lyra_wire::secrets::{SecretKey, SecretValue};
use lyra_wire::sessions::{AppKey, AppVersion};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::service::Inner;
use crate::templates::{Key, key_of};
pub(crate) use masks::Masks;

/// How often control is asked whether secrets have changed.
pub(crate) const LOOK: Duration = Duration::from_secs(2);
/// How long secrets of a version without instances are kept after the last one started.
const KEEP: Duration = Duration::from_secs(3_600);

/// Whom values are asked of.
#[async_trait]
pub trait Vault: Send + Sync {
    /// See [`Control::fetch_secrets`].
    async fn fetch(&self, tenant: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>, Error>;

    /// See [`Control::secret_stamps`].
    async fn stamps(&self, keys: Vec<SecretKey>) -> Result<Vec<Option<u64>>, Error>;
}

/// The control role. Not held: in one process, control holds the worker.
pub(crate) struct OfControl(Weak<dyn Control>);

impl OfControl {
    pub(crate) fn new(control: &Arc<dyn Control>) -> OfControl {
        OfControl(Arc::downgrade(control))
    }

    fn control(&self) -> Result<Arc<dyn Control>, Error> {
        self.0.upgrade().ok_or_else(|| Error::new(Code::Unavailable, "this worker is shutting down"))
    }
}

#[async_trait]
impl Vault for OfControl {
    async fn fetch(&self, tenant: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>, Error> {
        self.control()?.fetch_secrets(tenant, names).await
    }

    async fn stamps(&self, keys: Vec<SecretKey>) -> Result<Vec<Option<u64>>, Error> {
        self.control()?.secret_stamps(keys).await
    }
}

/// Whose instances want secrets.
#[derive(Debug, Clone, PartialEq)]
enum Wish {
    Version(Arc<FunctionVersion>),
    App(Arc<AppVersion>),
}

impl Wish {
    fn function(&self) -> &FunctionVersion {
        match self {
            Wish::Version(version) => version,
            Wish::App(app) => &app.function,
        }
    }

    /// Those that are files of an application, which can be written anew while it runs.
    fn files(&self) -> &[SecretName] {
        match self {
            Wish::Version(_) => &[],
            Wish::App(app) => &app.secrets,
        }
    }

    /// Those that an instance is given once for all.
    fn fixed(&self) -> &[SecretUse] {
        &self.function().secrets
    }

    /// All of them, each once, in their order.
    fn names(&self) -> Vec<SecretName> {
        let mut names: Vec<_> = self.fixed().iter().map(|of| &of.name).chain(self.files()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// The same with their tenant.
    fn keys(&self) -> impl Iterator<Item = SecretKey> {
        let tenant = self.function().tenant.clone();
        self.names().into_iter().map(move |name| SecretKey { tenant: tenant.clone(), name })
    }

    fn missing(&self, why: &str) -> Error {
        let of = match self {
            Wish::Version(version) => version.function.to_string(),
            Wish::App(app) => format!("application {}", app.key.application),
        };
        Error::new(Code::Conflict, format!("instances of {of} can't start without their secrets: {why}"))
    }

    fn cant_start(&self, why: &str) -> Error {
        Error { code: Code::Overloaded, ..self.missing(why) }.with_retry_after(Duration::from_secs(1))
    }

    /// What to do where a secret is not there.
    fn advice(&self) -> &'static str {
        match self {
            Wish::Version(_) => "set it, or deploy the function without",
            Wish::App(_) => "set it, or apply the application without",
        }
    }
}

/// Whether instances of the application are given any secrets.
pub(crate) fn wants_secrets(app: &AppVersion) -> bool {
    !app.secrets.is_empty() || !app.function.secrets.is_empty()
}

/// What an instance is given.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// Once for all.
    pub(crate) given: Arc<Given>,
    /// Says which values those are: a number for each, which tells nothing of it.
    pub(crate) fixed: Vec<u64>,
    /// As files that can be written anew.
    pub(crate) files: BTreeMap<SecretName, SecretBytes>,
    /// Says which values those are.
    pub(crate) loose: Vec<u64>,
}

impl Delivered {
    /// `values`: in the order of the wish's names.
    fn new(wish: &Wish, names: &[SecretName], values: &[SecretValue]) -> Result<Delivered, Error> {
        let of = |name: &SecretName| names.iter().position(|known| known == name).and_then(|at| values.get(at));
        let value = |name: &SecretName| of(name).map(|of| of.value.clone()).unwrap_or_default();
        let stamp = |name: &SecretName| of(name).map(|of| of.stamp);
        let given = Given::new(wish.fixed().iter().map(|secret| (secret, value(&secret.name))));
        let given = given.map_err(|secret| {
            let why =
                format!("the value of secret {} is not UTF-8 text without NUL, as a variable must be", secret.name);
            wish.missing(&why)
        })?;
        Ok(Delivered {
            given: Arc::new(given),
            fixed: wish.fixed().iter().filter_map(|secret| stamp(&secret.name)).collect(),
            files: wish.files().iter().map(|name| (name.clone(), value(name))).collect(),
            loose: wish.files().iter().filter_map(stamp).collect(),
        })
    }

    fn values(&self) -> impl Iterator<Item = &SecretBytes> {
        self.given.values().chain(self.files.values())
    }
}

/// What is known of the secrets of a version.
struct Known {
    wish: Wish,
    delivered: Arc<Delivered>,
    masks: Arc<Masks>,
    /// In the order of the wish's names, as control said last.
    stamps: Vec<Option<u64>>,
    /// Why no instance can be started any more, of an application's; what runs may go on with what it was given.
    missing: Option<Error>,
    used: Instant,
}

#[derive(Default)]
struct Kept {
    versions: HashMap<Key, Known>,
    apps: HashMap<AppKey, Known>,
}

impl Kept {
    fn all(&self) -> impl Iterator<Item = &Known> {
        self.versions.values().chain(self.apps.values())
    }

    fn of(&self, wish: &Wish) -> Option<&Known> {
        match wish {
            Wish::Version(version) => self.versions.get(&key_of(version)),
            Wish::App(app) => self.apps.get(&app.key),
        }
    }

    fn keep(&mut self, known: Known) {
        match &known.wish {
            Wish::Version(version) => drop(self.versions.insert(key_of(version), known)),
            Wish::App(app) => drop(self.apps.insert(app.key.clone(), known)),
        }
    }
}

/// Versions with secrets that have changed or are gone.
#[derive(Debug, Default)]
struct Changed {
    versions: Vec<Arc<FunctionVersion>>,
    apps: Vec<AppKey>,
}

/// Secrets of the versions that run here, of functions and of applications.
pub(crate) struct Secrets {
    vault: OnceLock<Arc<dyn Vault>>,
    known: Mutex<Kept>,
    clock: Clock,
}

impl Secrets {
    pub(crate) fn new(clock: Clock) -> Secrets {
        Secrets { vault: OnceLock::new(), known: Mutex::default(), clock }
    }

    /// Fetches values there from now on. The first one counts.
    pub(crate) fn fetch_from(&self, vault: Arc<dyn Vault>) {
        let _ = self.vault.set(vault);
    }

    /// What an instance of the version is given; `None` where that is nothing.
    ///
    /// # Errors
    /// [`Code::Conflict`] where a secret is not there any more, [`Code::Overloaded`] where control can't be asked: another worker may
    /// know them, and this one is none the worse for other calls.
    pub(crate) async fn of(&self, version: &Arc<FunctionVersion>) -> Result<Option<Arc<Given>>, Error> {
        if version.secrets.is_empty() {
            return Ok(None);
        }
        let delivered = self.of_wish(Wish::Version(Arc::clone(version))).await?;
        Ok(Some(Arc::clone(&delivered.given)))
    }

    /// What an instance of the application is given; `None` where that is nothing.
    ///
    /// # Errors
    /// As [`Secrets::of`].
    pub(crate) async fn of_app(&self, app: &Arc<AppVersion>) -> Result<Option<Arc<Delivered>>, Error> {
        if !wants_secrets(app) {
            return Ok(None);
        }
        self.of_wish(Wish::App(Arc::clone(app))).await.map(Some)
    }

    async fn of_wish(&self, wish: Wish) -> Result<Arc<Delivered>, Error> {
        {
            let known = &mut *self.known.lock();
            let known = match &wish {
                Wish::Version(version) => known.versions.get_mut(&key_of(version)),
                Wish::App(app) => known.apps.get_mut(&app.key),
            };
            if let Some(known) = known {
                known.used = self.clock.instant();
                // Once it is there again the next look finds it, and tells what runs.
                return known.missing.clone().map_or_else(|| Ok(Arc::clone(&known.delivered)), Err);
            }
        }
        let vault = self.vault.get().ok_or_else(|| wish.cant_start("this worker knows no control process"))?;
        self.learn(&**vault, &wish).await
    }

    /// What instances of the application that run are to have, as far as that is known; and whether others could not be started.
    pub(crate) fn known_of_app(&self, app: &AppKey) -> Option<(Arc<Delivered>, bool)> {
        let known = self.known.lock();
        known.apps.get(app).map(|known| (Arc::clone(&known.delivered), known.missing.is_some()))
    }

    /// Fetches what a version is given, and keeps it.
    async fn learn(&self, vault: &dyn Vault, wish: &Wish) -> Result<Arc<Delivered>, Error> {
        let names = wish.names();
        let fetched = vault.fetch(&wish.function().tenant, names.clone()).await.map_err(|error| match error.code {
            Code::NotFound => wish.missing(&format!("{}; {}", error.detail, wish.advice())),
            _ => wish.cant_start(&error.detail),
        })?;
        if fetched.len() != names.len() {
            return Err(wish.cant_start("control did not answer with all of their secrets"));
        }
        let stamps = fetched.iter().map(|value| Some(value.stamp)).collect();
        let delivered = Arc::new(Delivered::new(wish, &names, &fetched)?);
        let (used, wish) = (self.clock.instant(), wish.clone());
        let known = &mut *self.known.lock();
        // What an instance that is still there writes is the old value.
        let before = known.of(&wish).map(|known| Arc::clone(&known.masks));
        let masks = Arc::new(Masks::new(delivered.values(), before.as_deref()));
        known.keep(Known { wish, delivered: Arc::clone(&delivered), masks, stamps, missing: None, used });
        Ok(delivered)
    }

    /// What is to be taken out of what instances of the version write.
    pub(crate) fn masks(&self, version: &FunctionVersion) -> Option<Arc<Masks>> {
        if version.secrets.is_empty() {
            return None;
        }
        self.known.lock().versions.get(&key_of(version)).map(|known| Arc::clone(&known.masks))
    }

    /// What is to be taken out of what instances of the application write.
    pub(crate) fn masks_of_app(&self, app: &AppVersion) -> Option<Arc<Masks>> {
        if !wants_secrets(app) {
            return None;
        }
        self.known.lock().apps.get(&app.key).map(|known| Arc::clone(&known.masks))
    }

    /// Forgets those of a function, or of one of its versions. Applications go on with it.
    pub(crate) fn forget(&self, generation: u64, version: Option<u64>) {
        let is_other = |key: &Key| key.0 != generation || version.is_some_and(|version| version != key.1);
        self.known.lock().versions.retain(|key, _| is_other(key));
    }

    /// Those with a secret that has changed or is gone, and what control says of all of theirs.
    async fn outdated(&self, vault: &dyn Vault) -> Result<Vec<(Wish, Vec<Option<u64>>)>, Error> {
        let mut stamps: BTreeMap<SecretKey, Option<u64>> = BTreeMap::new();
        for known in self.known.lock().all() {
            stamps.extend(known.wish.keys().map(|key| (key, None)));
        }
        if stamps.is_empty() {
            return Ok(Vec::new());
        }
        let found = vault.stamps(stamps.keys().cloned().collect()).await?;
        for (now, stamp) in stamps.values_mut().zip(found) {
            *now = stamp;
        }
        let known = self.known.lock();
        let outdated = known.all().filter_map(|known| {
            // What was learned meanwhile is of no concern.
            let now: Option<Vec<_>> = known.wish.keys().map(|key| stamps.get(&key).copied()).collect();
            now.filter(|now| *now != known.stamps).map(|now| (known.wish.clone(), now))
        });
        Ok(outdated.collect())
    }

    /// Learns what has changed; gives the versions whose instances have to know. While control is away all stays as it is.
    async fn look(&self, vault: &dyn Vault) -> Result<Changed, Error> {
        let mut changed = Changed::default();
        for (wish, now) in self.outdated(vault).await? {
            let version = wish.function().key();
            match self.learn(vault, &wish).await {
                Ok(_) => tracing::info!(%version, "a secret has changed: instances are renewed"),
                Err(error) if error.code == Code::Conflict => {
                    tracing::warn!(%version, %error, "a secret is gone: instances are ended");
                    self.lost(&wish, now, error);
                }
                Err(error) => {
                    tracing::warn!(%version, %error, "a changed secret can't be fetched now");
                    continue;
                }
            }
            match wish {
                Wish::Version(version) => changed.versions.push(version),
                Wish::App(app) => changed.apps.push(app.key.clone()),
            }
        }
        Ok(changed)
    }

    /// No instance can be started with it any more. An application's open sessions go on with what they were given.
    fn lost(&self, wish: &Wish, now: Vec<Option<u64>>, error: Error) {
        match wish {
            Wish::Version(version) => self.forget(version.generation, Some(version.version)),
            Wish::App(app) => {
                if let Some(known) = self.known.lock().apps.get_mut(&app.key) {
                    (known.stamps, known.missing) = (now, Some(error));
                }
            }
        }
    }

    /// Drops what nobody has used for long; `apps`: the applications that have instances.
    fn drop_unused(&self, has_instances: impl Fn(Key) -> bool, apps: &HashSet<AppKey>) {
        let now = self.clock.instant();
        let is_fresh = |known: &Known| now.duration_since(known.used) < KEEP;
        let kept = &mut *self.known.lock();
        kept.versions.retain(|key, known| is_fresh(known) || has_instances(*key));
        kept.apps.retain(|key, known| is_fresh(known) || apps.contains(key));
    }
}

impl Inner {
    /// Asks control what has changed, and sees to it that no instance serves with an old value for long.
    pub(crate) async fn look_at_secrets(&self) {
        self.secrets.drop_unused(|key| self.pool.has_any(key), &self.sessions.applications());
        let Some(vault) = self.secrets.vault.get() else { return };
        match self.secrets.look(&**vault).await {
            // Only now: what starts from here on has the new value.
            Ok(changed) => {
                changed.versions.iter().for_each(|version| self.pool.renew(key_of(version)));
                self.sessions.ring_all(&changed.apps);
            }
            Err(error) => tracing::debug!(%error, "control can't be asked for changed secrets"),
        }
    }
}
