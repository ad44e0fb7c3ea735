//! Connections to NATS servers that tenants name.
//!
//! What must hold: the address that is looked at is the one that is connected to, so a name is resolved here and the client is given
//! addresses; servers that a server tells of are not asked. A certificate is that of the name, though the client knows an address only.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use lyra_types::trigger::{MAX_BATCH, NatsSource};
use lyra_types::{Code, Error, Result, SecretBytes, TenantName};
use reqwest::Url;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::super::Triggers;
use super::{Fault, fault};
use crate::deliveries::address::Allowed;

/// What a refused address is told.
const FORBIDDEN: &str =
    "the server's address is not public, and the operator does not allow it (control.triggers.allow)";
/// How often a connection is tried for a sign of life.
const PING: Duration = Duration::from_secs(10);
const PORT: u16 = 4222;

/// A server, as a tenant names it.
struct Server {
    host: String,
    port: u16,
    tls: bool,
}

fn parse(url: &str) -> Result<Server, String> {
    let parsed = Url::parse(url).map_err(|error| format!("is no URL: {error}"))?;
    let tls = match parsed.scheme() {
        "nats" => false,
        "tls" => true,
        _ => return Err("must begin with nats:// or tls://".to_owned()),
    };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("must hold no user and password: name a secret that holds them (credentials_secret)".to_owned());
    }
    let host = parsed.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let bare = matches!(parsed.path(), "" | "/") && parsed.query().is_none() && parsed.fragment().is_none();
    if host.is_empty() || !bare {
        return Err("must be nats://HOST:PORT or tls://HOST:PORT".to_owned());
    }
    Ok(Server { host, port: parsed.port().unwrap_or(PORT), tls })
}

/// Checks the server that a trigger names, as far as can be told without resolving its name.
///
/// # Errors
/// [`Code::InvalidField`].
pub(in super::super) fn check(source: &NatsSource, allowed: &Allowed) -> Result<()> {
    let bad = |reason: String| Error::field(Code::InvalidField, "source.url", reason);
    let server = parse(&source.url).map_err(bad)?;
    match server.host.parse() {
        Ok(address) if !allowed.holds(address) => Err(bad(FORBIDDEN.to_owned())),
        _ => Ok(()),
    }
}

/// What to log in by, where the secret is JSON.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Login {
    Password { user: String, password: String },
    Token { token: String },
}

fn log_in(options: ConnectOptions, secret: &SecretBytes) -> Result<ConnectOptions, Fault> {
    // Nothing of what is in the secret may be in an error.
    let text =
        std::str::from_utf8(secret.reveal()).map_err(|_| "the secret with the credentials is no text".to_owned())?;
    let text = text.trim();
    if text.contains("BEGIN NATS USER JWT") {
        let unreadable = |_| "the secret with the credentials is no .creds file that can be read".to_owned();
        return options.credentials(text).map_err(unreadable);
    }
    if !text.starts_with('{') {
        return Ok(options.token(text.to_owned()));
    }
    match serde_json::from_str(text) {
        Ok(Login::Password { user, password }) => Ok(options.user_and_password(user, password)),
        Ok(Login::Token { token }) => Ok(options.token(token)),
        Err(_) => Err("the secret with the credentials is JSON without `user` and `password`, or `token`".to_owned()),
    }
}

impl Triggers {
    /// Connects; `lost` is cancelled when the connection is.
    pub(super) async fn connect(
        &self,
        tenant: &TenantName,
        source: &NatsSource,
        lost: &CancellationToken,
    ) -> Result<Client, Fault> {
        let server = parse(&source.url)?;
        let addresses = self.addresses(&server).await?;
        let told = lost.clone();
        let mut options = ConnectOptions::new()
            .name("lyra")
            .connection_timeout(self.config.timeout)
            .request_timeout(Some(self.config.timeout))
            .ping_interval(PING)
            .subscription_capacity(MAX_BATCH as usize)
            .ignore_discovered_servers()
            .max_reconnects(addresses.len())
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected | Event::Closed) {
                    told.cancel();
                }
                std::future::ready(())
            });
        if server.tls {
            options = options
                .require_tls(true)
                .tls_client_config(tls(server.host.clone(), self.config.ca_file.clone()).await?);
        }
        if let Some(name) = &source.credentials_secret {
            let values = self.secrets.fetch(tenant, vec![name.clone()]).await.map_err(|error| error.detail)?;
            let value = values.first().ok_or_else(|| format!("secret {name} does not exist"))?;
            options = log_in(options, &value.value)?;
        }
        let scheme = if server.tls { "tls" } else { "nats" };
        let servers: Vec<ServerAddr> = addresses
            .iter()
            .map(|address| format!("{scheme}://{address}").parse())
            .collect::<Result<_, _>>()
            .map_err(fault("the server's address can't be used"))?;
        match tokio::time::timeout(self.config.timeout, options.connect(servers)).await {
            Ok(connected) => connected.map_err(fault("can't connect to NATS")),
            Err(_) => Err(format!("can't connect to NATS: no answer within {:?}", self.config.timeout)),
        }
    }

    /// The addresses of a server that may be connected to.
    async fn addresses(&self, server: &Server) -> Result<Vec<SocketAddr>, Fault> {
        let asked = tokio::net::lookup_host((server.host.as_str(), server.port));
        let found = match tokio::time::timeout(self.config.timeout, asked).await {
            Ok(found) => found.map_err(fault("the server's name can't be resolved"))?,
            Err(_) => return Err("the server's name can't be resolved: no answer in time".to_owned()),
        };
        let may: Vec<SocketAddr> = found.filter(|address| self.allowed.holds(address.ip())).collect();
        if may.is_empty() { Err(FORBIDDEN.to_owned()) } else { Ok(may) }
    }
}

