//! From an address to a store: `etcd://…`, `nats://…`, `s3://…`, `sqlite`, a directory.
//!
//! An address says where; keys and certificates come beside it ([`Access`]), so that an address can be shown. One with a
//! password in it is not shown by anything here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::tasks::blocking;
use url::Url;

use crate::blobs::{S3Blobs, S3Keys, S3Settings, Shelf};
use crate::jobs::NatsSettings;
use crate::objects::{EtcdSettings, History};
use crate::{
    Blobs, DirLock, DirectoryBlobs, EtcdObjects, Jobs, NatsJobs, NatsRuns, Objects, Runs, SqliteJobs, SqliteObjects,
    SqliteRuns, StoreError, TlsFiles,
};

/// A server that takes longer to answer when it is opened is told of.
const SLOW: Duration = Duration::from_secs(3);

/// What an address does not say.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Where `sqlite` keeps its files.
    pub data_dir: Option<PathBuf>,
    /// The lock on that directory, held for as long as a store uses it.
    pub lock: Option<Arc<DirLock>>,
    /// How much history `sqlite` keeps.
    pub history: History,
    /// `ca.pem`, and `cert.pem` with `key.pem`: for `etcds://` and `tls://`, and whom to trust for `s3://`.
    pub tls_dir: Option<PathBuf>,
    /// A `.creds` file for NATS.
    pub nats_credentials: Option<PathBuf>,
    /// Keys for S3.
    pub s3_keys: Option<S3Keys>,
}

/// Opens the objects of `sqlite`, `etcd://HOST[:PORT][,…][?root=…]` or `etcds://…` (by TLS).
///
/// # Errors
/// [`StoreError::Address`] when it is no such address; else as opening the store.
pub async fn open_objects(address: &str, access: &Access) -> Result<Arc<dyn Objects>, StoreError> {
    if address == "sqlite" {
        let (path, history, lock) = (access.file("objects.db")?, access.history, access.lock.clone());
        let opened = blocking(move || SqliteObjects::open(&path, history, lock)).await;
        return Ok(Arc::new(opened.map_err(|_| StoreError::Closed)??));
    }
    let settings = etcd_settings(address, access)?;
    let at = settings.endpoints.join(", ");
    Ok(Arc::new(answered("etcd", &at, EtcdObjects::connect(settings)).await?))
}

/// Opens the jobs of `sqlite`, `nats://[USER:PASSWORD@]HOST[:PORT][,…][?replicas=3&bucket=…]` or `tls://…`.
///
/// # Errors
/// As [`open_objects`].
pub async fn open_jobs(address: &str, access: &Access) -> Result<Arc<dyn Jobs>, StoreError> {
    if address == "sqlite" {
        let (path, lock) = (access.file("jobs.db")?, access.lock.clone());
        let opened = blocking(move || SqliteJobs::open(&path, lock)).await;
        return Ok(Arc::new(opened.map_err(|_| StoreError::Closed)??));
    }
    let settings = nats_settings(address, access, "lyra-jobs")?;
    Ok(Arc::new(answered("NATS", &settings.servers.join(", "), Box::pin(NatsJobs::connect(&settings))).await?))
}

/// Opens the runs of `sqlite`, or of an address as [`open_jobs`] takes it; both may have the same.
///
/// # Errors
/// As [`open_objects`].
pub async fn open_runs(address: &str, access: &Access) -> Result<Arc<dyn Runs>, StoreError> {
    if address == "sqlite" {
        let (path, lock) = (access.file("runs.db")?, access.lock.clone());
        let opened = blocking(move || SqliteRuns::open(&path, lock)).await;
        return Ok(Arc::new(opened.map_err(|_| StoreError::Closed)??));
    }
    let settings = nats_settings(address, access, "lyra-runs")?;
    Ok(Arc::new(answered("NATS", &settings.servers.join(", "), Box::pin(NatsRuns::connect(&settings))).await?))
}

