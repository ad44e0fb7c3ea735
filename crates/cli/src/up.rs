//! `lyra up`: the platform, all roles in this process.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use lyra_kit::telemetry::{self, Format};
use lyra_node::Tokens;
use lyra_node::embedded::{Error, Node, StoreError};
use lyra_node::settings::{Flags, GatewayFlags, SecretsFlags};
use lyra_types::Code;

use crate::config::{self, File};
use crate::failure::{Failure, Result};
use crate::output::print_line;

/// Flags of `up`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra up
  lyra up --data-dir ./data --listen 127.0.0.1:0     a free port; the line on stdout says which
  lyra up --listen 0.0.0.0:8080 --token-file tokens.txt
  lyra up --listen 0.0.0.0:443 --token-file tokens.txt --tls-cert cert.pem --tls-key key.pem
  lyra up --log json --log-filter lyra_worker=debug,info
  lyra up --config lyra.toml                         `lyra config print` shows what that sets

Prints one line on stdout once it serves: `lyra: ready on http://ADDR:PORT`, or https:// with
--tls-cert. Functions, versions, aliases, jobs and logs are kept in the data directory. SIGTERM or
Ctrl-C: no new calls, those that run end, exit 0; a second one ends at once.")]
pub struct Args {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    set: Set,
}

/// What flags and variables set.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// Where everything is kept [default: $XDG_DATA_HOME/lyra, else ~/.local/share/lyra]
    #[arg(long, env = "LYRA_DATA_DIR", value_name = "DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(
        long,
        env = "LYRA_LISTEN",
        value_name = "ADDR:PORT",
        hide_env_values = true,
        value_parser = parse_listen
    )]
    listen: Option<SocketAddr>,
    /// File with a token, or sha256:HEX of one, on each line; needed to listen beyond loopback
    #[arg(long, env = "LYRA_TOKEN_FILE", value_name = "FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: Certificate,
    /// File with the keys that seal secrets of functions [default: secrets.key in the data directory,
    /// which is made]
    #[arg(long, value_name = "FILE")]
    secrets_key: Option<PathBuf>,
    /// How Lyra's own log on stderr looks: text or json [default: text]
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    log: Option<Format>,
    /// What Lyra's own log holds: error, warn, info, debug, or by part [default: info]
    #[arg(long, env = "LYRA_LOG", value_name = "FILTER", hide_env_values = true)]
    log_filter: Option<String>,
}

/// The certificate of the listener.
#[derive(Debug, Clone, clap::Args)]
pub struct Certificate {
    /// PEM file with the certificate that clients are shown, and those between it and its authority's:
    /// HTTPS instead of HTTP; read again when it changes
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM file with its key, which only its owner may read
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl Certificate {
    /// As flags of the gateway.
    pub fn flags(&self) -> Option<GatewayFlags> {
        let (tls_cert, tls_key) = (self.tls_cert.clone(), self.tls_key.clone());
        (tls_cert.is_some() || tls_key.is_some()).then_some(GatewayFlags { tls_cert, tls_key })
    }
}

impl Set {
    /// As a layer of settings.
    pub fn flags(self) -> Flags {
        Flags {
            data_dir: self.data_dir,
            listen: self.listen,
            token_file: self.token_file,
            log: self.log,
            log_filter: self.log_filter,
            gateway: self.tls.flags(),
            secrets: self.secrets_key.map(|key_file| SecretsFlags { key_file }),
            ..Flags::default()
        }
    }
}

/// `text` or `json`.
///
/// # Errors
/// When it is another word.
pub fn parse_format(text: &str) -> Result<Format, String> {
    text.parse()
}

/// An address and a port.
///
/// # Errors
/// When it is none, or a name without an address.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| format!("{error} (an example: 127.0.0.1:8080)"))?;
    addresses.next().ok_or_else(|| "the name has no address".to_owned())
}

/// Where programs are looked for.
pub fn search_path() -> String {
    std::env::var_os("PATH").unwrap_or_default().to_string_lossy().into_owned()
}

/// Where data is kept when nothing is said.
///
/// # Errors
/// When there is no home directory.
pub fn default_data_dir() -> Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = of("XDG_DATA_HOME").or_else(|| Some(of("HOME")?.join(".local").join("share")));
    base.map(|base| base.join("lyra")).ok_or_else(|| {
        Failure::usage("there is no home directory to keep data in").hint("--data-dir or LYRA_DATA_DIR names one")
    })
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When the platform can't start, or does not stop in time.
pub async fn run(args: Args) -> Result<()> {
    let settings = config::settings(&args.file, args.set.flags())?;
    telemetry::init(settings.log, &settings.log_filter);
    let data_dir = match settings.data_dir.as_os_str().is_empty() {
        false => settings.data_dir.clone(),
        true => default_data_dir()?,
    };
    let shutdown = lyra_kit::shutdown::on_signals()
        .map_err(|error| Failure::internal(format!("signals can't be handled: {error}")))?;
    let mut config = settings.embedded(data_dir);
    config.helper = Some(lyra_node::child::this_program());
    config.path = search_path();
    if !settings.token_file.as_os_str().is_empty() {
        config.gateway.tokens = Tokens::from_file(&settings.token_file)?;
    }
    let started = tokio::select! {
        started = Box::pin(Node::start(config)) => started,
        () = shutdown.cancelled() => return Ok(()),
    };
    let node = started.map_err(failure)?;
    print_line(&format!("lyra: ready on {}", node.url()))?;
    Box::pin(node.run_until(shutdown)).await.map_err(|error| Failure::internal(error.to_string()))
}

/// Why the platform can't run, and what to do where that is known: exit code 7, or that of the error inside.
pub fn failure(error: Error) -> Failure {
    let text = error.to_string();
    match error {
        Error::Refused(error) => {
            let listens = error.errors.iter().any(|field| field.field == "listen");
            let failure = Failure::from(error);
            if !listens {
                return failure;
            }
            failure.hint("--token-file names a file with one token a line; callers then need --token")
        }
        Error::Logs(error) | Error::Control(error) | Error::Workflow(error) | Error::Gateway(error) => {
            Failure::from(lyra_types::Error { detail: text, ..error })
        }
        Error::Listen { address, source } => {
            let failure = Failure::new(Code::Unavailable, text);
            match source.kind() {
                ErrorKind::AddrInUse => failure.hint(format!(
                    "something listens on {address} already, another Lyra perhaps; --listen names another port, 0 takes a free one"
                )),
                ErrorKind::PermissionDenied => failure.hint("ports below 1024 are the administrator's; --listen names another"),
                _ => failure,
            }
        }
        Error::Store(StoreError::Address { .. }) => Failure::usage(text),
        Error::Store(_) | Error::Engine(_) | Error::Node(_) | Error::Routes => Failure::new(Code::Unavailable, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_an_address_and_a_port() {
        assert_eq!(parse_listen("127.0.0.1:0").map(|addr| addr.port()), Ok(0));
        assert!(parse_listen("localhost:80").is_ok_and(|addr| addr.ip().is_loopback()));
        for bad in ["", "8080", "127.0.0.1", "127.0.0.1:99999", ":x"] {
            assert!(parse_listen(bad).is_err(), "{bad}");
        }
    }
}
