//! What is left after an end: nothing.

use std::os::unix::process::CommandExt;

use super::*;

/// A program that can be told from all others on the machine, since it goes on until it is ended.
fn marked(mark: &str) -> Plan {
    shell(&format!("echo up; while :; do read x; sleep 1; done # {mark}"))
}

fn mark() -> String {
    format!("mark-{:x}", lyra_kit::Random::system().u128())
}

async fn up(process: &mut Process) {
    let stdout = process.stdout.as_mut().expect("nobody has taken it");
    tokio::io::AsyncReadExt::read_exact(stdout, &mut [0; 3]).await.expect("it says that it is up");
}

/// Waits until there is nothing more of a kind.
async fn until_none<T>(what: impl Fn() -> Vec<T>) {
    let none = async {
        while !what().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, none).await.expect("all of it goes away");
}

#[tokio::test]
async fn dropping_a_process_ends_it_with_all_its_children() {
    let bench = Bench::start().await;
    let mark = mark();
    let mut process = bench
        .spawn(shell(&format!("(setsid sh -c 'read y; sleep 100 # {mark}' &) ; echo up; sleep 100 # {mark}")))
        .await;
    up(&mut process).await;
    drop(process);
    until_none(|| processes_with(&mark)).await;
    bench.finish().await;
}

#[tokio::test]
async fn when_the_program_ends_what_it_has_left_behind_ends_too() {
    let bench = Bench::start().await;
    let mark = mark();
    let mut plan = shell(&format!(
        "(setsid sleep 100 >/dev/null 2>&1 '{mark}' &) ; (setsid sh -c 'while :; do :; done # {mark}' >/dev/null 2>&1 &); exit 5"
    ));
    plan.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    let outcome = bench.run(plan).await;
    assert_eq!(outcome.exit.code, Some(5));
    assert_eq!(processes_with(&mark), Vec::<u32>::new());
    bench.finish().await;
}

#[tokio::test]
async fn a_spawn_that_is_given_up_leaves_nothing() {
    let bench = Bench::start().await;
    let mark = mark();
    for _ in 0..10 {
        let spawn = bench.launcher.spawn(marked(&mark));
        assert!(futures::FutureExt::now_or_never(spawn).is_none());
    }
    // The answer to a later request comes after the earlier ones were begun.
    bench.run(shell("true")).await;
    until_none(|| processes_with(&mark)).await;
    bench.finish().await;
}

#[tokio::test]
async fn when_the_launcher_dies_its_sandboxes_die_and_the_next_spawn_starts_it_again() {
    let bench = Bench::start().await;
    let mark = mark();
    let mut process = bench.spawn(marked(&mark)).await;
    let mut fork = bench.spawn(forked("import time\nprint('up', flush=True)\nwhile True: time.sleep(1)")).await;
    up(&mut process).await;
    up(&mut fork).await;
    let stat = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let parent = stat.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    assert!(std::process::Command::new("/bin/kill").args(["-9", parent]).status().unwrap().success());
    assert_eq!(process.wait().await.signal, Some(9));
    assert_eq!(fork.wait().await.signal, Some(9));
    until_none(|| processes_with(&mark)).await;
    let first = fork.pid;
    until_none(|| std::fs::read_dir(format!("/proc/{first}")).ok().into_iter().collect()).await;
    assert_eq!(bench.run(shell("echo again")).await.stdout, "again\n");
    bench.finish().await;
}

/// Not a test by itself: what the next one starts and kills.
#[tokio::test]
#[ignore = "is run by another test, which kills it"]
async fn victim() {
    let directory = std::env::args().next_back().unwrap();
    let directory = Path::new(&directory);
    let launcher = Launcher::start(config(directory)).await.unwrap();
    let mark = directory.file_name().unwrap().to_str().unwrap();
    let mut one = launcher.spawn(marked(mark)).await.unwrap();
    let mut two =
        launcher.spawn(forked("import time\nprint('up', flush=True)\nwhile True: time.sleep(1)")).await.unwrap();
    up(&mut one).await;
    up(&mut two).await;
    std::fs::write(directory.join("up"), two.pid.to_string()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn killing_lyra_leaves_nothing_after_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().file_name().unwrap().to_str().unwrap().to_owned();
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "launch::ends::victim", "--ignored", "--nocapture"])
        .arg(directory.path())
        .process_group(0)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = directory.path().join("up");
    let started = async {
        while std::fs::read_to_string(&pid).unwrap_or_default().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.expect("the victim is up");
    assert!(processes_with(&mark).len() > 1);
    assert!(!groups_of(directory.path()).is_empty());
    victim.kill().unwrap();
    victim.wait().unwrap();
    let launcher = Launcher::start(config(directory.path())).await.unwrap();
    assert_eq!(processes_with(&mark), Vec::<u32>::new());
    let fork = std::fs::read_to_string(&pid).unwrap();
    assert!(!Path::new(&format!("/proc/{fork}")).exists());
    assert!(launcher.stop(PATIENCE).await);
    assert_eq!(groups_of(directory.path()), Vec::<PathBuf>::new());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&mark));
}

#[tokio::test]
async fn two_of_them_do_not_work_with_the_same_directory() {
    let bench = Bench::start().await;
    let mut config = config(bench.directory.path());
    config.patience = Duration::from_millis(100);
    let second = Launcher::start(config).await;
    assert!(matches!(second, Err(lyra_isolation::process::launch::LaunchError::InUse(_))));
    bench.finish().await;
}