/// Opens a shelf of the blobs of a directory, or of `s3://BUCKET[?endpoint=…&region=…&prefix=…&style=path|virtual]`.
///
/// # Errors
/// As [`open_objects`].
pub async fn open_blobs(address: &str, access: &Access, shelf: Shelf) -> Result<Arc<dyn Blobs>, StoreError> {
    if !address.contains("://") {
        if address.is_empty() {
            return Err(bad("it is empty: name a directory or s3://BUCKET"));
        }
        let path = PathBuf::from(address);
        let opened = blocking(move || DirectoryBlobs::open_shelf(&path, shelf)).await;
        return Ok(Arc::new(opened.map_err(|_| StoreError::Closed)??));
    }
    let mut settings = s3_settings(address, access)?;
    if shelf == Shelf::Values {
        settings.prefix.push_str("values/");
    }
    let at = match &settings.endpoint {
        Some(endpoint) => format!("{} of {endpoint}", settings.bucket),
        None => format!("{} of Amazon's {}", settings.bucket, settings.region),
    };
    Ok(Arc::new(answered("the bucket", &at, S3Blobs::connect(settings)).await?))
}

/// Opens the server `what`, which is `at` these addresses. Who waits is told for what, and who gets an error where.
async fn answered<T>(what: &str, at: &str, open: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let mut open = std::pin::pin!(open);
    let opened = match tokio::time::timeout(SLOW, &mut open).await {
        Ok(opened) => opened,
        Err(_) => {
            tracing::warn!(at, "{what} does not answer yet");
            open.await
        }
    };
    opened.map_err(|error| match error {
        StoreError::Remote { operation, detail } => {
            StoreError::Remote { operation, detail: format!("{what} {at}: {detail}") }
        }
        other => other,
    })
}

impl Access {
    fn file(&self, name: &str) -> Result<PathBuf, StoreError> {
        let dir = self.data_dir.as_deref().ok_or_else(|| bad("sqlite needs a data directory (--data-dir)"))?;
        Ok(dir.join(name))
    }
}

fn bad(detail: impl Into<String>) -> StoreError {
    StoreError::Address { detail: detail.into() }
}

/// The parts of `SCHEME://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][?NAME=VALUE&…]`.
struct Parts<'a> {
    scheme: &'a str,
    user: Option<(String, String)>,
    place: &'a str,
    query: BTreeMap<String, String>,
}

impl<'a> Parts<'a> {
    fn read(address: &'a str, known: &str) -> Result<Parts<'a>, StoreError> {
        let (scheme, rest) = address.split_once("://").ok_or_else(|| bad(format!("it is none of {known}")))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => {
                let (user, password) = user.split_once(':').ok_or_else(|| bad("the user has no password"))?;
                let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
                (Some((decode(user), decode(password))), place)
            }
            None => (None, place),
        };
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if parameters.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(bad(format!("{name} is given twice")));
            }
        }
        Ok(Parts { scheme, user, place: place.trim_end_matches('/'), query: parameters })
    }

    /// Each `HOST:PORT`.
    fn hosts(&self, port: u16) -> Result<Vec<String>, StoreError> {
        self.place.split(',').map(|host| with_port(host, port)).collect()
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.query.remove(name)
    }

    /// Nothing must be left that nobody has asked for.
    fn done(self) -> Result<(), StoreError> {
        match self.query.keys().next() {
            Some(name) => Err(bad(format!("there is no parameter {name:?}"))),
            None => Ok(()),
        }
    }
}

/// `HOST:PORT` of a name, an IPv4 address or an IPv6 one in brackets, with or without its port.
fn with_port(host: &str, port: u16) -> Result<String, StoreError> {
    let wrong = || bad(format!("{host:?} is not HOST:PORT"));
    let url = Url::parse(&format!("http://{host}")).map_err(|_| wrong())?;
    let name = url.host_str().filter(|name| !name.is_empty()).ok_or_else(wrong)?;
    if url.path() != "/" || !url.username().is_empty() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong());
    }
    // The port 80 is left out by the parser, as the one of http.
    let port = url.port().unwrap_or_else(|| if host.ends_with(":80") { 80 } else { port });
    Ok(format!("{name}:{port}"))
}

