//! [`Objects`] on etcd, 3.4 and later.
//!
//! All keys stand under one root, so that several sites, or others, may use one etcd:
//! `ROOT/o/KEY` holds an object, `ROOT/m` the mark, `ROOT/f/TOKEN` fences (see [`txn`]). An object's revisions are
//! etcd's. A transaction may have 126 checks and as many changes, and 1.5 MiB, unless etcd is told otherwise.
//!
//! Nothing is compacted from here: etcd does that by itself (`--auto-compaction-retention`), or its operator does.

mod endpoints;
mod txn;
mod watch;

#[allow(clippy::all, reason = "generated from proto/etcd.proto")]
mod pb {
    tonic::include_proto!("etcdserverpb");
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use lyra_kit::Clock;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;

use self::endpoints::{Endpoints, refused};
use self::txn::get;
use self::watch::Watcher;
use super::{
    Batch, Change, Entry, Granted, LeaseId, Listing, Objects, Txn, TxnError, WatchError, check_key, check_prefix,
    prefix_end,
};
use crate::StoreError;
use crate::tls::TlsFiles;

/// Largest answer that is taken, in bytes: a page of objects or a burst of changes.
const LARGEST: usize = 256 << 20;
/// Objects read by one request.
const PAGE: usize = 1_000;
/// Times that a list is begun anew because what it reads was compacted meanwhile.
const TRIES: usize = 5;

/// Which etcd, and how it is asked.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// `HOST:PORT` of each member.
    pub endpoints: Vec<String>,
    /// Certificates; without them connections are plain text.
    pub tls: Option<TlsFiles>,
    /// What all keys begin with: letters, digits, `/`, `-`.
    pub root: String,
    /// Longest for one try at one member.
    pub attempt: Duration,
    /// Longest for a request with all its tries.
    pub deadline: Duration,
}

impl EtcdSettings {
    /// The defaults: root `lyra`, 2 s a try, 10 s in all.
    pub fn new(endpoints: Vec<String>) -> EtcdSettings {
        EtcdSettings {
            endpoints,
            tls: None,
            root: "lyra".to_owned(),
            attempt: Duration::from_secs(2),
            deadline: Duration::from_secs(10),
        }
    }
}

/// [`Objects`] on etcd. Cheap to clone.
#[derive(Clone)]
pub struct EtcdObjects {
    endpoints: Arc<Endpoints>,
    root: Arc<str>,
    /// The newest of etcd's revisions that an answer has named.
    newest: Arc<AtomicU64>,
    clock: Clock,
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(LARGEST)
}

/// Which revision last wrote the one key that was asked for; 0 when it is not there.
fn revision_of(range: &pb::RangeResponse) -> u64 {
    range.kvs.first().map_or(0, |kv| kv.mod_revision.cast_unsigned())
}

impl EtcdObjects {
    /// Connects and makes sure that there is an etcd that can write.
    ///
    /// # Errors
    /// [`StoreError::Remote`] when no member answers in time, or is older than 3.4.
    pub async fn connect(settings: EtcdSettings) -> Result<EtcdObjects, StoreError> {
        const OPERATION: &str = "open the store";
        let store = EtcdObjects {
            endpoints: Arc::new(Endpoints::new(&settings)?),
            root: format!("{}/", settings.root.trim_end_matches('/')).into(),
            newest: Arc::new(AtomicU64::new(0)),
            clock: Clock::system(),
        };
        check_key(&store.root)?;
        let asked = store.endpoints.repeat(OPERATION, pb::StatusRequest {}, async |channel, request| {
            MaintenanceClient::new(channel).status(request).await
        });
        let status = asked.await?.map_err(|status| refused(OPERATION, &status))?;
        let mut parts = status.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (3, 4) {
            let detail = format!("etcd {} is older than 3.4", status.version);
            return Err(StoreError::Remote { operation: OPERATION, detail });
        }
        store.make_mark().await?;
        Ok(store)
    }

    fn root(&self) -> &str {
        &self.root
    }

    fn object(&self, key: &str) -> String {
        format!("{}o/{key}", self.root)
    }

