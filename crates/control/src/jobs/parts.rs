//! Batches whose functions may answer which of their records failed, so that only those are tried again.
//!
//! A batch says so itself: `{"trigger","source","partial_failures":true,"records":[{"id",…},…]}`, as triggers make it. An answer
//! `{"batchItemFailures":[{"itemIdentifier":ID},…]}` ends the try as failed for these records and as done for all others. Which ones are
//! left stands in the job's error, by their places in the event, which itself never changes: so it is durable where the end of the
//! try is, whatever store keeps jobs, and people see it. All that is not such a batch passes through untouched.

use std::collections::BTreeSet;

use bytes::Bytes;
use lyra_types::{Code, Error, FieldError, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How the key begins under which an answer names records.
const KEY: &str = "\"batchItemFailures\"";
/// Longest part of a record's id in an error, in bytes.
const MAX_ID: usize = 128;

#[derive(Debug, Serialize, Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    trigger: &'a RawValue,
    #[serde(borrow)]
    source: &'a RawValue,
    partial_failures: bool,
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "batchItemFailures")]
    failures: Option<Vec<Failed>>,
}

#[derive(Deserialize)]
struct Failed {
    #[serde(rename = "itemIdentifier")]
    id: String,
}

/// The records of a batch that were not dealt with by earlier tries, as the job's last error tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Left(Vec<FieldError>);

impl Left {
    /// Of a job whose last try ended with this error. None are told where all are left.
    pub(super) fn of(error: Option<&Error>) -> Left {
        let told = error.into_iter().flat_map(|error| &error.errors);
        Left(told.filter(|field| place(field).is_some()).cloned().collect())
    }

    /// The event of the next try: the records that are left.
    pub(super) fn event(&self, event: &Bytes) -> Bytes {
        let Some(mut batch) = (!self.0.is_empty()).then(|| read(event)).flatten() else { return event.clone() };
        let places: BTreeSet<usize> = self.0.iter().filter_map(place).collect();
        let records: Vec<_> = places.into_iter().filter_map(|at| batch.records.get(at).copied()).collect();
        if records.is_empty() {
            return event.clone();
        }
        batch.records = records;
        serde_json::to_vec(&batch).map_or_else(|_| event.clone(), Bytes::from)
    }

    /// What a try gave, where `event` is the job's whole event: an error that tells what is left, if something is.
    ///
    /// # Errors
    /// That of the try, or [`Code::FunctionError`] where the answer names records that failed, or can't be understood.
    pub(super) fn judge(&self, event: &Bytes, result: Result<Bytes>) -> Result<Bytes> {
        match result {
            Ok(answer) => match self.failed(event, &answer) {
                Some(error) => Err(error),
                None => Ok(answer),
            },
            // What was left before this try is left still.
            Err(error) => Err(self.with(error)),
        }
    }

    fn with(&self, mut error: Error) -> Error {
        error.errors.extend(self.0.iter().cloned());
        error
    }

    fn failed(&self, event: &Bytes, answer: &Bytes) -> Option<Error> {
        // Few answers are looked into.
        let text = std::str::from_utf8(answer).ok().filter(|text| text.contains(KEY))?;
        let batch = read(event)?;
        let misunderstood = |why: &str| {
            let detail = format!("the answer's batchItemFailures {why}, so all records count as failed");
            Some(self.with(Error::new(Code::FunctionError, detail)))
        };
        let Ok(object) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) else { return None };
        object.get("batchItemFailures")?;
        let Ok(answer) = serde_json::from_str::<Answer>(text) else {
            return misunderstood("is no list of objects with an itemIdentifier");
        };
        let named: BTreeSet<String> = answer.failures.unwrap_or_default().into_iter().map(|failed| failed.id).collect();
        if named.is_empty() {
            return None;
        }
        let given: BTreeSet<usize> = self.0.iter().filter_map(place).collect();
        let mut known = BTreeSet::new();
        let mut left = Vec::new();
        let mut count = 0;
        for (at, record) in batch.records.iter().enumerate() {
            if !given.is_empty() && !given.contains(&at) {
                continue;
            }
            count += 1;
            let Ok(Identified { id }) = serde_json::from_str(record.get()) else { continue };
            if named.contains(&id) {
                left.push(FieldError::new(format!("records[{at}]"), format!("{} failed", short(&id))));
                known.insert(id);
            }
        }
        if let Some(strange) = named.iter().find(|id| !known.contains(*id)) {
            return misunderstood(&format!("names {:?}, which is no record of the batch", short(strange)));
        }
        let mut error = Error::new(
            Code::FunctionError,
            format!("{} of {count} records failed, and only they are left", left.len()),
        );
        error.errors = left;
        Some(error)
    }
}

/// Which record of the event a field at fault is.
fn place(field: &FieldError) -> Option<usize> {
    field.field.strip_prefix("records[")?.strip_suffix(']')?.parse().ok()
}

/// A batch that may be answered in parts; `None`: another event.
fn read(event: &Bytes) -> Option<Event<'_>> {
    serde_json::from_slice::<Event<'_>>(event).ok().filter(|batch| batch.partial_failures)
}

