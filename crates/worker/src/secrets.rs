//! Secrets that instances are given: fetched from control when an instance starts, kept in memory, and looked after.
//!
//! What must hold: values are in this memory and in the instances that are given them, and nowhere else; a call waits for control only
//! where the version's secrets are not known yet, so instances start while control is away. Every [`LOOK`] control is asked what has
//! changed; idle instances with an old value are ended then, and busy ones after their call.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use lyra_isolation::Given;
use lyra_kit::Clock;
use lyra_types::error::Thrown;
use lyra_types::{Code, Error, FunctionVersion, SecretName, SecretUse, TenantName};
use lyra_wire::Control;
use lyra_wire::secrets::{SecretKey, SecretValue};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::service::Inner;
use crate::templates::{Key, key_of};

/// How often control is asked whether secrets have changed.
pub(crate) const LOOK: Duration = Duration::from_secs(2);
/// How long secrets of a version without instances are kept after the last one started.
const KEEP: Duration = Duration::from_secs(3_600);
/// Shortest text that is taken out of log lines: shorter ones stand in too many lines by chance.
const MIN_MASKED: usize = 8;
/// Most texts that are taken out of the lines of one version.
const MAX_MASKED: usize = 256;
/// What stands in their place.
const MASK: &str = "***";

/// Whom values are asked of.
#[async_trait]
pub(crate) trait Vault: Send + Sync {
    /// See [`Control::fetch_secrets`].
    async fn fetch(&self, tenant: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>, Error>;

    /// See [`Control::secret_stamps`].
    async fn stamps(&self, keys: Vec<SecretKey>) -> Result<Vec<Option<u64>>, Error>;
}

#[async_trait]
impl Vault for dyn Control {
    async fn fetch(&self, tenant: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>, Error> {
        self.fetch_secrets(tenant, names).await
    }

    async fn stamps(&self, keys: Vec<SecretKey>) -> Result<Vec<Option<u64>>, Error> {
        self.secret_stamps(keys).await
    }
}

/// What is known of a version's secrets.
struct Known {
    version: Arc<FunctionVersion>,
    given: Arc<Given>,
    masks: Arc<Masks>,
    /// In the order of the names in [`names_of`].
    stamps: Vec<u64>,
    used: Instant,
}

/// Secrets of the versions that run here.
pub(crate) struct Secrets {
    /// Not held: in one process, control holds the worker.
    control: OnceLock<Weak<dyn Control>>,
    known: Mutex<HashMap<Key, Known>>,
    clock: Clock,
}

/// The secrets that a version is given, each once, in the order of their names.
fn keys_of(version: &FunctionVersion) -> impl Iterator<Item = SecretKey> {
    let tenant = version.tenant.clone();
    names_of(version).into_iter().map(move |name| SecretKey { tenant: tenant.clone(), name })
}

/// The secrets that a version is given, each once.
fn names_of(version: &FunctionVersion) -> Vec<SecretName> {
    let mut names: Vec<_> = version.secrets.iter().map(|secret| secret.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

impl Secrets {
    pub(crate) fn new(clock: Clock) -> Secrets {
        Secrets { control: OnceLock::new(), known: Mutex::default(), clock }
    }

    /// Fetches values there from now on. The first one counts.
    pub(crate) fn fetch_from(&self, control: &Arc<dyn Control>) {
        let _ = self.control.set(Arc::downgrade(control));
    }

    fn control(&self) -> Option<Arc<dyn Control>> {
        self.control.get().and_then(Weak::upgrade)
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
        if let Some(known) = self.known(version) {
            return Ok(Some(known));
        }
        let control = self.control().ok_or_else(|| cant_start(version, "this worker knows no control process"))?;
        self.learn(&*control, version).await.map(Some)
    }

    fn known(&self, version: &FunctionVersion) -> Option<Arc<Given>> {
        let mut known = self.known.lock();
        let known = known.get_mut(&key_of(version))?;
        known.used = self.clock.instant();
        Some(Arc::clone(&known.given))
    }

    /// Fetches what a version is given, and keeps it.
    async fn learn(&self, vault: &(impl Vault + ?Sized), version: &Arc<FunctionVersion>) -> Result<Arc<Given>, Error> {
        let names = names_of(version);
        let fetched = vault.fetch(&version.tenant, names.clone()).await.map_err(|error| match error.code {
            Code::NotFound => missing(version, &format!("{}; set it, or deploy the function without", error.detail)),
            _ => cant_start(version, &error.detail),
        })?;
        if fetched.len() != names.len() {
            return Err(cant_start(version, "control did not answer with all of its secrets"));
        }
        let stamps = fetched.iter().map(|value| value.stamp).collect();
        let given = Arc::new(given(version, &names, &fetched)?);
        let (used, of) = (self.clock.instant(), Arc::clone(version));
        let known = &mut *self.known.lock();
        // What an instance that is still there writes is the old value.
        let before = known.get(&key_of(version)).map(|known| Arc::clone(&known.masks));
        let masks = Arc::new(Masks::new(&given, before.as_deref()));
        known.insert(key_of(version), Known { version: of, given: Arc::clone(&given), masks, stamps, used });
        Ok(given)
    }

    /// What is to be taken out of what instances of the version write.
    pub(crate) fn masks(&self, version: &FunctionVersion) -> Option<Arc<Masks>> {
        if version.secrets.is_empty() {
            return None;
        }
        self.known.lock().get(&key_of(version)).map(|known| Arc::clone(&known.masks))
    }

    /// Forgets those of a function, or of one of its versions.
    pub(crate) fn forget(&self, generation: u64, version: Option<u64>) {
        self.known.lock().retain(|key, _| key.0 != generation || version.is_some_and(|version| version != key.1));
    }

    /// Versions with a secret that has changed or is gone.
    async fn outdated(&self, vault: &(impl Vault + ?Sized)) -> Result<Vec<Arc<FunctionVersion>>, Error> {
        let mut stamps: BTreeMap<SecretKey, Option<u64>> = BTreeMap::new();
        for known in self.known.lock().values() {
            stamps.extend(keys_of(&known.version).map(|key| (key, None)));
        }
        if stamps.is_empty() {
            return Ok(Vec::new());
        }
        let found = vault.stamps(stamps.keys().cloned().collect()).await?;
        for (now, stamp) in stamps.values_mut().zip(found) {
            *now = stamp;
        }
        // What was learned meanwhile is of no concern.
        let is_same = |(key, old): (SecretKey, &u64)| stamps.get(&key).is_none_or(|now| *now == Some(*old));
        let is_current = |known: &Known| keys_of(&known.version).zip(&known.stamps).all(is_same);
        let known = self.known.lock();
        Ok(known.values().filter(|known| !is_current(known)).map(|known| Arc::clone(&known.version)).collect())
    }

    /// Learns what has changed; gives the versions whose instances have to go. While control is away all stays as it is.
    async fn look(&self, vault: &(impl Vault + ?Sized)) -> Result<Vec<Arc<FunctionVersion>>, Error> {
        let mut changed = Vec::new();
        for version in self.outdated(vault).await? {
            match self.learn(vault, &version).await {
                Ok(_) => tracing::info!(version = %version.key(), "a secret has changed: instances are renewed"),
                Err(error) if error.code == Code::Conflict => {
                    tracing::warn!(version = %version.key(), %error, "a secret is gone: instances are ended");
                    self.forget(version.generation, Some(version.version));
                }
                Err(error) => {
                    tracing::warn!(version = %version.key(), %error, "a changed secret can't be fetched now");
                    continue;
                }
            }
            changed.push(version);
        }
        Ok(changed)
    }

    fn drop_unused(&self, has_instances: impl Fn(Key) -> bool) {
        let now = self.clock.instant();
        self.known.lock().retain(|key, known| now.duration_since(known.used) < KEEP || has_instances(*key));
    }
}

impl Inner {
    /// Asks control what has changed, and sees to it that no instance serves with an old value for long.
    pub(crate) async fn look_at_secrets(&self) {
        self.secrets.drop_unused(|key| self.pool.has_any(key));
        let Some(control) = self.secrets.control() else { return };
        match self.secrets.look(&*control).await {
            // Only now: what starts from here on has the new value.
            Ok(changed) => changed.iter().for_each(|version| self.pool.renew(key_of(version))),
            Err(error) => tracing::debug!(%error, "control can't be asked for changed secrets"),
        }
    }
}

fn missing(version: &FunctionVersion, why: &str) -> Error {
    let detail = format!("instances of {} can't start without their secrets: {why}", version.function);
    Error::new(Code::Conflict, detail)
}

fn cant_start(version: &FunctionVersion, why: &str) -> Error {
    Error { code: Code::Overloaded, ..missing(version, why) }.with_retry_after(Duration::from_secs(1))
}

/// The values where the version wants them.
fn given(version: &FunctionVersion, names: &[SecretName], values: &[SecretValue]) -> Result<Given, Error> {
    let value_of = |secret: &SecretUse| {
        let at = names.iter().position(|name| *name == secret.name);
        at.and_then(|at| values.get(at)).map(|value| value.value.clone()).unwrap_or_default()
    };
    let given = Given::new(version.secrets.iter().map(|secret| (secret, value_of(secret))));
    given.map_err(|secret| {
        let why = format!("the value of secret {} is not UTF-8 text without NUL, as a variable must be", secret.name);
        missing(version, &why)
    })
}

/// Texts that are taken out of what a function writes. That is help for the careless, and no wall: a function can always write its
/// secrets in other words.
#[derive(Debug, Default)]
pub(crate) struct Masks(Vec<Box<str>>);

impl Masks {
    fn new(given: &Given, before: Option<&Masks>) -> Masks {
        let texts = given.values().filter_map(|value| value.as_variable()).flat_map(str::lines).map(str::trim);
        let old = before.into_iter().flat_map(|before| before.0.iter().map(|text| &**text));
        let mut texts: Vec<&str> = texts.filter(|text| text.len() >= MIN_MASKED).chain(old).take(MAX_MASKED).collect();
        // A longer one may hold a shorter one.
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        texts.dedup();
        Masks(texts.into_iter().map(Box::from).collect())
    }

    /// The text without secrets.
    pub(crate) fn apply(&self, text: String) -> String {
        let found = self.0.iter().filter(|secret| text.contains(&***secret)).collect::<Vec<_>>();
        found.into_iter().fold(text, |text, secret| text.replace(&**secret, MASK))
    }

    /// The error without secrets.
    pub(crate) fn apply_to(&self, mut error: Error) -> Error {
        error.detail = self.apply(error.detail);
        error.thrown = error.thrown.map(|thrown| Thrown {
            name: self.apply(thrown.name),
            message: self.apply(thrown.message),
            stack: self.apply(thrown.stack),
        });
        error
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::SecretBytes;

    use super::*;

    fn masks(values: &[&str], before: Option<&Masks>) -> Masks {
        let uses: Vec<_> = (0..values.len())
            .map(|n| SecretUse { name: "s".parse().unwrap(), env: Some(format!("S{n}")), file: None })
            .collect();
        let values = values.iter().map(|value| SecretBytes::new(value.as_bytes().to_vec()));
        Masks::new(&Given::new(uses.iter().zip(values)).unwrap(), before)
    }

    /// Has what it is told to have, or is away.
    #[derive(Default)]
    struct Scripted(Mutex<Option<HashMap<&'static str, (u64, &'static str)>>>);

    impl Scripted {
        fn has(&self, secrets: &[(&'static str, u64, &'static str)]) {
            *self.0.lock() = Some(secrets.iter().map(|(name, stamp, value)| (*name, (*stamp, *value))).collect());
        }

        fn is_away(&self) {
            *self.0.lock() = None;
        }

        fn get(&self, name: &SecretName) -> Result<Option<(u64, &'static str)>, Error> {
            let secrets = self.0.lock();
            let secrets = secrets.as_ref().ok_or_else(|| Error::new(Code::Unavailable, "control is away"))?;
            Ok(secrets.get(name.as_str()).copied())
        }
    }

    #[async_trait]
    impl Vault for Scripted {
        async fn fetch(&self, _: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>, Error> {
            let value = |name: &SecretName| {
                let (stamp, value) = self.get(name)?.ok_or_else(|| Error::not_found("secret", name))?;
                Ok(SecretValue { stamp, value: SecretBytes::new(value.as_bytes().to_vec()) })
            };
            names.iter().map(value).collect()
        }

        async fn stamps(&self, keys: Vec<SecretKey>) -> Result<Vec<Option<u64>>, Error> {
            keys.iter().map(|key| Ok(self.get(&key.name)?.map(|(stamp, _)| stamp))).collect()
        }
    }

    fn version(number: u64, secret: &str) -> Arc<FunctionVersion> {
        let mut version = crate::fixtures::version("default", 7, number);
        let of = SecretUse { name: secret.parse().unwrap(), env: Some("KEY".to_owned()), file: None };
        version.secrets = vec![of];
        Arc::new(version)
    }

    fn value_of(secrets: &Secrets, version: &FunctionVersion) -> Option<String> {
        let given = secrets.known(version)?;
        given.env().next().map(|(_, value)| value.to_owned())
    }

    #[tokio::test]
    async fn a_change_is_learned_of_and_while_control_is_away_all_stays_as_it_is() {
        let (secrets, vault) = (Secrets::new(Clock::simulated(lyra_types::Timestamp::default())), Scripted::default());
        let (a, b) = (version(1, "a"), version(2, "b"));
        assert_eq!(secrets.of(&a).await.unwrap_err().code, Code::Overloaded);
        vault.has(&[("a", 1, "old"), ("b", 1, "other")]);
        for version in [&a, &b] {
            secrets.learn(&vault, version).await.unwrap();
        }
        assert!(secrets.look(&vault).await.unwrap().is_empty());
        vault.is_away();
        assert!(secrets.look(&vault).await.is_err());
        assert_eq!(value_of(&secrets, &a).as_deref(), Some("old"));
        assert!(secrets.of(&a).await.unwrap().is_some(), "what is known is enough to start");
        vault.has(&[("a", 2, "new"), ("b", 1, "other")]);
        assert_eq!(secrets.look(&vault).await.unwrap(), std::slice::from_ref(&a));
        assert_eq!(value_of(&secrets, &a).as_deref(), Some("new"));
        assert!(secrets.look(&vault).await.unwrap().is_empty());
        vault.has(&[("b", 1, "other")]);
        assert_eq!(secrets.look(&vault).await.unwrap(), std::slice::from_ref(&a));
        assert_eq!(value_of(&secrets, &a), None);
        let gone = secrets.learn(&vault, &a).await.unwrap_err();
        assert!(gone.code == Code::Conflict && gone.detail.contains("can't start without their secrets"), "{gone}");
        secrets.forget(b.generation, Some(b.version));
        assert_eq!(value_of(&secrets, &b), None);
    }

    #[test]
    fn what_a_function_writes_is_without_its_secrets() {
        let masks = masks(&["hunter2hunter2", "hunter2hunter2-and-more", "short", "two lines\nof a long key"], None);
        let masked = |text: &str| masks.apply(text.to_owned());
        assert_eq!(masked("a hunter2hunter2 b hunter2hunter2"), "a *** b ***");
        assert_eq!(masked("hunter2hunter2-and-more"), "***");
        assert_eq!(masked("short is short"), "short is short");
        assert_eq!(masked("the second line: of a long key."), "the second line: ***.");
    }

    #[test]
    fn the_value_before_is_taken_out_too() {
        let old = masks(&["the-old-value"], None);
        let new = masks(&["the-new-value"], Some(&old));
        assert_eq!(new.apply("the-old-value the-new-value".to_owned()), "*** ***");
    }

    #[test]
    fn an_error_is_without_secrets() {
        let thrown =
            Thrown { name: "Error".into(), message: "no hunter2hunter2".into(), stack: "at hunter2hunter2".into() };
        let error = masks(&["hunter2hunter2"], None).apply_to(Error::thrown(thrown));
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
