//! Client libraries of Kubernetes that follow sessions while the process that leads is killed: each object is seen by each of
//! them, and what they hold in the end is what a list shows. The client is `resources/tests/clients/kube`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_kit::Random;
use lyra_testkit::Cluster;
use lyra_testkit::control::leader;
use lyra_testkit::engines::{Etcd, Nats};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Longest wait for anything to come about.
const LONG: Duration = Duration::from_secs(120);
/// Sessions that are made in a round.
const ROUND: u64 = 60;

/// Builds the client; `./test` has done so before, so that this takes no time there.
async fn client() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/tests/clients/kube");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kube");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--release", "--locked", "--manifest-path"]).arg(source.join("Cargo.toml"));
    let built = build.arg("--target-dir").arg(&target).output().await?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(target.join("release/kube-follower"))
}

/// The client as it follows.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(program: &Path, server: &str) -> Result<Follower> {
        let mut command = Command::new(program);
        command.args([server, "marks"]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        Ok(Follower { child, lines })
    }

    /// What it says next.
    async fn line(&mut self) -> Result<String> {
        let line = tokio::time::timeout(LONG, self.lines.next_line()).await.context("it says nothing")??;
        line.with_context(|| format!("it has ended: {:?}", self.child.try_wait()))
    }
}

/// Somebody who makes, changes and deletes sessions of the tenant `game1`.
struct Churn {
    http: reqwest::Client,
    url: String,
    random: Random,
    /// Identities of all sessions that there ever were.
    made: BTreeSet<String>,
    rounds: u64,
}

