//! A program that uses the library, in the test's own process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lyra_session::{End, How, Phase, Resumed, SessionServer, Settings};
use lyra_session_sdk::{Address, Directory, Event, Lyra, Session};
use tokio::time::timeout;

use crate::{SOON, is_open, open, serve, socket, until, until_attached};

fn connect(path: &Path) -> Lyra {
    Lyra::at(Address::Unix(path.to_owned()))
}

async fn next(lyra: &mut Lyra) -> Event {
    timeout(SOON, lyra.next()).await.expect("in time").expect("an event")
}

async fn next_open(lyra: &mut Lyra) -> Session {
    match next(lyra).await {
        Event::Open(session) => session,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_lives_from_open_to_closed() {
    let (_folder, path) = socket();
    let handle = serve(&path);
    let mut lyra = connect(&path);
    let (opened, session) = tokio::join!(handle.open(open("a", "map=1"), SOON), async {
        let session = next_open(&mut lyra).await;
        session.ready();
        session
    });
    opened.expect("opened");
    assert_eq!((session.id(), session.name(), &session.data()[..]), ("a", "name-of-a", &b"map=1"[..]));
    assert_eq!((session.tenant(), session.application(), session.application_version()), ("acme", "game", 3));

    session.client_joined("x").expect("there is room");
    session.client_joined("y").expect("there is room");
    session.client_left("x");
    until(&handle, "in use by one", |state| state.clients == 1).await;

    handle.configure(2, Arc::new(BTreeMap::from([("mode".to_owned(), "hard".to_owned())])));
    let Event::Configuration(new) = next(&mut lyra).await else { panic!("a configuration") };
    assert_eq!((new.version, new.data["mode"].as_str()), (2, "hard"));
    handle.ping().await.expect("it lives");

    let (how, ()) = tokio::join!(handle.close(SOON), async {
        let Event::Close(close) = next(&mut lyra).await else { panic!("a close") };
        assert!(close.grace <= SOON);
        close.session.closed_because("done", Some(4)).await;
        assert!(!close.session.is_active());
    });
    assert_eq!(how, How::Closed);
    let end = End::Closed { reason: "done".to_owned(), exit_code: Some(4) };
    assert_eq!(handle.state().borrow().phase, Phase::Ended(end));

    // And another one.
    let (opened, ()) = tokio::join!(handle.open(open("b", ""), SOON), async {
        next_open(&mut lyra).await.fail("no more boards");
    });
    assert!(opened.expect_err("refused").detail.ends_with("no more boards"));
}

#[tokio::test]
async fn what_is_said_while_the_worker_is_away_is_not_lost() {
    let (_folder, path) = socket();
    let handle = serve(&path);
    let mut lyra = connect(&path);
    let (opened, session) = tokio::join!(handle.open(open("a", ""), SOON), async {
        let session = next_open(&mut lyra).await;
        session.ready();
        session
    });
    opened.expect("opened");
    session.client_joined("before").expect("there is room");
    until(&handle, "in use", |state| state.clients == 1).await;
    for round in 0..3 {
        handle_restart(&handle).await;
        for client in 0..100 {
            session.client_joined(&format!("{round}-{client}")).expect("there is room");
        }
        if round == 2 {
            session.client_left("before");
        }
        let handle = serve(&path);
        handle.resume(open("a", ""), Resumed::Open).expect("nothing else is there");
        let expected = 100 * (round + 1) + usize::from(round < 2);
        until(&handle, "open with all clients", |state| is_open(state) && state.clients == expected).await;
        handle.stop().await;
    }
    // Closed while nobody hears it.
    let (handle, ()) = tokio::join!(
        async {
            let handle = serve(&path);
            handle.resume(open("a", ""), Resumed::Open).expect("nothing else is there");
            handle
        },
        session.closed()
    );
    until(&handle, "closed", |state| matches!(state.phase, Phase::Ended(End::Closed { .. }))).await;
}

async fn handle_restart(handle: &lyra_session::SessionHandle) {
    handle.stop().await;
}

#[tokio::test]
async fn a_program_may_be_faster_than_its_worker() {
    let (_folder, path) = socket();
    let mut lyra = connect(&path);
    let handle = serve(&path);
    until_attached(&handle).await;
    let (opened, ()) = tokio::join!(handle.open(open("a", ""), SOON), async {
        next_open(&mut lyra).await.ready();
    });
    opened.expect("opened");
    drop(lyra);
    let state = until(&handle, "gone", |state| state.gone.is_some()).await;
    assert!(matches!(state.phase, Phase::Ended(End::Gone(_))));
    // Another program in its place is told that it is too late.
    let mut lyra = connect(&path);
    assert!(timeout(SOON, lyra.next()).await.expect("in time").is_none());
}

#[tokio::test]
async fn a_stream_over_tcp_works_as_well() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let handle = SessionServer::start(lyra_session::tcp(listener), Settings::default(), lyra_kit::Clock::system());
    let mut lyra = Lyra::at(address.parse().expect("an address"));
    let (opened, ()) = tokio::join!(handle.open(open("a", ""), SOON), async {
        next_open(&mut lyra).await.ready();
    });
    opened.expect("opened");
}

#[tokio::test]
async fn no_more_clients_are_taken_than_there_may_be() {
    let (_folder, path) = socket();
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let settings = Settings { max_clients: 2, ..Settings::default() };
    let handle = SessionServer::start(lyra_session::unix(listener), settings, lyra_kit::Clock::system());
    let mut lyra = connect(&path);
    let (_, session) = tokio::join!(handle.open(open("a", ""), SOON), async {
        let session = next_open(&mut lyra).await;
        session.ready();
        session
    });
    assert_eq!([1, 2, 3].map(|client| session.client_joined(&client.to_string()).is_ok()), [true, true, false]);
    until(&handle, "in use by two", |state| state.clients == 2).await;
}

#[test]
fn the_directory_is_read() {
    let folder = tempfile::tempdir().expect("a directory");
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("in the folder")).expect("made");
        std::fs::write(path, content).expect("written");
    };
    let session = r#"{"id":"a","name":"n","tenant":"acme","application":"game","application_version":3,"data":DATA,
        "configuration_version":1}"#;
    let directory = Directory::at(folder.path());
    assert!(matches!(directory.session(), Err(lyra_session_sdk::Error::Read { .. })));
    for (data, expected) in [(r#""map=1""#, &b"map=1"[..]), (r#"{"base64":"/wA="}"#, b"\xff\0")] {
        write("session.json", &session.replace("DATA", data));
        let session = directory.session().expect("there");
        assert_eq!((session.id.as_str(), &session.data[..], session.configuration_version), ("a", expected, 1));
    }
    write("config/mode", "easy");
    write("config/.new", "half");
    write("secrets/key", "k");
    assert_eq!(directory.configuration().expect("there"), BTreeMap::from([("mode".to_owned(), "easy".to_owned())]));
    assert_eq!(directory.secret("key").expect("there"), b"k");
    assert!(directory.secret("other").is_err());
}

#[test]
fn a_program_that_is_no_instance_is_told_so() {
    // Tests are not started as instances.
    let error = Lyra::connect().expect_err("not an instance");
    assert!(error.to_string().starts_with("LYRA_SESSION_ADDRESS is not set"), "{error}");
}
