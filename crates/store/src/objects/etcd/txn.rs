//! Transactions on etcd, and how the outcome of one is found out whose answer was lost.
//!
//! Every transaction that changes something also writes a token of its own into one key, the *mark*. When an answer
//! is lost, a *fence* is put, on whose absence the transaction depends: from then on it can't happen any more. Then the
//! history of the mark, up to the fence, says whether it has, and by which revision. So nothing is ever done twice, and
//! nothing is reported as failed that happened after all.
//!
//! The revision that last wrote the mark is what this store calls its revision: others may use the same etcd, and what they
//! write is not shown in this store's watches.

use super::endpoints::{Failure, reason, refused};
use super::pb::{self, compare, request_op, response_op, watch_request};
use super::{EtcdObjects, kv, revision_of};
use crate::StoreError;
use crate::objects::{Change, Check, Txn, TxnError, prefix_end};

/// How long a fence stays: much longer than any request can be under way inside of etcd.
const FENCE: i64 = 600;
/// Most transactions of others that are looked through for one's own; they are those of a few seconds.
const HISTORY: usize = 100_000;

pub(super) fn get(key: impl Into<bytes::Bytes>) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..pb::RangeRequest::default() }
}

fn range(request: pb::RangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(request_op::Request::RequestRange(request)) }
}

fn put(key: String, value: bytes::Bytes, lease: i64) -> pb::RequestOp {
    let request = pb::PutRequest { key: key.into(), value, lease };
    pb::RequestOp { request: Some(request_op::Request::RequestPut(request)) }
}

fn delete(key: String, end: String) -> pb::RequestOp {
    let request = pb::DeleteRangeRequest { key: key.into(), range_end: end.into() };
    pb::RequestOp { request: Some(request_op::Request::RequestDeleteRange(request)) }
}

/// The revision that made `key` compared with 0, which stands for none.
fn created(key: String, end: String, result: compare::CompareResult) -> pb::Compare {
    pb::Compare {
        result: result.into(),
        target: compare::CompareTarget::Create.into(),
        key: key.into(),
        range_end: end.into(),
        target_union: Some(compare::TargetUnion::CreateRevision(0)),
    }
}

impl EtcdObjects {
    fn compare(&self, check: &Check) -> pb::Compare {
        use compare::CompareResult::{Equal, Greater};
        let key = self.object(check.key());
        match check {
            Check::Absent(_) => created(key, String::new(), Equal),
            Check::Exists(_) => created(key, String::new(), Greater),
            Check::Modified(_, revision) => pb::Compare {
                result: Equal.into(),
                target: compare::CompareTarget::Mod.into(),
                key: key.into(),
                range_end: bytes::Bytes::new(),
                // A revision that can't be is never found.
                target_union: Some(compare::TargetUnion::ModRevision(i64::try_from(*revision).unwrap_or(i64::MAX))),
            },
        }
    }

    fn range_of(&self, prefix: &str) -> (String, String) {
        let start = self.object(prefix);
        let end = prefix_end(&start).expect("the root is not empty");
        (start, end)
    }

    /// Writes the mark where a deletion finds something: else the transaction changes nothing and has no revision.
    fn mark_if_deleted(&self, deletions: &[(String, String)], token: &str) -> Option<pb::RequestOp> {
        let ((key, end), others) = deletions.split_first()?;
        let nested = pb::TxnRequest {
            compare: vec![created(key.clone(), end.clone(), compare::CompareResult::Greater)],
            success: vec![put(self.mark(), token.to_owned().into(), 0)],
            failure: self.mark_if_deleted(others, token).into_iter().collect(),
        };
        Some(pb::RequestOp { request: Some(request_op::Request::RequestTxn(nested)) })
    }

    fn request(&self, txn: &Txn, token: &str) -> pb::TxnRequest {
        let (mut success, mut deletions, mut puts) = (Vec::with_capacity(txn.changes.len() + 2), Vec::new(), false);
        for change in &txn.changes {
            success.push(match change {
                Change::Put(key, value) => {
                    puts = true;
                    put(self.object(key), value.clone(), 0)
                }
                Change::PutLeased(key, value, lease) => {
                    puts = true;
                    put(self.object(key), value.clone(), lease.0.cast_signed())
                }
                Change::Delete(key) => {
                    deletions.push((self.object(key), String::new()));
                    delete(self.object(key), String::new())
                }
                Change::DeletePrefix(prefix) => {
                    let (start, end) = self.range_of(prefix);
                    deletions.push((start.clone(), end.clone()));
                    delete(start, end)
                }
            });
        }
        if puts {
            success.push(put(self.mark(), token.to_owned().into(), 0));
        } else {
            success.extend(self.mark_if_deleted(&deletions, token));
        }
        success.push(range(get(self.mark())));
        let mut compare: Vec<_> = txn.checks.iter().map(|check| self.compare(check)).collect();
        compare.push(created(self.fence(token), String::new(), compare::CompareResult::Equal));
        let keys =
            txn.checks.iter().map(|check| range(pb::RangeRequest { keys_only: true, ..get(self.object(check.key())) }));
        pb::TxnRequest { compare, success, failure: keys.collect() }
    }

