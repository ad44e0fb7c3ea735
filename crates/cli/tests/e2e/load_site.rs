//! `lyra load site`: simulated workers that join a real control process.

use anyhow::Result;
use lyra_testkit::Cluster;
use serde_json::Value;

#[tokio::test]
async fn simulated_workers_take_instances_and_sessions_of_a_real_control_process() -> Result<()> {
    let cluster = Cluster::start(0, &[]).await?;
    let (lyra, control) = (cluster.commands(), cluster.address("c1").to_owned());
    let site = ["load", "site", "-o", "json", "--control", &control, "--rate", "20", "--duration", "1s", "--workers"];
    let measure = [&site[..], &["3", "--instances", "12", "--each", "4", "--sessions", "20"]].concat();
    let printed = lyra.run(measure).await?.ok()?;
    let phases: Vec<Value> = printed.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?;
    let of = |phase: usize, field: &str| phases[phase][field].clone();
    let names: Vec<_> = (0..phases.len()).map(|phase| of(phase, "phase")).collect();
    assert_eq!(names, ["joined", "filled", "idle", "placed", "opened", "held", "turned"]);
    // An instance that was started is counted as standing a moment later.
    assert_eq!((of(2, "instances"), of(1, "started")), (12.into(), 12.into()));
    assert_eq!((of(4, "sessions"), of(4, "started")), (20.into(), 20.into()));
    assert_eq!((of(6, "sessions"), of(6, "started")), (20.into(), 20.into()));
    let open = lyra.run(["session", "ls", "-o", "json"]).await?.json()?;
    let open = open["items"].as_array().into_iter().flatten();
    let open = open.filter(|session| session["metadata"]["deletionTimestamp"].is_null()).count();
    assert!((20..=40).contains(&open), "{open} sessions");
    lyra.run([&site[..], &["0"]].concat()).await?.expect(2)?;
    Ok(())
}