fn etcd_settings(address: &str, access: &Access) -> Result<EtcdSettings, StoreError> {
    const KNOWN: &str = "sqlite, etcd://HOST:2379[,…], etcds://HOST:2379[,…]";
    let mut parts = Parts::read(address, KNOWN)?;
    let mut settings = EtcdSettings::new(Vec::new());
    settings.tls = match parts.scheme {
        "etcd" => None,
        "etcds" => {
            let dir = access.tls_dir.as_deref().ok_or_else(|| bad("etcds:// needs a TLS directory (--tls-dir)"))?;
            Some(TlsFiles::read(dir)?)
        }
        _ => return Err(bad(format!("it is none of {KNOWN}"))),
    };
    settings.endpoints = parts.hosts(2379)?;
    if parts.user.is_some() {
        return Err(bad("etcd is not asked with passwords: use certificates (etcds://)"));
    }
    if let Some(root) = parts.take("root") {
        if root.is_empty() || !root.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte)) {
            return Err(bad("root takes letters, digits, /, - and _"));
        }
        settings.root = root;
    }
    parts.done()?;
    Ok(settings)
}

fn nats_settings(address: &str, access: &Access, bucket: &str) -> Result<NatsSettings, StoreError> {
    const KNOWN: &str = "sqlite, nats://HOST:4222[,…], tls://HOST:4222[,…]";
    let mut parts = Parts::read(address, KNOWN)?;
    let mut settings = NatsSettings::new(Vec::new());
    bucket.clone_into(&mut settings.bucket);
    settings.tls = match parts.scheme {
        "nats" => None,
        "tls" => Some(access.tls_dir.clone()),
        _ => return Err(bad(format!("it is none of {KNOWN}"))),
    };
    settings.servers = parts.hosts(4222)?;
    settings.user = parts.user.take();
    settings.credentials.clone_from(&access.nats_credentials);
    if let Some(replicas) = parts.take("replicas") {
        settings.replicas = replicas
            .parse()
            .ok()
            .filter(|replicas| matches!(replicas, 1 | 3 | 5))
            .ok_or_else(|| bad("replicas is 1, 3 or 5"))?;
    }
    if let Some(bucket) = parts.take("bucket") {
        if bucket.is_empty() || !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(bad("bucket takes letters, digits, - and _"));
        }
        settings.bucket = bucket;
    }
    parts.done()?;
    Ok(settings)
}

fn s3_settings(address: &str, access: &Access) -> Result<S3Settings, StoreError> {
    const KNOWN: &str = "a directory, s3://BUCKET?endpoint=…";
    let mut parts = Parts::read(address, KNOWN)?;
    if parts.scheme != "s3" {
        return Err(bad(format!("it is none of {KNOWN}")));
    }
    let bucket = parts.place.to_owned();
    if !(3..=63).contains(&bucket.len())
        || !bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte))
        || parts.user.is_some()
    {
        return Err(bad(format!("{bucket:?} is no name of a bucket (3 to 63 of a-z, 0-9, - and .)")));
    }
    let keys =
        access.s3_keys.clone().ok_or_else(|| bad("s3:// needs keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"))?;
    let mut settings = S3Settings::new(bucket, keys);
    if let Some(endpoint) = parts.take("endpoint") {
        let url = Url::parse(&endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        settings.endpoint = Some(url.ok_or_else(|| bad("endpoint is an http:// or https:// URL"))?);
        // Few stores but Amazon's have a name for each bucket.
        settings.virtual_host = false;
    }
    if let Some(region) = parts.take("region") {
        settings.region = region;
    }
    if let Some(prefix) = parts.take("prefix") {
        settings.prefix = prefix;
    }
    match parts.take("style").as_deref() {
        None => {}
        Some("path") => settings.virtual_host = false,
        Some("virtual") => settings.virtual_host = true,
        Some(_) => return Err(bad("style is path or virtual")),
    }
    settings.ca = read_ca(access.tls_dir.as_deref())?;
    parts.done()?;
    Ok(settings)
}

