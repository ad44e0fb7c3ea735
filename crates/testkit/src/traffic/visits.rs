//! Clients of sessions: each opens one, holds a connection to it for a while, and closes it.
//!
//! A visitor asks the next gateway where one does not answer, and asks again where opening is refused; once its session is
//! open it goes to the session's own address, and to no gateway. What must hold is found out by what the program says: it
//! greets with the session that it serves and with a number of its own, so that a session in two instances, or an instance
//! with two sessions, shows.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lyra_client::Client;
use lyra_kit::{Clock, Tasks};
use lyra_types::Code;
use lyra_types::resources::{ApplicationSession, SessionStatus};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::visited::Visited;
use super::{AGAIN, HAND_IN};

/// Longest wait for a session to be open, or to have ended: that of a lost worker ends half a minute after the last that
/// was heard of it.
const CHANGE: Duration = Duration::from_secs(120);
/// Longest wait for the program to answer: its host may stand still for a while.
const ANSWER: Duration = Duration::from_secs(30);
/// Between two words of a visitor.
const WORDS: Duration = Duration::from_millis(250);
/// Longest wait for visitors to have left.
const REST: Duration = Duration::from_secs(150);
/// Time that a session has to open, in seconds.
const OPEN_SECONDS: u32 = 60;

/// What visitors do.
#[derive(Debug, Clone)]
pub struct Visiting {
    /// An application whose program is [`PROGRAM`].
    pub application: String,
    /// Sessions that are opened in a second.
    pub rate: f64,
    /// How long each visitor stays.
    pub stay: Duration,
}

/// Serves one session: greets with its name and a number of its own, then repeats each line.
pub const PROGRAM: &str = "#!/usr/bin/python3
import json, os, socket, threading, uuid
own = uuid.uuid4().hex
def serve(client):
    with open(os.path.join(os.environ['LYRA_SESSION_DIR'], 'session.json')) as file:
        name = json.load(file)['name']
    with client, client.makefile('rwb', buffering=0) as lines:
        lines.write(f'{name} {own}\\n'.encode())
        while line := lines.readline():
            lines.write(line)
