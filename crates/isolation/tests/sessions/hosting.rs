//! What a program of a session sees, and how it ends.

use lyra_isolation::Given;
use lyra_types::{SecretBytes, SecretUse};

use super::*;

#[tokio::test]
async fn a_program_finds_its_port_its_files_and_the_session_service() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let files = [("session.json", "{\"a\":1}"), ("secrets/key", "hush")];
    let hosting = Hosting {
        service: true,
        files: files.iter().map(|(name, text)| ((*name).to_owned(), Bytes::from(*text))).collect(),
        env: vec![("MODE".to_owned(), "ctf".to_owned()), ("PORT".to_owned(), "1".to_owned())],
        ..hosting()
    };
    let (hosted, _) = worker.up(hosting).await;
    assert_eq!(order(&*hosted, json!({"env": "PORT"})).await, Ok(json!("7000")), "the platform's word is the last");
    assert_eq!(order(&*hosted, json!({"env": "MODE"})).await, Ok(json!("ctf")));
    assert_eq!(order(&*hosted, json!({"env": "AWS_LAMBDA_FUNCTION_NAME"})).await, Ok(Value::Null));
    assert_eq!(order(&*hosted, json!({"read": "session.json"})).await, Ok(json!("{\"a\":1}")));
    assert_eq!(order(&*hosted, json!({"read": "secrets/key"})).await, Ok(json!("hush")));
    for file in ["session.json", "new", "secrets/key"] {
        assert_eq!(order(&*hosted, json!({ "write": file })).await, Err("OSError".to_owned()), "{file}: read-only");
    }
    let changed = [("session.json".to_owned(), Bytes::from("{\"a\":2}"))].into();
    hosted.write(&changed).await.expect("written");
    assert_eq!(order(&*hosted, json!({"read": "session.json"})).await, Ok(json!("{\"a\":2}")));
    assert_eq!(order(&*hosted, json!({"read": "secrets/key"})).await, Err("FileNotFoundError".to_owned()));

    let service = hosted.service().expect("was asked for");
    assert!(hosted.service().is_none(), "it is handed out once");
    let serve = async {
        use tokio::io::AsyncReadExt;
        let (mut peer, _) = service.accept().await.expect("the program connects");
        let mut said = [0; 5];
        peer.read_exact(&mut said).await.expect("says");
        peer.write_all(b"welcome").await.expect("told");
        said
    };
    let (said, answer) = timeout(async { tokio::join!(serve, order(&*hosted, json!({"serve": "hello"}))) }).await;
    assert_eq!((&said, answer), (b"hello", Ok(json!("welcome"))));
    assert!(hosted.usage().memory > 1 << 20);
    drop(hosted);
    worker.finish(dir.path()).await;
}

#[tokio::test]
async fn a_program_is_given_its_functions_secrets() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let uses = [("key", Some("API_KEY"), None), ("tls", None, Some("tls.key")), ("port", Some("PORT"), None)];
    let uses = uses.map(|(name, env, file)| SecretUse {
        name: name.parse().expect("a name"),
        env: env.map(str::to_owned),
        file: file.map(str::to_owned),
    });
    let values = ["open-sesame", "a key", "1"].map(|value| SecretBytes::new(value.as_bytes().to_vec()));
    let given = Given::new(uses.iter().zip(values)).expect("text");
    let grant = Grant { secrets: Some(Arc::new(given)), ..Grant::default() };
    let hosted = worker.template.host(worker.id(), &worker.version, &grant, lasting()).await.expect("starts");
    let lines = logs_of(&*hosted);
    until(|| lines.has("up")).await;
    assert_eq!(order(&*hosted, json!({"env": "API_KEY"})).await, Ok(json!("open-sesame")));
    assert_eq!(order(&*hosted, json!({"env": "PORT"})).await, Ok(json!("7000")), "the platform's word is the last");
    assert_eq!(order(&*hosted, json!({"read": "/run/secrets/tls.key"})).await, Ok(json!("a key")));
    for file in ["/run/secrets/tls.key", "/run/secrets/new"] {
        assert!(order(&*hosted, json!({ "write": file })).await.is_err(), "{file}: read-only");
    }
    drop(hosted);
    worker.finish(dir.path()).await;
}

