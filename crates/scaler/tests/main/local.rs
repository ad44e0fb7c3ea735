//! Worker processes of this machine: started, started again, ended, and taken up by a later scaler.

use std::path::Path;
use std::time::Duration;

use lyra_kit::{Clock, Random};
use lyra_scaler::LocalWorkers;
use lyra_scaler::backends::{Backend, Change, LocalBackend, Surroundings};
use lyra_wire::scaler::Load;

use super::{program, until};

/// In place of `lyra node`: writes its process number to a file of the worker's name, and ends when it is told to or, where it was
/// asked to, when stdin closes.
const WORKER: &str = r#"#!/bin/bash
while [ $# -gt 0 ]; do
  case "$1" in
    --name) name=$2;;
    --until-stdin-closes) follows=1;;
  esac
  shift
done
dir=$(dirname "$0")
trap 'rm -f "$dir/$name.pid"; exit 0' TERM
echo $$ > "$dir/$name.new" && mv "$dir/$name.new" "$dir/$name.pid"
echo started >> "$dir/$name.log"
if [ -n "$follows" ]; then
  read -r line
else
  while :; do sleep 0.1; done
fi
rm -f "$dir/$name.pid"
"#;

async fn open(dir: &Path, live_on: bool) -> LocalBackend {
    let around = Surroundings {
        program: program(dir, "lyra", WORKER),
        dir: dir.join("scaler"),
        name: "s".to_owned(),
        control: vec!["127.0.0.1:1".to_owned()],
        clock: Clock::system(),
        random: Random::system(),
    };
    let config = LocalWorkers { live_on, restart_after: Duration::from_millis(50), ..LocalWorkers::default() };
    LocalBackend::open(config, around).await.unwrap()
}

fn pid(dir: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(dir.join(format!("{name}.pid"))).ok().map(|text| text.trim().to_owned())
}

async fn ask(backend: &LocalBackend, from: u32, to: u32, going: &[&str]) {
    let going = going.iter().map(|name| (*name).to_owned()).collect();
    backend.apply(&Change { from, to, reason: "queue", going }).await.unwrap();
    assert_eq!(backend.current(&Load::default()).await.unwrap(), to);
}

fn kill(pid: &str) {
    let done = std::process::Command::new("kill").args(["-KILL", pid]).status().unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn workers_are_started_started_again_and_ended_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, backend) = (dir.path(), open(dir.path(), false).await);
    ask(&backend, 0, 3, &[]).await;
    until("all run", async || (1..=3).all(|number| pid(dir, &format!("s-{number}")).is_some())).await;
    let first = pid(dir, "s-2").unwrap();
    kill(&first);
    until("it is started again", async || pid(dir, "s-2").is_some_and(|now| now != first)).await;
    ask(&backend, 3, 1, &["s-1", "s-2"]).await;
    until("they end", async || pid(dir, "s-1").is_none() && pid(dir, "s-2").is_none()).await;
    assert!(pid(dir, "s-3").is_some());
    ask(&backend, 1, 2, &[]).await;
    until("a number is used again", async || pid(dir, "s-1").is_some() || pid(dir, "s-2").is_some()).await;
    backend.close().await;
    until("all have ended", async || (1..=3).all(|number| pid(dir, &format!("s-{number}")).is_none())).await;
}

#[tokio::test]
async fn workers_live_on_where_they_shall_and_the_next_scaler_takes_them_up() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, backend) = (dir.path(), open(dir.path(), true).await);
    ask(&backend, 0, 2, &[]).await;
    until("they run", async || pid(dir, "s-1").is_some() && pid(dir, "s-2").is_some()).await;
    let (one, two) = (pid(dir, "s-1").unwrap(), pid(dir, "s-2").unwrap());
    backend.close().await;
    drop(backend);
    assert_eq!((pid(dir, "s-1"), pid(dir, "s-2")), (Some(one.clone()), Some(two.clone())));
    let next = open(dir, true).await;
    assert_eq!(next.current(&Load::default()).await.unwrap(), 2);
    ask(&next, 2, 1, &["s-2"]).await;
    until("it ends", async || pid(dir, "s-2").is_none()).await;
    assert_eq!(pid(dir, "s-1"), Some(one.clone()), "and was never started anew");
    kill(&one);
    until("one that crashes is started again", async || pid(dir, "s-1").is_some_and(|now| now != one)).await;
    let last = pid(dir, "s-1").unwrap();
    next.close().await;
    kill(&last);
}