    fn mark(&self) -> String {
        format!("{}m", self.root)
    }

    fn fence(&self, token: &str) -> String {
        format!("{}f/{token}", self.root)
    }

    fn seen(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    fn saw(&self, header: Option<&pb::ResponseHeader>) {
        if let Some(header) = header {
            self.newest.fetch_max(header.revision.cast_unsigned(), Ordering::AcqRel);
        }
    }

    async fn range(
        &self,
        operation: &'static str,
        request: pb::RangeRequest,
    ) -> Result<Result<pb::RangeResponse, tonic::Status>, StoreError> {
        let asked =
            self.endpoints.repeat(operation, request, async |channel, request| kv(channel).range(request).await);
        let answer = asked.await?;
        if let Ok(answer) = &answer {
            self.saw(answer.header.as_ref());
        }
        Ok(answer)
    }

    /// Whether the state of this revision can still be read.
    async fn is_kept(&self, revision: u64) -> Result<bool, StoreError> {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        let request = pb::RangeRequest { revision, count_only: true, ..get(self.mark()) };
        match self.range("look for the history", request).await? {
            Err(status) if status.message().contains("compacted") => Ok(false),
            // Including those that are still to come.
            _ => Ok(true),
        }
    }

    fn entry(&self, kv: pb::KeyValue) -> Result<Entry, StoreError> {
        let key = std::str::from_utf8(&kv.key).ok().and_then(|key| key.strip_prefix(&*self.root)?.strip_prefix("o/"));
        let Some(key) = key else {
            return Err(StoreError::Damaged {
                operation: "read an object",
                detail: format!("{:?} is no key of this store", String::from_utf8_lossy(&kv.key)),
            });
        };
        Ok(Entry {
            key: key.to_owned(),
            value: kv.value,
            created: kv.create_revision.cast_unsigned(),
            modified: kv.mod_revision.cast_unsigned(),
        })
    }

    async fn grant_seconds(&self, ttl: i64) -> Result<pb::LeaseGrantResponse, StoreError> {
        const OPERATION: &str = "make a lease";
        // Repeated, it can leave a lease behind that nobody uses; it ends by itself.
        let request = pb::LeaseGrantRequest { ttl };
        let asked = self
            .endpoints
            .repeat(OPERATION, request, async |channel, request| LeaseClient::new(channel).lease_grant(request).await);
        let granted = asked.await?.map_err(|status| refused(OPERATION, &status))?;
        if granted.error.is_empty() {
            Ok(granted)
        } else {
            Err(StoreError::Remote { operation: OPERATION, detail: granted.error })
        }
    }

    /// Forgets the history up to the newest revision, of everything in this etcd. For sites whose etcd does not do so by
    /// itself, and for tests.
    ///
    /// # Errors
    /// When etcd refuses or can't be reached.
    pub async fn compact(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "compact";
        let (_, _, revision) = self.range_with_mark(get(self.mark())).await?;
        let request = pb::CompactionRequest { revision };
        let asked =
            self.endpoints.repeat(OPERATION, request, async |channel, request| kv(channel).compact(request).await);
        match asked.await? {
            Ok(_) => Ok(()),
            // Somebody else has, or the first try had happened.
            Err(status) if status.message().contains("compacted") => Ok(()),
            Err(status) => Err(refused(OPERATION, &status)),
        }
    }
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit.min(PAGE)).unwrap_or(i64::MAX)
}

