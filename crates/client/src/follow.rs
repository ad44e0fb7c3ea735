//! Following log lines over server-sent events, through broken connections and servers that are away for a while.
//!
//! After a break the stream is asked for again from a while before the last line seen, and each line that
//! was shown already is left out once. So no line comes twice, and none is lost that the server still has.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use eventsource_stream::Eventsource;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use http::header::ACCEPT;
use lyra_types::api::{LogView, Problem};
use lyra_types::{FunctionName, Timestamp};

use crate::patience::{AWAY, passes};
use crate::{Answer, CallInfo, Client, Error, LogFilter, Result};

/// Streams that may break off one after the other without a line, before that is given up.
const BREAKS: u32 = 60;

/// A stream that has stood for so long was a good one.
const STEADY: Duration = Duration::from_secs(5);

/// Wait before the first try to connect again; doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest such wait.
const MOST_WAIT: Duration = Duration::from_secs(1);

/// Lines asked for after a break, and lines remembered to tell them from new ones.
const CATCH_UP: usize = 10_000;

/// How far before the last line a new stream begins: lines of calls at the same time arrive out of order, and where there are
/// several control processes, one that was away may have some that are older than those that the others sent meanwhile.
const OVERLAP: Duration = Duration::from_secs(120);

/// The newest lines that were shown.
#[derive(Debug, Default)]
struct Shown {
    newest: Option<Timestamp>,
    /// Those of the last [`OVERLAP`] by time and a hash of what was sent, in the order in which they came.
    lines: VecDeque<(Timestamp, u64)>,
    /// From then on all that were shown are remembered, and no others may come but new ones.
    known_from: Option<Timestamp>,
    /// After a break: how many times each is still to come again.
    repeats: HashMap<u64, usize>,
}

fn hash(line: &Answer<LogView>) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.json().hash(&mut hasher);
    hasher.finish()
}

impl Shown {
    /// From when on to ask for lines after a break.
    fn resume_from(&self) -> Option<Timestamp> {
        self.newest.map(|time| time - OVERLAP).max(self.known_from)
    }

    /// The connection broke: what was shown will come again.
    fn on_break(&mut self) {
        self.repeats.clear();
        for (_, line) in &self.lines {
            *self.repeats.entry(*line).or_default() += 1;
        }
    }

    /// Whether the line has not been shown; remembers it.
    fn admit(&mut self, line: &Answer<LogView>) -> bool {
        let sent = hash(line);
        if let Some(count) = self.repeats.get_mut(&sent).filter(|count| **count > 0) {
            *count -= 1;
            return false;
        }
        // What is older than the first line was left out on purpose, where more were there than were asked for.
        self.known_from.get_or_insert(line.time);
        let newest = self.newest.max(Some(line.time));
        self.newest = newest;
        self.lines.push_back((line.time, sent));
        let oldest = newest.map(|time| time - OVERLAP);
        while self.lines.len() > CATCH_UP || self.lines.front().is_some_and(|(time, _)| Some(*time) < oldest) {
            if let Some((gone, _)) = self.lines.pop_front() {
                self.known_from = self.known_from.max(Some(gone + Duration::from_millis(1)));
            }
        }
        true
    }
}

/// What one server-sent event is to us.
enum Event {
    Line(Box<Answer<LogView>>),
    /// The stream broke.
    Break(Error),
    /// The server said why it ends the stream.
    Failed(Error),
    Other,
}

struct Follower {
    client: Client,
    name: Option<FunctionName>,
    filter: LogFilter,
    shown: Shown,
    events: Option<BoxStream<'static, Event>>,
    /// Streams that broke off one after the other.
    breaks: u32,
}

