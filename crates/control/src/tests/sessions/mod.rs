//! Applications and sessions against workers that speak the real protocol, under virtual time.

mod moved;
mod node;
mod refused;
mod retried;
mod reused;
mod secrets;

use std::time::Duration;

use lyra_resources::{Caller, DeleteOptions, Status, WriteOptions};
use lyra_types::resources::{Application, ApplicationSession, Container, ScalingPolicyType, SessionStatus, Threshold};
use lyra_wire::worker::InstanceState;

use super::*;
pub(in crate::tests) use node::{Nature, Node};

const SECOND: Duration = Duration::from_secs(1);

/// A site with one control process.
struct Place {
    _dir: tempfile::TempDir,
    site: Site,
    _leases: lyra_kit::Tasks,
}

impl Place {
    async fn new() -> Place {
        Place::with(Config::default()).await
    }

    async fn with(config: Config) -> Place {
        let (dir, leases) = (tempfile::tempdir().unwrap(), lyra_kit::Tasks::new());
        let site = Site::start_with(dir.path(), config, start_of_time(), 1, |jobs| jobs, &leases).await;
        site.deploy("code", program).await;
        Place { _dir: dir, site, _leases: leases }
    }

    fn api(&self) -> Arc<lyra_resources::ResourceApi> {
        self.site.service.resources().unwrap()
    }

    async fn apply(&self, name: &str, change: impl FnOnce(&mut Application)) {
        let mut object = Application::default();
        (object.metadata.name, object.metadata.namespace) = (name.to_owned(), "default".to_owned());
        let container = Container { name: "main".to_owned(), function: "code".to_owned(), ..Container::default() };
        object.spec.containers = vec![container];
        let policy = &mut object.spec.scaling_policy;
        (policy.maximum_instance, policy.burst) = (100, 100);
        policy.scaling_policy_type = ScalingPolicyType::IdleSessionNumber;
        policy.idle_session_num_threshold = Some(Threshold { low: 0, high: 0 });
        change(&mut object);
        let caller = Caller::operator("test");
        self.api().applications().create(object, WriteOptions { caller: &caller, dry_run: false }).await.unwrap();
    }

    async fn open(&self, application: &str, name: &str) -> std::result::Result<(), Status> {
        let mut object = ApplicationSession::default();
        (object.metadata.name, object.metadata.namespace) = (name.to_owned(), "default".to_owned());
        object.spec.application_name = application.to_owned();
        let caller = Caller::operator("test");
        self.api().sessions().create(object, WriteOptions { caller: &caller, dry_run: false }).await.map(drop)
    }

    async fn close(&self, name: &str) {
        let caller = Caller::operator("test");
        let options = WriteOptions { caller: &caller, dry_run: false };
        self.api().sessions().delete(&tenant(), name, &DeleteOptions::default(), options).await.unwrap();
    }

    fn session(&self, name: &str) -> Option<ApplicationSession> {
        self.api().sessions().get(&tenant(), name).map(|of| of.object().clone())
    }

    fn status(&self, name: &str) -> Option<SessionStatus> {
        self.session(name).map(|of| of.status.session_status)
    }

    fn application(&self, name: &str) -> Application {
        self.api().applications().get(&tenant(), name).unwrap().object().clone()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Place) -> bool) {
        for _ in 0..3_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never came to it: {what}");
    }

    async fn until_status(&self, name: &str, status: SessionStatus) {
        self.until(&format!("{name} is {status:?}"), |of| of.status(name) == Some(status)).await;
    }
}

/// Code of a program that listens; the worker of these tests does not look at it.
fn program(request: &mut DeployRequest) {
    let nothing = "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==".to_owned();
    (request.runtime, request.code) = ("http".to_owned(), CodeInput { zip: Some(nothing), ..CodeInput::default() });
}

fn instances(node: &Node) -> usize {
    node.held.lock().hosted.len()
}

