//! What may happen to a session, in any order.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::protocol::to_program::Body;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> At {
    At { since_start: Duration::from_secs(seconds), wall: Timestamp::from_millis(0) }
}

fn open(id: &str) -> Open {
    Open {
        id: id.into(),
        name: "s".to_owned(),
        tenant: "t".to_owned(),
        application: "a".to_owned(),
        application_version: 1,
        data: bytes::Bytes::new(),
    }
}

fn machine() -> Machine {
    Machine::new(Arc::new(Settings::default()))
}

fn state(session: &str, phase: Told) -> Said {
    Said::State(view::State { session: Some(session.to_owned()), phase, reason: String::new(), exit_code: None })
}

fn joined(ids: &[&str]) -> Said {
    Said::Clients { session: String::new(), joined: ids.iter().map(|id| (*id).to_owned()).collect(), left: Vec::new() }
}

fn hello(session: &str, phase: Told, clients: &[&str]) -> View {
    let state = view::State { session: Some(session.to_owned()), phase, reason: String::new(), exit_code: None };
    View::new(state, clients.iter().map(|id| (*id).to_owned()).collect(), 0)
}

fn said(machine: &mut Machine) -> Vec<&'static str> {
    let name = |message: ToProgram| match message.body {
        Some(Body::Configuration(_)) => "configuration",
        Some(Body::Open(_)) => "open",
        Some(Body::Close(_)) => "close",
        Some(Body::Ping(_)) => "ping",
        Some(Body::Welcome(_)) => "welcome",
        Some(Body::Resync(_)) => "resync",
        Some(Body::Ack(_)) => "ack",
        None => "nothing",
    };
    machine.take_out().into_iter().map(name).collect()
}

/// A machine whose session `a` is open, on stream 1.
fn opened() -> Machine {
    let mut machine = machine();
    machine.attach(View::default(), 0, at(0)).expect("attached");
    machine.open(open("a"), 10 * SECOND, at(0)).expect("free");
    machine.hear(1, 1, state("a", Told::Open), at(1)).expect("taken");
    assert_eq!((machine.state().phase, machine.state().opened), (Phase::Open, true));
    said(&mut machine);
    machine
}

#[test]
fn an_open_waits_for_the_program_to_come() {
    let mut machine = machine();
    machine.open(open("a"), 10 * SECOND, at(0)).expect("free");
    assert_eq!(machine.next_deadline(), Some(10 * SECOND));
    machine.attach(View::default(), 0, at(5)).expect("attached");
    assert_eq!(said(&mut machine), ["welcome", "open"]);
    machine.hear(1, 1, state("a", Told::Initializing), at(5)).expect("taken");
    machine.hear(1, 2, state("a", Told::Open), at(6)).expect("taken");
    assert_eq!(machine.state().phase, Phase::Open);
}

#[test]
fn a_program_that_is_not_ready_in_time_is_told_to_close() {
    let mut machine = machine();
    machine.attach(View::default(), 0, at(0)).expect("attached");
    machine.open(open("a"), 2 * SECOND, at(0)).expect("free");
    machine.tick(at(2));
    assert_eq!(machine.state().phase, Phase::Ended(End::NotReady));
    assert_eq!(said(&mut machine), ["welcome", "open", "close"]);
    machine.hear(1, 1, state("a", Told::Open), at(3)).expect("too late");
    assert_eq!(machine.state().phase, Phase::Ended(End::NotReady));
}

#[test]
fn a_session_outlives_a_restart_of_the_worker() {
    for how in [Resumed::Open, Resumed::Opening(SECOND)] {
        let mut machine = machine();
        machine.resume(open("a"), how, at(0)).expect("free");
        machine.attach(hello("a", Told::Open, &["x", "y"]), 0, at(1)).expect("attached");
        assert_eq!((machine.state().phase, machine.state().clients), (Phase::Open, 2));
        assert_eq!(said(&mut machine), ["welcome"]);
    }
    // Also when the program is faster than the worker.
    let mut machine = machine();
    machine.attach(hello("a", Told::Open, &["x"]), 0, at(0)).expect("attached");
    assert_eq!(machine.state().found.as_deref(), Some("a"));
    assert!(matches!(machine.open(open("b"), SECOND, at(0)), Err(Conflict::Busy(_))));
    machine.resume(open("a"), Resumed::Open, at(0)).expect("found");
    assert_eq!((machine.state().phase, machine.state().clients, machine.state().found), (Phase::Open, 1, None));
}

