//! Applications and sessions, under virtual time, told by a leader that the test plays.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::Clock;
use lyra_types::Code;
use lyra_wire::Operated;
use lyra_wire::registry::Command;
use lyra_wire::sessions::{AppVersion, SessionCommand, SessionEnd, SessionPhase, SessionReport};
use lyra_wire::worker::InstanceState;
use lyra_worker::Config;

use crate::site::{Site, session};

/// Memory of an instance in the tests.
const MEMORY: u64 = 128 << 20;

fn is_open(session: &SessionReport) -> bool {
    session.phase == SessionPhase::Open
}

fn is_closed(session: &SessionReport) -> bool {
    session.phase == SessionPhase::Closed
}

fn end(session: &SessionReport) -> Option<SessionEnd> {
    session.end.as_ref().map(|(end, _)| *end)
}

fn open(open: lyra_wire::sessions::OpenSession) -> SessionCommand {
    SessionCommand::Open(Box::new(open))
}

fn close(uid: &str, seconds: u64) -> SessionCommand {
    SessionCommand::Close(uid.to_owned(), Duration::from_secs(seconds))
}

#[tokio::test(start_paused = true)]
async fn a_session_opens_with_its_ports_and_leaves_nothing_behind() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{\"memory_mb\": 100, \"start_ms\": 50}").await);
    leader.order(open(session(&app, "a", 0))).await.unwrap();
    let accepted = leader.session("a", |_| true).await;
    assert_eq!((accepted.phase, accepted.endpoints.len()), (SessionPhase::Starting, 0));
    let opened = leader.session("a", is_open).await;
    assert_eq!((opened.endpoints.len(), opened.endpoints[0].port.port), (1, 7_000));
    assert_eq!(opened.available_micros, Some(1_700_000_000_050_000));
    assert_eq!(running.charged(), (MEMORY, 100));
    let shown = running.worker.instances();
    assert_eq!((shown[0].application.as_deref(), shown[0].session.as_deref()), (Some("echo@1"), Some("s-a")));
    leader.order(close("a", 5)).await.unwrap();
    let closed = leader.session("a", is_closed).await;
    assert_eq!((end(&closed), closed.endpoints.len()), (Some(SessionEnd::Closed), 0));
    leader.order(SessionCommand::Forget("a".into())).await.unwrap();
    let told = leader.until("nothing is left", |told| told.hosted.is_empty()).await;
    assert!(told.sessions.is_empty() && told.stands.is_empty());
    assert_eq!((running.charged(), site.backend.figures().instances), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_takes_a_standing_instance_which_is_replaced() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{\"start_ms\": 1000}").await);
    leader.order(SessionCommand::Stand(app.clone(), 2)).await.unwrap();
    let told = leader.until("two stand", |told| told.instances(InstanceState::Standby) == 2).await;
    let standing: Vec<_> = told.hosted.keys().copied().collect();
    let begun = Clock::system().instant();
    leader.order(open(session(&app, "a", 2))).await.unwrap();
    let opened = leader.session("a", is_open).await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "no instance had to be started for it");
    assert!(standing.contains(&opened.instance.unwrap()));
    leader.until("two stand again", |told| told.instances(InstanceState::Standby) == 2).await;
    leader.order(SessionCommand::Stand(app.clone(), 0)).await.unwrap();
    let told = leader.until("none stands", |told| told.hosted.len() == 1).await;
    assert_eq!((told.instances(InstanceState::Active), told.stands.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_not_open_in_time_ends_at_that_very_moment() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("slow", 1, "{\"start_ms\": 60000}").await);
    let begun = Clock::system().instant();
    leader.order(open(session(&app, "a", 0))).await.unwrap();
    let closed = leader.session("a", is_closed).await;
    assert_eq!((end(&closed), begun.elapsed()), (Some(SessionEnd::OpenTimeout), Duration::from_secs(10)));
    leader.until("the instance is gone", |told| told.hosted.is_empty()).await;
    assert_eq!(running.charged(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_closed_while_its_instance_starts() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("slow", 1, "{\"start_ms\": 60000}").await);
    // Nobody waits for an answer in between.
    let opened = leader.say(Command::Session(open(session(&app, "a", 0))));
    let closed = leader.say(Command::Session(close("a", 60)));
    opened.await.unwrap().unwrap();
    closed.await.unwrap().unwrap();
    let begun = Clock::system().instant();
    assert_eq!(end(&leader.session("a", is_closed).await), Some(SessionEnd::Closed));
    leader.until("the instance is gone", |told| told.hosted.is_empty()).await;
    assert_eq!((begun.elapsed(), running.charged()), (Duration::ZERO, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn what_is_said_twice_is_done_once_and_told_again() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{}").await);
    let (first, second) = (
        leader.say(Command::Session(open(session(&app, "a", 0)))),
        leader.say(Command::Session(open(session(&app, "a", 0)))),
    );
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    let opened = leader.session("a", is_open).await;
    leader.order(open(session(&app, "a", 0))).await.unwrap();
    assert_eq!(leader.told().hosted.len(), 1);
    assert_eq!(leader.told().sessions["a"], opened);
    leader.order(close("a", 0)).await.unwrap();
    leader.order(close("a", 5)).await.unwrap();
    let closed = leader.session("a", is_closed).await;
    let before = leader.told().revision;
    leader.order(open(session(&app, "a", 0))).await.unwrap();
    let told = leader.until("it is told again", |told| told.revision > before).await;
    assert_eq!(told.sessions["a"], closed);
    leader.order(SessionCommand::Forget("a".into())).await.unwrap();
    leader.order(SessionCommand::Forget("a".into())).await.unwrap();
    leader.order(close("a", 5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_of_a_lower_epoch_is_refused_and_changes_nothing() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{}").await);
    leader.order(SessionCommand::Stand(app.clone(), 1)).await.unwrap();
    let told = leader.until("one stands", |told| told.instances(InstanceState::Standby) == 1).await;
    leader.set_epoch(5);
    leader.command(Command::Follow).await.unwrap();
    leader.set_epoch(4);
    for command in [open(session(&app, "a", 3)), SessionCommand::Stand(app.clone(), 7), close("a", 1)] {
        assert_eq!(leader.order(command).await.unwrap_err().code, Code::Conflict);
    }
    leader.set_epoch(5);
    leader.command(Command::Follow).await.unwrap();
    assert_eq!(leader.told(), told);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_ends_takes_its_session_with_it() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("brief", 1, "{\"lives_ms\": 90000}").await);
    let begun = Clock::system().instant();
    leader.order(open(session(&app, "a", 0))).await.unwrap();
    let closed = leader.session("a", is_closed).await;
    assert_eq!((end(&closed), begun.elapsed()), (Some(SessionEnd::ByProgram), Duration::from_secs(90)));
    assert!(closed.end.unwrap().1.contains("exited with status 0"));
    leader.until("the instance is gone", |told| told.hosted.is_empty()).await;
    assert_eq!(running.charged(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn instances_that_fail_are_started_again_ever_more_seldom() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("broken", 1, "{\"start_failure_rate\": 1}").await);
    leader.order(SessionCommand::Stand(app.clone(), 1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let starts = site.backend.figures().starts;
    assert!((10..30).contains(&starts), "{starts} starts in ten minutes");
    // A session has one started at once, and is told why it failed.
    leader.order(open(session(&app, "a", 1))).await.unwrap();
    let closed = leader.session("a", is_closed).await;
    assert_eq!(end(&closed), Some(SessionEnd::InstanceLost));
    assert!(closed.end.unwrap().1.contains("did not start"));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_stands_idle_sleeps_and_wakes_for_a_session() {
    let site = Site::new();
    let running = site.start().await;
    let parameters = "{\"memory_mb\": 100, \"hibernated_mb\": 10, \"wake_ms\": 30}";
    let (leader, app) = (&running.leader, site.app("echo", 1, parameters).await);
    leader.order(SessionCommand::Stand(app.clone(), 1)).await.unwrap();
    leader.until("it sleeps", |told| told.instances(InstanceState::Hibernated) == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.charged(), (10 << 20, 0));
    let begun = Clock::system().instant();
    leader.order(open(session(&app, "a", 0))).await.unwrap();
    leader.session("a", is_open).await;
    assert_eq!((begun.elapsed(), running.charged()), (Duration::from_millis(30), (MEMORY, 100)));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(leader.told().instances(InstanceState::Active), 1, "one with a session never sleeps");
}

#[tokio::test(start_paused = true)]
async fn instances_that_woke_hold_no_more_processors_than_those_that_never_slept() {
    let site = Site::new();
    let running = site.start().await;
    let parameters = "{\"memory_mb\": 100, \"hibernated_mb\": 10, \"wake_ms\": 30}";
    let app = site.app("echo", 1, parameters).await;
    // What a program may use at most is not what is set aside for it.
    let app = Arc::new(AppVersion { cpu_request: 0, ..(*app).clone() });
    let leader = &running.leader;
    leader.order(SessionCommand::Stand(app.clone(), 3)).await.unwrap();
    leader.until("they sleep", |told| told.instances(InstanceState::Hibernated) == 3).await;
    for (uid, left) in [("a", 2), ("b", 1), ("c", 0)] {
        leader.order(open(session(&app, uid, left))).await.unwrap();
        leader.session(uid, is_open).await;
    }
    assert_eq!(running.charged(), (3 * MEMORY, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_asks_for_more_than_there_is_ends_at_once_and_holds_nobody_up() {
    let site = Site::new();
    let mut config = Config::default();
    config.resources.memory = Some(4 * MEMORY);
    let running = site.start_with(config).await;
    let app = site.app("huge", 1, "{}").await;
    let mut function = (*app.function).clone();
    function.memory_mb = u32::MAX;
    let huge = Arc::new(AppVersion { function: Arc::new(function), ..(*app).clone() });
    let leader = &running.leader;
    leader.order(open(session(&huge, "a", 0))).await.unwrap();
    let closed = leader.session("a", is_closed).await;
    let (end, why) = closed.end.unwrap();
    assert!(end == SessionEnd::InstanceLost && why.contains("less than it asks for: 4294967295 MiB"), "{why}");
    assert_eq!(running.charged(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_instance_serves_the_next_session_where_that_was_asked_for() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{\"start_ms\": 100}").await);
    for uid in ["a", "b"] {
        let mut again = session(&app, uid, 1);
        again.reuse = true;
        leader.order(open(again)).await.unwrap();
        leader.session(uid, is_open).await;
        leader.order(close(uid, 5)).await.unwrap();
        leader.session(uid, is_closed).await;
    }
    let told = leader.until("one stands", |told| told.hosted.len() == 1).await;
    assert_eq!(told.sessions["a"].instance, told.sessions["b"].instance);
    assert_eq!(told.instances(InstanceState::Standby), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_nobody_asked_for_after_its_session_goes_unless_that_is_said_in_time() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{\"start_ms\": 100}").await);
    let mut of = Vec::new();
    for uid in ["a", "b"] {
        let mut again = session(&app, uid, 0);
        again.reuse = true;
        leader.order(open(again)).await.unwrap();
        of.push(leader.session(uid, is_open).await.instance.unwrap());
    }
    for uid in ["a", "b"] {
        leader.order(close(uid, 5)).await.unwrap();
        leader.session(uid, is_closed).await;
    }
    leader.until("both stand", |told| told.instances(InstanceState::Standby) == 2).await;
    // They were two more than were asked for; now they are one more.
    leader.order(SessionCommand::Stand(app.clone(), 1)).await.unwrap();
    assert_eq!(leader.told().instances(InstanceState::Standby), 2);
    let told = leader.until("one has gone", |told| told.hosted.len() == 1).await;
    assert_eq!((told.instances(InstanceState::Standby), told.hosted.keys().next()), (1, of.last()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(leader.told().hosted.len(), 1, "it stays");
}

#[tokio::test(start_paused = true)]
async fn lines_are_of_the_session_that_an_instance_serves_when_it_writes_them() {
    let site = Site::new();
    let running = site.start().await;
    // One line whenever it is said where lines go: at its start, and at the beginning and after each session.
    let (leader, app) = (&running.leader, site.app("echo", 1, "{\"start_ms\": 100, \"log_lines\": 1}").await);
    for uid in ["a", "b"] {
        let mut again = session(&app, uid, 1);
        again.reuse = true;
        leader.order(open(again)).await.unwrap();
        leader.session(uid, is_open).await;
        leader.order(close(uid, 5)).await.unwrap();
        leader.session(uid, is_closed).await;
    }
    let told = leader.until("one stands", |told| told.instances(InstanceState::Standby) == 1).await;
    let instance = told.sessions["a"].instance;
    assert_eq!(told.sessions["b"].instance, instance, "it served both");
    let lines: Vec<_> = site.logs.lines().into_iter().filter(|line| line.instance == instance).collect();
    let sessions: Vec<Option<&str>> = lines.iter().map(|line| line.session().map(|of| of.uid.as_str())).collect();
    assert_eq!(sessions, [Some("a"), None, Some("b"), None]);
    assert_eq!(lines[0].session().unwrap().name, "s-a");
    assert!(lines.iter().all(|line| line.application() == Some("echo")));
}

#[tokio::test(start_paused = true)]
async fn sessions_go_on_while_their_worker_is_away() {
    let site = Site::new();
    let running = site.start().await;
    let app = site.app("echo", 1, "{\"memory_mb\": 100}").await;
    running.leader.order(open(session(&app, "a", 1))).await.unwrap();
    let before = running.leader.session("a", is_open).await;
    let told = running.leader.until("one stands", |told| told.instances(InstanceState::Standby) == 1).await;
    running.stop().await;
    assert_eq!(site.backend.figures().instances, 2);
    let running = site.start().await;
    let now = running.leader.told();
    assert_eq!((now.node, &now.sessions["a"]), (told.node, &before));
    assert_eq!((now.hosted, now.stands), (told.hosted, told.stands));
    assert!(now.revision >= told.revision);
    assert_eq!((running.charged().0, site.backend.figures().instances), (2 * MEMORY, 2));
    running.leader.order(close("a", 5)).await.unwrap();
    running.leader.session("a", is_closed).await;
    running.leader.until("one is left", |told| told.hosted.len() == 1).await;
    assert_eq!(running.charged().0, MEMORY);
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_memory_ends_what_it_finds() {
    let site = Site::new();
    let running = site.start().await;
    let app = site.app("echo", 1, "{}").await;
    running.leader.order(open(session(&app, "a", 1))).await.unwrap();
    running.leader.session("a", is_open).await;
    let node = running.leader.told().node;
    running.stop().await;
    site.forget();
    let running = site.start().await;
    let told = running.leader.told();
    assert!(told.node != node && told.sessions.is_empty() && told.hosted.is_empty());
    assert_eq!((running.charged(), site.backend.figures().instances), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_instance_ended_meanwhile_is_told_as_lost() {
    let site = Site::new();
    let running = site.start().await;
    let app = site.app("brief", 1, "{\"lives_ms\": 30000}").await;
    running.leader.order(open(session(&app, "a", 0))).await.unwrap();
    running.leader.session("a", is_open).await;
    running.stop().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let running = site.start().await;
    assert_eq!(end(&running.leader.session("a", is_closed).await), Some(SessionEnd::InstanceLost));
    running.leader.until("the instance is gone", |told| told.hosted.is_empty()).await;
    assert_eq!(running.charged(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_drained_worker_waits_for_sessions_then_closes_them() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{}").await);
    leader.order(open(session(&app, "a", 2))).await.unwrap();
    leader.session("a", is_open).await;
    leader.until("two stand", |told| told.instances(InstanceState::Standby) == 2).await;
    let begun = Clock::system().instant();
    let drained = running.worker.drain(Duration::from_secs(20)).await.unwrap();
    assert_eq!((drained.ended, drained.left, drained.evacuated), (false, 0, 2));
    assert_eq!(begun.elapsed(), Duration::from_secs(20), "its program ends at once when it is asked to");
    assert_eq!(end(&leader.session("a", is_closed).await), Some(SessionEnd::Closed));
    let refused = leader.order(open(session(&app, "b", 2))).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    leader.until("nothing runs", |told| told.hosted.is_empty()).await;
    running.worker.uncordon().await.unwrap();
    leader.until("two stand again", |told| told.instances(InstanceState::Standby) == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_memory_that_comes_free() {
    let site = Site::new();
    let mut config = Config::default();
    config.resources.memory = Some(MEMORY);
    let running = site.start_with(config).await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{}").await);
    leader.order(open(session(&app, "a", 0))).await.unwrap();
    leader.session("a", is_open).await;
    leader.order(open(session(&app, "b", 0))).await.unwrap();
    leader.order(open(session(&app, "c", 0))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(leader.told().sessions["b"].phase, SessionPhase::Starting);
    leader.order(close("a", 5)).await.unwrap();
    leader.session("b", is_open).await;
    let begun = Clock::system().instant();
    assert_eq!(end(&leader.session("c", is_closed).await), Some(SessionEnd::OpenTimeout));
    assert_eq!(begun.elapsed(), Duration::from_secs(9));
    assert_eq!(running.charged().0, MEMORY);
}

#[tokio::test(start_paused = true)]
async fn an_ended_session_that_nobody_forgets_goes_after_a_while() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{}").await);
    leader.order(open(session(&app, "a", 0))).await.unwrap();
    leader.order(close("a", 0)).await.unwrap();
    leader.session("a", is_closed).await;
    tokio::time::sleep(Duration::from_secs(3_500)).await;
    assert_eq!(leader.told().sessions.len(), 1);
    leader.until("it is forgotten", |told| told.sessions.is_empty()).await;
}

/// Prints how many were opened in a second: `--no-capture` shows it.
#[tokio::test]
async fn two_thousand_sessions_said_at_once_are_all_opened() {
    let site = Site::new();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{}").await);
    let begun = Clock::system().instant();
    let mut answers: VecDeque<tokio::sync::oneshot::Receiver<lyra_types::Result<()>>> = VecDeque::new();
    for n in 0..2_000 {
        // As many at a time as a worker takes commands.
        if answers.len() >= 1_000
            && let Some(first) = answers.pop_front()
        {
            first.await.unwrap().unwrap();
        }
        answers.push_back(leader.say(Command::Session(open(session(&app, &n.to_string(), 0)))));
    }
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let accepted = begun.elapsed();
    let all = |told: &crate::leader::Told| told.sessions.values().filter(|session| is_open(session)).count() == 2_000;
    leader.until("all are open", all).await;
    let seconds = begun.elapsed().as_secs_f64();
    println!("accepted in {accepted:?}, open after {seconds:.3} s: {:.0} a second", 2_000.0 / seconds);
    let instances: std::collections::BTreeSet<_> =
        leader.told().sessions.values().map(|session| session.instance).collect();
    assert_eq!(instances.len(), 2_000);
}