/// The certificates of the authorities in a file, which is read anew for each connection.
///
/// # Errors
/// [`Code::InvalidField`] where there are none to be had.
pub(in super::super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |reason: String| {
        Error::field(Code::InvalidField, "control.triggers.ca_file", format!("{} {reason}", path.display()))
    };
    let text = std::fs::read(path).map_err(|error| bad(format!("can't be read: {error}")))?;
    let found: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(bad("holds no certificate in PEM".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(bad(format!("is not PEM ({error})"))),
    }
}

/// What checks that a server has a certificate for `host`, of the system's authorities or of those in the file.
async fn tls(host: String, further: Option<PathBuf>) -> Result<ClientConfig, Fault> {
    let name = ServerName::try_from(host).map_err(fault("the server's name can't be that of a certificate"))?;
    let read = lyra_kit::tasks::blocking(move || {
        let further = further.as_deref().map(authorities).transpose();
        (rustls_native_certs::load_native_certs(), further)
    });
    let (found, further) = read.await.map_err(fault("certificate authorities can't be read"))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots.add_parsable_certificates(further.map_err(|error| error.detail)?.unwrap_or_default());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let checks = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let checks = checks.map_err(fault("there are no certificate authorities"))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(fault("TLS can't be set up"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByName { checks, name }))
        .with_no_client_auth();
    Ok(config)
}

/// Checks a certificate for the name that was asked for, not for the address that the client was given.
#[derive(Debug)]
struct ByName {
    checks: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for ByName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.checks.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.checks.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.checks.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.checks.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str) -> NatsSource {
        serde_json::from_value(serde_json::json!({"url": url, "subject": "s"})).unwrap()
    }

    #[test]
    fn only_servers_that_may_be_reached_are_taken() {
        let none = Allowed(Arc::new([]));
        for (url, says) in [
            ("http://nats.example.org", "nats://"),
            ("nats.example.org:4222", "nats://"),
            ("nats://u:p@nats.example.org", "credentials_secret"),
            ("nats://nats.example.org/x", "HOST:PORT"),
            ("nats://127.0.0.1:4222", "control.triggers.allow"),
            ("tls://[::1]", "control.triggers.allow"),
            ("nats://10.1.2.3", "control.triggers.allow"),
            ("nats://169.254.169.254", "control.triggers.allow"),
            ("nats://", ""),
        ] {
            let error = check(&source(url), &none).unwrap_err();
            assert!(error.detail.contains(says) && error.errors[0].field == "source.url", "{url}: {error}");
        }
        for url in
            ["nats://nats.example.org", "tls://nats.example.org:443", "nats://1.1.1.1:4222", "nats://[2606:4700::1]"]
        {
            assert_eq!(check(&source(url), &none), Ok(()), "{url}");
        }
        let some = Allowed(Arc::new(["127.0.0.0/8".parse().unwrap()]));
        assert_eq!(check(&source("nats://127.0.0.1:4222"), &some), Ok(()));
    }

    #[test]
    fn credentials_are_a_file_of_nats_json_or_a_token_and_never_shown() {
        let log_in = |text: &str| log_in(ConnectOptions::new(), &SecretBytes::new(text.as_bytes().to_vec()));
        for good in ["s3cr3t", r#"{"user":"u","password":"s3cr3t"}"#, r#"{"token":"s3cr3t"}"#] {
            assert!(log_in(good).is_ok(), "{good}");
        }
        for bad in [r#"{"user":"u","pass":"s3cr3t"}"#, "{s3cr3t", "-----BEGIN NATS USER JWT-----\ns3cr3t"] {
            let error = log_in(bad).err().unwrap();
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }
}
