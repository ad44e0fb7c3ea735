//! Who a certificate is for: the roles that its holder may play, and under which names.

use std::collections::{BTreeMap, BTreeSet};

use lyra_types::Timestamp;
use rustls::pki_types::CertificateDer;
use yasna::tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME};
use yasna::{ASN1Error, ASN1ErrorKind, BERReader, Tag};

use crate::Role;

/// In place of a name: its holder may have any.
pub const ANY: &str = "*";
/// What the DNS names of nodes end in. `internal` is kept for private use (ICANN, 2024), so nobody else has such names.
const DOMAIN: &str = "lyra.internal";

/// The DNS name of a node in a role; of all nodes in that role where `name` is `None`.
pub fn name_of(role: Role, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{name}.{}.{DOMAIN}", role.as_str()),
        None => format!("{}.{DOMAIN}", role.as_str()),
    }
}

/// What a certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Names by role.
    roles: BTreeMap<Role, BTreeSet<String>>,
}

impl Identity {
    /// Reads the DNS names of a certificate. Whoever has none of Lyra's may nothing.
    ///
    /// # Errors
    /// When it is no certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Identity, webpki::Error> {
        let certificate = webpki::EndEntityCert::try_from(certificate)?;
        let mut identity = Identity::default();
        for name in certificate.valid_dns_names() {
            identity.add(name);
        }
        Ok(identity)
    }

    fn add(&mut self, dns_name: &str) {
        let dns_name = dns_name.to_ascii_lowercase();
        let Some(rest) = dns_name.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix('.')) else { return };
        let (name, role) = match rest.rsplit_once('.') {
            Some((name, role)) => (Some(name), role),
            None => (None, rest),
        };
        let Some(role) = Role::parse(role) else { return };
        match name {
            None => drop(self.roles.entry(role).or_default()),
            Some(name) if name == ANY || !name.contains(['.', '*']) => {
                self.roles.entry(role).or_default().insert(name.to_owned());
            }
            Some(_) => {}
        }
    }

    /// The roles that its holder may play.
    pub fn roles(&self) -> BTreeSet<Role> {
        self.roles.keys().copied().collect()
    }

    /// Whether its holder may play `role`.
    pub fn may_be(&self, role: Role) -> bool {
        self.roles.contains_key(&role)
    }

    /// Whether its holder may play `role` under that name.
    pub fn may_be_called(&self, role: Role, name: &str) -> bool {
        self.roles.get(&role).is_some_and(|names| names.contains(name) || names.contains(ANY))
    }

    /// Its holder's names in a role.
    pub(super) fn names_as(&self, role: Role) -> impl Iterator<Item = &str> {
        self.roles.get(&role).into_iter().flatten().map(String::as_str)
    }

    /// Its holder's names, whatever the role.
    pub fn names(&self) -> BTreeSet<&str> {
        self.roles.values().flatten().map(String::as_str).collect()
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.roles.is_empty() {
            return f.write_str("nobody of Lyra");
        }
        let names: Vec<_> = self.names().into_iter().map(|name| if name == ANY { "any name" } else { name }).collect();
        let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
        write!(f, "{names} ({})", Role::list(&self.roles()))
    }
}

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dates {
    /// From then on.
    pub from: Timestamp,
    /// Until then.
    pub until: Timestamp,
}

impl Dates {
    /// Reads the dates of a certificate (RFC 5280, 4.1).
    ///
    /// # Errors
    /// When it is no certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Dates, ASN1Error> {
        yasna::parse_der(certificate, |reader| {
            reader.read_sequence(|reader| {
                let dates = reader.next().read_sequence(|reader| {
                    reader.read_optional(|reader| reader.read_tagged(Tag::context(0), |reader| reader.read_u64()))?;
                    for _serial_number_algorithm_issuer in 0..3 {
                        reader.next().read_der()?;
                    }
                    let dates = reader.next().read_sequence(|reader| {
                        let (from, until) = (time(reader.next())?, time(reader.next())?);
                        Ok(Dates { from, until })
                    })?;
                    while reader.read_optional(|reader| reader.read_der())?.is_some() {}
                    Ok(dates)
                })?;
                for _algorithm_signature in 0..2 {
                    reader.next().read_der()?;
                }
                Ok(dates)
            })
        })
    }
}

fn time(reader: BERReader<'_, '_>) -> Result<Timestamp, ASN1Error> {
    let seconds = match reader.lookahead_tag()? {
        TAG_UTCTIME => reader.read_utctime()?.datetime().unix_timestamp(),
        TAG_GENERALIZEDTIME => reader.read_generalized_time()?.datetime().unix_timestamp(),
        _ => return Err(ASN1Error::new(ASN1ErrorKind::Invalid)),
    };
    Ok(Timestamp::from_millis(seconds.saturating_mul(1_000)))
}
