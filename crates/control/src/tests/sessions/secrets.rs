//! Secrets of applications: whether they are there, and what waits for them.

use lyra_types::resources::ConditionStatus;
use lyra_types::{SecretBytes, SecretUse};
use lyra_wire::Control;
use lyra_wire::control::PageQuery;
use lyra_wire::secrets::{PutSecret, SecretKey};

use super::*;
use crate::secrets::SecretsConfig;

fn key(name: &str) -> SecretKey {
    SecretKey { tenant: tenant(), name: name.parse().unwrap() }
}

impl Place {
    async fn with_keys() -> Place {
        let keys = tempfile::tempdir().unwrap().keep().join("secrets.key");
        let secrets = SecretsConfig { key_file: Some(keys), make_key: true };
        Place::with(Config { secrets, ..Config::default() }).await
    }

    async fn set(&self, name: &str) {
        let put = PutSecret { key: key(name), value: SecretBytes::new(b"hunter2hunter2".to_vec()) };
        self.site.service.put_secret(put).await.unwrap();
    }

    /// Whether the application is ready, why, and what is said of it.
    fn ready(&self, name: &str) -> (bool, String, String) {
        let status = self.application(name).status;
        let found = status.conditions.into_iter().find(|of| of.r#type == "Ready");
        found.map_or_else(Default::default, |of| (of.status == ConditionStatus::True, of.reason, of.message))
    }

    async fn until_reason(&self, name: &str, ready: bool, reason: &str) {
        let is_so = |of: &Place| (of.ready(name).0, &*of.ready(name).1) == (ready, reason);
        self.until(&format!("{name} is {reason}"), is_so).await;
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_wait_for_a_secret_that_is_missing_and_go_on_once_it_is_there() {
    let place = Place::with_keys().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    let wants = |app: &mut Application| {
        app.spec.secrets = vec!["map".to_owned()];
        app.spec.scaling_policy.idle_session_num_threshold = Some(Threshold { low: 2, high: 3 });
    };
    place.apply("game", wants).await;
    place.until_reason("game", false, "SecretNotFound").await;
    assert!(place.ready("game").2.contains("no secret map in tenant default"), "{:?}", place.ready("game"));
    place.open("game", "one").await.unwrap();
    place.until("it says why", |of| of.session("one").is_some_and(|of| of.status.reason == "SecretNotFound")).await;
    assert_eq!((place.application("game").status.version, instances(&node)), (0, 0));
    place.set("map").await;
    place.until_status("one", SessionStatus::Available).await;
    place.until_reason("game", true, "VersionReady").await;
    place.until("two stand", |of| of.application("game").status.idle_instances == 2).await;

    // Applications count among those who are given a secret.
    let refused = place.site.service.delete_secret(&key("map"), false).await.unwrap_err();
    assert!(refused.code == Code::Conflict && refused.detail.contains("application game is given"), "{refused}");
    let known = place.site.service.secrets(&tenant(), PageQuery::default()).await.unwrap();
    assert_eq!(known.items[0].applications, ["game"]);
    place.site.service.delete_secret(&key("map"), true).await.unwrap();
    place.until_reason("game", false, "SecretNotFound").await;
    place.until("none stands", |_| instances(&node) == 1).await;
    assert_eq!(place.status("one"), Some(SessionStatus::Available), "open sessions stay");
    place.open("game", "two").await.unwrap();
    place.until("it waits", |of| of.session("two").is_some_and(|of| of.status.reason == "SecretNotFound")).await;
    place.set("map").await;
    place.until_status("two", SessionStatus::Available).await;
    place.until_reason("game", true, "VersionReady").await;
}

#[tokio::test(start_paused = true)]
async fn the_secrets_of_an_application_make_a_version_and_those_of_its_function_are_wanted_too() {
    let place = Place::with_keys().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place.set("map").await;
    place.set("key").await;
    place.apply("game", |_| ()).await;
    place.until("it has a version", |of| of.application("game").status.version == 1).await;
    let change = |names: &'static [&'static str]| {
        let place = &place;
        async move {
            let change = |app: &mut Application| app.spec.secrets = names.iter().map(ToString::to_string).collect();
            place.api().applications().update(&tenant(), "game", None, change).await.unwrap();
        }
    };
    change(&["map"]).await;
    place.until("another version", |of| of.application("game").status.version == 2).await;
    // One that can't be had leaves the version as it is.
    change(&["map", "nothing"]).await;
    place.until_reason("game", true, "SecretNotFound").await;
    assert_eq!(place.application("game").status.version, 2);
    place.open("game", "one").await.unwrap();
    place.until_status("one", SessionStatus::Available).await;
    change(&[]).await;
    place.until("as it was", |of| of.application("game").status.version == 3).await;
    let uses = |request: &mut DeployRequest| {
        program(request);
        request.secrets = vec![SecretUse { name: "key".parse().unwrap(), env: Some("KEY".to_owned()), file: None }];
    };
    place.site.deploy("keyed", uses).await;
    place.apply("other", |app| app.spec.containers[0].function = "keyed".to_owned()).await;
    place.until_reason("other", true, "VersionReady").await;
    place.site.service.delete_secret(&key("key"), true).await.unwrap();
    place.until_reason("other", false, "SecretNotFound").await;
    place.until_reason("game", true, "VersionReady").await;
}
