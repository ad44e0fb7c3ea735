//! [`Blobs`] in a bucket of an S3 store: one object each, named by its digest.
//!
//! Requests are repeated while the store is overloaded or can't be reached, until their deadline: each of them may be, since
//! an object of one name has one content. A large blob is uploaded in parts and is there only when all of them
//! are; the parts of an upload that was cut off are the bucket's to clear away (a lifecycle rule).

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use lyra_kit::retry::Backoff;
use lyra_kit::{Clock, Random};
use lyra_types::function::Digest;
use reqwest::{Method, Response, StatusCode};
use rusty_s3::actions::{CreateMultipartUpload, ListObjectsV2};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use url::Url;

use super::{Blobs, digest, is_digest};
use crate::StoreError;

/// A blob above this size, in bytes, is uploaded in parts of this size. S3 takes none below 5 MiB.
const PART: usize = 8 << 20;
/// Parts of one blob that are under way at once.
const AT_ONCE: usize = 4;
/// How long a signature is good: as long as one try may take to begin.
const SIGNED: Duration = Duration::from_secs(300);
/// Longest wait for a connection, and for the next bytes of an answer.
const CONNECT: Duration = Duration::from_secs(5);
const READ: Duration = Duration::from_secs(20);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(2) };
/// What comes after each digest in the order of texts.
const AFTER: &str = "g";
/// Most of an error's document that is read, in bytes.
const ERROR: usize = 16 << 10;

/// Keys for an S3 store.
#[derive(Clone)]
pub struct S3Keys {
    /// The access key's id.
    pub access_key: String,
    /// The secret.
    pub secret_key: String,
    /// The token that comes with keys that expire.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for S3Keys {
    /// The secret is never shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Keys").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// Which bucket, and how it is asked.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The bucket; it has to be there.
    pub bucket: String,
    /// Where the store is; without one, Amazon's of the region.
    pub endpoint: Option<Url>,
    /// The region that requests are signed for.
    pub region: String,
    /// What all names begin with.
    pub prefix: String,
    /// Whether the bucket is part of the host's name instead of the path.
    pub virtual_host: bool,
    /// The keys.
    pub keys: S3Keys,
    /// An authority to trust beside the system's, as PEM text.
    pub ca: Option<Vec<u8>>,
    /// Longest for a request with all its tries; a large upload has many requests.
    pub deadline: Duration,
}

impl S3Settings {
    /// The defaults: Amazon, region `us-east-1`, prefix `blobs/`, 60 s.
    pub fn new(bucket: String, keys: S3Keys) -> S3Settings {
        S3Settings {
            bucket,
            endpoint: None,
            region: "us-east-1".to_owned(),
            prefix: "blobs/".to_owned(),
            virtual_host: true,
            keys,
            ca: None,
            deadline: Duration::from_secs(60),
        }
    }
}

/// [`Blobs`] in a bucket of an S3 store.
pub struct S3Blobs {
    http: reqwest::Client,
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
    deadline: Duration,
    clock: Clock,
    random: Random,
}

