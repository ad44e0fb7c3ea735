//! Sessions go on while their worker is killed or restarted, and the next one takes them over.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as Blocking};
use std::os::unix::process::CommandExt;

use super::*;

/// A worker in a process of its own, until it is killed.
struct Victim {
    process: std::process::Child,
    dir: tempfile::TempDir,
    /// What it has said.
    said: Vec<String>,
}

impl Victim {
    /// Runs one of the tests below.
    async fn start(test: &str) -> Victim {
        let dir = directory();
        let process = std::process::Command::new(std::env::current_exe().expect("it is known"))
            .args(["--exact", &format!("sessions::adoption::{test}"), "--ignored", "--nocapture"])
            .arg(dir.path())
            .process_group(0)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        let mut victim = Victim { process, dir, said: Vec::new() };
        let path = victim.dir.path().join("said");
        let up = async {
            loop {
                match std::fs::read_to_string(&path) {
                    Ok(said) if said.ends_with('\n') => return said,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        victim.said = timeout(up).await.split_whitespace().map(str::to_owned).collect();
        victim
    }

    fn kill(&mut self) {
        self.process.kill().expect("it is a child");
        self.process.wait().expect("it is a child");
    }

    fn address(&self, number: usize) -> SocketAddr {
        self.said[number].parse().expect("an address")
    }

    /// The next worker, and what it takes over.
    async fn next(&self) -> (Worker, Vec<Box<dyn Hosted>>) {
        let worker = Worker::start(self.dir.path()).await;
        let adopted = worker.processes.adopt().await;
        (worker, adopted)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _dead = self.process.kill();
        let _dead = self.process.wait();
    }
}

fn place() -> std::path::PathBuf {
    std::env::args().next_back().expect("the directory").into()
}

fn tell(words: &[String]) {
    std::fs::write(place().join("said"), format!("{}\n", words.join(" "))).expect("written");
}

fn client(address: SocketAddr) -> Blocking {
    let stream = Blocking::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

fn say(client: &mut Blocking, words: &str) -> String {
    client.write_all(words.as_bytes()).expect("sent");
    let mut answer = vec![0; words.len()];
    client.read_exact(&mut answer).expect("answered");
    String::from_utf8(answer).expect("text")
}

async fn order_at(address: SocketAddr, what: Value) -> Value {
    order_over(timeout(TcpStream::connect(address)).await.expect("connects"), what).await.expect("done")
}

#[tokio::test]
#[ignore = "is run by another test, which kills it"]
async fn worker_with_one() {
    let dir = place();
    let worker = Worker::with(&dir, |config| {
        if dir.join("short").exists() {
            config.settings.orphan_grace = Duration::from_millis(300);
        }
    })
    .await;
    let (hosted, _) = worker.up(lasting()).await;
    let _service = hosted.service();
    let (mortal, _) = worker.up(hosting()).await;
    let mut said: Vec<String> = expose(&*hosted).await.iter().map(ToString::to_string).collect();
    said.push(expose(&*mortal).await[0].to_string());
    said.push(hosted.id().to_string());
    tell(&said);
    std::future::pending::<()>().await;
}

#[tokio::test]
#[ignore = "is run by another test, which kills it"]
async fn worker_with_short_grace() {
    let dir = place();
    std::fs::write(dir.join("short"), "").unwrap();
    let worker = Worker::with(&dir, |config| config.settings.orphan_grace = Duration::from_millis(300)).await;
    let (hosted, _) = worker.up(lasting()).await;
    tell(&[expose(&*hosted).await[0].to_string()]);
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_worker_costs_no_connection_and_the_next_one_has_all_in_its_hands() {
    let mut victim = Victim::start("worker_with_one").await;
    let mut stream = client(victim.address(0));
    assert_eq!(say(&mut stream, "before"), "BEFORE");
    victim.kill();
    order_at(victim.address(1), json!({"print": "nobody listens"})).await;
    assert_eq!(say(&mut stream, "between"), "BETWEEN");
    let (worker, mut adopted) = victim.next().await;
    assert!(Blocking::connect(victim.address(3)).is_err(), "what does not last has ended, and its ports are free");
    let hosted = adopted.pop().expect("one was left");
    assert!(adopted.is_empty() && worker.processes.adopt().await.is_empty());
    assert_eq!((hosted.id().to_string(), hosted.label()), (victim.said[4].clone(), "a label"));
    let known: Vec<_> = hosted.exposed().iter().map(|one| one.address).collect();
    assert_eq!(known, (0..3).map(|number| victim.address(number)).collect::<Vec<_>>());
    assert_eq!(say(&mut stream, "after"), "AFTER");
    let lines = logs_of(&*hosted);
    until(|| lines.has("nobody listens")).await;
    assert_eq!(order(&*hosted, json!({"print": "again"})).await, Ok(json!("done")));
    until(|| lines.has("again")).await;
    let files = [("session.json".to_owned(), Bytes::from("new"))].into();
    hosted.write(&files).await.expect("written");
    assert_eq!(order(&*hosted, json!({"read": "session.json"})).await, Ok(json!("new")));
    let service = hosted.service().expect("was asked for");
    let serve = async {
        use tokio::io::AsyncReadExt;
        let (mut peer, _) = service.accept().await.expect("the program connects");
        let _ = peer.read(&mut [0; 10]).await;
        peer.write_all(b"welcome").await.expect("told");
    };
    let (_, answer) = timeout(async { tokio::join!(serve, order(&*hosted, json!({"serve": "x"}))) }).await;
    assert_eq!(answer, Ok(json!("welcome")));
    assert_eq!(hosted.traffic().await.connections, 1);
    assert!(hosted.hibernate().await && hosted.wake().await);
    assert_eq!(say(&mut stream, "more"), "MORE");
    // Another start beside it.
    let (other, _) = worker.up(lasting()).await;
    assert_eq!(order(&*other, json!({"env": "PORT"})).await, Ok(json!("7000")));
    assert_eq!(timeout(hosted.stop(PATIENCE)).await, exited(3));
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    TcpListener::bind(victim.address(0)).expect("free");
    drop((hosted, other));
    worker.finish(victim.dir.path()).await;
}

#[tokio::test]
async fn a_worker_may_be_killed_again_and_again() {
    let mut victim = Victim::start("worker_with_one").await;
    let mut stream = client(victim.address(0));
    victim.kill();
    for number in 0..3 {
        let (worker, adopted) = victim.next().await;
        assert_eq!(adopted.len(), 1);
        assert_eq!(say(&mut stream, &format!("round {number}")), format!("ROUND {number}"));
        adopted[0].leave();
        drop(adopted);
        worker.processes.launcher().leave(Duration::ZERO).await;
        drop(worker);
        assert_eq!(say(&mut stream, "between"), "BETWEEN");
    }
    let (worker, adopted) = victim.next().await;
    assert_eq!(say(&mut stream, "last"), "LAST");
    drop(adopted);
    worker.finish(victim.dir.path()).await;
}

#[tokio::test]
async fn what_is_written_while_no_worker_is_there_holds_nobody_up_and_the_last_of_it_is_kept() {
    let mut victim = Victim::start("worker_with_one").await;
    victim.kill();
    order_at(victim.address(1), json!({"flood": 50_000})).await;
    let (worker, adopted) = victim.next().await;
    let lines = logs_of(&*adopted[0]);
    until(|| lines.has("line 49999")).await;
    let texts = lines.texts();
    assert!(texts[0].contains("bytes of output from before this are missing"), "{}", texts[0]);
    let numbers: Vec<u32> = texts.iter().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert!(numbers.len() > 5000 && numbers.is_sorted(), "{}", numbers.len());
    drop(adopted);
    worker.finish(victim.dir.path()).await;
}

#[tokio::test]
async fn how_one_ended_while_no_worker_was_there_is_told_to_the_next() {
    let mut victim = Victim::start("worker_with_one").await;
    order_at(victim.address(1), json!({"later": [0.3, 3, 7]})).await;
    let mut stream = client(victim.address(0));
    victim.kill();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "it has ended");
    until(|| TcpListener::bind(victim.address(0)).is_ok()).await;
    let (worker, adopted) = victim.next().await;
    assert_eq!(adopted.len(), 1);
    assert_eq!(timeout(adopted[0].wait()).await, exited(7));
    assert_eq!(adopted[0].exit(), Some(exited(7)));
    let lines = logs_of(&*adopted[0]);
    assert!(lines.has("line 2"), "{:?}", lines.texts());
    drop(adopted);
    worker.finish(victim.dir.path()).await;
}

#[tokio::test]
async fn when_no_worker_comes_back_all_is_ended() {
    let mut victim = Victim::start("worker_with_short_grace").await;
    let mut stream = client(victim.address(0));
    victim.kill();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "it is ended");
    let launch = victim.dir.path().join("launch");
    until(|| crate::launch::groups_of(&launch).is_empty()).await;
    TcpListener::bind(victim.address(0)).expect("free");
    let (worker, adopted) = victim.next().await;
    assert!(adopted.is_empty());
    worker.finish(victim.dir.path()).await;
}

#[tokio::test]
async fn when_the_launcher_is_killed_its_sessions_end_with_their_ports() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let (hosted, _) = worker.up(lasting()).await;
    let addresses = expose(&*hosted).await;
    let mut stream = client(addresses[0]);
    assert_eq!(say(&mut stream, "here"), "HERE");
    let launcher = carrying::launcher_of(dir.path());
    assert!(std::process::Command::new("/bin/kill").args(["-9", &launcher.to_string()]).status().unwrap().success());
    assert_eq!(timeout(hosted.wait()).await, Exit::killed());
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    until(|| addresses[..2].iter().all(|address| TcpListener::bind(address).is_ok())).await;
    hosted.hide().await.expect("nothing is exposed any more");
    let (again, _) = worker.up(lasting()).await;
    assert_eq!(order(&*again, json!({"env": "PORT"})).await, Ok(json!("7000")), "the next start works");
    drop((hosted, again));
    worker.finish(dir.path()).await;
}

#[tokio::test]
async fn what_was_not_left_ends_with_its_worker_and_nothing_waits_for_it() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let (hosted, _) = worker.up(lasting()).await;
    let launcher = carrying::launcher_of(dir.path());
    drop(hosted);
    worker.processes.launcher().leave(PATIENCE).await;
    assert!(!Path::new(&format!("/proc/{launcher}")).exists(), "with nothing that lasts, it has ended at once");
    drop(worker);
    nothing_is_left(dir.path());
}
