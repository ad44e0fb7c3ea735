//! One connection of a trigger, from its beginning to whatever ends it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, AckKind, Context, Message};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use lyra_types::Timestamp;
use lyra_types::function::limit::MAX_EVENT;
use lyra_types::trigger::{NatsSource, StartAt, TriggerCounts, TriggerSource, TriggerState};
use tokio_util::sync::CancellationToken;

use super::super::event::{self, Record as Event};
use super::super::record::{Flight, Record};
use super::super::tally::Whose;
use super::super::{Triggers, s3};
use super::flight::most_pending;
use super::gather::gather;
use super::settle::{Place, Settling, places};
use super::{Consumer, Fault, consumer_name, fault};

/// How often it is asked how many messages wait.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// A session that went on for so long was a good one: the wait before the next one is short again.
const GOOD: Duration = Duration::from_secs(30);

/// Batches under way.
type Flying<'a> = FuturesUnordered<BoxFuture<'a, Result<Flight, Fault>>>;
/// Messages being gathered.
type Gathering = Option<BoxFuture<'static, Result<Vec<Message>, Fault>>>;

/// What a message holds.
struct Taken {
    sequence: u64,
    ack: String,
    records: Vec<Event>,
}

/// One connection.
struct Session<'a> {
    triggers: &'a Triggers,
    whose: &'a Whose,
    record: &'a Record,
    jetstream: Context,
    consumer: Consumer,
    /// Messages of batches that are written down.
    taken: HashSet<Place>,
    /// Those of them that have ended.
    settling: Settling,
    /// Where those are to be acknowledged that came again before their batch had ended.
    again: HashMap<Place, String>,
}

impl Triggers {
    /// Takes messages for a trigger, for ever.
    pub(in super::super) async fn take(&self, whose: &Whose, record: &Record) {
        let Some(source) = record.trigger.source.nats() else { return };
        let mut tries = 0;
        loop {
            let begun = self.clock.instant();
            let ended = Box::pin(self.session(whose, record, source)).await;
            if self.clock.instant().duration_since(begun) >= GOOD {
                tries = 0;
            }
            self.measure_lag(whose, None);
            let Err(error) = ended else { return };
            tries += 1;
            self.metrics.trigger_failures.inc();
            tracing::warn!(tenant = %whose.0, trigger = %whose.1, error, "a trigger takes no messages");
            self.tally.stands(whose, record.uid, TriggerState::Failing, Some(error));
            self.clock.sleep(self.config.retry.delay(tries, &self.random)).await;
        }
    }

    /// Ends well where there is nothing to do: the trigger is paused, and none of its batches is written down.
    async fn session(&self, whose: &Whose, record: &Record, source: &NatsSource) -> Result<(), Fault> {
        let flights = self.flights(whose, record.uid).await.map_err(fault("batches under way can't be read"))?;
        if record.trigger.paused && flights.is_empty() {
            return Ok(());
        }
        let lost = CancellationToken::new();
        let client = self.connect(&whose.0, source, &lost).await?;
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(self.config.timeout);
        let consumer = self.consumer(&jetstream, whose, record, source).await?;
        tracing::info!(tenant = %whose.0, trigger = %whose.1, flights = flights.len(), "a trigger takes messages");
        self.tally.stands(whose, record.uid, TriggerState::Active, None);
        let (taken, settling, again) = (HashSet::new(), Settling::default(), HashMap::new());
        let session = Session { triggers: self, whose, record, jetstream, consumer, taken, settling, again };
        tokio::select! {
            ended = session.run(flights) => ended,
            () = lost.cancelled() => Err("the connection to NATS was lost".to_owned()),
        }
    }

