//! Notifications of stores that speak S3, and which of them a trigger wants. Pure.

use lyra_types::trigger::S3Source;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::event::Record;

/// What a store sends.
#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "Records")]
    records: Option<Vec<Box<RawValue>>>,
    /// `s3:TestEvent`, which is sent once when notifications are set up.
    #[serde(rename = "Event")]
    event: Option<String>,
}

#[derive(Deserialize)]
struct One {
    #[serde(rename = "eventName")]
    event_name: String,
    s3: What,
}

#[derive(Deserialize)]
struct What {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
    #[serde(rename = "eTag", default)]
    etag: Option<String>,
    #[serde(default)]
    sequencer: Option<String>,
}

/// What a notification holds.
#[derive(Debug)]
pub(super) struct Notified {
    /// The records that are wanted. Where several are of one object and event, each has an id of its own.
    pub(super) wanted: Vec<Record>,
    /// How many are not.
    pub(super) filtered: u64,
}

/// Reads a notification and keeps what the trigger wants.
///
/// # Errors
/// The place at fault, and what is wrong with it.
pub(super) fn read(source: &S3Source, body: &[u8]) -> Result<Notified, (String, String)> {
    let fault = |place: &str, error: serde_json::Error| (place.to_owned(), error.to_string());
    let notification: Notification = serde_json::from_slice(body).map_err(|error| fault("body", error))?;
    let Some(records) = notification.records else {
        if notification.event.as_deref() == Some("s3:TestEvent") {
            return Ok(Notified { wanted: Vec::new(), filtered: 1 });
        }
        return Err(("Records".to_owned(), "is missing: this trigger takes notifications of S3".to_owned()));
    };
    let (mut wanted, mut filtered) = (Vec::new(), 0);
    for (at, record) in records.into_iter().enumerate() {
        let one: One = serde_json::from_str(record.get()).map_err(|error| fault(&format!("Records[{at}]"), error))?;
        if !is_wanted(source, &one) {
            filtered += 1;
            continue;
        }
        let object = &one.s3.object;
        let version = object.sequencer.as_ref().or(object.etag.as_ref()).map_or("", String::as_str);
        let id = format!("{}/{}#{version}#{}", one.s3.bucket.name, object.key, plain(&one.event_name));
        wanted.push(Record::json(id, record));
    }
    Ok(Notified { wanted, filtered })
}

fn is_wanted(source: &S3Source, one: &One) -> bool {
    let key = decoded(&one.s3.object.key);
    let named = source.events.is_empty() || source.events.iter().any(|pattern| fits(pattern, &one.event_name));
    named
        && source.bucket.as_ref().is_none_or(|bucket| *bucket == one.s3.bucket.name)
        && source.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix.as_bytes()))
        && source.suffix.as_ref().is_none_or(|suffix| key.ends_with(suffix.as_bytes()))
}

/// The name of an event without the `s3:` that some stores write before it.
fn plain(name: &str) -> &str {
    name.strip_prefix("s3:").unwrap_or(name)
}

fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (plain(pattern), plain(name));
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    }
}

/// A key as the object has it: notifications have it encoded as forms are.
fn decoded(key: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(&key.replace('+', " ")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(event: &str, bucket: &str, key: &str) -> String {
        format!(
            r#"{{"eventName":"{event}","s3":{{"bucket":{{"name":"{bucket}"}},"object":{{"key":"{key}","size":3,"eTag":"e1"}}}}}}"#
        )
    }

    fn ids(source: &S3Source, records: &[String]) -> Vec<String> {
        let body = format!(r#"{{"EventName":"x","Records":[{}]}}"#, records.join(","));
        let found = read(source, body.as_bytes()).unwrap();
        assert_eq!(found.wanted.len() + usize::try_from(found.filtered).unwrap(), records.len());
        found.wanted.into_iter().map(|record| record.id).collect()
    }

    #[test]
    fn only_what_fits_event_bucket_prefix_and_suffix_is_wanted() {
        let records = [
            record("s3:ObjectCreated:Put", "b", "in/a+cat.jpg"),
            record("ObjectCreated:Copy", "b", "in/b.png"),
            record("s3:ObjectRemoved:Delete", "c", "in/%C3%A9.jpg"),
        ];
        let all = S3Source::default();
        assert_eq!(
            ids(&all, &records),
            [
                "b/in/a+cat.jpg#e1#ObjectCreated:Put",
                "b/in/b.png#e1#ObjectCreated:Copy",
                "c/in/%C3%A9.jpg#e1#ObjectRemoved:Delete"
            ]
        );
        let count = |source: S3Source| ids(&source, &records).len();
        let events = |events: &[&str]| events.iter().map(|event| (*event).to_owned()).collect();
        assert_eq!(count(S3Source { events: events(&["s3:ObjectCreated:*"]), ..all.clone() }), 2);
        assert_eq!(count(S3Source { events: events(&["ObjectCreated:Put", "s3:ObjectRemoved:*"]), ..all.clone() }), 2);
        assert_eq!(count(S3Source { events: events(&["*"]), ..all.clone() }), 3);
        assert_eq!(count(S3Source { events: events(&["s3:ObjectCreated"]), ..all.clone() }), 0);
        assert_eq!(count(S3Source { bucket: Some("c".to_owned()), ..all.clone() }), 1);
        assert_eq!(count(S3Source { prefix: Some("in/a c".to_owned()), ..all.clone() }), 1);
        assert_eq!(count(S3Source { suffix: Some("é.jpg".to_owned()), ..all.clone() }), 1);
        assert_eq!(count(S3Source { suffix: Some(".jpg".to_owned()), bucket: Some("b".to_owned()), ..all }), 1);
    }

    #[test]
    fn what_is_no_notification_is_refused_with_its_place() {
        let place = |body: &str| read(&S3Source::default(), body.as_bytes()).unwrap_err().0;
        assert_eq!(place("no"), "body");
        assert_eq!(place("{}"), "Records");
        assert_eq!(place(r#"{"Records":[{"eventName":"x"}]}"#), "Records[0]");
        let test = read(&S3Source::default(), br#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#).unwrap();
        assert_eq!((test.wanted.len(), test.filtered), (0, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), key in "[ -~]{0,30}") {
            drop(read(&S3Source::default(), &bytes));
            drop(decoded(&key));
        }
    }
}