/// One request: its method, the signed URL, headers, body.
struct Ask {
    method: Method,
    url: Url,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Ask {
    fn new(method: Method, url: Url) -> Ask {
        Ask { method, url, headers: Vec::new(), body: Bytes::new() }
    }
}

impl S3Blobs {
    /// Connects, and makes sure that the bucket is there and may be read.
    ///
    /// # Errors
    /// [`StoreError::Remote`] when it is not, or the store does not answer in time.
    pub async fn connect(settings: S3Settings) -> Result<S3Blobs, StoreError> {
        const OPERATION: &str = "open the bucket";
        // reqwest is built without a TLS provider; whoever comes first chooses the only one that there is.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut http = reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(READ);
        if let Some(pem) = &settings.ca {
            let authorities = reqwest::Certificate::from_pem_bundle(pem).map_err(StoreError::remote(OPERATION))?;
            http = http.tls_certs_merge(authorities);
        }
        let region = &settings.region;
        let endpoint = match settings.endpoint {
            Some(endpoint) => endpoint,
            None => Url::parse(&format!("https://s3.{region}.amazonaws.com")).map_err(StoreError::remote(OPERATION))?,
        };
        let style = if settings.virtual_host { UrlStyle::VirtualHost } else { UrlStyle::Path };
        let S3Keys { access_key, secret_key, session_token } = settings.keys;
        let blobs = S3Blobs {
            http: http.build().map_err(StoreError::remote(OPERATION))?,
            bucket: Bucket::new(endpoint, style, settings.bucket, settings.region)
                .map_err(StoreError::remote(OPERATION))?,
            credentials: match session_token {
                Some(token) => Credentials::new_with_token(access_key, secret_key, token),
                None => Credentials::new(access_key, secret_key),
            },
            prefix: settings.prefix,
            deadline: settings.deadline,
            clock: Clock::system(),
            random: Random::system(),
        };
        blobs.page(OPERATION, None, 1).await?;
        Ok(blobs)
    }

    fn key(&self, digest: &Digest) -> Result<String, StoreError> {
        if is_digest(digest) {
            Ok(format!("{}{digest}", self.prefix))
        } else {
            Err(StoreError::InvalidKey { key: digest.0.chars().take(64).collect() })
        }
    }

    fn sign<'a>(&self, action: &impl S3Action<'a>) -> Url {
        let now = jiff::Timestamp::from_millisecond(self.clock.now().millis()).unwrap_or(jiff::Timestamp::MAX);
        action.sign_with_time(SIGNED, &now)
    }

    /// Asks until there is an answer that is not the store's fault, or the deadline has passed.
    async fn ask(&self, operation: &'static str, make: impl Fn() -> Ask) -> Result<Response, StoreError> {
        let end = self.clock.instant() + self.deadline;
        let mut tries = 0;
        loop {
            let Ask { method, url, headers, body } = make();
            let mut request = self.http.request(method, url).body(body);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let detail = match tokio::time::timeout_at(end, request.send()).await {
                Ok(Ok(answer)) if !may_pass(answer.status()) => return Ok(answer),
                Ok(Ok(answer)) => describe(answer).await,
                // The URL has a signature in it.
                Ok(Err(error)) => chain(&error.without_url()),
                Err(_) => "no answer in time".to_owned(),
            };
            tries += 1;
            if self.clock.instant() >= end {
                return Err(StoreError::Remote { operation, detail });
            }
            tracing::debug!(operation, detail, "S3 is asked again");
            self.clock.sleep(BACKOFF.delay(tries, &self.random)).await;
        }
    }

    /// As [`S3Blobs::ask`], with the whole body of a good answer; `None` for 404.
    async fn body(&self, operation: &'static str, make: impl Fn() -> Ask) -> Result<Option<Bytes>, StoreError> {
        let end = self.clock.instant() + self.deadline;
        loop {
            let answer = self.ask(operation, &make).await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            match good(operation, answer).await?.bytes().await {
                Ok(bytes) => return Ok(Some(bytes)),
                // Cut off in the middle: begun anew.
                Err(error) if self.clock.instant() >= end => {
                    return Err(StoreError::remote(operation)(chain(&error.without_url())));
                }
                Err(_) => {}
            }
        }
    }

