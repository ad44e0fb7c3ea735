//! The certificates of a node, read from its directory and read again when they have changed.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::Clock;
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::files::{self, bad, certificates};
use super::verify::{ALPN, VERSIONS, provider, reason, verifier};
use super::{CA, CERTIFICATE, Dates, Identity, KEY, TlsError};
use crate::Role;

/// A certificate that ends so soon is warned of.
const SOON: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What is in the directory of a node, checked.
#[derive(Debug)]
pub struct Material {
    /// Who the node is.
    pub identity: Identity,
    /// From when until when its certificate holds.
    pub dates: Dates,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
}

impl Material {
    /// Reads and checks `ca.pem`, `cert.pem` and `key.pem`.
    ///
    /// # Errors
    /// [`TlsError`], which names the file and what to do. What has expired is refused.
    pub fn read(dir: &Path, clock: &Clock) -> Result<Material, TlsError> {
        let (ca, cert, key) = (dir.join(CA), dir.join(CERTIFICATE), dir.join(KEY));
        let mut roots = RootCertStore::empty();
        for root in certificates(&ca, &files::read(&ca)?)? {
            roots
                .add(root)
                .map_err(|error| bad(&ca, format!("holds what is no certificate of an authority: {error}")))?;
        }
        let chain = certificates(&cert, &files::read(&cert)?)?;
        let private = files::key(&key, &files::read(&key)?)?;
        let roots = Arc::new(roots);
        let verifier = verifier(Arc::clone(&roots)).map_err(|error| bad(&ca, error))?;
        let (identity, dates) = about(&cert, &chain[0])?;
        let now = UnixTime::since_unix_epoch(Duration::from_millis(clock.now().millis().max(0).unsigned_abs()));
        verifier
            .verify_client_cert(&chain[0], &chain[1..], now)
            .map_err(|error| bad(&cert, format!("{} (until {})", reason(&error), dates.until)))?;
        let of_key = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => bad(&key, "is the key of another certificate than cert.pem"),
            error => bad(&key, format!("can't be used: {error}")),
        };
        let versions = "ring knows every version";
        let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS).expect(versions);
        let client = client.with_root_certificates(roots).with_client_auth_cert(chain.clone(), private.clone_key());
        let mut client = client.map_err(of_key)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        // A connection that goes on from a former one would not ask for certificates again.
        client.resumption = Resumption::disabled();
        let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS).expect(versions);
        let mut server = server.with_client_cert_verifier(verifier).with_single_cert(chain, private).map_err(of_key)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Material { identity, dates, client: Arc::new(client), server: Arc::new(server) })
    }

    /// Checks that the node may be what it is started as.
    ///
    /// # Errors
    /// [`TlsError::Refused`] that says who it may be.
    pub fn check(&self, dir: &Path, roles: &BTreeSet<Role>, name: &str) -> Result<(), TlsError> {
        let identity = &self.identity;
        let refused = |reason| Err(TlsError::Refused(format!("the certificate in {} {reason}", dir.display())));
        if identity.roles().is_empty() {
            return refused(format!(
                "names no role of Lyra (DNS names such as worker.lyra.internal); `lyra tls init --tls-dir DIR {name}:{}` \
                 makes one",
                roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(",")
            ));
        }
        if let Some(role) = roles.iter().find(|role| !identity.may_be(**role)) {
            return refused(format!("is that of {identity}, which may not be a {}", role.as_str()));
        }
        if roles.contains(&Role::Worker) && !identity.may_be_called(Role::Worker, name) {
            return refused(format!("is that of {identity}; this worker is called {name} (--name)"));
        }
        Ok(())
    }

    /// Whether the certificate ends within 30 days.
    pub fn ends_soon(&self, clock: &Clock) -> bool {
        self.dates.until < clock.now() + SOON
    }
}

/// What the certificate says.
fn about(path: &Path, certificate: &CertificateDer<'_>) -> Result<(Identity, Dates), TlsError> {
    let identity = Identity::of(certificate).map_err(|error| bad(path, format!("can't be understood: {error}")))?;
    let dates = Dates::of(certificate).map_err(|error| bad(path, format!("can't be understood: {error}")))?;
    Ok((identity, dates))
}

/// Who a certificate is for and when it holds, whether it does now or not.
///
/// # Errors
/// When it can't be read.
pub fn look(path: &Path) -> Result<(Identity, Dates), TlsError> {
    about(path, &certificates(path, &files::read(path)?)?[0])
}