fn read_ca(dir: Option<&Path>) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(dir) = dir else { return Ok(None) };
    Ok(Some(TlsFiles::read(dir)?.ca))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let access = Access {
            s3_keys: Some(S3Keys { access_key: "a".into(), secret_key: "s".into(), session_token: None }),
            ..Access::default()
        };
        let etcd = etcd_settings("etcd://a:1,b,[::1]:3?root=site/b", &access).unwrap();
        assert_eq!(
            (etcd.endpoints, etcd.root.as_str()),
            (vec!["a:1".into(), "b:2379".into(), "[::1]:3".into()], "site/b")
        );
        let nats = nats_settings("nats://me:p%40ss@h:80/?replicas=3&bucket=x", &access, "lyra-runs").unwrap();
        assert_eq!((nats.servers.clone(), nats.replicas, nats.bucket.as_str()), (vec!["h:80".into()], 3, "x"));
        assert_eq!(nats.user, Some(("me".into(), "p@ss".into())));
        assert!(!format!("{nats:?}").contains("p@ss"));
        assert_eq!(nats_settings("nats://h", &access, "lyra-runs").unwrap().bucket, "lyra-runs");
        let s3 = s3_settings("s3://code?endpoint=http://10.0.0.1:9000&region=eu&prefix=p/", &access).unwrap();
        assert_eq!((s3.bucket.as_str(), s3.region.as_str(), s3.prefix.as_str()), ("code", "eu", "p/"));
        assert_eq!((s3.endpoint.unwrap().as_str(), s3.virtual_host), ("http://10.0.0.1:9000/", false));
        assert!(s3_settings("s3://code?region=eu-west-1", &access).unwrap().virtual_host);
    }

    #[test]
    fn a_bucket_may_look_like_a_number() {
        let keys = S3Keys { access_key: "a".into(), secret_key: "s".into(), session_token: None };
        let access = Access { s3_keys: Some(keys), ..Access::default() };
        assert_eq!(s3_settings("s3://12345", &access).unwrap().bucket, "12345");
    }

    #[tokio::test]
    async fn bad_addresses_are_refused_with_what_is_wrong() {
        let access = Access::default();
        for (address, said) in [
            ("redis://h", "none of"),
            ("etcd", "none of"),
            ("etcd://", "not HOST:PORT"),
            ("etcd://a:x", "not HOST:PORT"),
            ("etcd://a/b", "not HOST:PORT"),
            ("etcd://u:p@a", "certificates"),
            ("etcd://a?speed=9", "speed"),
            ("etcd://a?root=a%20b", "root takes"),
            ("etcds://a", "--tls-dir"),
            ("sqlite", "--data-dir"),
        ] {
            let error = open_objects(address, &access).await.map(|_| ()).unwrap_err();
            assert!(
                matches!(error, StoreError::Address { .. }) && error.to_string().contains(said),
                "{address}: {error}"
            );
        }
        for (address, said) in
            [("nats://h?replicas=2", "1, 3 or 5"), ("nats://u@h", "no password"), ("kafka://h", "none of")]
        {
            let error = open_jobs(address, &access).await.map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(said), "{address}: {error}");
            let error = open_runs(address, &access).await.map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(said), "{address}: {error}");
        }
        for (address, said) in [
            ("s3://bucket", "AWS_ACCESS_KEY_ID"),
            ("s3://b", "name of a bucket"),
            ("s3://a/b/c", "name of a bucket"),
            ("gs://b", "none of"),
            ("", "empty"),
        ] {
            let error = open_blobs(address, &access, Shelf::Code).await.map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(said), "{address}: {error}");
        }
    }

    #[tokio::test]
    async fn an_error_says_which_server_was_to_be_opened() {
        let away = async { Err::<(), _>(StoreError::remote("open the store")("gone")) };
        let error = answered("etcd", "h1:2379, h2:2379", away).await.unwrap_err();
        assert_eq!(error.to_string(), "open the store: etcd h1:2379, h2:2379: gone");
        // Nothing listens on port 1.
        let error = open_jobs("nats://u:p@127.0.0.1:1", &Access::default()).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("NATS 127.0.0.1:1: ") && !error.contains("u:p"), "{error}");
    }

    #[tokio::test]
    async fn the_embedded_stores_are_opened_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access { data_dir: Some(dir.path().to_owned()), ..Access::default() };
        open_objects("sqlite", &access).await.unwrap();
        open_jobs("sqlite", &access).await.unwrap();
        open_runs("sqlite", &access).await.unwrap();
        open_blobs(dir.path().join("blobs").to_str().unwrap(), &access, Shelf::Code).await.unwrap();
        for file in ["objects.db", "jobs.db", "runs.db"] {
            assert!(dir.path().join(file).is_file(), "{file}");
        }
    }
}