fn short(id: &str) -> &str {
    &id[..id.floor_char_boundary(MAX_ID)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(ids: &[&str]) -> Bytes {
        let records: Vec<_> = ids.iter().map(|id| serde_json::json!({"id": id, "data": {"n": 1}})).collect();
        let event = serde_json::json!({"trigger": "t", "source": "http", "partial_failures": true, "records": records});
        Bytes::from(event.to_string())
    }

    fn ids(event: &Bytes) -> Vec<String> {
        let event: Event<'_> = serde_json::from_slice(event).unwrap();
        event.records.iter().map(|it| serde_json::from_str::<Identified>(it.get()).unwrap().id).collect()
    }

    fn naming(ids: &[&str]) -> Result<Bytes> {
        let failures: Vec<_> = ids.iter().map(|id| serde_json::json!({"itemIdentifier": id})).collect();
        Ok(Bytes::from(serde_json::json!({"batchItemFailures": failures}).to_string()))
    }

    #[test]
    fn only_records_that_failed_are_in_the_next_try_and_the_one_after() {
        let event = batch(&["a", "b", "c", "d"]);
        let first = Left::of(None);
        assert_eq!(first.event(&event), event);
        let error = first.judge(&event, naming(&["b", "d"])).unwrap_err();
        assert_eq!((error.code, error.errors.len()), (Code::FunctionError, 2));
        assert!(error.detail.starts_with("2 of 4 records failed"), "{error}");
        let second = Left::of(Some(&error));
        assert_eq!(ids(&second.event(&event)), ["b", "d"]);
        // A try that fails as a whole, or is given back, leaves what was left.
        let crashed = second.judge(&event, Err(Error::new(Code::InstanceCrashed, "gone"))).unwrap_err();
        assert_eq!(Left::of(Some(&crashed)), second);
        let error = second.judge(&event, naming(&["d"])).unwrap_err();
        assert!(error.detail.starts_with("1 of 2 records failed"), "{error}");
        let third = Left::of(Some(&error));
        assert_eq!(ids(&third.event(&event)), ["d"]);
        assert!(third.judge(&event, naming(&[])).is_ok());
    }

    #[test]
    fn an_answer_that_names_no_record_of_the_try_leaves_all_of_them() {
        let event = batch(&["a", "b"]);
        let odd = |text: &str| Ok(Bytes::from(text.to_owned()));
        for bad in [
            naming(&["z"]),
            odd(r#"{"batchItemFailures":[{"id":"a"}]}"#),
            odd(r#"{"batchItemFailures":["a"]}"#),
            odd(r#"{"batchItemFailures":7}"#),
        ] {
            let error = Left::default().judge(&event, bad).unwrap_err();
            assert_eq!(Left::of(Some(&error)), Left::default(), "{error}");
            assert!(error.detail.contains("all records count as failed"), "{error}");
        }
        // One that was done before is none of this try.
        let left = Left::of(Some(&Left::default().judge(&event, naming(&["b"])).unwrap_err()));
        let error = left.judge(&event, naming(&["a"])).unwrap_err();
        assert_eq!(Left::of(Some(&error)), left);
    }

    #[test]
    fn all_else_is_no_answer_in_parts() {
        let left = Left::default();
        for fine in [
            r#"{"batchItemFailures":null}"#,
            "{}",
            "null",
            r#"["batchItemFailures"]"#,
            r#""\"batchItemFailures\"""#,
            r#"{"a":{"batchItemFailures":[1]}}"#,
        ] {
            let fine = Bytes::from(fine);
            assert_eq!(left.judge(&batch(&["a"]), Ok(fine.clone())), Ok(fine));
        }
        for event in [r#"{"trigger":"t","source":"http","records":[{"id":"a"}]}"#, "{}", "[1]", "x"] {
            let event = Bytes::from(event);
            let answer = naming(&["a"]).unwrap();
            assert_eq!(left.judge(&event, Ok(answer.clone())), Ok(answer));
            let told = Left(vec![FieldError::new("records[0]", "failed")]);
            assert_eq!(told.event(&event), event);
        }
        // Records of one id stand and fall together.
        let error = left.judge(&batch(&["a", "a", "b"]), naming(&["a"])).unwrap_err();
        assert_eq!(error.errors.len(), 2);
        let far = Left(vec![FieldError::new("records[9]", "failed")]);
        assert_eq!(far.event(&batch(&["a"])), batch(&["a"]));
    }

    proptest! {
        #[test]
        fn whatever_is_answered_nothing_is_done_that_was_named(failing in prop::collection::btree_set(0_usize..6, 0..6)) {
            let all = ["0", "1", "2", "3", "4", "5"];
            let named: Vec<&str> = failing.iter().map(|at| all[*at]).collect();
            let event = batch(&all);
            match Left::default().judge(&event, naming(&named)) {
                Ok(_) => prop_assert!(failing.is_empty()),
                Err(error) => prop_assert_eq!(ids(&Left::of(Some(&error)).event(&event)), named),
            }
        }

        #[test]
        fn no_answer_and_no_event_makes_it_fail(event in ".{0,200}", answer in ".{0,200}") {
            let (event, answer) = (Bytes::from(event), Bytes::from(format!("{answer}{KEY}")));
            prop_assert_eq!(Left::default().judge(&event, Ok(answer.clone())), Ok(answer));
        }
    }
}