/// When the files were written, as far as the file system tells.
type Stamp = [Option<(i64, i64, u64, u64)>; 3];

/// A node's directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    clock: Clock,
    current: Mutex<(Stamp, Arc<Material>)>,
}

impl Directory {
    /// Reads a directory.
    ///
    /// # Errors
    /// As [`Material::read`].
    pub fn open(path: impl Into<PathBuf>, clock: Clock) -> Result<Directory, TlsError> {
        let path = path.into();
        // The stamp first: what is written meanwhile is read the next time.
        let stamp = stamp(&path);
        let material = Arc::new(Material::read(&path, &clock)?);
        Ok(Directory { inner: Arc::new(Inner { path, clock, current: Mutex::new((stamp, material)) }) })
    }

    /// What was read last, without looking whether it has changed.
    pub fn last(&self) -> Arc<Material> {
        Arc::clone(&self.inner.current.lock().1)
    }

    /// What is in the directory now. Where it can't be used, what was read before goes on to be used.
    pub(crate) async fn current(&self) -> Arc<Material> {
        let inner = Arc::clone(&self.inner);
        match lyra_kit::tasks::blocking(move || inner.refresh()).await {
            Ok(material) => material,
            Err(_) => self.last(),
        }
    }
}

impl Inner {
    fn refresh(&self) -> Arc<Material> {
        let now = stamp(&self.path);
        let mut current = self.current.lock();
        if current.0 != now {
            // Once for each change, good or bad.
            current.0 = now;
            match Material::read(&self.path, &self.clock) {
                Ok(material) => {
                    tracing::info!(until = %material.dates.until, "new certificates are used from now on");
                    current.1 = Arc::new(material);
                }
                Err(error) => tracing::error!(%error, "the new certificates can't be used; the former ones still are"),
            }
        }
        Arc::clone(&current.1)
    }
}

fn stamp(dir: &Path) -> Stamp {
    [CA, CERTIFICATE, KEY].map(|name| {
        let about = std::fs::metadata(dir.join(name)).ok()?;
        Some((about.mtime(), about.mtime_nsec(), about.size(), about.ino()))
    })
}

#[cfg(test)]
mod tests {
    use lyra_types::Timestamp;
    use tempfile::TempDir;

    use super::super::{Authority, CA_KEY, NodeSpec, YEAR};
    use super::*;