    /// The trigger's consumer, made or changed to what it should be.
    async fn consumer(
        &self,
        jetstream: &Context,
        whose: &Whose,
        record: &Record,
        source: &NatsSource,
    ) -> Result<Consumer, Fault> {
        let stream = stream_of(jetstream, source).await?;
        let name = consumer_name(&whose.1, record.uid);
        let config = pull::Config {
            durable_name: Some(name.clone()),
            description: Some(format!("trigger {} of tenant {} of Lyra", whose.1, whose.0)),
            deliver_policy: match source.start {
                StartAt::All => DeliverPolicy::All,
                StartAt::New => DeliverPolicy::New,
            },
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.config.ack_wait + Duration::from_millis(record.trigger.batch_wait_ms),
            max_deliver: -1,
            filter_subject: source.subject.clone(),
            max_ack_pending: most_pending(&record.trigger),
            ..pull::Config::default()
        };
        let stream = jetstream.get_stream(&stream).await.map_err(|error| format!("stream {stream}: {error}"))?;
        stream.create_consumer(config).await.map_err(|error| format!("consumer {name} can't be made: {error}"))
    }

    /// Deletes the consumer of a trigger that is gone.
    pub(in super::super) async fn delete_consumer(
        &self,
        whose: &Whose,
        uid: u64,
        source: &NatsSource,
    ) -> Result<(), Fault> {
        let client = self.connect(&whose.0, source, &CancellationToken::new()).await?;
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(self.config.timeout);
        let Ok(stream) = stream_of(&jetstream, source).await else { return Ok(()) };
        let name = consumer_name(&whose.1, uid);
        let asked = jetstream.delete_consumer_from_stream(&name, &stream).await;
        match asked.map_err(|error| error.to_string()) {
            Ok(_) => tracing::info!(tenant = %whose.0, consumer = name, "a consumer at NATS is deleted"),
            Err(error) if error.contains("not found") => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The stream that a trigger takes its messages from.
async fn stream_of(jetstream: &Context, source: &NatsSource) -> Result<String, Fault> {
    if let Some(stream) = &source.stream {
        return Ok(stream.clone());
    }
    let subject = &source.subject;
    jetstream.stream_by_subject(subject.as_str()).await.map_err(|error| {
        format!(
            "no stream of JetStream has the subject {subject} ({error}): make one, since without a stream messages can't be acknowledged"
        )
    })
}

impl Session<'_> {
    /// Goes on until something fails; ends well where the trigger is paused and its batches have landed.
    async fn run(mut self, flights: Vec<Flight>) -> Result<(), Fault> {
        let (triggers, whose, record) = (self.triggers, self.whose, self.record);
        let request = &record.trigger;
        let (most, wait) = (request.batch_size as usize, Duration::from_millis(request.batch_wait_ms));
        let jetstream = self.jetstream.clone();
        let fly = |flight: Flight| triggers.fly(whose, record, flight, &jetstream).boxed();
        let mut flying = Flying::new();
        self.taken.extend(flights.iter().flat_map(places));
        for flight in self.still_flying(flights).await? {
            flying.push(fly(flight));
        }
        let mut gathering: Gathering = None;
        let mut counts = tokio::time::interval(COUNT_EVERY);
        counts.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if request.paused && flying.is_empty() && self.settling.is_empty() {
                return Ok(());
            }
            if gathering.is_none() && !request.paused && flying.len() < request.max_in_flight as usize {
                let consumer = self.consumer.clone();
                gathering = Some(Box::pin(async move { gather(&consumer, most, wait).await }));
            }
            tokio::select! {
                Some(landed) = flying.next(), if !flying.is_empty() => {
                    self.land(&landed?).await?;
                }
                gathered = next(&mut gathering) => {
                    gathering = None;
                    for flight in self.begin(gathered?).await? {
                        flying.push(fly(flight));
                    }
                }
                _ = counts.tick() => self.count().await?,
            }
        }
    }

    /// Asks how many messages wait, and writes off the batches that are over for certain.
    async fn count(&mut self) -> Result<(), Fault> {
        let info = self.consumer.get_info().await.map_err(fault("the consumer can't be asked"))?;
        let lag = info.num_pending + info.num_ack_pending as u64;
        self.triggers.tally.lags(self.whose, self.record.uid, lag);
        self.triggers.measure_lag(self.whose, Some(lag));
        let settled = self.settling.settled(info.delivered.stream_sequence, self.triggers.clock.instant());
        self.triggers.write_off(self.whose, self.record.uid, &settled).await?;
        for job in settled {
            let places = self.settling.forget(job);
            self.forget(&places);
        }
        Ok(())
    }

    /// A batch has ended, or never was a job.
    async fn land(&mut self, flight: &Flight) -> Result<(), Fault> {
        let (places, client) = (places(flight), self.jetstream.client());
        let kind = if flight.landed { AckKind::Ack } else { AckKind::Nak(None) };
        for ack in places.iter().filter_map(|place| self.again.remove(place)) {
            client.publish(ack, kind.into()).await.map_err(fault("can't write to NATS"))?;
        }
        match flight.landed {
            true => self.settling.add(flight, self.triggers.clock.instant()),
            false => self.forget(&places),
        }
        Ok(())
    }

    fn forget(&mut self, places: &[Place]) {
        for place in places {
            self.taken.remove(place);
        }
    }

    /// Of batches that were written down, those that have not ended. Messages of the others are acknowledged once more: whether NATS kept
    /// that nobody knows.
    async fn still_flying(&mut self, flights: Vec<Flight>) -> Result<Vec<Flight>, Fault> {
        let (landed, flying): (Vec<_>, Vec<_>) = flights.into_iter().partition(|flight| flight.landed);
        for flight in &landed {
            self.triggers.tell(&self.jetstream, flight, AckKind::Ack).await?;
            self.settling.add(flight, self.triggers.clock.instant());
        }
        Ok(flying)
    }

    /// Makes batches of messages, and hands them in.
    async fn begin(&mut self, messages: Vec<Message>) -> Result<Vec<Flight>, Fault> {
        let mut begun = Vec::new();
        let mut fresh = Vec::with_capacity(messages.len());
        for message in messages {
            let (place, delivered) = {
                let info = message.info().map_err(fault("a message can't be read"))?;
                (Place::new(info.stream_sequence, ack_of(&message)), info.delivered)
            };
            // One that comes again may be in a batch that another process has begun meanwhile.
            if delivered > 1 && !self.taken.contains(&place) {
                begun.extend(self.adopt().await?);
            }
            if self.settling.comes_again(place, self.triggers.clock.instant()) {
                message.ack().await.map_err(fault("can't write to NATS"))?;
            } else if self.taken.contains(&place) {
                self.again.insert(place, ack_of(&message).to_owned());
            } else {
                fresh.push(message);
            }
        }
        let mut taken = Vec::with_capacity(fresh.len());
        for message in &fresh {
            taken.extend(self.read(message).await?);
        }
        let size = |one: &Taken| one.records.iter().map(Event::size).sum();
        for batch in event::batches(taken, self.record.trigger.batch_size as usize, size) {
            begun.extend(self.hand_in(batch).await?);
        }
        Ok(begun)
    }

    /// Batches that are written down and that this session does not know.
    async fn adopt(&mut self) -> Result<Vec<Flight>, Fault> {
        let flights = self.triggers.flights(self.whose, self.record.uid).await;
        let flights = flights.map_err(fault("batches under way can't be read"))?;
        let taken = &self.taken;
        let known = |flight: &Flight| places(flight).first().is_some_and(|first| taken.contains(first));
        let unknown: Vec<Flight> = flights.into_iter().filter(|flight| !known(flight)).collect();
        self.taken.extend(unknown.iter().flat_map(places));
        self.still_flying(unknown).await
    }

    /// What a message holds; `None` where nothing of it is wanted, which is acknowledged.
    async fn read(&self, message: &Message) -> Result<Option<Taken>, Fault> {
        let info = message.info().map_err(fault("a message can't be read"))?;
        let id = format!("{}:{}", info.stream, info.stream_sequence);
        let published = i64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        let sequence = info.stream_sequence;
        let records = match &self.record.trigger.source {
            TriggerSource::S3(source) => match s3::read(source, &message.payload) {
                Ok(found) => {
                    self.leave_out(found.filtered);
                    found.wanted
                }
                Err((place, reason)) => {
                    tracing::debug!(trigger = %self.whose.1, place, reason, "a message is no notification of S3");
                    self.leave_out(1);
                    Vec::new()
                }
            },
            _ => {
                let mut record = Event::new(id, &message.payload);
                record.subject = Some(message.subject.to_string());
                record.time = Some(Timestamp::from_millis(published));
                record.headers = headers(message);
                vec![record]
            }
        };
        if records.is_empty() {
            message.ack().await.map_err(fault("can't write to NATS"))?;
            return Ok(None);
        }
        Ok(Some(Taken { sequence, ack: ack_of(message).to_owned(), records }))
    }

    fn leave_out(&self, left_out: u64) {
        let kind = self.record.trigger.source.kind();
        self.triggers.metrics.trigger_left_out.with_label_values(&[kind]).inc_by(left_out);
        let counts = TriggerCounts { left_out, ..TriggerCounts::default() };
        self.triggers.tally.count(self.whose, self.record.uid, counts);
    }

    /// Hands in a batch; `None` where it can be no job.
    async fn hand_in(&mut self, batch: Vec<Taken>) -> Result<Option<Flight>, Fault> {
        let triggers = self.triggers;
        let job = triggers.ids.job();
        let mut flight = Flight { job, sequences: Vec::new(), acks: Vec::new(), own: true, landed: false };
        let mut records = Vec::new();
        for one in batch {
            flight.sequences.push(one.sequence);
            flight.acks.push(one.ack);
            records.extend(one.records);
        }
        let event = event::event(&self.whose.1, &self.record.trigger, &records);
        let event = event.map_err(fault("an event can't be written"))?;
        let uid = self.record.uid;
        if event.len() > MAX_EVENT {
            let error = format!(
                "message {} is larger than an event may be ({MAX_EVENT} bytes) and was given up",
                records[0].id
            );
            tracing::warn!(tenant = %self.whose.0, trigger = %self.whose.1, error, "a message was given up");
            let client = self.jetstream.client();
            for ack in &flight.acks {
                client.publish(ack.clone(), AckKind::Term.into()).await.map_err(fault("can't write to NATS"))?;
            }
            triggers.tally.stands(self.whose, uid, TriggerState::Active, Some(error));
            let counts = TriggerCounts { failed: 1, ..TriggerCounts::default() };
            triggers.tally.count(self.whose, uid, counts);
            return Ok(None);
        }
        triggers.take_off(self.whose, self.record, &flight, event).await.map_err(|error| error.detail)?;
        let count = records.len() as u64;
        triggers.metrics.trigger_records.with_label_values(&[self.record.trigger.source.kind()]).inc_by(count);
        triggers.tally.count(self.whose, uid, TriggerCounts { records: count, batches: 1, ..TriggerCounts::default() });
        self.taken.extend(places(&flight));
        Ok(Some(flight))
    }
}

/// What is gathered; never, while nothing is.
async fn next(gathering: &mut Gathering) -> Result<Vec<Message>, Fault> {
    match gathering {
        Some(gathering) => gathering.await,
        None => std::future::pending().await,
    }
}

/// Where a message is acknowledged.
fn ack_of(message: &Message) -> &str {
    message.reply.as_ref().map(|reply| reply.as_str()).unwrap_or_default()
}

fn headers(message: &Message) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, values) in message.headers.iter().flat_map(async_nats::HeaderMap::iter) {
        let values: Vec<&str> = values.iter().map(|value| value.as_str()).collect();
        headers.insert(name.to_string(), values.join(", "));
    }
    headers
}
