//! Applications and sessions, whatever a leader says and whatever instances and workers do.

use std::collections::BTreeSet;
use std::time::Duration;

use lyra_types::Code;
use lyra_wire::registry::Command;
use lyra_wire::sessions::{SessionCommand, SessionPhase};
use lyra_wire::worker::InstanceState;
use proptest::prelude::*;

use crate::leader::Told;
use crate::site::{Site, session};

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    Open {
        app: usize,
        uid: u8,
        standing: u32,
        reuse: bool,
    },
    Close {
        uid: u8,
        grace: u64,
    },
    Stand {
        app: usize,
        instances: u32,
    },
    Forget {
        uid: u8,
    },
    /// A leader of before says something.
    Late {
        app: usize,
        uid: u8,
    },
    /// Nothing for so many milliseconds.
    Wait(u64),
    /// The worker ends and begins again.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..2usize, 0..20u8, 0..4u32, any::<bool>())
            .prop_map(|(app, uid, standing, reuse)| Event::Open { app, uid, standing, reuse }),
        4 => (0..20u8, 0..5u64).prop_map(|(uid, grace)| Event::Close { uid, grace }),
        2 => (0..2usize, 0..4u32).prop_map(|(app, instances)| Event::Stand { app, instances }),
        1 => (0..20u8).prop_map(|uid| Event::Forget { uid }),
        1 => (0..2usize, 20..30u8).prop_map(|(app, uid)| Event::Late { app, uid }),
        4 => (0..20_000u64).prop_map(Event::Wait),
        1 => Just(Event::Restart),
    ]
}

const PARAMETERS: [&str; 2] = [
    r#"{"start_ms": {"min": 0, "max": 3000}, "lives_ms": {"mean": 40000}, "start_failure_rate": 0.1, "stop_ms": 500}"#,
    r#"{"start_ms": 20, "memory_mb": 100, "hibernated_mb": 10, "wake_ms": {"min": 0, "max": 100}}"#,
];

/// What holds at any time.
fn check(told: &Told) {
    let mut taken = BTreeSet::new();
    for (uid, session) in told.sessions.iter().filter(|(_, session)| session.phase != SessionPhase::Closed) {
        let instance = session.instance.expect("an accepted session has an instance");
        assert!(taken.insert(instance), "{instance} has two sessions");
        if session.phase == SessionPhase::Open {
            let hosted = told.hosted.get(&instance).expect("the instance of an open session is there");
            assert_eq!(hosted.session.as_deref(), Some(uid.as_str()));
        }
    }
    let standing = told.hosted.values().filter(|of| of.session.is_some()).count();
    assert!(taken.len() <= standing || told.hosted.len() >= taken.len());
}

async fn play(events: Vec<Event>) {
    let site = Site::new();
    let mut running = site.start().await;
    let apps = [site.app("one", 1, PARAMETERS[0]).await, site.app("two", 1, PARAMETERS[1]).await];
    running.leader.set_epoch(3);
    running.leader.command(Command::Follow).await.expect("it follows");
    let mut accepted = BTreeSet::new();
    for event in events {
        match event {
            Event::Open { app, uid, standing, reuse } => {
                let mut open = session(&apps[app], &uid.to_string(), standing);
                open.reuse = reuse;
                running.leader.order(SessionCommand::Open(Box::new(open))).await.expect("it is accepted");
                accepted.insert(uid.to_string());
            }
            Event::Close { uid, grace } => {
                let close = SessionCommand::Close(uid.to_string(), Duration::from_secs(grace));
                running.leader.order(close).await.expect("it is closed");
            }
            Event::Stand { app, instances } => {
                running.leader.order(SessionCommand::Stand(apps[app].clone(), instances)).await.expect("it stands");
            }
            Event::Forget { uid } => {
                let forgotten = running.leader.order(SessionCommand::Forget(uid.to_string())).await;
                if forgotten.is_ok() {
                    accepted.remove(&uid.to_string());
                }
            }
            Event::Late { app, uid } => {
                running.leader.set_epoch(2);
                let open = SessionCommand::Open(Box::new(session(&apps[app], &uid.to_string(), 9)));
                assert_eq!(running.leader.order(open).await.expect_err("it is refused").code, Code::Conflict);
                running.leader.set_epoch(3);
            }
            Event::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Event::Restart => {
                running.stop().await;
                running = site.start_at(3).await;
            }
        }
        let told = running.leader.told();
        check(&told);
        assert_eq!(told.sessions.keys().cloned().collect::<BTreeSet<_>>(), accepted, "none is lost");
    }
    // What was told step by step is what there is.
    let step_by_step = running.leader.told();
    running.leader.command(Command::Follow).await.expect("it follows");
    let whole = running.leader.told();
    if step_by_step.revision == whole.revision {
        assert_eq!(step_by_step, whole);
    }
    for uid in &accepted {
        running.leader.order(SessionCommand::Close(uid.clone(), Duration::ZERO)).await.expect("it is closed");
    }
    for app in &apps {
        running.leader.order(SessionCommand::Dismiss(app.key.clone())).await.expect("it is dismissed");
    }
    let told = running.leader.until("nothing is left", |told| told.hosted.is_empty()).await;
    assert!(told.sessions.values().all(|session| session.phase == SessionPhase::Closed && session.end.is_some()));
    assert_eq!(told.instances(InstanceState::Active), 0);
    assert_eq!((running.charged(), site.backend.figures().instances), ((0, 0), 0));
    running.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_session_has_one_instance_and_is_never_lost(events in prop::collection::vec(event(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(events));
    }
}