#[tokio::test]
async fn a_program_is_asked_to_end_and_killed_when_it_does_not() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let (polite, lines) = worker.up(hosting()).await;
    assert_eq!(timeout(polite.stop(PATIENCE)).await, exited(3));
    assert_eq!(polite.exit(), Some(exited(3)));
    until(|| lines.has("asked to end")).await;
    let (frozen, _) = worker.up(hosting()).await;
    assert!(frozen.hibernate().await);
    assert_eq!(timeout(frozen.stop(PATIENCE)).await, exited(3), "it is woken for it");
    let (woken, _) = worker.up(hosting()).await;
    assert!(woken.hibernate().await && woken.wake().await);
    assert_eq!(order(&*woken, json!({"env": "PORT"})).await, Ok(json!("7000")));
    woken.signal(19);
    assert_eq!(timeout(woken.stop(Duration::from_millis(50))).await, Exit::killed());
    let (gone, _) = worker.up(hosting()).await;
    let mut stream = gone.connect(7001).await.expect("reached");
    stream.write_all(b"{\"exit\": 9}\n").await.expect("sent");
    assert_eq!(timeout(gone.wait()).await, exited(9));
    assert_eq!(gone.connect(7001).await.map(drop).unwrap_err().code, lyra_types::Code::Unavailable);
    assert!(gone.expose(LOCAL, 20_000..=29_999).await.is_err());
    assert!(gone.exposed().is_empty());
    drop((polite, frozen, woken, gone));
    worker.finish(dir.path()).await;
}

#[tokio::test]
async fn every_runtime_of_processes_can_be_a_session() {
    let python = b"import os, sys\nprint(__name__, sys.argv, os.environ['PORT'])\ndef handler(): pass\n".to_vec();
    let node = b"console.log(require.main === module, process.argv.length, process.env.PORT)".to_vec();
    let module =
        b"import os from 'node:os';\nconsole.log(import.meta.main ?? true, process.argv.length, process.env.PORT)";
    let cases = [
        (Settings::of(Runtime::Python), python, "__main__ ['/var/task/main.py'] 7000"),
        (Settings::of(Runtime::Nodejs), node, "true 2 7000"),
        (Settings::of(Runtime::Nodejs), module.to_vec(), "true 2 7000"),
        (Settings::of(Runtime::Native), b"#!/bin/sh\necho native $PORT".to_vec(), "native 7000"),
        (Settings::of(Runtime::Http), b"#!/bin/sh\necho http $PORT".to_vec(), "http 7000"),
    ];
    for (settings, package, says) in cases {
        let dir = directory();
        let runtime = settings.runtime;
        let worker = Worker::of(dir.path(), |_| {}, settings, &package).await;
        let hosted = worker.host(hosting()).await;
        let exit = timeout(hosted.wait()).await;
        let lines = logs_of(&*hosted);
        assert_eq!((exit, lines.texts()), (exited(0), vec![says.to_owned()]), "{runtime}");
        drop(hosted);
        worker.finish(dir.path()).await;
    }
}

#[tokio::test]
async fn what_cannot_be_hosted_is_refused_and_leaves_nothing() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let refused = async |hosting: Hosting, field: &str| {
        let hosted = worker.template.host(worker.id(), &worker.version, &Grant::default(), hosting).await;
        let error = hosted.map(drop).expect_err(field);
        assert_eq!((error.code, error.errors[0].field.as_str()), (lyra_types::Code::InvalidField, field), "{error}");
    };
    refused(Hosting { ports: vec![port(0, Protocol::Tcp)], ..hosting() }, "ports").await;
    refused(Hosting { ports: vec![port(5, Protocol::Tcp); 2], ..hosting() }, "ports").await;
    refused(Hosting { ports: vec![port(9003, Protocol::Tcp)], service: true, ..hosting() }, "ports").await;
    refused(Hosting { ports: (1..=17).map(|one| port(one, Protocol::Tcp)).collect(), ..hosting() }, "ports").await;
    refused(Hosting { files: [("../x".to_owned(), Bytes::new())].into(), ..hosting() }, "files").await;
    refused(Hosting { label: "x".repeat((16 << 10) + 1), ..hosting() }, "label").await;
    worker.finish(dir.path()).await;
}
