//! Triggers through the real program: posted events, notifications of S3, and messages of a real NATS, with `kill -9` of either.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer, stream};
use lyra_testkit::engines::{Nats, NatsOptions};
use lyra_testkit::{Lyra, Options};
use serde_json::{Value, json};

use super::start::{BINARY, ECHO, deploy, server_with};

/// Asks until `found` gives something.
async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let ask = async {
        loop {
            if let Some(found) = found().await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), ask)
        .await
        .with_context(|| format!("it does not come to be: {what}"))?
}

async fn get(server: &Lyra, path: &str) -> Result<Value> {
    Ok(server.http()?.get(format!("{}{path}", server.url())).send().await?.error_for_status()?.json().await?)
}

/// Waits until the trigger stands as `wanted` says.
async fn until(server: &Lyra, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(what, async || {
        let view = get(server, &format!("/v1/triggers/{name}")).await?;
        Ok(wanted(&view).then_some(view))
    })
    .await
}

/// How many jobs of a function each record is in, by what of it `key` gives; of jobs that succeeded and gave back their event.
async fn records(server: &Lyra, function: &str, key: &str) -> Result<BTreeMap<String, u32>> {
    let list = get(server, &format!("/v1/jobs?function={function}&limit=1000&status=succeeded")).await?;
    let mut found = BTreeMap::new();
    for job in list["items"].as_array().context("jobs")? {
        let id = job["id"].as_str().context("an id")?;
        let event = get(server, &format!("/v1/jobs/{id}/result")).await?;
        for record in event["records"].as_array().context("records")? {
            *found.entry(record.pointer(key).context("no such thing")?.to_string()).or_default() += 1;
        }
    }
    Ok(found)
}

/// Each number from 0 to `to`, once.
fn once(to: u32) -> BTreeMap<String, u32> {
    (0..to).map(|n| (n.to_string(), 1)).collect()
}

#[tokio::test]
async fn posted_events_are_in_one_job_each_over_a_kill() -> Result<()> {
    let mut server = server_with("f", ECHO).await?;
    server.cli(["trigger", "create", "orders", "--function", "f", "--id-field", "n"]).await?.ok()?;
    for round in 0..3 {
        let events: Vec<Value> = (0..10 + round).map(|n| json!({"n": n})).collect();
        let sent = server.cli(["trigger", "send", "orders", "-d", &Value::from(events).to_string()]).await?.ok()?;
        assert_eq!(sent.lines().count(), 10 + round);
        server.kill().await?;
        server.restart().await?;
    }
    let found = eventually("all jobs", async || {
        let found = records(&server, "f", "/data/n").await?;
        Ok((found.len() == 12).then_some(found))
    })
    .await?;
    assert_eq!(found, once(12));
    let refused = server.cli(["trigger", "send", "orders", "-d", "[1]"]).await?.expect(2)?;
    assert!(refused.stderr.contains("must be an object"), "{}", refused.stderr);
    server.cli(["trigger", "pause", "orders"]).await?.ok()?;
    let refused = server.cli(["trigger", "send", "orders"]).await?;
    assert!(refused.code != 0 && refused.stderr.contains("paused"), "{}", refused.stderr);
    server.cli(["trigger", "rm", "orders"]).await?.ok()?;
    server.cli(["trigger", "get", "orders"]).await?.expect(3)?;
    Ok(())
}

#[tokio::test]
async fn notifications_of_s3_are_filtered_and_become_jobs() -> Result<()> {
    let server = server_with("thumbnail", ECHO).await?;
    let create = ["trigger", "create", "uploads", "--function", "thumbnail", "--s3", "--event", "s3:ObjectCreated:*"];
    server.cli(create.into_iter().chain(["--bucket", "photos", "--suffix", ".jpg"])).await?.ok()?;
    let record = |event: &str, key: &str| json!({"eventName": event, "s3": {"bucket": {"name": "photos"}, "object": {"key": key, "eTag": "e"}}});
    let records = [record("s3:ObjectCreated:Put", "a.jpg"), record("s3:ObjectRemoved:Delete", "a.jpg")];
    let body = json!({"EventName": "s3:ObjectCreated:Put", "Key": "photos/a.jpg", "Records": records}).to_string();
    let sent = server.cli(["trigger", "send", "uploads", "-d", &body, "-o", "json"]).await?.json()?;
    assert_eq!((&sent["accepted"], &sent["filtered"]), (&json!(1), &json!(1)));
    let job = sent["jobs"][0].as_str().context("a job")?;
    let result = server.cli(["job", "result", job, "--wait", "30s"]).await?.json()?;
    assert_eq!(result["records"][0]["data"]["s3"]["object"]["key"], "a.jpg");
    let shown = server.cli(["trigger", "get", "uploads"]).await?.ok()?;
    assert!(shown.contains("photos") && shown.contains("active"), "{shown}");
    Ok(())
}