    /// A moment within the certificates' time.
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    /// An authority with a directory for each of `nodes`, as of [`NOW`].
    fn site(nodes: &[&str]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path(), Dates::from_now(NOW, YEAR * 10)).unwrap();
        for (at, node) in nodes.iter().enumerate() {
            let node = NodeSpec::parse(node).unwrap();
            authority.issue(&dir.path().join(at.to_string()), &node, Dates::from_now(NOW, YEAR)).unwrap();
        }
        dir
    }

    fn read(dir: &Path) -> Result<Material, String> {
        Material::read(dir, &Clock::simulated(NOW)).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_certificate_says_who_its_holder_is() {
        let site = site(&["w1:worker", "c1:gateway,control", "*:worker"]);
        let [worker, control, any] = ["0", "1", "2"].map(|at| read(&site.path().join(at)).unwrap());
        assert_eq!(worker.dates.until, NOW + YEAR);
        assert_eq!(worker.identity.to_string(), "w1 (worker)");
        assert_eq!(control.identity.to_string(), "c1 (control, gateway)");
        assert_eq!(any.identity.to_string(), "any name (worker)");
        assert!(!worker.ends_soon(&Clock::simulated(NOW)));
        assert!(worker.ends_soon(&Clock::simulated(NOW + YEAR - SOON / 2)));
        let check = |material: &Material, roles: &[Role], name: &str| {
            let checked = material.check(site.path(), &roles.iter().copied().collect(), name);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check(&worker, &[Role::Worker], "w1"), Ok(()));
        assert_eq!(check(&any, &[Role::Worker], "w9"), Ok(()));
        assert_eq!(check(&control, &[Role::Control, Role::Gateway], "whatever"), Ok(()));
        let refused = check(&worker, &[Role::Worker], "w2").unwrap_err();
        assert!(refused.contains("w1 (worker)") && refused.contains("called w2"), "{refused}");
        let refused = check(&control, &[Role::Control, Role::Worker], "c1").unwrap_err();
        assert!(refused.contains("may not be a worker"), "{refused}");
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named_with_what_to_do() {
        let site = site(&["w1:worker", "w2:worker"]);
        let other = self::site(&["w1:worker"]);
        let dir = site.path().join("0");
        let spoil = |file: &str, text: &[u8]| {
            let (path, good) = (dir.join(file), std::fs::read(dir.join(file)).unwrap());
            std::fs::write(&path, text).unwrap();
            let said = read(&dir).unwrap_err();
            std::fs::write(&path, good).unwrap();
            said
        };
        let of = |dir: &Path, file: &str| std::fs::read(dir.join(file)).unwrap();
        let with = |said: String, parts: &[&str]| {
            assert!(parts.iter().all(|part| said.contains(part)), "{said} has not {parts:?}");
        };
        with(spoil(CERTIFICATE, b"nonsense"), &[CERTIFICATE, "no certificate in PEM"]);
        with(spoil(CERTIFICATE, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"), &[CERTIFICATE]);
        with(spoil(CERTIFICATE, &of(&dir, KEY)), &[CERTIFICATE, "no certificate"]);
        with(spoil(KEY, b""), &[KEY, "no private key"]);
        with(spoil(KEY, &of(&site.path().join("1"), KEY)), &[KEY, "key of another certificate"]);
        with(spoil(CA, &of(other.path(), CA)), &[CERTIFICATE, "not signed by an authority in ca.pem"]);
        with(spoil(CA, b""), &[CA, "no certificate"]);
        assert!(read(&dir).is_ok());
        let late = Material::read(&dir, &Clock::simulated(NOW + YEAR * 2)).unwrap_err().to_string();
        with(late, &[CERTIFICATE, "has expired", "--renew"]);
        let early = Material::read(&dir, &Clock::simulated(Timestamp::from_millis(1))).unwrap_err().to_string();
        with(early, &["not valid yet", "clocks"]);
        std::fs::remove_file(dir.join(KEY)).unwrap();
        with(read(&dir).unwrap_err(), &[KEY, "missing", "lyra tls init"]);
        let nodes = Authority::open(&dir).map(|_| ()).unwrap_err().to_string();
        with(nodes, &[CA_KEY, "not in a node's directory"]);
    }

    #[tokio::test]
    async fn an_authority_is_made_once_and_goes_on() {
        use std::os::unix::fs::PermissionsExt;
        let site = site(&[]);
        assert!(Authority::create(site.path(), Dates::from_now(NOW, YEAR)).is_err());
        let again = Authority::open(site.path()).unwrap();
        assert_eq!(again.dates().until, NOW + YEAR * 10);
        let dir = site.path().join("g1");
        let until =
            again.issue(&dir, &NodeSpec::parse("g1:gateway").unwrap(), Dates::from_now(NOW, YEAR * 20)).unwrap();
        assert_eq!(until.until, NOW + YEAR * 10, "no longer than the authority");
        assert_eq!(read(&dir).unwrap().identity.to_string(), "g1 (gateway)");
        for (file, mode) in [(site.path().join(CA_KEY), 0o600), (dir.join(KEY), 0o600), (dir.join(CERTIFICATE), 0o644)]
        {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[tokio::test]
    async fn new_certificates_are_taken_and_bad_ones_are_not() {
        let site = site(&["w1:worker"]);
        let dir = site.path().join("0");
        let directory = Directory::open(&dir, Clock::simulated(NOW)).unwrap();
        assert!(Arc::ptr_eq(&directory.current().await, &directory.last()));
        let authority = Authority::open(site.path()).unwrap();
        authority.issue(&dir, &NodeSpec::parse("w1:worker").unwrap(), Dates::from_now(NOW, YEAR * 2)).unwrap();
        assert_eq!(directory.current().await.dates.until, NOW + YEAR * 2);
        std::fs::remove_file(dir.join(KEY)).unwrap();
        assert_eq!(directory.current().await.dates.until, NOW + YEAR * 2, "the former one is used");
    }

    #[test]
    fn nodes_are_read_from_the_command_line() {
        let node = NodeSpec::parse("c1:control,gateway").unwrap();
        assert_eq!((node.name.as_str(), node.roles.len()), ("c1", 2));
        assert_eq!(NodeSpec::parse("*:worker").unwrap().name, "*");
        for (text, says) in [
            ("w1", "names no role"),
            ("w1:", "is no role"),
            ("w1:worker,", "is no role"),
            ("w1:logs", "control, worker, gateway, scaler"),
            (":worker", "is no name"),
            ("W1:worker", "is no name"),
            ("a.b:worker", "is no name"),
            ("../x:worker", "is no name"),
        ] {
            let said = NodeSpec::parse(text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