#[test]
fn a_close_that_was_asked_for_is_asked_for_again() {
    let mut machine = opened();
    machine.close(20 * SECOND, at(2));
    assert_eq!(said(&mut machine), ["close"]);
    machine.detach(1, at(3));
    machine.attach(hello("a", Told::Open, &[]), 0, at(4)).expect("attached");
    assert_eq!(said(&mut machine), ["welcome", "close"]);
    machine.hear(2, 1, state("a", Told::Closed), at(5)).expect("taken");
    assert!(matches!(machine.state().phase, Phase::Ended(End::Closed { .. })));
    // The instance can serve another one.
    machine.open(open("b"), SECOND, at(6)).expect("free");
    machine.hear(2, 2, state("a", Told::Closed), at(6)).expect("of the former session");
    assert_eq!(machine.state().phase, Phase::Opening);
}

#[test]
fn a_session_that_is_closed_late_stays_late() {
    let mut machine = opened();
    machine.close(5 * SECOND, at(2));
    machine.close(SECOND, at(3));
    machine.tick(at(4));
    assert_eq!(machine.state().phase, Phase::Ended(End::Late));
    assert!(matches!(machine.open(open("b"), SECOND, at(5)), Err(Conflict::Busy(_))));
    machine.hear(1, 2, state("a", Told::Closed), at(6)).expect("taken");
    assert_eq!(machine.state().phase, Phase::Ended(End::Late));
    machine.open(open("b"), SECOND, at(7)).expect("free by now");
}

#[test]
fn a_program_that_is_started_anew_has_lost_its_session() {
    let mut machine = opened();
    machine.detach(1, at(2));
    machine.attach(View::default(), 0, at(3)).expect("attached");
    assert_eq!(machine.state().phase, Phase::Ended(End::Gone(Why::Forgot)));
    assert_eq!(machine.attach(View::default(), 0, at(4)), Err(Refusal::GivenUp));
}

#[test]
fn a_broken_stream_that_does_not_come_back_ends_the_session() {
    let mut machine = opened();
    machine.detach(1, at(10));
    assert_eq!(machine.next_deadline(), Some(20 * SECOND));
    machine.tick(at(19));
    assert_eq!(machine.state().phase, Phase::Open);
    machine.tick(at(20));
    assert_eq!(machine.state().phase, Phase::Ended(End::Gone(Why::Detached)));
}

#[test]
fn a_program_whose_end_was_seen_is_gone_at_once() {
    let mut machine = opened();
    machine.close(20 * SECOND, at(2));
    machine.exited();
    assert_eq!(machine.state().phase, Phase::Ended(End::Gone(Why::Exited)));
    assert_eq!((machine.next_deadline(), machine.state().gone), (None, Some(Why::Exited)));
}

#[test]
fn a_program_that_answers_no_ping_is_gone() {
    let mut machine = opened();
    for tick in 1..=3 {
        machine.tick(at(tick * 5));
        assert_eq!(said(&mut machine), ["ping"]);
    }
    machine.tick(at(20));
    assert_eq!(machine.state().phase, Phase::Ended(End::Gone(Why::Silent)));
}

#[test]
fn a_worker_that_stood_still_does_not_take_its_program_for_dead() {
    let mut machine = opened();
    machine.tick(at(5));
    // An hour later: one ping was not answered, no more.
    machine.tick(at(3_600));
    machine.hear(1, 0, Said::Pong(2), at(3_600)).expect("taken");
    assert_eq!(machine.state().phase, Phase::Open);
}

#[test]
fn a_hibernated_program_is_not_missed() {
    let mut machine = opened();
    machine.hibernate(true, at(2));
    assert_eq!(machine.next_deadline(), None);
    for tick in 1..100 {
        machine.tick(at(tick * 5));
    }
    machine.hibernate(false, at(600));
    assert_eq!(machine.state().gone, None);
    assert_eq!(machine.next_deadline(), Some(605 * SECOND));
}

#[test]
fn messages_count_once_and_in_order() {
    let mut machine = opened();
    assert_eq!(machine.hear(1, 2, joined(&["x"]), at(2)), Ok(true));
    assert_eq!(machine.hear(1, 2, joined(&["y"]), at(2)), Ok(false));
    assert_eq!(machine.hear(1, 4, joined(&["z"]), at(2)), Err(Refusal::Gap));
    assert_eq!(machine.hear(1, 5, joined(&["z"]), at(2)), Err(Refusal::Gap));
    assert_eq!(said(&mut machine), ["resync"]);
    machine.hear(1, 9, Said::Hello(hello("a", Told::Open, &["x", "z"])), at(3)).expect("taken");
    assert_eq!(machine.hear(1, 10, joined(&["w"]), at(3)), Ok(true));
    assert_eq!(machine.clients().iter().map(|client| &*client.id).collect::<Vec<_>>(), ["w", "x", "z"]);
    assert_eq!(machine.hear(7, 11, joined(&["v"]), at(3)), Err(Refusal::Stale));
}