/// A server that may reach a NATS on this host, and knows soon when it is gone.
async fn server_beside() -> Result<Lyra> {
    let env = [
        ("LYRA__CONTROL__TRIGGERS__ALLOW", "[\"127.0.0.0/8\"]"),
        ("LYRA__CONTROL__TRIGGERS__ACK_WAIT", "3s"),
        ("LYRA__CONTROL__TRIGGERS__TIMEOUT", "3s"),
        ("LYRA__CONTROL__TRIGGERS__RETRY__FIRST", "100ms"),
        ("LYRA__CONTROL__TRIGGERS__RETRY__MAX", "1s"),
        ("LYRA__CONTROL__JOBS__RETRY__FIRST", "50ms"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Lyra::start_with(Options { binary: Some(BINARY.into()), env, ..Options::default() }).await
}

/// A stream of orders, and who publishes to it.
async fn orders(nats: &Nats) -> Result<(jetstream::Context, stream::Stream)> {
    let jetstream = jetstream::new(async_nats::connect(nats.address()).await?);
    let config =
        stream::Config { name: "ORDERS".into(), subjects: vec!["orders.>".into()], ..stream::Config::default() };
    let stream = jetstream.create_stream(config).await?;
    Ok((jetstream, stream))
}

async fn publish(jetstream: &jetstream::Context, numbers: std::ops::Range<u32>) -> Result<()> {
    for n in numbers {
        jetstream.publish("orders.new", json!({"n": n}).to_string().into()).await?.await?;
    }
    Ok(())
}

async fn create(server: &Lyra, nats: &Nats, function: &str, flags: &[&str]) -> Result<()> {
    let url = format!("nats://{}", nats.address());
    let create = ["trigger", "create", "orders", "--function", function, "--nats", &url, "--subject", "orders.>"];
    server.cli([&create[..], flags].concat()).await?.ok()?;
    Ok(())
}

/// The trigger's consumer.
async fn consumer(stream: &stream::Stream) -> Result<Option<consumer::Info>> {
    use futures::TryStreamExt;
    let mut all = stream.consumers();
    Ok(all.try_next().await?)
}

/// Waits until every message is acknowledged.
async fn until_acknowledged(stream: &stream::Stream) -> Result<()> {
    eventually("all are acknowledged", async || {
        // A connection may just be made again.
        let Ok(info) = consumer(stream).await else { return Ok(None) };
        Ok(info.filter(|info| info.num_pending == 0 && info.num_ack_pending == 0).map(drop))
    })
    .await
}

const SLOW: &str =
    "export default async (event) => { await new Promise((done) => setTimeout(done, 500)); return event }\n";
const PICKY: &str = "export default (event) => { if (event.records.some((it) => it.data.n === 3)) throw new Error('three'); return event }\n";

#[tokio::test]
async fn messages_are_in_one_job_each_whatever_is_killed() -> Result<()> {
    let nats = &mut Nats::start().await?;
    let (jetstream, stream) = orders(nats).await?;
    let mut server = server_beside().await?;
    deploy(&server, "f", SLOW, &[]).await?;
    publish(&jetstream, 0..40).await?;
    create(&server, nats, "f", &["--batch", "2", "--batch-wait", "50ms", "--max-in-flight", "3"]).await?;
    for jobs in [2, 8] {
        eventually("some jobs", async || {
            let list = get(&server, "/v1/jobs?function=f&limit=1000").await?;
            Ok(list["items"].as_array().filter(|items| items.len() >= jobs).map(|_| ()))
        })
        .await?;
        server.kill().await?;
        server.restart().await?;
    }
    nats.kill().await?;
    until(&server, "orders", "it fails", |view| view["state"] == "failing").await?;
    nats.restart().await?;
    until_acknowledged(&stream).await?;
    assert_eq!(records(&server, "f", "/data/n").await?, once(40));
    let shown = until(&server, "orders", "no lag", |view| view["lag"] == 0 && view["state"] == "active").await?;
    assert!(shown["error"].as_str().is_some_and(|error| error.contains("NATS")), "{shown}");

    // While it is paused nothing is taken; then all is.
    server.cli(["trigger", "pause", "orders"]).await?.ok()?;
    eventually("nobody asks for messages", async || {
        Ok(consumer(&stream).await?.filter(|info| info.num_waiting == 0).map(drop))
    })
    .await?;
    publish(&jetstream, 40..45).await?;
    let info = consumer(&stream).await?.context("a consumer")?;
    assert_eq!((info.num_pending, info.num_ack_pending), (5, 0));
    server.cli(["trigger", "resume", "orders"]).await?.ok()?;
    until_acknowledged(&stream).await?;
    assert_eq!(records(&server, "f", "/data/n").await?, once(45));

    // Its consumer goes with it.
    server.cli(["trigger", "rm", "orders"]).await?.ok()?;
    eventually("the consumer is gone", async || Ok(consumer(&stream).await?.is_none().then_some(()))).await
}

/// NATS says that it took note of an acknowledgement before it has it on disk.
#[tokio::test]
async fn messages_that_nats_forgets_to_be_done_are_in_no_second_job() -> Result<()> {
    let nats = &mut Nats::start().await?;
    let (jetstream, stream) = orders(nats).await?;
    let mut server = server_beside().await?;
    deploy(&server, "f", ECHO, &[]).await?;
    create(&server, nats, "f", &["--batch", "2", "--batch-wait", "0s", "--max-in-flight", "3"]).await?;
    for round in 0..6 {
        publish(&jetstream, round * 5..(round + 1) * 5).await?;
        until_acknowledged(&stream).await?;
        nats.kill().await?;
        if round == 3 {
            server.kill().await?;
        }
        nats.restart().await?;
        if round == 3 {
            server.restart().await?;
        }
        until_acknowledged(&stream).await?;
    }
    let active = |view: &Value| view["lag"] == 0 && view["state"] == "active";
    let shown = until(&server, "orders", "no lag", active).await?;
    assert_eq!(records(&server, "f", "/data/n").await?, once(30));
    // Each batch was counted as often as it was made, though it was acknowledged more than once.
    assert_eq!(shown["counts"]["succeeded"], shown["counts"]["batches"], "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_batch_that_fails_is_a_dead_letter_and_the_stream_goes_on() -> Result<()> {
    let nats = &Nats::start().await?;
    let (jetstream, stream) = orders(nats).await?;
    let server = server_beside().await?;
    deploy(&server, "f", PICKY, &["--max-attempts", "1"]).await?;
    publish(&jetstream, 0..8).await?;
    create(&server, nats, "f", &["--batch", "1", "--max-in-flight", "1", "--stream", "ORDERS"]).await?;
    until_acknowledged(&stream).await?;
    let ended = |view: &Value| view["counts"]["dead"] == 1 && view["counts"]["succeeded"] == 7;
    until(&server, "orders", "one is dead", ended).await?;
    let dead = get(&server, "/v1/dead-letters").await?;
    assert_eq!(dead["items"].as_array().map(Vec::len), Some(1), "{dead}");
    assert_eq!((&dead["items"][0]["attempts"], &dead["items"][0]["max_attempts"]), (&json!(2), &json!(2)), "{dead}");
    // The function is mended, and the batch is tried again.
    let found = records(&server, "f", "/data/n").await?;
    assert!(found.len() == 7 && !found.contains_key("3"), "{found:?}");
    let list = get(&server, "/v1/jobs?function=f&limit=1&status=succeeded").await?;
    let job = list["items"][0]["id"].as_str().context("a job")?;
    let record = get(&server, &format!("/v1/jobs/{job}/result")).await?["records"][0].clone();
    assert_eq!(record["subject"], "orders.new");
    assert!(record["id"].as_str().is_some_and(|id| id.starts_with("ORDERS:")), "{record}");
    assert!(record["time"].is_string(), "{record}");
    Ok(())
}

#[tokio::test]
async fn what_keeps_a_trigger_from_its_messages_is_said_and_mended() -> Result<()> {
    let login = "authorization { user: lyra, password: s3cr3t }".to_owned();
    let nats = &Nats::start_with(&NatsOptions { config: login }).await?;
    let server = server_beside().await?;
    deploy(&server, "f", ECHO, &[]).await?;
    create(&server, nats, "f", &[]).await?;
    let failing = |says: &'static str| {
        move |view: &Value| view["state"] == "failing" && view["error"].as_str().is_some_and(|it| it.contains(says))
    };
    until(&server, "orders", "it is not let in", failing("authorization")).await?;
    create(&server, nats, "f", &["--credentials-secret", "nats"]).await?;
    until(&server, "orders", "there is no secret", failing("secret")).await?;
    let secret = r#"{"user":"lyra","password":"s3cr3t"}"#;
    server.commands().run_with_input(["secret", "set", "nats", "--value-stdin"], secret.as_bytes()).await?.ok()?;
    until(&server, "orders", "there is no stream", failing("no stream")).await?;
    let options = async_nats::ConnectOptions::with_user_and_password("lyra".into(), "s3cr3t".into());
    let jetstream = jetstream::new(options.connect(nats.address()).await?);
    let config =
        stream::Config { name: "ORDERS".into(), subjects: vec!["orders.>".into()], ..stream::Config::default() };
    let stream = jetstream.create_stream(config).await?;
    publish(&jetstream, 0..3).await?;
    until(&server, "orders", "it is active", |view| view["state"] == "active").await?;
    until_acknowledged(&stream).await?;
    assert_eq!(records(&server, "f", "/data/n").await?, once(3));
    assert!(!server.log().contains("s3cr3t"));
    // Nobody may send the platform to its operator's own hosts.
    let other = server_with("f", ECHO).await?;
    let url = format!("nats://{}", nats.address());
    let create = ["trigger", "create", "orders", "--function", "f", "--nats", &url, "--subject", "orders.>"];
    let refused = other.cli(create).await?.expect(2)?;
    assert!(refused.stderr.contains("control.triggers.allow"), "{}", refused.stderr);
    Ok(())
}

/// Answers that some of its records failed, fewer each time it sees some of them again, and tells which it saw.
const IN_PARTS: &str = "export default (event) => {
  const seen = event.records.map((it) => it.data.n);
  console.log('saw ' + seen.join());
  const failed = seen.length === 4 ? [1, 3] : seen.length === 2 ? [3] : [];
  const failures = event.records.filter((it) => failed.includes(it.data.n)).map((it) => ({ itemIdentifier: it.id }));
  return { batchItemFailures: failures, seen };
}
";

/// What the tries of a function saw, in their order.
async fn seen(server: &Lyra, function: &str, tries: usize) -> Result<Vec<String>> {
    eventually("the lines of all tries", async || {
        let lines = server.cli(["logs", function]).await?.ok()?;
        let seen: Vec<String> =
            lines.lines().filter_map(|line| Some(line.split_once(" saw ")?.1.trim().to_owned())).collect();
        Ok((seen.len() >= tries).then_some(seen))
    })
    .await
}

#[tokio::test]
async fn only_records_that_failed_are_tried_again() -> Result<()> {
    let server = server_beside().await?;
    deploy(&server, "f", IN_PARTS, &["--max-attempts", "5"]).await?;
    deploy(&server, "strict", IN_PARTS, &["--max-attempts", "2"]).await?;
    for function in ["f", "strict"] {
        let create = ["trigger", "create", function, "--function", function, "--batch", "4", "--partial-failures"];
        server.cli(create.into_iter().chain(["--id-field", "n"])).await?.ok()?;
    }
    assert!(server.cli(["trigger", "get", "f"]).await?.ok()?.contains("by record"));
    let events = r#"[{"n":0},{"n":1},{"n":2},{"n":3}]"#;
    let job = server.cli(["trigger", "send", "f", "-d", events]).await?.ok()?.trim().to_owned();
    let result = server.cli(["job", "result", &job, "--wait", "60s"]).await?.json()?;
    assert_eq!(result["seen"], json!([3]), "{result}");
    assert_eq!(seen(&server, "f", 3).await?, ["0,1,2,3", "1,3", "3"]);

    // The last try is over, and the dead letter says what is left; so does every try after it is taken back.
    let job = server.cli(["trigger", "send", "strict", "-d", events]).await?.ok()?.trim().to_owned();
    server.cli(["job", "wait", &job]).await?.expect(1)?;
    let dead = get(&server, "/v1/dead-letters").await?;
    assert_eq!(dead["items"][0]["error"]["errors"][0]["field"], "records[3]", "{dead}");
    assert_eq!(dead["items"][0]["error"]["errors"].as_array().map(Vec::len), Some(1), "{dead}");
    let shown = server.cli(["job", "get", &job]).await?.ok()?;
    assert!(shown.contains("1 of 2 records failed") && shown.contains("3 failed"), "{shown}");
    server.cli(["dead-letter", "redrive", &job]).await?.ok()?;
    server.cli(["job", "wait", &job]).await?.ok()?;
    assert_eq!(seen(&server, "strict", 3).await?, ["0,1,2,3", "1,3", "3"]);
    Ok(())
}

#[tokio::test]
async fn messages_of_a_batch_that_failed_in_part_are_done_when_the_rest_is_also_over_a_kill() -> Result<()> {
    let nats = &Nats::start().await?;
    let (jetstream, stream) = orders(nats).await?;
    let mut server = server_beside().await?;
    deploy(&server, "f", IN_PARTS, &["--max-attempts", "9"]).await?;
    publish(&jetstream, 0..4).await?;
    create(&server, nats, "f", &["--batch", "4", "--partial-failures"]).await?;
    seen(&server, "f", 1).await?;
    server.kill().await?;
    server.restart().await?;
    until_acknowledged(&stream).await?;
    let list = get(&server, "/v1/jobs?function=f").await?;
    let jobs = list["items"].as_array().context("jobs")?;
    assert!(!jobs.is_empty() && jobs.iter().all(|job| job["status"] == "succeeded"), "{list}");
    Ok(())
}

#[tokio::test]
async fn a_nats_with_a_certificate_of_an_own_authority_is_trusted_by_the_setting() -> Result<()> {
    let dir = tempfile::tempdir()?;
    super::kubectl::issue(dir.path())?;
    let file = |name: &str| dir.path().join(name).display().to_string();
    let config = format!("tls {{ cert_file: {:?}, key_file: {:?} }}", file("cert.pem"), file("key.pem"));
    let nats = &Nats::start_with(&NatsOptions { config }).await?;
    let url = format!("tls://{}", nats.address());
    let create = ["trigger", "create", "orders", "--function", "f", "--nats", &url, "--subject", "orders.>"];
    let allow = ("LYRA__CONTROL__TRIGGERS__ALLOW".to_owned(), "[\"127.0.0.0/8\"]".to_owned());
    let start = async |more: Option<String>| {
        let more = more.map(|file| ("LYRA__CONTROL__TRIGGERS__CA_FILE".to_owned(), file));
        let env = [allow.clone()].into_iter().chain(more).collect();
        Lyra::start_with(Options { binary: Some(BINARY.into()), env, ..Options::default() }).await
    };
    let says = |view: &Value, words: &str| view["error"].as_str().is_some_and(|error| error.contains(words));
    let stranger = start(None).await?;
    deploy(&stranger, "f", ECHO, &[]).await?;
    stranger.cli(create).await?.ok()?;
    let not_trusted = |view: &Value| says(view, "can't connect to NATS") || says(view, "no certificate authorities");
    until(&stranger, "orders", "it is not trusted", not_trusted).await?;
    let server = start(Some(file("ca.pem"))).await?;
    deploy(&server, "f", ECHO, &[]).await?;
    server.cli(create).await?.ok()?;
    // It is let in, and is told of what is missing behind the door.
    until(&server, "orders", "there is no stream", |view| says(view, "no stream")).await?;
    let refused = format!("{:#}", start(Some(file("none.pem"))).await.err().context("it starts")?);
    assert!(refused.contains("control.triggers.ca_file") && refused.contains("can't be read"), "{refused}");
    Ok(())
}
