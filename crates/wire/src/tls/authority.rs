//! Makes certificates: an authority of the site's own, and the nodes that it vouches for.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use lyra_types::{FunctionName, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::files::{self, Readable, bad};
use super::{ANY, CA, CA_KEY, CERTIFICATE, Dates, Identity, KEY, TlsError, directory, name_of};
use crate::Role;

/// Clocks of hosts may differ by so much.
const SKEW: Duration = Duration::from_secs(3_600);
/// The authority's name.
const AUTHORITY: &str = "Lyra CA";

/// From when until when a certificate shall hold.
pub type Validity = Dates;

impl Dates {
    /// For so long from now on; from a little earlier, since clocks differ.
    pub fn from_now(now: Timestamp, length: Duration) -> Validity {
        let before = i64::try_from(SKEW.as_millis()).unwrap_or(i64::MAX);
        Dates { from: Timestamp::from_millis(now.millis().saturating_sub(before).max(0)), until: now + length }
    }
}

/// A node for which a certificate is asked: `NAME:ROLE[,ROLE…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name; [`ANY`] for any.
    pub name: String,
    /// The roles that it may play.
    pub roles: BTreeSet<Role>,
}

impl NodeSpec {
    /// A node of any name that may play all roles.
    pub fn anybody() -> NodeSpec {
        NodeSpec { name: ANY.to_owned(), roles: BTreeSet::from(Role::ALL) }
    }

    /// Reads `NAME:ROLE[,ROLE…]`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<NodeSpec, String> {
        let (name, roles) = text
            .split_once(':')
            .ok_or_else(|| format!("{text:?} names no role; give NAME:ROLE[,ROLE…], such as w1:worker"))?;
        if name != ANY && FunctionName::new(name).is_err() {
            return Err(format!(
                "{name:?} is no name of a node: a-z, 0-9 and -, 63 at most, no - at either end; or * for any"
            ));
        }
        let known = || Role::list(&BTreeSet::from(Role::ALL));
        let role =
            |text: &str| Role::parse(text).ok_or_else(|| format!("{text:?} is no role; the roles are {}", known()));
        let roles = roles.split(',').map(role).collect::<Result<_, _>>()?;
        Ok(NodeSpec { name: name.to_owned(), roles })
    }

    /// The DNS names that say so.
    fn dns_names(&self) -> impl Iterator<Item = String> {
        self.roles.iter().flat_map(|role| [name_of(*role, Some(&self.name)), name_of(*role, None)])
    }

    /// Whether a certificate says just this of its holder.
    pub fn is(&self, identity: &Identity) -> bool {
        identity.roles() == self.roles
            && self.roles.iter().all(|role| identity.names_as(*role).eq([self.name.as_str()]))
    }
}

/// Signs certificates of nodes.
pub struct Authority {
    certificate: String,
    dates: Dates,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority in `dir`: `ca.pem` and `ca-key.pem`, which only the owner can read.
    ///
    /// # Errors
    /// [`TlsError::Refused`] when one of the files is there; [`TlsError::Io`] when they can't be written.
    pub fn create(dir: &Path, validity: Validity) -> Result<Authority, TlsError> {
        let (certificate_file, key_file) = (dir.join(CA), dir.join(CA_KEY));
        if let Some(file) = [&certificate_file, &key_file].into_iter().find(|file| file.exists()) {
            return Err(TlsError::Refused(format!("{} is there; no authority is made over it", file.display())));
        }
        let key = KeyPair::generate()?;
        let mut params = params(AUTHORITY, validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        files::write(&key_file, &key.serialize_pem(), Readable::ByOwner)?;
        files::write(&certificate_file, &certificate, Readable::ByAll)?;
        Ok(Authority { certificate, dates: validity, issuer: Issuer::new(params, key) })
    }

    /// The authority in `dir`, which [`Authority::create`] has made.
    ///
    /// # Errors
    /// [`TlsError`] when a file is missing or holds something else.
    pub fn open(dir: &Path) -> Result<Authority, TlsError> {
        let (certificate_file, key_file) = (dir.join(CA), dir.join(CA_KEY));
        let text = files::read(&certificate_file)?;
        let (_, dates) = directory::look(&certificate_file)?;
        let certificate = String::from_utf8(text).map_err(|_| bad(&certificate_file, "is not PEM"))?;
        let key = files::read(&key_file).map_err(|error| match error {
            TlsError::Missing { path, .. } => TlsError::Missing {
                path,
                hint: "certificates are made where the authority is, not in a node's directory",
            },
            error => error,
        })?;
        let key = String::from_utf8(key).ok().and_then(|text| KeyPair::from_pem(&text).ok());
        let key = key.ok_or_else(|| bad(&key_file, "is no key that can be used; restore it from a backup"))?;
        Ok(Authority { certificate, dates, issuer: Issuer::new(params(AUTHORITY, dates), key) })
    }

    /// From when until when the authority's certificate holds; no other holds longer.
    pub fn dates(&self) -> Dates {
        self.dates
    }

    /// Makes the files of a node in `dir`, over what is there.
    ///
    /// # Errors
    /// [`TlsError::Io`] when they can't be written.
    pub fn issue(&self, dir: &Path, node: &NodeSpec, validity: Validity) -> Result<Dates, TlsError> {
        let dates = Dates { from: validity.from, until: validity.until.min(self.dates.until) };
        let key = KeyPair::generate()?;
        let common_name = if node.name == ANY { "any" } else { &node.name };
        let mut params = params(common_name, dates);
        // Those of this host make it good for servers of stores that run beside the node.
        let names = node.dns_names().chain(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
        params.subject_alt_names = CertificateParams::new(names.collect::<Vec<_>>())?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        std::fs::create_dir_all(dir).map_err(|source| TlsError::Io {
            path: dir.to_owned(),
            what: "written",
            source,
        })?;
        let authority = dir.join(CA);
        if !std::fs::read(&authority).is_ok_and(|there| there == self.certificate.as_bytes()) {
            files::write(&authority, &self.certificate, Readable::ByAll)?;
        }
        files::write(&dir.join(KEY), &key.serialize_pem(), Readable::ByOwner)?;
        files::write(&dir.join(CERTIFICATE), &certificate, Readable::ByAll)?;
        Ok(dates)
    }
}

fn params(common_name: &str, dates: Dates) -> CertificateParams {
    let time = |at: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.millis().max(0).unsigned_abs() / 1_000)
    };
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    (params.not_before, params.not_after) = (time(dates.from), time(dates.until));
    params
}