    /// Carries out a transaction, once.
    pub(super) async fn transact(&self, txn: &Txn) -> Result<u64, TxnError> {
        const OPERATION: &str = "write objects";
        let end = self.clock.instant() + self.endpoints.deadline();
        let mut tries = 0;
        loop {
            let since = self.seen();
            let token = hex::encode(self.endpoints.random().u128().to_be_bytes());
            let asked =
                self.endpoints.once(self.request(txn, &token), async |channel, request| kv(channel).txn(request).await);
            let status = match asked.await {
                Ok(answer) => return self.outcome(txn, &answer),
                Err(Failure::Refused(status)) => return Err(refused(OPERATION, &status).into()),
                Err(Failure::Unknown(status)) => status,
            };
            tracing::warn!(detail = reason(&status), "the answer of etcd to a transaction was lost");
            if txn.changes.is_empty() {
                // Only asks: nothing can have happened.
            } else {
                let left = end - self.clock.instant();
                match tokio::time::timeout(left.max(self.endpoints.attempt()), self.resolve(&token, since)).await {
                    Ok(Ok(Some(revision))) => return Ok(revision),
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) => {
                        return Err(
                            StoreError::Indeterminate { operation: OPERATION, detail: error.to_string() }.into()
                        );
                    }
                    Err(_) => {
                        let detail = reason(&status);
                        return Err(StoreError::Indeterminate { operation: OPERATION, detail }.into());
                    }
                }
            }
            tries += 1;
            if self.clock.instant() >= end {
                return Err(StoreError::Remote { operation: OPERATION, detail: reason(&status) }.into());
            }
            self.endpoints.back_off(tries).await;
        }
    }

    fn outcome(&self, txn: &Txn, answer: &pb::TxnResponse) -> Result<u64, TxnError> {
        self.saw(answer.header.as_ref());
        if answer.succeeded {
            return Ok(answer.responses.last().and_then(ranged).map_or(0, revision_of));
        }
        let found = answer.responses.iter().map(|response| ranged(response).and_then(|range| range.kvs.first()));
        let failed = txn.checks.iter().zip(found).position(|(check, found)| match check {
            Check::Absent(_) => found.is_some(),
            Check::Exists(_) => found.is_none(),
            Check::Modified(_, revision) => found.is_none_or(|kv| kv.mod_revision.cast_unsigned() != *revision),
        });
        match failed {
            Some(index) => Err(TxnError::Failed { index, key: txn.checks[index].key().to_owned() }),
            None => Err(StoreError::Remote { operation: "write objects", detail: "no check failed".into() }.into()),
        }
    }

    /// Keeps the transaction from happening if it has not yet, and says by which revision it did.
    async fn resolve(&self, token: &str, since: u64) -> Result<Option<u64>, StoreError> {
        const OPERATION: &str = "find out what a transaction did";
        let fenced = format!("fence {token}");
        let lease = self.grant_seconds(FENCE).await?;
        let fence = pb::TxnRequest {
            compare: vec![created(self.fence(token), String::new(), compare::CompareResult::Equal)],
            success: vec![
                put(self.fence(token), bytes::Bytes::new(), lease.id),
                put(self.mark(), fenced.clone().into(), 0),
            ],
            failure: Vec::new(),
        };
        // May be repeated: where it has happened, the check fails and nothing is left to do.
        let asked = self.endpoints.repeat(OPERATION, fence, async |channel, request| kv(channel).txn(request).await);
        asked.await?.map_err(|status| refused(OPERATION, &status))?;
        let mut tries = 0;
        loop {
            match self.look_for(token, &fenced, since).await {
                Ok(found) => return Ok(found),
                Err(error) if tries >= 5 => return Err(error),
                Err(_) => {
                    tries += 1;
                    self.endpoints.back_off(tries).await;
                }
            }
        }
    }

    /// Reads the mark's history until it shows the token or the fence.
    async fn look_for(&self, token: &str, fenced: &str, since: u64) -> Result<Option<u64>, StoreError> {
        const OPERATION: &str = "read the history of transactions";
        let create = pb::WatchCreateRequest {
            key: self.mark().into(),
            range_end: bytes::Bytes::new(),
            start_revision: since.cast_signed() + 1,
        };
        let (number, mut answers) =
            self.open_watch(create).await.map_err(|status| StoreError::remote(OPERATION)(reason(&status)))?;
        for _ in 0..HISTORY {
            let answer = match tokio::time::timeout(self.endpoints.attempt(), answers.message()).await {
                Ok(Ok(Some(answer))) if !answer.canceled && answer.compact_revision == 0 => answer,
                _ => {
                    self.endpoints.failed(number);
                    return Err(StoreError::Remote { operation: OPERATION, detail: "it was cut off".into() });
                }
            };
            for kv in answer.events.into_iter().filter_map(|event| event.kv) {
                if kv.value == token {
                    return Ok(Some(kv.mod_revision.cast_unsigned()));
                }
                if kv.value == fenced {
                    return Ok(None);
                }
            }
        }
        Err(StoreError::Remote { operation: OPERATION, detail: "too many transactions since".into() })
    }

    /// Opens a stream of changes; the stream of requests stays open for as long as it does.
    pub(super) async fn open_watch(
        &self,
        create: pb::WatchCreateRequest,
    ) -> Result<(usize, tonic::Streaming<pb::WatchResponse>), tonic::Status> {
        open_watch(&self.endpoints, create).await
    }

    /// Makes the store's revision newer than everything that was ever written.
    pub(super) async fn raise(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "raise the revision";
        let txn =
            pb::TxnRequest { success: vec![put(self.mark(), bytes::Bytes::new(), 0)], ..pb::TxnRequest::default() };
        let asked = self.endpoints.repeat(OPERATION, txn, async |channel, request| kv(channel).txn(request).await);
        asked.await?.map_err(|status| refused(OPERATION, &status))?;
        Ok(())
    }

    /// Makes the mark, if there is none.
    pub(super) async fn make_mark(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "open the store";
        let txn = pb::TxnRequest {
            compare: vec![created(self.mark(), String::new(), compare::CompareResult::Equal)],
            success: vec![put(self.mark(), bytes::Bytes::new(), 0)],
            failure: Vec::new(),
        };
        let asked = self.endpoints.repeat(OPERATION, txn, async |channel, request| kv(channel).txn(request).await);
        let answer = asked.await?.map_err(|status| refused(OPERATION, &status))?;
        self.saw(answer.header.as_ref());
        Ok(())
    }

    /// Some objects and the store's revision, at one moment; and etcd's own revision of that moment.
    pub(super) async fn range_with_mark(
        &self,
        request: pb::RangeRequest,
    ) -> Result<(pb::RangeResponse, u64, i64), StoreError> {
        const OPERATION: &str = "list objects";
        let txn =
            pb::TxnRequest { success: vec![range(request), range(get(self.mark()))], ..pb::TxnRequest::default() };
        let asked = self.endpoints.repeat(OPERATION, txn, async |channel, request| kv(channel).txn(request).await);
        let answer = asked.await?.map_err(|status| refused(OPERATION, &status))?;
        self.saw(answer.header.as_ref());
        let at = answer.header.map_or(0, |header| header.revision);
        let mut ranges = answer.responses.into_iter().filter_map(|response| match response.response {
            Some(response_op::Response::ResponseRange(range)) => Some(range),
            _ => None,
        });
        match (ranges.next(), ranges.next()) {
            (Some(listed), Some(mark)) => Ok((listed, revision_of(&mark), at)),
            _ => Err(StoreError::Remote { operation: OPERATION, detail: "half of the answer is missing".into() }),
        }
    }
}

/// See [`EtcdObjects::open_watch`].
pub(super) async fn open_watch(
    endpoints: &super::endpoints::Endpoints,
    create: pb::WatchCreateRequest,
) -> Result<(usize, tonic::Streaming<pb::WatchResponse>), tonic::Status> {
    use futures::StreamExt;
    let (number, channel) = endpoints.channel();
    let first = pb::WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
    let requests = futures::stream::iter([first]).chain(futures::stream::pending());
    let mut client = pb::watch_client::WatchClient::new(channel).max_decoding_message_size(super::LARGEST);
    let opened = client.watch(super::endpoints::request(requests));
    let answer = match tokio::time::timeout(endpoints.attempt(), opened).await {
        Ok(answer) => answer,
        Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
    };
    match answer {
        Ok(answers) => Ok((number, answers.into_inner())),
        Err(status) => {
            endpoints.failed(number);
            Err(status)
        }
    }
}

fn ranged(response: &pb::ResponseOp) -> Option<&pb::RangeResponse> {
    match &response.response {
        Some(response_op::Response::ResponseRange(range)) => Some(range),
        _ => None,
    }
}
