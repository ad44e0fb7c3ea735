//! Secrets that instances are given: fetched from control when an instance starts, kept in memory, and looked after.
//!
//! What must hold: values are in this memory and in the instances that are given them, and nowhere else; a call waits for control only
//! where the version's secrets are not known yet, so instances start while control is away. Every [`LOOK`] control is asked what has
//! changed; idle instances with an old value are ended then, and busy ones after their call.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use lyra_isolation::Given;
use lyra_kit::Clock;
use lyra_types::error::Thrown;
use lyra_types::{Code, Error, FunctionVersion, SecretName, SecretUse};
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

    /// What an instance of the version is given; `None` where that is nothing.
    ///
    /// # Errors
    /// [`Code::Unavailable`] where a secret is not there any more, or control can't be asked.
    pub(crate) async fn of(&self, version: &Arc<FunctionVersion>) -> Result<Option<Arc<Given>>, Error> {
        if version.secrets.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.known.lock().get_mut(&key_of(version)) {
            known.used = self.clock.instant();
            return Ok(Some(Arc::clone(&known.given)));
        }
        self.learn(version).await.map(Some)
    }

    /// Fetches what a version is given, and keeps it.
    async fn learn(&self, version: &Arc<FunctionVersion>) -> Result<Arc<Given>, Error> {
        let not_there = || cant_start(version, "this worker has no control process to fetch secrets from");
        let control = self.control.get().and_then(Weak::upgrade).ok_or_else(not_there)?;
        let names = names_of(version);
        let fetched =
            control.fetch_secrets(&version.tenant, names.clone()).await.map_err(|error| match error.code {
                Code::NotFound => {
                    cant_start(version, &format!("{}; set it, or deploy the function without", error.detail))
                }
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
    async fn outdated(&self) -> Result<Vec<Arc<FunctionVersion>>, Error> {
        let mut keys: BTreeMap<SecretKey, Option<u64>> = BTreeMap::new();
        for known in self.known.lock().values() {
            let tenant = &known.version.tenant;
            keys.extend(
                names_of(&known.version).into_iter().map(|name| (SecretKey { tenant: tenant.clone(), name }, None)),
            );
        }
        let Some(control) = self.control.get().and_then(Weak::upgrade).filter(|_| !keys.is_empty()) else {
            return Ok(Vec::new());
        };
        let stamps = control.secret_stamps(keys.keys().cloned().collect()).await?;
        for (now, stamp) in keys.values_mut().zip(stamps) {
            *now = stamp;
        }
        let is_current = |known: &Known| {
            let tenant = &known.version.tenant;
            let now = |name| keys.get(&SecretKey { tenant: tenant.clone(), name }).copied();
            // One that was learned meanwhile is of no concern.
            names_of(&known.version)
                .into_iter()
                .zip(&known.stamps)
                .all(|(name, old)| now(name).is_none_or(|now| now == Some(*old)))
        };
        Ok(self
            .known
            .lock()
            .values()
            .filter(|known| !is_current(known))
            .map(|known| Arc::clone(&known.version))
            .collect())
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
        let outdated = match self.secrets.outdated().await {
            Ok(outdated) => outdated,
            Err(error) => return tracing::debug!(%error, "control can't be asked for changed secrets"),
        };
        for version in outdated {
            match self.secrets.learn(&version).await {
                Ok(_) => tracing::info!(version = %version.key(), "a secret has changed: instances are renewed"),
                Err(error) => {
                    tracing::warn!(version = %version.key(), %error, "a secret has changed or is gone, and can't be fetched");
                    self.secrets.forget(version.generation, Some(version.version));
                }
            }
            // Only now: what starts from here on has the new value.
            self.pool.renew(key_of(&version));
        }
    }
}

fn cant_start(version: &FunctionVersion, why: &str) -> Error {
    let detail = format!("instances of {} can't start without their secrets: {why}", version.function);
    Error::new(Code::Unavailable, detail).with_retry_after(Duration::from_secs(1))
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
        cant_start(version, &why)
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
