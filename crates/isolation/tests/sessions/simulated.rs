//! Simulated instances of sessions, under virtual time.

use lyra_isolation::simulated::Simulated;
use lyra_kit::{Clock, Random};

use super::*;

async fn function(back: &Simulated, parameters: &str) -> (Arc<dyn Template>, Arc<FunctionVersion>) {
    let settings = Settings::of(Runtime::Simulated);
    let code = code(parameters.as_bytes(), &settings);
    back.prepare(&code).await.expect("deploys");
    let template = back.load(&code.key).await.expect("loads").expect("is there");
    let version = FunctionVersion::new("game".parse().expect("a name"), Runtime::Simulated, code.key.digest);
    (template, Arc::new(version))
}

#[tokio::test(start_paused = true)]
async fn thousands_of_sessions_start_live_and_end_by_their_parameters() {
    let clock = Clock::system();
    let back = Simulated::new(clock.clone(), Random::seeded(1));
    let (template, version) =
        function(&back, r#"{"start_ms": 100, "lives_ms": 60000, "memory_mb": 10, "hibernated_mb": 1}"#).await;
    let (ids, grant) = (Ids::default(), Grant::default());
    let start = clock.instant();
    let starts = (0..5000).map(|_| template.host(ids.instance(), &version, &grant, hosting()));
    let hosted: Vec<_> = futures::future::join_all(starts).await.into_iter().map(|one| one.expect("starts")).collect();
    assert_eq!(clock.instant() - start, Duration::from_millis(100));
    assert_eq!(back.figures().memory_mb, 50_000);
    assert!(hosted[0].hibernate().await);
    assert_eq!(back.figures().memory_mb, 49_991);
    let exposed = hosted[1].expose(LOCAL, 20_000..=29_999).await.unwrap();
    assert_eq!(exposed.len(), 3);
    let stopped = hosted[1].stop(Duration::from_secs(1)).await;
    assert_eq!(stopped, Exit { code: None, signal: Some(15), out_of_memory: false });
    assert!(hosted[1].exposed().is_empty());
    assert_eq!(hosted[2].wait().await, exited(0));
    assert_eq!(clock.instant() - start, Duration::from_millis(60_100));
    assert!(hosted.iter().all(|one| one.exit().is_some()));
    assert_eq!(back.figures().memory_mb, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_leaves_is_there_for_the_next() {
    let back = Simulated::new(Clock::system(), Random::seeded(1));
    let (template, version) = function(&back, r#"{"memory_mb": 10, "stop_ms": 5000}"#).await;
    let (ids, grant) = (Ids::default(), Grant::default());
    let mut hosted = Vec::new();
    for hosting in [lasting(), hosting(), lasting()] {
        hosted.push(template.host(ids.instance(), &version, &grant, hosting).await.unwrap());
    }
    let id = hosted[0].id();
    let exposed = hosted[0].expose(LOCAL, 20_000..=29_999).await.unwrap();
    hosted[..2].iter().for_each(|one| one.leave());
    drop(hosted);
    assert_eq!(back.figures().instances, 1, "neither one that does not last goes on, nor one that was not left");
    let adopted = back.adopt().await;
    assert_eq!(adopted.len(), 1);
    assert_eq!((adopted[0].id(), adopted[0].label(), adopted[0].exposed()), (id, "a label", exposed));
    assert!(back.adopt().await.is_empty());
    assert_eq!(adopted[0].stop(Duration::from_secs(1)).await, Exit::killed(), "it takes longer than the grace");
    assert_eq!(back.figures().instances, 0);
}