#[async_trait]
impl Objects for EtcdObjects {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        const OPERATION: &str = "get an object";
        check_key(key)?;
        let answer = self.range(OPERATION, get(self.object(key))).await?;
        let answer = answer.map_err(|status| refused(OPERATION, &status))?;
        answer.kvs.into_iter().next().map(|kv| self.entry(kv)).transpose()
    }

    async fn list(&self, prefix: &str, limit: usize, after: Option<&str>) -> Result<Listing, StoreError> {
        const OPERATION: &str = "list objects";
        check_prefix(prefix)?;
        let start = self.object(prefix);
        let end = prefix_end(&start).expect("the root is not empty");
        let first = match after {
            Some(after) => start.max(format!("{}\0", self.object(after))),
            None => start,
        };
        let page = |from: String, left: usize, revision: i64| pb::RangeRequest {
            key: from.into(),
            range_end: end.clone().into(),
            limit: limit_of(left),
            revision,
            ..pb::RangeRequest::default()
        };
        if first >= end || limit == 0 {
            let (found, revision, _) =
                self.range_with_mark(pb::RangeRequest { count_only: false, ..page(first, 1, 0) }).await?;
            return Ok(Listing { entries: Vec::new(), revision, more: !found.kvs.is_empty() });
        }
        'anew: for _ in 0..TRIES {
            let (mut found, revision, at) = self.range_with_mark(page(first.clone(), limit, 0)).await?;
            let mut entries = Vec::with_capacity(found.kvs.len());
            loop {
                entries.extend(found.kvs.into_iter().map(|kv| self.entry(kv)).collect::<Result<Vec<_>, _>>()?);
                let more = found.more;
                let Some(last) = entries.last().filter(|_| more && entries.len() < limit) else {
                    return Ok(Listing { entries, revision, more });
                };
                let next = format!("{}\0", self.object(&last.key));
                found = match self.range(OPERATION, page(next, limit - entries.len(), at)).await? {
                    Ok(found) => found,
                    Err(status) if status.message().contains("compacted") => continue 'anew,
                    Err(status) => return Err(refused(OPERATION, &status)),
                };
            }
        }
        Err(StoreError::Remote {
            operation: OPERATION,
            detail: "history is compacted faster than it can be read".into(),
        })
    }

    async fn txn(&self, txn: Txn) -> Result<u64, TxnError> {
        for check in &txn.checks {
            check_key(check.key())?;
        }
        for change in &txn.changes {
            match change {
                Change::Put(key, _) | Change::PutLeased(key, ..) | Change::Delete(key) => check_key(key)?,
                Change::DeletePrefix(prefix) => check_prefix(prefix)?,
            }
        }
        self.transact(&txn).await
    }

    async fn watch(
        &self,
        prefix: &str,
        from: u64,
    ) -> Result<BoxStream<'static, Result<Batch, WatchError>>, WatchError> {
        check_prefix(prefix)?;
        let watcher = Watcher::start(self.clone(), prefix, from).await?;
        Ok(Box::pin(futures::stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(batch) => Some((Ok(batch), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        })))
    }

    async fn grant(&self, ttl: Duration) -> Result<Granted, StoreError> {
        let seconds = ttl.as_millis().div_ceil(1_000).max(1);
        let granted = self.grant_seconds(i64::try_from(seconds).unwrap_or(i64::MAX)).await?;
        Ok(Granted {
            id: LeaseId(granted.id.cast_unsigned()),
            ttl: Duration::from_secs(granted.ttl.max(0).cast_unsigned()),
        })
    }

    async fn renew(&self, lease: LeaseId) -> Result<bool, StoreError> {
        const OPERATION: &str = "renew a lease";
        let request = pb::LeaseKeepAliveRequest { id: lease.0.cast_signed() };
        let asked = self.endpoints.repeat(OPERATION, request, async |channel, request| {
            let (metadata, extensions, message) = request.into_parts();
            let once = tonic::Request::from_parts(metadata, extensions, futures::stream::iter([message]));
            let mut answers = LeaseClient::new(channel).lease_keep_alive(once).await?.into_inner();
            match answers.message().await? {
                Some(answer) => Ok(tonic::Response::new(answer)),
                None => Err(tonic::Status::unavailable("no answer")),
            }
        });
        Ok(asked.await?.map_err(|status| refused(OPERATION, &status))?.ttl > 0)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        const OPERATION: &str = "end a lease";
        let request = pb::LeaseRevokeRequest { id: lease.0.cast_signed() };
        let asked = self
            .endpoints
            .repeat(OPERATION, request, async |channel, request| LeaseClient::new(channel).lease_revoke(request).await);
        match asked.await? {
            Ok(_) => Ok(()),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
            Err(status) => Err(refused(OPERATION, &status)),
        }
    }
}
