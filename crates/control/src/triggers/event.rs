//! What a function is given: `{"trigger","source","records":[…]}`, whatever the source and however many records. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lyra_types::trigger::{MAX_BATCH_BYTES, TriggerRequest};
use lyra_types::{Timestamp, TriggerName};
use serde::Serialize;
use serde_json::value::RawValue;

/// A record of a batch.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    /// Which event it is, by the source.
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<Timestamp>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) headers: BTreeMap<String, String>,
    /// Where the data are JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    /// Where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl Record {
    /// A record of bytes: as JSON where they are, else in base64.
    pub(super) fn new(id: String, bytes: &[u8]) -> Record {
        let data: Option<Box<RawValue>> = serde_json::from_slice(bytes).ok();
        let data_base64 = data.is_none().then(|| STANDARD.encode(bytes));
        Record { id, subject: None, time: None, headers: BTreeMap::new(), data, data_base64 }
    }

    /// A record of JSON.
    pub(super) fn json(id: String, data: Box<RawValue>) -> Record {
        Record { id, subject: None, time: None, headers: BTreeMap::new(), data: Some(data), data_base64: None }
    }

    /// About as many bytes as it takes.
    pub(super) fn size(&self) -> usize {
        let data = self.data.as_ref().map_or(0, |data| data.get().len());
        let base64 = self.data_base64.as_ref().map_or(0, String::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.id.len() + self.subject.as_ref().map_or(0, String::len) + headers + data + base64
    }
}

#[derive(Serialize)]
struct Event<'a> {
    trigger: &'a TriggerName,
    source: &'static str,
    /// Tells the function that it may answer which records failed, and whoever reads the answer that it means that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial_failures: bool,
    records: &'a [Record],
}

/// The event of a batch.
pub(super) fn event(trigger: &TriggerName, request: &TriggerRequest, records: &[Record]) -> serde_json::Result<Bytes> {
    let (source, partial_failures) = (request.source.kind(), request.partial_failures);
    serde_json::to_vec(&Event { trigger, source, partial_failures, records }).map(Bytes::from)
}

/// Puts what comes in a row into batches of at most `most` records and [`MAX_BATCH_BYTES`]; what is larger by itself stands alone.
pub(super) fn batches<T>(items: Vec<T>, most: usize, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = size(&item);
        match batches.last_mut().filter(|batch| batch.len() < most && bytes + more <= MAX_BATCH_BYTES) {
            Some(batch) => {
                batch.push(item);
                bytes += more;
            }
            None => {
                batches.push(vec![item]);
                bytes = more;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_has_one_shape_whatever_its_data() {
        let name = TriggerName::new("t").unwrap();
        let request = r#"{"function":"f","source":{"kind":"http"}}"#;
        let mut request: TriggerRequest = serde_json::from_str(request).unwrap();
        let mut one = Record::new("a".to_owned(), br#" {"n": 1e400} "#);
        one.subject = Some("s.x".to_owned());
        one.time = Some(Timestamp::from_millis(0));
        let records = [one, Record::new("b".to_owned(), b"\xff\0"), Record::new("c".to_owned(), b"")];
        let text = |request: &TriggerRequest, records: &[Record]| {
            String::from_utf8(event(&name, request, records).unwrap().to_vec()).unwrap()
        };
        assert_eq!(
            text(&request, &records),
            r#"{"trigger":"t","source":"http","records":[{"id":"a","subject":"s.x","time":"1970-01-01T00:00:00.000Z","data":{"n": 1e400}},{"id":"b","data_base64":"/wA="},{"id":"c","data_base64":""}]}"#
        );
        request.partial_failures = true;
        assert_eq!(text(&request, &[]), r#"{"trigger":"t","source":"http","partial_failures":true,"records":[]}"#);
    }

    proptest! {
        #[test]
        fn every_item_is_in_one_batch_in_order_and_none_is_too_large(
            sizes in prop::collection::vec(0..MAX_BATCH_BYTES * 2, 0..40), most in 1_usize..8,
        ) {
            let batches = batches(sizes.clone(), most, |size| *size);
            for batch in &batches {
                prop_assert!(!batch.is_empty() && batch.len() <= most);
                prop_assert!(batch.len() == 1 || batch.iter().sum::<usize>() <= MAX_BATCH_BYTES);
            }
            // No two neighbours would have fitted together.
            for pair in batches.windows(2) {
                let together: usize = pair[0].iter().sum::<usize>() + pair[1][0];
                prop_assert!(pair[0].len() == most || together > MAX_BATCH_BYTES);
            }
            prop_assert_eq!(batches.concat(), sizes);
        }
    }
}
