//! Events that are posted: each batch of them is a job before the post is answered.
//!
//! A batch has an idempotency key that is made of the trigger's identity and the ids of its events, where the poster gives any: by the
//! trigger's `id_field`, by what a notification of S3 says, or by an idempotency key for the whole post. Keys are remembered as those of
//! jobs are, for a day.

use futures::{StreamExt, TryStreamExt};
use lyra_types::function::limit::MAX_EVENT;
use lyra_types::trigger::{MAX_POSTED, TriggerCounts, TriggerPosted, TriggerSource};
use lyra_types::{Code, Error, JobId, Result, TenantName, TriggerName};
use lyra_wire::control::Submit;
use lyra_wire::hooks::EventsPosted;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::event::{self, Record as Event};
use super::record::Record;
use super::{Triggers, s3};

/// Jobs of one post that are handed in at the same time.
const AT_ONCE: usize = 32;

/// What a post holds.
struct Read {
    events: Vec<Event>,
    filtered: u64,
    /// Whether their ids say which events they are.
    told: bool,
}

impl Triggers {
    pub(super) async fn post(
        &self,
        tenant: &TenantName,
        name: &TriggerName,
        posted: EventsPosted,
    ) -> Result<TriggerPosted> {
        let (record, _) = self.read(tenant, name).await?;
        if record.trigger.paused {
            let detail = format!("trigger {name} is paused and takes no events; resume it, or post them later");
            return Err(Error::new(Code::Conflict, detail));
        }
        if let Some(nats) = record.trigger.source.nats() {
            let detail = format!("trigger {name} takes its events from NATS: publish them under {}", nats.subject);
            return Err(Error::new(Code::Conflict, detail));
        }
        let found = self.read_post(&record, &posted)?;
        let mut answer = TriggerPosted { filtered: found.filtered, ..TriggerPosted::default() };
        let size = record.trigger.batch_size as usize;
        let batches = event::batches(found.events, size, Event::size);
        let handing = batches.into_iter().map(|batch| self.hand_in(tenant, name, &record, batch, found.told, &posted));
        let handing: Vec<_> = handing.collect();
        let handed: Vec<Handed> = futures::stream::iter(handing).buffered(AT_ONCE).try_collect().await?;
        let kind = record.trigger.source.kind();
        for one in handed {
            answer.accepted += one.records;
            answer.known += if one.created { 0 } else { one.records };
            answer.jobs.extend(one.job);
            if one.created {
                self.metrics.trigger_batches.with_label_values(&["submitted"]).inc();
            }
        }
        let left_out = answer.filtered + answer.known;
        self.metrics.trigger_records.with_label_values(&[kind]).inc_by(answer.accepted - answer.known);
        self.metrics.trigger_left_out.with_label_values(&[kind]).inc_by(left_out);
        let counts = TriggerCounts {
            records: answer.accepted - answer.known,
            left_out,
            batches: answer.jobs.len() as u64,
            ..TriggerCounts::default()
        };
        self.tally.count(&(tenant.clone(), name.clone()), record.uid, counts);
        Ok(answer)
    }

    fn read_post(&self, record: &Record, posted: &EventsPosted) -> Result<Read> {
        let key = posted.idempotency_key.as_deref();
        let found = match &record.trigger.source {
            TriggerSource::S3(source) => {
                let fault = |(place, reason): (String, String)| match place.as_str() {
                    "body" => Error::field(Code::BadRequest, place, reason),
                    _ => Error::field(Code::InvalidField, place, reason),
                };
                let found = s3::read(source, &posted.body).map_err(fault)?;
                Read { events: found.wanted, filtered: found.filtered, told: true }
            }
            TriggerSource::Http(source) => {
                let field = source.id_field.as_deref();
                let drawn = format!("{:032x}", self.random.u128());
                let events = objects(&posted.body)?.into_iter().enumerate().map(|(at, data)| {
                    let id = match field {
                        Some(field) => id_in(&data, field, at)?,
                        None => format!("{}/{at}", key.unwrap_or(&drawn)),
                    };
                    Ok(Event::json(id, data))
                });
                let events = events.collect::<Result<_>>()?;
                Read { events, filtered: 0, told: field.is_some() || key.is_some() }
            }
            TriggerSource::Nats(_) => return Err(Error::internal("such a trigger takes no posts")),
        };
        if found.events.len() > MAX_POSTED {
            let detail = format!("the post holds more than {MAX_POSTED} events; send them in several");
            return Err(Error::new(Code::TooLarge, detail));
        }
        Ok(found)
    }