    /// Size of the object, if it is there.
    async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        const OPERATION: &str = "look for a blob";
        let make = || Ask::new(Method::HEAD, self.sign(&self.bucket.head_object(Some(&self.credentials), key)));
        let answer = self.ask(OPERATION, make).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = good(OPERATION, answer).await?;
        let length = answer.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Some(length.unwrap_or(0)))
    }

    async fn put_whole(&self, key: &str, bytes: &Bytes, digest: &Digest) -> Result<(), StoreError> {
        const OPERATION: &str = "write a blob";
        // The store compares it with what arrives.
        let checksum = STANDARD.encode(hex::decode(&digest.0).unwrap_or_default());
        let make = || {
            let mut action = self.bucket.put_object(Some(&self.credentials), key);
            action.headers_mut().insert("x-amz-checksum-sha256", checksum.clone());
            Ask {
                headers: vec![("x-amz-checksum-sha256", checksum.clone())],
                body: bytes.clone(),
                ..Ask::new(Method::PUT, self.sign(&action))
            }
        };
        good(OPERATION, self.ask(OPERATION, make).await?).await?;
        Ok(())
    }

    async fn put_in_parts(&self, key: &str, bytes: &Bytes) -> Result<(), StoreError> {
        const OPERATION: &str = "begin to write a blob";
        let begin =
            || Ask::new(Method::POST, self.sign(&self.bucket.create_multipart_upload(Some(&self.credentials), key)));
        let begun = self.body(OPERATION, begin).await?.unwrap_or_default();
        let begun = CreateMultipartUpload::parse_response(&String::from_utf8_lossy(&begun))
            .map_err(StoreError::remote(OPERATION))?;
        let upload = begun.upload_id();
        let written = self.put_parts(key, upload, bytes).await;
        if written.is_err() {
            let abort = || {
                let action = self.bucket.abort_multipart_upload(Some(&self.credentials), key, upload);
                Ask::new(Method::DELETE, self.sign(&action))
            };
            if let Err(error) = self.ask("give an upload up", abort).await {
                tracing::warn!(%error, "parts of a blob are left in the bucket");
            }
        }
        written
    }

    async fn put_parts(&self, key: &str, upload: &str, bytes: &Bytes) -> Result<(), StoreError> {
        const OPERATION: &str = "write a part of a blob";
        let parts = (0..bytes.len().div_ceil(PART)).map(|index| async move {
            let number = u16::try_from(index + 1)
                .map_err(|_| StoreError::TooLarge { operation: OPERATION, detail: "more than 65,535 parts".into() })?;
            let part = bytes.slice(index * PART..bytes.len().min((index + 1) * PART));
            let make = || Ask {
                body: part.clone(),
                ..Ask::new(
                    Method::PUT,
                    self.sign(&self.bucket.upload_part(Some(&self.credentials), key, number, upload)),
                )
            };
            let answer = good(OPERATION, self.ask(OPERATION, make).await?).await?;
            let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
            tag.ok_or_else(|| StoreError::remote(OPERATION)("the answer has no ETag"))
        });
        let tags: Vec<String> = futures::stream::iter(parts).buffered(AT_ONCE).try_collect().await?;
        let finish = || {
            let tags = tags.iter().map(String::as_str);
            let action = self.bucket.complete_multipart_upload(Some(&self.credentials), key, upload, tags);
            let url = self.sign(&action);
            Ask { body: action.body().into(), ..Ask::new(Method::POST, url) }
        };
        // Asked a second time after a lost answer, the upload is not known any more: the object says whether it was whole.
        let finished = self.body("finish to write a blob", finish).await?;
        let whole = finished.is_some_and(|answer| !String::from_utf8_lossy(&answer).contains("<Error>"));
        if whole || self.size(key).await? == Some(bytes.len() as u64) {
            Ok(())
        } else {
            Err(StoreError::remote("finish to write a blob")("the store did not put the parts together"))
        }
    }

    /// Some names, and where to go on.
    async fn page(
        &self,
        operation: &'static str,
        from: Option<&str>,
        most: usize,
    ) -> Result<(Vec<String>, Option<String>), StoreError> {
        let make = || {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(self.prefix.as_str());
            action.with_max_keys(most);
            if let Some(from) = from {
                action.with_continuation_token(from);
            }
            Ask::new(Method::GET, self.sign(&action))
        };
        let page = self.body(operation, make).await?;
        let page =
            page.ok_or_else(|| StoreError::remote(operation)(format!("there is no bucket {}", self.bucket.name())))?;
        let page =
            ListObjectsV2::parse_response(&String::from_utf8_lossy(&page)).map_err(StoreError::remote(operation))?;
        Ok((page.contents.into_iter().map(|object| object.key).collect(), page.next_continuation_token))
    }
}