impl Churn {
    /// Asks until there is an answer that no other try changes; its status and body.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let asked = async {
            loop {
                let mut request = self.http.request(method.clone(), format!("{}/{path}", self.url));
                if let Some(body) = body {
                    let kind = if method == Method::PATCH { "merge-patch+json" } else { "json" };
                    request = request.header("content-type", format!("application/{kind}")).body(body.to_string());
                }
                if let Ok(answer) = request.send().await {
                    let status = answer.status().as_u16();
                    if status < 500 && status != 429 {
                        return (status, answer.json().await.unwrap_or_default());
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(LONG, asked).await.with_context(|| format!("no answer to {method} {path}"))
    }

    async fn make(&mut self, name: &str) -> Result<()> {
        let spec = json!({"applicationName": "later", "openTimeoutSeconds": 3_600});
        let object = json!({
            "apiVersion": "lyra.dev/v1", "kind": "ApplicationSession", "metadata": {"name": name}, "spec": spec,
        });
        let (status, mut made) = self.ask(Method::POST, "applicationsessions", Some(&object)).await?;
        if status == 409 {
            // The answer to the first try was lost.
            made = self.ask(Method::GET, &format!("applicationsessions/{name}"), None).await?.1;
        }
        let uid = made["metadata"]["uid"].as_str().with_context(|| format!("{name}: {status} {made}"))?;
        self.made.insert(uid.to_owned());
        Ok(())
    }

    /// Makes a session, changes one, and may delete one of the round before: none is deleted in the round that it is made in.
    async fn step(&mut self, number: u64) -> Result<()> {
        let (round, random) = (self.rounds, self.random.u64());
        self.make(&format!("s-{round}-{number}")).await?;
        let other = format!("applicationsessions/s-{round}-{}", random % (number + 1));
        let change = json!({"spec": {"ttlSecondsAfterFinished": 1 + random % 1_000}});
        let (status, changed) = self.ask(Method::PATCH, &other, Some(&change)).await?;
        ensure!(status == 200, "{other}: {status} {changed}");
        if round > 0 && !random.is_multiple_of(3) {
            let old = format!("applicationsessions/s-{}-{number}", round - 1);
            let (status, deleted) = self.ask(Method::DELETE, &old, None).await?;
            // 404 and 409: it was deleted by a try whose answer was lost.
            ensure!(matches!(status, 200 | 202 | 404 | 409), "{old}: {status} {deleted}");
        }
        Ok(())
    }

    /// Ends a round: every way to follow has seen all of it.
    async fn seen_by(&mut self, follower: &mut Follower) -> Result<()> {
        let mark = format!("mark-{}", self.rounds);
        self.make(&mark).await?;
        ensure!(follower.line().await? == mark, "one mark after the other");
        self.rounds += 1;
        Ok(())
    }

    /// All sessions, once all that were deleted are gone.
    async fn at_rest(&self) -> Result<BTreeMap<String, String>> {
        let waits = |session: &Value| session["metadata"]["deletionTimestamp"].is_null();
        let resting = async {
            loop {
                let (_, list) = self.ask(Method::GET, "applicationsessions", None).await?;
                let sessions = list["items"].as_array().context("a list")?;
                if sessions.iter().all(waits) {
                    return sessions.iter().map(known).collect();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(LONG, resting).await.context("sessions never came to rest")?
    }
}

/// Name of a session, its identity, and how often what is wanted of it has changed.
fn known(session: &Value) -> Result<(String, String)> {
    let meta = &session["metadata"];
    let text = |field: &str| meta[field].as_str().with_context(|| format!("no {field} in {session}"));
    Ok((text("name")?.to_owned(), format!("{}/{}", text("uid")?, meta["generation"])))
}

/// The same of all that a way to follow holds; the leader may write of sessions that they wait as often as it likes.
fn held(told: &Value) -> Result<BTreeMap<String, String>> {
    let all: BTreeMap<String, String> = serde_json::from_value(told.clone())?;
    let wanted = |what: &str| Some(what.rsplit_once('/')?.0.to_owned());
    all.into_iter().map(|(name, what)| Ok((name, wanted(&what).context("three parts")?))).collect()
}

#[tokio::test]
async fn watchers_reflectors_and_controllers_miss_nothing_when_leaders_are_killed() -> Result<()> {
    let program = client().await?;
    let (etcd, nats) = tokio::try_join!(Etcd::start(), Nats::start())?;
    let (store, jobs) = (format!("etcd://{}", etcd.address()), format!("nats://{}", nats.address()));
    let mut cluster = Cluster::start_many(2, 1, &["--store", &store, "--jobs", &jobs]).await?;
    // Its function is never deployed: sessions wait, and nothing but this test changes them.
    let application = json!({
        "apiVersion": "lyra.dev/v1", "kind": "Application", "metadata": {"name": "later"},
        "spec": {
            "containers": [{"name": "main", "function": "later", "ports": [{"containerPort": 8080}]}],
            "scalingPolicy": {"maximumInstance": 10_000, "scalingPolicyType": "idle_session_number",
                "idleSessionNumThreshold": {"low": 0, "high": 0}},
        },
    });
    let gateway = cluster.address("g1").to_owned();
    let url = format!("{gateway}/apis/lyra.dev/v1/namespaces/game1");
    let mut churn =
        Churn { http: reqwest::Client::new(), url, random: Random::seeded(5), made: BTreeSet::new(), rounds: 0 };
    let (status, made) = churn.ask(Method::POST, "applications", Some(&application)).await?;
    ensure!(status == 201, "{made}");
    let mut follower = Follower::start(&program, &gateway)?;
    churn.seen_by(&mut follower).await?;

    for _ in 0..3 {
        let (first, epoch) = leader(&cluster.client()?, "").await?;
        for number in 0..ROUND {
            if number == ROUND / 3 {
                cluster.kill(&first).await?;
            }
            churn.step(number).await?;
        }
        let (second, later) = leader(&cluster.client()?, &first).await?;
        ensure!(later > epoch, "{second} leads with epoch {later} after {epoch}");
        cluster.restart(&first).await?;
        churn.seen_by(&mut follower).await?;
    }
    let expected = churn.at_rest().await?;
    churn.make("done").await?;
    let told: Value = serde_json::from_str(&follower.line().await?)?;
    for way in ["watcher", "streaming", "reflector", "controller"] {
        let mut held = held(&told[way])?;
        held.remove("done");
        assert_eq!(held, expected, "{way}");
        if way == "controller" {
            // It looks at what there is when it comes to it.
            continue;
        }
        let seen: BTreeSet<String> = serde_json::from_value(told["seen"][way].clone())?;
        let missed: Vec<_> = churn.made.difference(&seen).collect();
        ensure!(missed.is_empty(), "{way} was never shown {missed:?}");
    }
    ensure!(follower.child.wait().await?.success(), "it ends well");
    Ok(())
}