    /// Hands in the job of a batch.
    async fn hand_in(
        &self,
        tenant: &TenantName,
        name: &TriggerName,
        record: &Record,
        batch: Vec<Event>,
        told: bool,
        posted: &EventsPosted,
    ) -> Result<Handed> {
        let event =
            event::event(name, &record.trigger, &batch).map_err(|_| Error::internal("the events can't be written"))?;
        if event.len() > MAX_EVENT {
            let detail = format!("an event is larger than {MAX_EVENT} bytes with what goes with it");
            return Err(Error::new(Code::TooLarge, detail));
        }
        let records = batch.len() as u64;
        let idempotency_key = told.then(|| job_key(name, record.uid, batch.iter().map(|event| event.id.as_str())));
        let version = self.version_for(tenant, &record.trigger)?;
        let submit =
            Submit { id: None, version, event, idempotency_key, user: posted.user.clone(), destinations: None };
        match self.jobs.submit(submit).await {
            Ok(submitted) => Ok(Handed { job: Some(submitted.id), created: submitted.created, records }),
            // These events were there; their senders wrote something else of them this time. A key for the whole post is a promise.
            Err(error) if error.code == Code::IdempotencyMismatch && posted.idempotency_key.is_none() => {
                Ok(Handed { job: None, created: false, records })
            }
            Err(error) => Err(error),
        }
    }
}

/// A batch that was handed in.
struct Handed {
    job: Option<JobId>,
    created: bool,
    records: u64,
}

/// The key by which a job is the one of these events, however often they come.
fn job_key<'a>(name: &TriggerName, uid: u64, ids: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for id in ids {
        hash.update((id.len() as u64).to_be_bytes());
        hash.update(id);
    }
    format!("trigger/{name}/{uid:016x}/{}", hex::encode(hash.finalize()))
}

/// The events of a post: one object, or an array of them.
fn objects(body: &[u8]) -> Result<Vec<Box<RawValue>>> {
    let no_json = |error: serde_json::Error| {
        Error::field(Code::BadRequest, "body", format!("is not JSON: {error}; post an object or an array of them"))
    };
    let is_object = |value: &RawValue| value.get().trim_start().starts_with('{');
    let whole: Box<RawValue> = serde_json::from_slice(body).map_err(no_json)?;
    if is_object(&whole) {
        return Ok(vec![whole]);
    }
    if !whole.get().trim_start().starts_with('[') {
        return Err(Error::field(Code::InvalidField, "body", "must be an object or an array of objects"));
    }
    let items: Vec<Box<RawValue>> = serde_json::from_str(whole.get()).map_err(no_json)?;
    match items.iter().position(|item| !is_object(item)) {
        Some(at) => Err(Error::field(Code::InvalidField, format!("[{at}]"), "must be an object")),
        None => Ok(items),
    }
}

/// What the field of an event says that it is.
fn id_in(data: &RawValue, field: &str, at: usize) -> Result<String> {
    let object: serde_json::Map<String, Value> = serde_json::from_str(data.get())
        .map_err(|error| Error::field(Code::InvalidField, format!("[{at}]"), error.to_string()))?;
    match object.get(field) {
        Some(Value::String(id)) => Ok(id.clone()),
        Some(Value::Number(id)) => Ok(id.to_string()),
        Some(_) => Err(Error::field(Code::InvalidField, format!("[{at}].{field}"), "must be text or a number")),
        None => {
            let reason = "is missing: it says which event this is (the trigger's `id_field`)";
            Err(Error::field(Code::InvalidField, format!("[{at}].{field}"), reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_post_is_an_object_or_an_array_of_them() {
        let texts = |body: &str| -> Vec<String> {
            objects(body.as_bytes()).unwrap().into_iter().map(|value| value.get().to_owned()).collect()
        };
        assert_eq!(texts(r#" {"a": 1} "#), [r#"{"a": 1}"#]);
        assert_eq!(texts(r#"[{"a":1e999}, {} ]"#), [r#"{"a":1e999}"#, "{}"]);
        assert!(texts("[]").is_empty());
        let fault = |body: &str| {
            let error = objects(body.as_bytes()).unwrap_err();
            (error.code, error.errors[0].field.clone())
        };
        assert_eq!(fault("{"), (Code::BadRequest, "body".to_owned()));
        assert_eq!(fault(""), (Code::BadRequest, "body".to_owned()));
        assert_eq!(fault("1"), (Code::InvalidField, "body".to_owned()));
        assert_eq!(fault("[{},2]"), (Code::InvalidField, "[1]".to_owned()));
    }

    #[test]
    fn an_id_is_text_or_a_number() {
        let id = |text: &str| id_in(&RawValue::from_string(text.to_owned()).unwrap(), "id", 3);
        assert_eq!(id(r#"{"id":"a"}"#), Ok("a".to_owned()));
        assert_eq!(id(r#"{"id":7}"#), Ok("7".to_owned()));
        for bad in [r#"{"id":null}"#, "{}", r#"{"id":{}}"#] {
            assert_eq!(id(bad).unwrap_err().errors[0].field, "[3].id", "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_key_is_that_of_its_ids_alone(one in prop::collection::vec("[a-b/]{0,3}", 0..4), two in prop::collection::vec("[a-b/]{0,3}", 0..4)) {
            let name = TriggerName::new(&"n".repeat(63)).unwrap();
            let key = |uid, ids: &[String]| job_key(&name, uid, ids.iter().map(String::as_str));
            prop_assert!(key(u64::MAX, &one).len() <= 255);
            prop_assert_eq!(key(1, &one) == key(1, &two), one == two);
            prop_assert_ne!(key(1, &one), key(2, &one));
        }
    }
}
