//! Following a function's log over server-sent events, through broken connections.
//!
//! After a break the stream is asked for again from a little before the last line seen, and each line that
//! was shown already is left out once. So no line comes twice, and none is lost that the server still has.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use eventsource_stream::Eventsource;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use http::header::ACCEPT;
use lyra_types::api::{LogView, Problem};
use lyra_types::{FunctionName, Timestamp};

use crate::{Answer, CallInfo, Client, Error, LogFilter, Result};

/// Tries to connect again, one after the other, before giving up.
const TRIES: u32 = 5;

/// Wait before the first of them; doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Lines asked for after a break, and lines remembered to tell them from new ones.
const CATCH_UP: usize = 10_000;

/// How far before the last line a new stream begins: lines of calls at the same time arrive out of order.
const OVERLAP: Duration = Duration::from_secs(1);

/// The newest lines that were shown.
#[derive(Debug, Default)]
struct Shown {
    newest: Option<Timestamp>,
    /// Those of the last [`OVERLAP`], oldest first, as sent.
    lines: VecDeque<(Timestamp, String)>,
    /// After a break: how many times each is still to come again.
    repeats: HashMap<String, usize>,
}

impl Shown {
    /// From when on to ask for lines after a break.
    fn resume_from(&self) -> Option<Timestamp> {
        self.newest.map(|time| time - OVERLAP)
    }

    /// The connection broke: what was shown will come again.
    fn on_break(&mut self) {
        self.repeats.clear();
        for (_, line) in &self.lines {
            *self.repeats.entry(line.clone()).or_default() += 1;
        }
    }

    /// Whether the line has not been shown; remembers it.
    fn admit(&mut self, line: &Answer<LogView>) -> bool {
        if let Some(count) = self.repeats.get_mut(line.json()).filter(|count| **count > 0) {
            *count -= 1;
            return false;
        }
        let newest = self.newest.max(Some(line.time));
        self.newest = newest;
        self.lines.push_back((line.time, line.json().to_owned()));
        let oldest = newest.map(|time| time - OVERLAP);
        while self.lines.len() > CATCH_UP || self.lines.front().is_some_and(|(time, _)| Some(*time) < oldest) {
            self.lines.pop_front();
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
    name: FunctionName,
    filter: LogFilter,
    shown: Shown,
    events: Option<BoxStream<'static, Event>>,
    failures: u32,
}

impl Client {
    /// The lines of [`Client::logs`], then each further one as it comes. Ends only by an error; connects
    /// again by itself when the connection breaks. Drop the stream to stop.
    ///
    /// # Errors
    /// `not_found`, or a server that can't be reached; later ones come in the stream.
    pub async fn follow_logs(
        &self,
        name: &FunctionName,
        filter: LogFilter,
    ) -> Result<impl Stream<Item = Result<Answer<LogView>>> + Send + use<>> {
        let mut follower = Follower {
            client: self.clone(),
            name: name.clone(),
            filter,
            shown: Shown::default(),
            events: None,
            failures: 0,
        };
        follower.events = Some(connect(&follower.client, name, &follower.filter).await?);
        Ok(stream::unfold(Some(follower), |follower| async {
            let mut follower = follower?;
            match follower.next().await {
                Ok(line) => Some((Ok(line), Some(follower))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

async fn connect(client: &Client, name: &FunctionName, filter: &LogFilter) -> Result<BoxStream<'static, Event>> {
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
            let broken = match events.next().await {
                Some(Event::Line(line)) => {
                    self.failures = 0;
                    if self.shown.admit(&line) {
                        return Ok(*line);
                    }
                    continue;
                }
                Some(Event::Other) => continue,
                Some(Event::Failed(error)) => return Err(error),
                Some(Event::Break(error)) => Some(error),
                None => None,
            };
            self.events = None;
            self.failures += 1;
            if self.failures > TRIES {
                let reason = "the log stream keeps breaking off".to_owned();
                let url = self.client.url().to_owned();
                return Err(broken.unwrap_or(Error::Broken { url, reason }));
            }
        }
    }

    /// Connects again, with growing waits; an answer of the server (no such function any more) is final.
    async fn reconnect(&mut self) -> Result<()> {
        self.shown.on_break();
        let mut filter = self.filter.clone();
        if let Some(since) = self.shown.resume_from() {
            filter.since = Some(since);
            filter.limit = Some(CATCH_UP);
        }
        loop {
            tokio::time::sleep(FIRST_WAIT * 2u32.pow(self.failures.saturating_sub(1).min(TRIES))).await;
            match connect(&self.client, &self.name, &filter).await {
                Ok(events) => {
                    self.events = Some(events);
                    return Ok(());
                }
                Err(error @ (Error::Api { .. } | Error::Config(_) | Error::Protocol { .. })) => return Err(error),
                Err(error) if self.failures >= TRIES => return Err(error),
                Err(_) => self.failures += 1,
            }
        }
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
        for known in [line(1_000, "old"), line(5_000, "a"), line(5_001, "b"), line(5_001, "b")] {
            assert!(shown.admit(&known));
        }
        assert_eq!(shown.resume_from(), Some(Timestamp::from_millis(4_001)));
        shown.on_break();
        let again = [line(5_000, "a"), line(5_000, "late"), line(5_001, "b"), line(5_001, "b"), line(5_001, "b")];
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
        shown.admit(&line(10_000, "later"));
        assert_eq!(shown.lines.len(), 1);
    }
}