#[test]
fn clients_are_bounded() {
    let settings = Settings { max_clients: 2, ..Settings::default() };
    let mut machine = Machine::new(Arc::new(settings));
    let full = hello("a", Told::Open, &["1", "2", "3"]);
    assert_eq!(machine.attach(full, 0, at(0)), Err(Refusal::TooManyClients));
    machine.attach(hello("a", Told::Open, &["1", "2"]), 0, at(0)).expect("attached");
    machine.resume(open("a"), Resumed::Open, at(0)).expect("found");
    assert_eq!(machine.hear(1, 0, joined(&["2"]), at(0)), Ok(false));
    assert_eq!(machine.hear(1, 0, joined(&["3"]), at(0)), Err(Refusal::TooManyClients));
    assert_eq!(machine.hear(1, 0, joined(&[&"x".repeat(129)]), at(0)), Err(Refusal::BadId));
    assert_eq!(machine.state().clients, 2);
}

/// A program that keeps to the protocol, and the way between it and the machine.
struct World {
    machine: Machine,
    now: Duration,
    down: VecDeque<ToProgram>,
    up: VecDeque<(u64, u64, Said)>,
    stream: Option<u64>,
    sequence: u64,
    session: String,
    phase: Told,
    clients: BTreeSet<String>,
    opens: u32,
    /// Sessions that ended, with their ends.
    ended: Vec<(Arc<str>, Phase)>,
}

#[derive(Debug, Clone)]
enum Op {
    Open(u16),
    Close(u16),
    Pass(u16),
    Deliver,
    Send,
    Ready,
    Fail,
    Closed,
    Join(u8),
    Leave(u8),
    Detach,
    Attach,
    RestartWorker,
    LoseOne,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (100..20_000_u16).prop_map(Op::Open),
        1 => (0..20_000_u16).prop_map(Op::Close),
        2 => (0..8_000_u16).prop_map(Op::Pass),
        6 => Just(Op::Deliver),
        6 => Just(Op::Send),
        4 => Just(Op::Ready),
        1 => Just(Op::Fail),
        2 => Just(Op::Closed),
        3 => any::<u8>().prop_map(Op::Join),
        2 => any::<u8>().prop_map(Op::Leave),
        1 => Just(Op::Detach),
        3 => Just(Op::Attach),
        1 => Just(Op::RestartWorker),
        1 => Just(Op::LoseOne),
    ]
}

impl World {
    fn new() -> World {
        World {
            machine: machine(),
            now: Duration::ZERO,
            down: VecDeque::new(),
            up: VecDeque::new(),
            stream: None,
            sequence: 0,
            session: String::new(),
            phase: Told::None,
            clients: BTreeSet::new(),
            opens: 0,
            ended: Vec::new(),
        }
    }

    fn at(&self) -> At {
        At { since_start: self.now, wall: Timestamp::from_millis(0) }
    }

    fn say(&mut self, said: Said) {
        if let Some(stream) = self.stream {
            self.sequence += 1;
            self.up.push_back((stream, self.sequence, said));
        }
    }

    fn become_phase(&mut self, phase: Told) {
        self.phase = phase;
        if matches!(phase, Told::Closed | Told::Failed) {
            self.clients.clear();
        }
        let session = self.session.clone();
        self.say(state(&session, phase));
    }

    fn view(&self) -> View {
        let clients: Vec<&str> = self.clients.iter().map(String::as_str).collect();
        hello(&self.session, self.phase, &clients)
    }

    fn has_session(&self) -> bool {
        matches!(self.phase, Told::Initializing | Told::Open | Told::Closing)
    }

    fn deliver(&mut self) {
        let Some(message) = self.down.pop_front() else { return };
        match message.body {
            Some(Body::Open(open)) => {
                let id = open.session.expect("a session").id;
                if !self.has_session() {
                    self.session = id;
                    self.become_phase(Told::Initializing);
                }
            }
            Some(Body::Close(close)) if close.session == self.session && self.has_session() => {
                self.become_phase(Told::Closing);
            }
            // What it does not have is closed.
            Some(Body::Close(close)) if close.session != self.session => self.say(state(&close.session, Told::Closed)),
            Some(Body::Ping(ping)) => self.say(Said::Pong(ping.number)),
            Some(Body::Resync(_)) => self.say(Said::Hello(self.view())),
            _ => {}
        }
    }

    fn send(&mut self) {
        if let Some((stream, sequence, said)) = self.up.pop_front() {
            let _ = self.machine.hear(stream, sequence, said, self.at());
        }
    }

