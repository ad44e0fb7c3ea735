//! Secrets that are learned, change and go, from a vault that the test fills.

use lyra_types::SecretBytes;
use lyra_types::error::Thrown;
use lyra_wire::sessions::AppConfig;

use super::*;

fn masks(values: &[&str], before: Option<&Masks>) -> Masks {
    let values: Vec<_> = values.iter().map(|value| SecretBytes::new(value.as_bytes().to_vec())).collect();
    Masks::new(values.iter(), before)
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
    let known = secrets.known.lock();
    let given = &known.versions.get(&key_of(version))?.delivered.given;
    given.env().next().map(|(_, value)| value.to_owned())
}

#[tokio::test]
async fn a_change_is_learned_of_and_while_control_is_away_all_stays_as_it_is() {
    let (secrets, vault) = (Secrets::new(Clock::simulated(lyra_types::Timestamp::default())), Scripted::default());
    let (a, b) = (version(1, "a"), version(2, "b"));
    assert_eq!(secrets.of(&a).await.unwrap_err().code, Code::Overloaded);
    vault.has(&[("a", 1, "old"), ("b", 1, "other")]);
    for version in [&a, &b] {
        secrets.learn(&vault, &Wish::Version(Arc::clone(version))).await.unwrap();
    }
    assert!(secrets.look(&vault).await.unwrap().versions.is_empty());
    vault.is_away();
    assert!(secrets.look(&vault).await.is_err());
    assert_eq!(value_of(&secrets, &a).as_deref(), Some("old"));
    assert!(secrets.of(&a).await.unwrap().is_some(), "what is known is enough to start");
    vault.has(&[("a", 2, "new"), ("b", 1, "other")]);
    assert_eq!(secrets.look(&vault).await.unwrap().versions, std::slice::from_ref(&a));
    assert_eq!(value_of(&secrets, &a).as_deref(), Some("new"));
    assert!(secrets.look(&vault).await.unwrap().versions.is_empty());
    vault.has(&[("b", 1, "other")]);
    assert_eq!(secrets.look(&vault).await.unwrap().versions, std::slice::from_ref(&a));
    assert_eq!(value_of(&secrets, &a), None);
    let gone = secrets.learn(&vault, &Wish::Version(a)).await.unwrap_err();
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

#[test]
fn what_stays_is_remembered_once() {
    let first = masks(&["one-secret-text", "two-secret-text"], None);
    let second = masks(&["one-secret-text", "two-secret-text"], Some(&first));
    assert_eq!(format!("{second:?}"), format!("{first:?}"));
}

/// An application whose function is given `fixed` as a variable, and which has `loose` as a file.
fn app(fixed: &str, loose: &str) -> Arc<AppVersion> {
    let function = version(1, fixed);
    Arc::new(AppVersion {
        key: AppKey { tenant: function.tenant.clone(), application: "game".into(), uid: "u".into(), version: 1 },
        function,
        cpu_request: 0,
        ports: Vec::new(),
        service: false,
        liveness: None,
        readiness: None,
        config: Arc::new(AppConfig::default()),
        secrets: vec![loose.parse().unwrap()],
    })
}

#[tokio::test]
async fn an_application_is_told_what_has_changed_and_what_is_missing() {
    let (secrets, vault) =
        (Secrets::new(Clock::simulated(lyra_types::Timestamp::default())), Arc::<Scripted>::default());
    secrets.fetch_from(vault.clone());
    let app = app("key", "map");
    let text = |of: &Delivered| {
        let file = of.files.values().next().and_then(SecretBytes::as_variable).map(str::to_owned);
        (of.given.env().next().map(|(_, value)| value.to_owned()), file)
    };
    let both = |key: &str, map: &str| (Some(key.to_owned()), Some(map.to_owned()));
    vault.has(&[("key", 1, "open-sesame")]);
    let missing = secrets.of_app(&app).await.unwrap_err();
    assert!(missing.code == Code::Conflict && missing.detail.contains("application game"), "{missing}");
    assert!(missing.detail.contains("map") && missing.detail.contains("set it"), "{missing}");
    vault.has(&[("key", 1, "open-sesame"), ("map", 1, "here be dragons")]);
    let first = secrets.of_app(&app).await.unwrap().unwrap();
    assert_eq!(text(&first), both("open-sesame", "here be dragons"));
    assert!(!format!("{first:?}").contains("dragons"));

    vault.has(&[("key", 1, "open-sesame"), ("map", 2, "here be ponies")]);
    assert_eq!(secrets.look(&*vault).await.unwrap().apps, std::slice::from_ref(&app.key));
    let (second, _) = secrets.known_of_app(&app.key).unwrap();
    assert_eq!(text(&second), both("open-sesame", "here be ponies"));
    assert!(second.fixed == first.fixed && second.loose != first.loose, "no other instance is needed for a file");
    vault.has(&[("key", 2, "close-sesame"), ("map", 2, "here be ponies")]);
    assert_eq!(secrets.look(&*vault).await.unwrap().apps.len(), 1);
    let (third, _) = secrets.known_of_app(&app.key).unwrap();
    assert!(third.fixed != second.fixed && third.loose == second.loose);
    let masks = secrets.masks_of_app(&app).unwrap();
    assert_eq!(masks.apply("open-sesame close-sesame here be dragons here be ponies".into()), "*** *** *** ***");

    // Its function goes, which changes nothing for it; then a secret.
    secrets.forget(app.function.generation, None);
    assert!(secrets.of_app(&app).await.unwrap().is_some());
    vault.has(&[("key", 2, "close-sesame")]);
    assert_eq!(secrets.look(&*vault).await.unwrap().apps.len(), 1);
    assert_eq!(secrets.of_app(&app).await.unwrap_err().code, Code::Conflict);
    let (left, is_missing) = secrets.known_of_app(&app.key).unwrap();
    assert!(is_missing && text(&left) == both("close-sesame", "here be ponies"), "open sessions keep it");
    assert!(secrets.look(&*vault).await.unwrap().apps.is_empty(), "it is said once");
    vault.has(&[("key", 2, "close-sesame"), ("map", 3, "here be whales")]);
    assert_eq!(secrets.look(&*vault).await.unwrap().apps.len(), 1);
    let again = secrets.of_app(&app).await.unwrap().unwrap();
    assert_eq!(text(&again), both("close-sesame", "here be whales"));
    secrets.drop_unused(|_| false, &HashSet::from([app.key.clone()]));
    assert!(secrets.known_of_app(&app.key).is_some());
}
