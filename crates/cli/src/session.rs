//! The flags that every command takes, and what a command is handed: a client and where its output goes.

use std::path::{Path, PathBuf};

use clap::Args;
use lyra_client::{Answer, Client, Config, DEFAULT_URL, Listing};
use lyra_kit::Clock;
use lyra_types::TenantName;

use crate::failure::{Failure, Result};
use crate::output::{note, print, print_line};
use crate::table::Table;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// The API's JSON, exactly.
    Json,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Server to speak to [default: http://127.0.0.1:8080]
    #[arg(long, global = true, env = "LYRA_URL", value_name = "URL", hide_env_values = true)]
    pub url: Option<String>,
    /// Token, where the server asks for one
    #[arg(long, global = true, env = "LYRA_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Whose functions are meant [default: the token's tenant, else default]
    #[arg(long, global = true, env = "LYRA_TENANT", value_name = "NAME", hide_env_values = true)]
    pub tenant: Option<String>,
    /// PEM file with certificates of authorities to trust beside the system's, for https://
    #[arg(
        long,
        alias = "certificate-authority",
        global = true,
        env = "LYRA_CA",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub ca: Option<PathBuf>,
    /// How to print data: `table` for people, `json` exactly as the API sends it
    #[arg(long = "output", short = 'o', global = true, value_name = "FORMAT", default_value = "table", value_parser = parse_format)]
    pub format: Format,
    /// Print only what a script needs: ids and names, no notes
    #[arg(long, short = 'q', global = true)]
    pub quiet: bool,
}

/// The server that is meant, and as whom.
pub struct Target {
    /// Its address.
    pub url: String,
    /// The token, if there is one.
    pub token: Option<String>,
    /// Certificates (PEM) of authorities that are trusted beside the system's.
    pub authorities: Option<Vec<u8>>,
    /// The tenant, where one was named.
    pub tenant: Option<TenantName>,
}

/// What a command works with.
#[derive(Debug)]
pub struct Session {
    /// The server.
    pub client: Client,
    /// How data is printed.
    pub format: Format,
    /// Only ids and names.
    pub quiet: bool,
    /// For ages.
    pub clock: Clock,
}

fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        _ => Err("table or json".to_owned()),
    }
}

/// An empty variable counts as one that is not set.
fn given(value: Option<&String>) -> Option<String> {
    value.filter(|text| !text.is_empty()).cloned()
}

impl Global {
    /// The server that these flags mean.
    ///
    /// # Errors
    /// When the tenant can't be one, or the certificates can't be read.
    pub fn target(&self) -> Result<Target> {
        let tenant = given(self.tenant.as_ref()).map(|name| TenantName::new(&name)).transpose()?;
        let url = given(self.url.as_ref()).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let ca = self.ca.as_deref().filter(|path| !path.as_os_str().is_empty());
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| Failure::usage(format!("{} can't be read: {error}", path.display())))
        };
        let authorities = ca.map(read).transpose()?;
        Ok(Target { url, token: given(self.token.as_ref()), authorities, tenant })
    }

    /// The client and the output that these flags ask for.
    ///
    /// # Errors
    /// When the URL, the token, the tenant or the certificates can't be one.
    pub fn session(&self) -> Result<Session> {
        let Target { url, token, authorities, tenant } = self.target()?;
        let client = Client::new(Config { url, token, authorities, tenant, ..Config::default() })?;
        Ok(Session { client, format: self.format, quiet: self.quiet, clock: Clock::system() })
    }
}

impl Session {
    /// The same, with the tenant that the token is bound to where a path has to name one. Asks the server, and only where a token is
    /// given and no tenant.
    pub async fn in_own_tenant(self, global: &Global) -> Result<Session> {
        if given(global.token.as_ref()).is_none() || given(global.tenant.as_ref()).is_some() {
            return Ok(self);
        }
        let own = self.client.whoami().await?.tenant.clone();
        let tenant = own.map_or_else(|| Ok(TenantName::default_tenant()), |name| TenantName::new(&name))?;
        Ok(Session { client: self.client.bound_to(tenant), ..self })
    }

    /// Whether data is printed as JSON.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints one answer: its JSON, or `name` alone (`--quiet`), or what `people` makes of it.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn show<T>(
        &self,
        answer: &Answer<T>,
        name: impl FnOnce(&T) -> String,
        people: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        match (self.json(), self.quiet) {
            (true, _) => print_line(answer.json()),
            (false, true) => print_line(&name(&answer.value)),
            (false, false) => print_line(&people(&answer.value)),
        }
    }

    /// Prints a list: its JSON, or the names, or a table with one row for each item.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn list<T>(
        &self,
        list: &Listing<T>,
        name: impl Fn(&T) -> String,
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<()> {
        if self.json() {
            return print_line(&list.json());
        }
        if self.quiet {
            let names: Vec<String> = list.items.iter().map(|item| name(&item.value) + "\n").collect();
            return print(&names.concat());
        }
        let mut table = Table::new(header);
        for item in &list.items {
            table.row(row(&item.value));
        }
        print_line(&table.to_string())?;
        if list.next.is_some() {
            self.note(&format!("there are more than these {}; --limit shows more", list.items.len()));
        }
        Ok(())
    }

    /// Prints a note on stderr, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            note(text);
        }
    }
}

/// Reads a `--limit`: from 1.
///
/// # Errors
/// What is wrong with it.
pub fn limit(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) | Err(_) => Err("a whole number from 1".to_owned()),
        Ok(limit) => Ok(limit),
    }
}