listener = socket.create_server(('0.0.0.0', int(os.environ['PORT'])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
";

/// Visitors that come and go.
#[derive(Debug)]
pub struct Visits {
    sending: Tasks,
    under_way: Tasks,
    record: Arc<Mutex<Visited>>,
}

#[derive(Clone)]
struct Visitor {
    gateways: Arc<[Client]>,
    plan: Visiting,
    record: Arc<Mutex<Visited>>,
    clock: Clock,
    sending: Tasks,
}

/// A connection to a session's program.
struct Connection {
    stream: BufReader<TcpStream>,
    /// What the program greeted with.
    greeting: String,
}

impl Visits {
    /// Visitors come from now on, until [`Visits::end`].
    pub fn start(gateways: Vec<Client>, plan: &Visiting) -> Visits {
        let (sending, under_way) = (Tasks::new(), Tasks::new());
        let record = Arc::new(Mutex::new(Visited::default()));
        let visitor = Visitor {
            gateways: gateways.into(),
            plan: plan.clone(),
            record: Arc::clone(&record),
            clock: Clock::system(),
            sending: sending.clone(),
        };
        let visitors = under_way.clone();
        sending.spawn_cancellable("visitors", async move {
            let begun = visitor.clock.instant();
            for number in 0_u32.. {
                tokio::time::sleep_until(begun + Duration::from_secs_f64(f64::from(number) / visitor.plan.rate)).await;
                let visitor = visitor.clone();
                visitors.spawn("visitor", async move { visitor.visit(number as usize).await });
            }
        });
        Visits { sending, under_way, record }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Visited {
        self.record.lock().clone()
    }

    /// Waits until so many more sessions than now were open.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn go_on(&self, sessions: u64) -> Result<()> {
        let until = self.seen().opened + sessions;
        let clock = Clock::system();
        let begun = clock.instant();
        while self.seen().opened < until {
            ensure!(clock.instant() - begun < CHANGE, "no sessions are opened: {:?}", self.seen());
            clock.sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Nobody comes any more, and who is there leaves; says what was seen.
    pub async fn end(self) -> Visited {
        self.sending.stop(Duration::from_secs(5)).await;
        let all_left = self.under_way.stop(REST).await;
        let mut record = self.record.lock().clone();
        if !all_left {
            record.violated("visitors have not left".to_owned());
        }
        record
    }
}

impl Visitor {
    async fn visit(&self, number: usize) {
        let name = format!("visit-{number}");
        let asked = self.clock.instant();
        if let Err(error) = self.stay(number, &name, asked).await {
            self.record.lock().violated(format!("{name}: {error:#}"));
        }
    }

    fn gateway(&self, number: usize) -> &Client {
        &self.gateways[number % self.gateways.len()]
    }

    async fn stay(&self, number: usize, name: &str, asked: tokio::time::Instant) -> Result<()> {
        self.ask(number, name).await?;
        let session = self.until(number, name, has_opened).await?;
        let session = session.context("it is gone, and nobody closed it")?;
        let status = &session.status;
        if status.session_status.has_ended() {
            self.record.lock().ended(&status.reason);
        } else {
            self.record.lock().opened(name, &status.instance, self.clock.instant() - asked);
            let stayed = self.talk(number, name, &session).await;
            self.record.lock().left(name);
            stayed?;
        }
        self.close(number, name).await
    }

    /// Asks for the session until it is accepted.
    async fn ask(&self, number: usize, name: &str) -> Result<()> {
        let mut object = ApplicationSession::default();
        name.clone_into(&mut object.metadata.name);
        object.spec.application_name.clone_from(&self.plan.application);
        object.spec.open_timeout_seconds = OPEN_SECONDS;
        let begun = self.clock.instant();
        for turn in number.. {
            match self.gateway(turn).create_object(&object).await {
                Ok(_) => break,
                // An answer was lost.
                Err(error) if error.code() == Code::Conflict && turn > number => break,
                Err(error) => {
                    ensure!(self.clock.instant() - begun < HAND_IN, "it was never accepted: {error}");
                    self.record.lock().refused(&error);
                    self.clock.sleep(AGAIN).await;
                }
            }
        }
        Ok(())
    }

    /// Waits until the session is as wanted, or gone.
    async fn until(
        &self,
        number: usize,
        name: &str,
        wanted: impl Fn(&ApplicationSession) -> bool + Send + Sync,
    ) -> Result<Option<ApplicationSession>> {
        let begun = self.clock.instant();
        for turn in number.. {
            let limit = CHANGE / 8;
            let found = self.gateway(turn).wait_object(name, limit, |of| of.is_none_or(&wanted)).await;
            match found {
                Ok(found) => return Ok(found.map(|found| found.value)),
                Err(_) if self.clock.instant() - begun < CHANGE => {}
                Err(error) => {
                    let now = self.gateway(turn).object::<ApplicationSession>(name).await;
                    let now = now.map(|of| (of.value.metadata, of.value.status));
                    bail!("it does not change: {error}; it is {now:?}");
                }
            }
        }
        Ok(None)
    }

    /// Holds a connection for as long as a visitor stays.
    async fn talk(&self, number: usize, name: &str, session: &ApplicationSession) -> Result<()> {
        let mut connection = match connect(session).await {
            Ok(connection) => connection,
            Err(error) => return self.broken(number, name, "nobody", &error).await,
        };
        let greeting = connection.greeting.clone();
        ensure!(greeting.starts_with(&format!("{name} ")), "its address leads to {greeting:?}");
        let end = self.clock.instant() + self.plan.stay;
        for word in 0_u32.. {
            if self.clock.instant() >= end || self.sending.stopping().is_cancelled() {
                break;
            }
            if let Err(error) = connection.say(&format!("{name} {word}\n")).await {
                return self.broken(number, name, &greeting, &error).await;
            }
            self.clock.sleep(WORDS).await;
        }
        // The same instance, for whoever comes now.
        match connect(session).await {
            Ok(again) => {
                ensure!(again.greeting == greeting, "it is in two instances: {greeting:?}, {:?}", again.greeting)
            }
            Err(error) => return self.broken(number, name, &greeting, &error).await,
        }
        Ok(())
    }

    /// A connection broke: its session must have ended, or end soon.
    async fn broken(&self, number: usize, name: &str, greeting: &str, error: &anyhow::Error) -> Result<()> {
        self.record.lock().cut(format!("{name}: {error:#}"));
        let ended = self.until(number, name, |of| of.status.session_status.has_ended()).await;
        let ended = ended.with_context(|| format!("the connection to {greeting} broke ({error:#})"))?;
        let reason = ended.map_or_else(|| "Gone".to_owned(), |of| of.status.reason);
        self.record.lock().ended(&reason);
        Ok(())
    }

    /// Closes the session, and waits until it is gone.
    async fn close(&self, number: usize, name: &str) -> Result<()> {
        let begun = self.clock.instant();
        for turn in number.. {
            match self.gateway(turn).delete_object::<ApplicationSession>(name).await {
                Ok(()) => break,
                Err(error) if error.code() == Code::NotFound => break,
                Err(error) => {
                    ensure!(self.clock.instant() - begun < HAND_IN, "it can't be closed: {error}");
                    self.record.lock().refused(&error);
                    self.clock.sleep(AGAIN).await;
                }
            }
        }
        self.until(number, name, |_| false).await.context("it was closed and is there still")?;
        self.record.lock().closed += 1;
        Ok(())
    }
}

/// Whether a session is open, or was.
fn has_opened(session: &ApplicationSession) -> bool {
    !matches!(session.status.session_status, SessionStatus::Unset | SessionStatus::Pending | SessionStatus::Starting)
}

/// Connects to the session's own address.
async fn connect(session: &ApplicationSession) -> Result<Connection> {
    let endpoint = session.status.access_end_points.first().context("an open session has no address")?;
    let address = format!("{}:{}", endpoint.ip_address, endpoint.port);
    let connected = async {
        let stream = TcpStream::connect(&address).await?;
        let (mut stream, mut greeting) = (BufReader::new(stream), String::new());
        stream.read_line(&mut greeting).await?;
        ensure!(greeting.ends_with('\n'), "the connection ended after {greeting:?}");
        Ok(Connection { stream, greeting: greeting.trim_end().to_owned() })
    };
    let connected = tokio::time::timeout(ANSWER, connected).await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer")));
    connected.with_context(|| format!("at {address}"))
}

impl Connection {
    /// Says something, and hears it again.
    async fn say(&mut self, line: &str) -> Result<()> {
        let said = async {
            self.stream.get_mut().write_all(line.as_bytes()).await?;
            let mut heard = String::new();
            self.stream.read_line(&mut heard).await?;
            ensure!(heard == line, "it said {heard:?} to {line:?}");
            Ok(())
        };
        tokio::time::timeout(ANSWER, said).await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer")))
    }
}