#[tokio::test(start_paused = true)]
async fn a_session_has_its_own_instance_from_open_to_close() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place.apply("game", |_| ()).await;
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!((instances(&node), place.application("game").status.version), (0, 1), "nothing runs without a session");
    place.open("game", "one").await.unwrap();
    place.open("game", "two").await.unwrap();
    place.until_status("one", SessionStatus::Available).await;
    place.until_status("two", SessionStatus::Available).await;
    let (one, two) = (place.session("one").unwrap().status, place.session("two").unwrap().status);
    assert_ne!(one.access_end_points, two.access_end_points);
    assert_ne!(one.instance, two.instance);
    assert_eq!((one.application_version, one.access_end_points.len()), (1, 1));
    place.until("the counts are right", |of| of.application("game").status.allocated_instances == 2).await;
    place.close("one").await;
    place.until("one is gone", |of| of.session("one").is_none()).await;
    assert_eq!(place.status("two"), Some(SessionStatus::Available));
    place.until("its instance is gone", |_| instances(&node) == 1).await;
    place.until("it is forgotten", |_| node.held.lock().sessions.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn standing_instances_follow_the_policy_and_sessions_take_them() {
    let place = Place::new().await;
    let nodes = [Node::new(1, Nature::default()), Node::new(2, Nature::default())];
    let registries = [place.site.registry.clone()];
    let _talks: Vec<_> = nodes.iter().map(|node| node.join(&registries)).collect();
    place
        .apply("game", |app| app.spec.scaling_policy.idle_session_num_threshold = Some(Threshold { low: 4, high: 6 }))
        .await;
    place.until("four stand", |of| of.application("game").status.idle_instances == 4).await;
    assert_eq!(nodes.each_ref().map(instances), [2, 2], "spread");
    place.open("game", "one").await.unwrap();
    place.until_status("one", SessionStatus::Available).await;
    let of = |place: &Place| {
        let status = place.application("game").status;
        (status.idle_instances, status.allocated_instances, status.total_instances)
    };
    place.until("another stands in its place", |place| of(place) == (4, 1, 5)).await;
    let change = |app: &mut Application| {
        app.spec.scaling_policy.idle_session_num_threshold = Some(Threshold { low: 0, high: 1 })
    };
    place.api().applications().update(&tenant(), "game", None, change).await.unwrap();
    place.until("fewer stand", |place| of(place) == (1, 1, 2)).await;
}

#[tokio::test(start_paused = true)]
async fn at_the_maximum_a_client_is_told_to_come_back() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place.apply("game", |app| app.spec.scaling_policy.maximum_instance = 2).await;
    place.open("game", "one").await.unwrap();
    place.open("game", "two").await.unwrap();
    place.until_status("two", SessionStatus::Available).await;
    let refused = place.open("game", "three").await.unwrap_err();
    assert_eq!((refused.code, refused.details.retry_after_seconds), (429, 1), "{refused}");
    let missing = place.open("nothing", "four").await.unwrap_err();
    assert_eq!(missing.code, 422, "{missing}");
    place.close("one").await;
    place.until("there is room again", |of| of.session("one").is_none()).await;
    place.open("game", "three").await.unwrap();
    place.until_status("three", SessionStatus::Available).await;
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_opened_ends_when_its_time_is_over_with_a_reason() {
    let place = Place::new().await;
    place.apply("game", |_| ()).await;
    place.open("game", "one").await.unwrap();
    place.until_status("one", SessionStatus::Pending).await;
    tokio::time::sleep(8 * SECOND).await;
    assert_eq!(place.status("one"), Some(SessionStatus::Pending));
    tokio::time::sleep(3 * SECOND).await;
    let status = place.session("one").unwrap().status;
    assert_eq!(status.session_status, SessionStatus::Timeout);
    assert!(!status.reason.is_empty() && !status.message.is_empty(), "{status:?}");
    tokio::time::sleep(310 * SECOND).await;
    assert!(place.session("one").is_none(), "what has ended goes after its time to live");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_has_no_room_is_passed_over() {
    let place = Place::new().await;
    let small = Node::new(1, Nature { room: 1, ..Nature::default() });
    let large = Node::new(2, Nature { room: 5, ..Nature::default() });
    let registries = [place.site.registry.clone()];
    let _talks = [small.join(&registries), large.join(&registries)];
    place.apply("game", |_| ()).await;
    tokio::time::sleep(SECOND).await;
    for number in 0..6 {
        place.open("game", &format!("s{number}")).await.unwrap();
    }
    for number in 0..6 {
        place.until_status(&format!("s{number}"), SessionStatus::Available).await;
    }
    assert_eq!((instances(&small), instances(&large)), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn sessions_of_a_lost_worker_end_and_the_pool_is_refilled_elsewhere() {
    let place = Place::new().await;
    let nodes = [Node::new(1, Nature::default()), Node::new(2, Nature::default())];
    let registries = [place.site.registry.clone()];
    let mut talks: Vec<_> = nodes.iter().map(|node| node.join(&registries)).collect();
    place
        .apply("game", |app| app.spec.scaling_policy.idle_session_num_threshold = Some(Threshold { low: 2, high: 2 }))
        .await;
    for name in ["a", "b", "c", "d"] {
        place.open("game", name).await.unwrap();
        place.until_status(name, SessionStatus::Available).await;
    }
    let there: Vec<String> = nodes[0].held.lock().sessions.values().map(|of| of.key.name.clone()).collect();
    assert!(!there.is_empty() && there.len() < 4);
    drop(talks.remove(0));
    tokio::time::sleep(15 * SECOND).await;
    assert_eq!(place.status(&there[0]), Some(SessionStatus::Available), "it may come back");
    tokio::time::sleep(20 * SECOND).await;
    for name in ["a", "b", "c", "d"] {
        let expected = if there.contains(&name.to_owned()) { SessionStatus::Closed } else { SessionStatus::Available };
        assert_eq!(place.status(name), Some(expected), "{name}");
    }
    assert_eq!(place.session(&there[0]).unwrap().status.reason, "WorkerLost");
    let standing = |node: &Node| node.held.lock().hosted.values().filter(|of| of.session.is_none()).count();
    place.until("both stand on the other worker", |_| standing(&nodes[1]) == 2).await;
    // It comes back with what it had: that has ended.
    talks.push(nodes[0].join(&registries));
    place.until("it has let go", |_| nodes[0].held.lock().sessions.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_closed_while_its_worker_is_away_ends_when_it_is_back() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let registries = [place.site.registry.clone()];
    let talk = node.join(&registries);
    place.apply("game", |_| ()).await;
    place.open("game", "a").await.unwrap();
    place.until_status("a", SessionStatus::Available).await;
    drop(talk);
    place.close("a").await;
    tokio::time::sleep(3 * SECOND).await;
    assert!(place.session("a").is_some(), "its worker has it still");
    let _talk = node.join(&registries);
    place.until("it is gone", |of| of.session("a").is_none()).await;
    assert!(node.held.lock().sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn sessions_that_come_one_after_the_other_are_spread_as_what_stands_is() {
    let place = Place::new().await;
    let nodes = [1, 2, 3].map(|number| Node::new(number, Nature::default()));
    let registries = [place.site.registry.clone()];
    let _talks: Vec<_> = nodes.iter().map(|node| node.join(&registries)).collect();
    let threshold = Threshold { low: 3, high: 3 };
    place.apply("game", |app| app.spec.scaling_policy.idle_session_num_threshold = Some(threshold)).await;
    for number in 0..9 {
        place.until("three stand ready", |of| of.application("game").status.idle_instances == 3).await;
        let name = format!("s-{number}");
        place.open("game", &name).await.unwrap();
        place.until_status(&name, SessionStatus::Available).await;
    }
    let sessions: Vec<usize> = nodes.iter().map(|node| node.held.lock().sessions.len()).collect();
    assert_eq!(sessions, [3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_containers_makes_a_version_and_open_sessions_stay_on_theirs() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place
        .apply("game", |app| app.spec.scaling_policy.idle_session_num_threshold = Some(Threshold { low: 2, high: 2 }))
        .await;
    place.open("game", "old").await.unwrap();
    place.until_status("old", SessionStatus::Available).await;
    let change = |app: &mut Application| {
        let env = lyra_types::resources::EnvVar { name: "A".to_owned(), value: "b".to_owned() };
        app.spec.containers[0].env.push(env);
    };
    place.api().applications().update(&tenant(), "game", None, change).await.unwrap();
    place.until("version 2 is current", |of| of.application("game").status.version == 2).await;
    let versions = |node: &Node| -> Vec<u64> {
        node.held.lock().hosted.values().filter(|of| of.session.is_none()).map(|of| of.app.version).collect()
    };
    place.until("idle instances roll to it", |_| versions(&node) == [2, 2]).await;
    assert_eq!(place.session("old").unwrap().status.application_version, 1);
    place.open("game", "new").await.unwrap();
    place.until_status("new", SessionStatus::Available).await;
    assert_eq!(place.session("new").unwrap().status.application_version, 2);
    let scale = |app: &mut Application| app.spec.scaling_policy.minimum_instance = 1;
    place.api().applications().update(&tenant(), "game", None, scale).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(place.application("game").status.version, 2, "the scaling policy makes no version");
}

#[tokio::test(start_paused = true)]
async fn an_application_goes_with_everything_that_belongs_to_it() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place
        .apply("game", |app| app.spec.scaling_policy.idle_session_num_threshold = Some(Threshold { low: 2, high: 2 }))
        .await;
    place.open("game", "one").await.unwrap();
    place.until_status("one", SessionStatus::Available).await;
    let caller = Caller::operator("test");
    let options = WriteOptions { caller: &caller, dry_run: false };
    place.api().applications().delete(&tenant(), "game", &DeleteOptions::default(), options).await.unwrap();
    assert_eq!(place.open("game", "late").await.unwrap_err().code, 409);
    place.until("it is gone", |of| of.api().applications().get(&tenant(), "game").is_none()).await;
    place.until("its instances are gone", |_| instances(&node) == 0).await;
    assert!(place.session("one").is_none() && node.held.lock().stands.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_function_that_is_missing_is_waited_for() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place.apply("game", |app| app.spec.containers[0].function = "later".to_owned()).await;
    let reason = |of: &Place| of.application("game").status.conditions.first().map(|of| of.reason.clone());
    place.until("it says what is missing", |of| reason(of).as_deref() == Some("FunctionNotFound")).await;
    place.site.deploy("later", program).await;
    place.until("it has a version", |of| of.application("game").status.version == 1).await;
}

#[tokio::test(start_paused = true)]
async fn opens_that_come_at_once_are_all_served_and_none_twice() {
    let place = Place::new().await;
    let nodes: Vec<Node> = (1..=3).map(|number| Node::new(number, Nature::default())).collect();
    let registries = [place.site.registry.clone()];
    let _talks: Vec<_> = nodes.iter().map(|node| node.join(&registries)).collect();
    place
        .apply("game", |app| app.spec.scaling_policy.idle_session_num_threshold = Some(Threshold { low: 10, high: 20 }))
        .await;
    tokio::time::sleep(SECOND).await;
    for number in 0..90 {
        place.open("game", &format!("s{number}")).await.unwrap();
    }
    for number in 0..90 {
        place.until_status(&format!("s{number}"), SessionStatus::Available).await;
    }
    let mut opened: Vec<String> = nodes.iter().flat_map(|node| node.held.lock().opened.clone()).collect();
    opened.sort();
    opened.dedup();
    assert_eq!(opened.len(), 90);
    assert_eq!(nodes.iter().map(|node| node.held.lock().opened.len()).sum::<usize>(), 90, "none in two places");
    let active = |node: &Node| node.held.lock().hosted.values().filter(|of| of.state == InstanceState::Active).count();
    assert_eq!(nodes.iter().map(active).sum::<usize>(), 90);
    place.until("no more than the maximum", |_| nodes.iter().map(instances).sum::<usize>() <= 100).await;
}

#[tokio::test(start_paused = true)]
async fn a_port_of_gateways_is_free_again_when_its_session_has_ended() {
    let mut config = Config::default();
    config.sessions.ingress_address = "gateway".to_owned();
    (config.sessions.ingress_first_port, config.sessions.ingress_last_port) = (30_000, 30_000);
    let place = Place::with(config).await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place.apply("game", |_| ()).await;
    for name in ["one", "two", "three"] {
        place.open("game", name).await.unwrap();
        place.until_status(name, SessionStatus::Available).await;
        let endpoint = place.session(name).unwrap().status.access_end_points.remove(0);
        assert_eq!((endpoint.ip_address.as_str(), endpoint.port), ("gateway", 30_000), "{name}");
        place.close(name).await;
        place.until("it is gone", |of| of.session(name).is_none()).await;
    }
}