impl Client {
    /// The lines of [`Client::logs`], then each further one as it comes. Ends only by an error; connects again by itself when the
    /// connection breaks, and waits for a server that is away, for a minute at most. Drop the stream to stop.
    ///
    /// # Errors
    /// `not_found`, or a server that can't be reached; later ones come in the stream.
    pub async fn follow_logs(
        &self,
        name: Option<&FunctionName>,
        filter: LogFilter,
    ) -> Result<impl Stream<Item = Result<Answer<LogView>>> + Send + use<>> {
        let events = Some(connect(self, name, &filter).await?);
        let (client, name) = (self.clone(), name.cloned());
        let follower = Follower { client, name, filter, shown: Shown::default(), events, breaks: 0 };
        Ok(stream::unfold(Some(follower), |follower| async {
            let mut follower = follower?;
            match follower.next().await {
                Ok(line) => Some((Ok(line), Some(follower))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

async fn connect(
    client: &Client,
    name: Option<&FunctionName>,
    filter: &LogFilter,
) -> Result<BoxStream<'static, Event>> {
    let request = client.log_request(name, filter).query(&[("follow", "true")]);
    let opened = client.open(request.header(ACCEPT, "text/event-stream"));
    // The stream has no end, so the request has no time-out; its headers have one.
    let limit = client.timeout;
    let response = tokio::time::timeout(limit, opened).await.map_err(|_| Error::Deadline { after: limit })??;
    let client = client.clone();
    Ok(response.bytes_stream().eventsource().map(move |event| read_event(&client, event)).boxed())
}

impl Follower {
    async fn next(&mut self) -> Result<Answer<LogView>> {
        loop {
            let Some(events) = &mut self.events else {
                self.reconnect().await?;
                continue;
            };
            let next = events.next();
            let event = match self.breaks {
                0 => next.await,
                _ => match tokio::time::timeout(STEADY, next).await {
                    Ok(event) => event,
                    Err(_) => {
                        self.breaks = 0;
                        continue;
                    }
                },
            };
            let broken = match event {
                Some(Event::Line(line)) => {
                    if self.shown.admit(&line) {
                        self.breaks = 0;
                        return Ok(*line);
                    }
                    continue;
                }
                Some(Event::Other) => continue,
                // The server is there, what it gets its lines from is not.
                Some(Event::Failed(error)) if passes(&error) => Some(error),
                Some(Event::Failed(error)) => return Err(error),
                Some(Event::Break(error)) => Some(error),
                None => None,
            };
            self.events = None;
            self.breaks += 1;
            if self.breaks > BREAKS {
                let reason = "the log stream keeps breaking off".to_owned();
                let url = self.client.url().to_owned();
                return Err(broken.unwrap_or(Error::Broken { url, reason }));
            }
        }
    }

    /// Connects again, with growing waits; an answer of the server that will not pass (no such function any more) is final.
    async fn reconnect(&mut self) -> Result<()> {
        self.shown.on_break();
        let mut filter = self.filter.clone();
        if let Some(since) = self.shown.resume_from() {
            filter.since = self.filter.since.max(Some(since));
            filter.limit = Some(CATCH_UP);
        }
        let mut wait = FIRST_WAIT * 2u32.pow(self.breaks.saturating_sub(1).min(3));
        let mut last = None;
        let connecting = async {
            loop {
                tokio::time::sleep(wait.min(MOST_WAIT)).await;
                wait = wait.saturating_mul(2);
                match connect(&self.client, self.name.as_ref(), &filter).await {
                    Err(error) if passes(&error) => last = Some(error),
                    outcome => return outcome,
                }
            }
        };
        let outcome = tokio::time::timeout(AWAY, connecting).await;
        let late = || last.unwrap_or(Error::Deadline { after: AWAY });
        self.events = Some(outcome.unwrap_or_else(|_| Err(late()))?);
        Ok(())
    }
}

type Sse = std::result::Result<eventsource_stream::Event, eventsource_stream::EventStreamError<reqwest::Error>>;

fn read_event(client: &Client, event: Sse) -> Event {
    let event = match event {
        Ok(event) => event,
        Err(eventsource_stream::EventStreamError::Transport(error)) => {
            return Event::Break(client.transport_error(&error, None));
        }
        Err(error) => {
            let url = client.url().to_owned();
            return Event::Break(Error::Protocol { url, reason: format!("its event stream is malformed ({error})") });
        }
    };
    match event.event.as_str() {
        "" | "message" | "log" => match Answer::read(event.data.as_bytes()) {
            Ok(line) => Event::Line(Box::new(line)),
            Err(error) => Event::Failed(client.misunderstood(&error)),
        },
        "error" => match serde_json::from_str::<Problem>(&event.data) {
            Ok(problem) => Event::Failed(Error::Api {
                error: Box::new(problem.into_error()),
                json: event.data,
                call: Box::new(CallInfo::default()),
            }),
            Err(error) => Event::Failed(client.misunderstood(&error)),
        },
        _ => Event::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(millis: i64, message: &str) -> Answer<LogView> {
        let time = Timestamp::from_millis(millis);
        let json = serde_json::json!({
            "time": time, "level": "info", "message": message, "invocation": "inv_1", "version": 1, "instance": null
        });
        Answer::read(json.to_string().as_bytes()).expect("a line")
    }

    #[test]
    fn equal_lines_are_shown_while_the_connection_holds() {
        let mut shown = Shown::default();
        assert!(shown.admit(&line(1, "a")));
        assert!(shown.admit(&line(1, "a")));
    }

    #[test]
    fn after_a_break_no_line_comes_twice_and_none_is_left_out() {
        let mut shown = Shown::default();
        let at = |millis: i64| 200_000 + millis;
        assert_eq!(shown.resume_from(), None);
        assert!(shown.admit(&line(199_000, "first")));
        assert_eq!(shown.resume_from(), Some(Timestamp::from_millis(199_000)), "those before it were not asked for");
        let mut shown = Shown::default();
        for known in [line(1_000, "old"), line(at(0), "a"), line(at(1), "b"), line(at(1), "b")] {
            assert!(shown.admit(&known));
        }
        assert_eq!(shown.resume_from(), Some(Timestamp::from_millis(at(1) - 120_000)));
        shown.on_break();
        let again = [line(at(0), "a"), line(at(0), "late"), line(at(1), "b"), line(at(1), "b"), line(at(1), "b")];
        let news: Vec<bool> = again.iter().map(|line| shown.admit(line)).collect();
        assert_eq!(news, [false, true, false, false, true]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut shown = Shown::default();
        for _ in 0..CATCH_UP + 10 {
            shown.admit(&line(1, "same"));
        }
        assert_eq!(shown.lines.len(), CATCH_UP);
        assert_eq!(shown.resume_from(), Some(Timestamp::from_millis(2)), "only what is remembered may come again");
        shown.admit(&line(200_000, "later"));
        assert_eq!(shown.lines.len(), 1);
        assert_eq!(shown.resume_from(), Some(Timestamp::from_millis(80_000)));
    }
}