/// Whether the store may answer otherwise in a moment.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

async fn good(operation: &'static str, answer: Response) -> Result<Response, StoreError> {
    if answer.status().is_success() {
        Ok(answer)
    } else {
        Err(StoreError::Remote { operation, detail: describe(answer).await })
    }
}

/// The status, and the code in the error's document.
async fn describe(answer: Response) -> String {
    let status = answer.status();
    let mut body = BytesMut::new();
    let mut parts = answer.bytes_stream();
    while let Some(Ok(part)) = parts.next().await {
        body.extend_from_slice(&part);
        if body.len() > ERROR {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    match text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")) {
        Some((code, _)) => format!("{status}, {}", code.chars().take(64).collect::<String>()),
        None => status.to_string(),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[async_trait]
impl Blobs for S3Blobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        let (digest, bytes) =
            lyra_kit::tasks::blocking(move || (digest(&bytes), bytes)).await.map_err(|_| StoreError::Closed)?;
        let key = self.key(&digest)?;
        // A damaged one is written anew.
        if self.size(&key).await? == Some(bytes.len() as u64) && matches!(self.get(&digest).await, Ok(Some(_))) {
            return Ok(digest);
        }
        if bytes.len() <= PART {
            self.put_whole(&key, &bytes, &digest).await?;
        } else {
            self.put_in_parts(&key, &bytes).await?;
        }
        Ok(digest)
    }

    async fn get(&self, wanted: &Digest) -> Result<Option<Bytes>, StoreError> {
        const OPERATION: &str = "read a blob";
        let key = self.key(wanted)?;
        let make = || Ask::new(Method::GET, self.sign(&self.bucket.get_object(Some(&self.credentials), &key)));
        let Some(bytes) = self.body(OPERATION, make).await? else { return Ok(None) };
        let (found, bytes) =
            lyra_kit::tasks::blocking(move || (digest(&bytes), bytes)).await.map_err(|_| StoreError::Closed)?;
        if found == *wanted {
            Ok(Some(bytes))
        } else {
            let detail = format!("the bytes of {wanted} do not have this digest");
            Err(StoreError::Damaged { operation: OPERATION, detail })
        }
    }

    async fn exists(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.size(&self.key(digest)?).await?.is_some())
    }

    async fn delete(&self, digest: &Digest) -> Result<bool, StoreError> {
        const OPERATION: &str = "delete a blob";
        let key = self.key(digest)?;
        // S3 itself does not say.
        let there = self.size(&key).await?.is_some();
        let make = || Ask::new(Method::DELETE, self.sign(&self.bucket.delete_object(Some(&self.credentials), &key)));
        let answer = self.ask(OPERATION, make).await?;
        if answer.status() != StatusCode::NOT_FOUND {
            good(OPERATION, answer).await?;
        }
        Ok(there)
    }

    async fn list(&self) -> Result<Vec<Digest>, StoreError> {
        let (mut digests, mut from) = (Vec::new(), None);
        loop {
            let (keys, next) = self.page("list blobs", from.as_deref(), 1_000).await?;
            // Keys come in order; those of other shelves follow all digests.
            let past = keys.last().is_some_and(|key| key.strip_prefix(&self.prefix).is_some_and(|name| name > AFTER));
            let names = keys.iter().filter_map(|key| key.strip_prefix(&self.prefix));
            digests.extend(names.map(|name| Digest(name.to_owned())).filter(is_digest));
            match next {
                Some(next) if !past => from = Some(next),
                _ => return Ok(digests),
            }
        }
    }
}