    fn detach(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.machine.detach(stream, self.at());
        }
        self.down.clear();
        self.up.clear();
    }

    fn attach(&mut self) {
        if self.stream.is_some() {
            return;
        }
        if let Ok(stream) = self.machine.attach(self.view(), 0, self.at()) {
            (self.stream, self.sequence) = (Some(stream), 0);
        }
    }

    fn restart_worker(&mut self) {
        let state = self.machine.state();
        if state.gone.is_some() {
            return;
        }
        self.detach();
        self.machine = machine();
        let how = match state.phase {
            Phase::Opening => Resumed::Opening(5 * SECOND),
            Phase::Open => Resumed::Open,
            Phase::Closing => Resumed::Closing(5 * SECOND),
            Phase::Idle | Phase::Ended(_) => return,
        };
        let id = state.session.expect("a session in a phase");
        self.machine.resume(open(&id), how, self.at()).expect("nothing else is there");
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Open(limit) => {
                let id = format!("s{}", self.opens);
                if self.machine.open(open(&id), Duration::from_millis(limit.into()), self.at()).is_ok() {
                    self.opens += 1;
                }
            }
            Op::Close(grace) => self.machine.close(Duration::from_millis(grace.into()), self.at()),
            Op::Pass(ms) => {
                let until = self.now + Duration::from_millis(ms.into());
                while let Some(due) = self.machine.next_deadline().filter(|due| *due <= until) {
                    self.now = self.now.max(due);
                    self.machine.tick(self.at());
                }
                self.now = until;
            }
            Op::Deliver => self.deliver(),
            Op::Send => self.send(),
            Op::Ready if self.phase == Told::Initializing => self.become_phase(Told::Open),
            Op::Fail if self.phase == Told::Initializing => self.become_phase(Told::Failed),
            Op::Closed if self.has_session() => self.become_phase(Told::Closed),
            Op::Join(id) if self.phase == Told::Open && self.clients.insert(id.to_string()) => {
                let session = self.session.clone();
                self.say(Said::Clients { session, joined: vec![id.to_string()], left: Vec::new() });
            }
            Op::Leave(id) if self.phase == Told::Open && self.clients.remove(&id.to_string()) => {
                let session = self.session.clone();
                self.say(Said::Clients { session, joined: Vec::new(), left: vec![id.to_string()] });
            }
            Op::Detach => self.detach(),
            Op::Attach => self.attach(),
            Op::RestartWorker => self.restart_worker(),
            Op::LoseOne => drop(self.up.pop_front()),
            _ => {}
        }
        self.down.extend(self.machine.take_out());
        if self.machine.stream().map(|stream| stream.number) != self.stream {
            (self.stream, self.down, self.up) = (None, VecDeque::new(), VecDeque::new());
        }
    }

    /// What holds after every step.
    fn check(&mut self) {
        let state = self.machine.state();
        if state.phase.is_active() && !matches!(state.phase, Phase::Open) {
            assert!(self.machine.next_deadline().is_some(), "{:?} without a deadline", state.phase);
        }
        if !state.phase.is_active() && state.found.is_none() {
            assert_eq!(state.clients, 0, "{state:?}");
        }
        let Some(id) = state.session.filter(|_| matches!(state.phase, Phase::Ended(_))) else { return };
        match self.ended.iter().find(|(ended, _)| *ended == id) {
            Some((_, end)) => assert_eq!(*end, state.phase, "an end does not change"),
            None => self.ended.push((id, state.phase)),
        }
    }

    /// Lets everything that is under way arrive. Something may have been lost, which the next message, or hello, shows.
    fn settle(&mut self) {
        self.detach();
        self.apply(Op::Attach);
        for _ in 0..100 {
            self.apply(Op::Deliver);
            self.apply(Op::Send);
            if self.phase == Told::Closing {
                self.apply(Op::Closed);
            }
            self.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn in_whatever_order_worker_and_program_end_up_with_the_same_session(ops in prop::collection::vec(op(), 0..120)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
            world.check();
        }
        world.settle();
        let state = world.machine.state();
        if state.gone.is_none() {
            let is_same = state.session.as_deref() == Some(world.session.as_str());
            match state.phase {
                Phase::Opening => prop_assert!(is_same && world.phase == Told::Initializing),
                Phase::Open => {
                    prop_assert!(is_same && world.phase == Told::Open);
                    prop_assert_eq!(state.clients, world.clients.len());
                }
                Phase::Closing => prop_assert!(false, "the program has closed it: {:?}", world.phase),
                Phase::Ended(_) => prop_assert!(!world.has_session() || state.found.is_some(), "{state:?}"),
                Phase::Idle => prop_assert!(!world.has_session() || state.found.is_some()),
            }
        }
        world.apply(Op::Close(1_000));
        for _ in 0..100 {
            world.apply(Op::Pass(5_000));
        }
        prop_assert!(!world.machine.state().phase.is_active());
    }
}
