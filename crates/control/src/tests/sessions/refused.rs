//! Sessions and applications that get less than they ask for: they are told why, and nobody else pays for it.

use lyra_types::quota::{Quota, QuotaKey};
use lyra_types::resources::{ConditionStatus, DeploymentStatus};
use lyra_wire::Quotas as _;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_session_for_which_gateways_have_no_port_waits_for_one() {
    let mut config = Config::default();
    config.sessions.ingress_address = "gateway".to_owned();
    (config.sessions.ingress_first_port, config.sessions.ingress_last_port) = (30_000, 30_000);
    let place = Place::with(config).await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place.apply("game", |_| ()).await;
    place.open("game", "one").await.unwrap();
    place.until_status("one", SessionStatus::Available).await;
    place.open("game", "two").await.unwrap();
    place.until("it says so", |of| of.session("two").unwrap().status.reason == "NoPortLeft").await;
    let status = place.session("two").unwrap().status;
    assert_eq!((status.session_status, status.access_end_points.len()), (SessionStatus::Starting, 0));
    place.close("one").await;
    place.until_status("two", SessionStatus::Available).await;
    assert_eq!(place.session("two").unwrap().status.access_end_points[0].port, 30_000);
    // Who waits for one in vain ends in time.
    place.open("game", "three").await.unwrap();
    tokio::time::sleep(11 * SECOND).await;
    let status = place.session("three").unwrap().status;
    assert_eq!((status.session_status, status.reason.as_str()), (SessionStatus::Timeout, "NoPortLeft"));
    place.until("its instance is gone", |_| instances(&node) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_in_time_also_when_its_worker_does_not_answer() {
    let place = Place::new().await;
    let slow = Nature { start: 60 * SECOND, ..Nature::default() };
    let node = Node::new(1, slow);
    let registries = [place.site.registry.clone()];
    let talk = node.join(&registries);
    place.apply("game", |_| ()).await;
    place.open("game", "a").await.unwrap();
    place.until_status("a", SessionStatus::Starting).await;
    drop(talk);
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(place.status("a"), Some(SessionStatus::Starting));
    tokio::time::sleep(5 * SECOND).await;
    let lost = place.session("a").unwrap().status;
    assert_eq!((lost.session_status, lost.reason.as_str()), (SessionStatus::Timeout, "OpenTimeout"), "{lost:?}");
    // Its worker is told when it is back.
    let _talk = node.join(&registries);
    place.until("nothing is left of it", |_| instances(&node) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_no_worker_has_is_said_and_asked_of_none() {
    let place = Place::new().await;
    let node = Node::new(1, Nature { room: 4, ..Nature::default() });
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    let huge = |app: &mut Application| {
        let limits = &mut app.spec.containers[0].resources.limits;
        limits.insert("memory".to_owned(), lyra_types::resources::Quantity::new("10Ti"));
        app.spec.scaling_policy.idle_session_num_threshold = Some(Threshold { low: 1, high: 1 });
    };
    place.apply("huge", huge).await;
    let message = |place: &Place| {
        let conditions = place.application("huge").status.conditions;
        conditions.into_iter().find(|of| of.r#type == "Ready").map(|of| of.message).unwrap_or_default()
    };
    place.until("it says so", |of| message(of).contains("10485760 MiB of memory")).await;
    place.open("huge", "a").await.unwrap();
    place.apply("game", |_| ()).await;
    place.open("game", "b").await.unwrap();
    place.until_status("b", SessionStatus::Available).await;
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(place.status("a"), Some(SessionStatus::Timeout));
    assert_eq!(node.held.lock().opened.len(), 1, "it was told of the other one only");
}

#[tokio::test(start_paused = true)]
async fn an_application_whose_instances_fail_says_so_and_why() {
    let place = Place::new().await;
    let node = Node::new(1, Nature { why: Some("its program exited with code 3"), ..Nature::default() });
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place
        .apply("game", |app| app.spec.scaling_policy.idle_session_num_threshold = Some(Threshold { low: 1, high: 1 }))
        .await;
    let says = |place: &Place, kind: &str| {
        let conditions = place.application("game").status.conditions;
        conditions.into_iter().find(|of| of.r#type == kind).map(|of| (of.status, of.reason, of.message))
    };
    let failing = |place: &Place| says(place, "Progressing").is_some_and(|of| of.1 == "InstancesFailing");
    place.until("it says so", failing).await;
    let (ready, reason, message) = says(&place, "Ready").unwrap();
    assert_eq!((ready, reason.as_str()), (ConditionStatus::False, "InstancesFailing"));
    assert!(message.contains("exited with code 3"), "{message}");
    let outcomes: Vec<_> = place.application("game").status.history.iter().map(|of| of.deployment_status).collect();
    assert!(outcomes.contains(&DeploymentStatus::Failure), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn each_session_that_opens_is_counted_and_told_once() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place.apply("game", |_| ()).await;
    for number in 0..20 {
        place.open("game", &format!("s{number}")).await.unwrap();
    }
    for number in 0..20 {
        place.until_status(&format!("s{number}"), SessionStatus::Available).await;
    }
    tokio::time::sleep(SECOND).await;
    let text = place.site.metrics.render();
    assert!(text.contains("lyra_control_session_opens_total{outcome=\"available\"} 20\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_tenants_quota_of_sessions_holds_for_all_its_applications_and_what_stands_for_them() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    let quota = Quota { sessions: Some(3), ..Quota::default() };
    let key = QuotaKey { tenant: tenant(), function: None };
    place.site.service.set_quota(&key, quota).await.unwrap();
    for name in ["game", "chat"] {
        let four = |app: &mut Application| {
            app.spec.scaling_policy.idle_session_num_threshold = Some(Threshold { low: 4, high: 4 });
        };
        place.apply(name, four).await;
    }
    place.until("three stand", |_| instances(&node) == 3).await;
    for (number, name) in ["game", "chat", "game"].into_iter().enumerate() {
        place.open(name, &format!("s{number}")).await.unwrap();
        place.until_status(&format!("s{number}"), SessionStatus::Available).await;
    }
    let refused = place.open("chat", "s3").await.unwrap_err();
    assert_eq!((refused.code, refused.details.retry_after_seconds), (429, 1), "{refused}");
    assert!(refused.to_string().contains("3 sessions"), "{refused}");
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(instances(&node), 3, "none stands beside them");
    place.close("s0").await;
    place.until("it is gone", |of| of.session("s0").is_none()).await;
    place.open("chat", "s3").await.unwrap();
    place.until_status("s3", SessionStatus::Available).await;
}
