//! `lyra fn alias`: names for versions, or for a split of the calls between several.

use std::collections::BTreeMap;

use lyra_client::Answer;
use lyra_types::api::{AliasRequest, AliasView};
use lyra_types::{AliasName, FunctionName};

use super::show::weights;
use crate::failure::Result;
use crate::output::print_line;
use crate::session::Session;
use crate::table::{age, fields};

/// Flags of `fn alias`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra fn alias hello                  list the aliases
  lyra fn alias hello live             show one
  lyra fn alias hello live 2           all calls to version 2
  lyra fn alias hello live 1:90,2:10   90 % to version 1, 10 % to version 2
  lyra fn alias hello beta --delete")]
pub struct Args {
    /// The function
    #[arg(value_name = "NAME")]
    name: FunctionName,
    /// The alias; calls that name none go to `live`
    #[arg(value_name = "ALIAS")]
    alias: Option<AliasName>,
    /// One version, or several with a weight each
    #[arg(value_name = "VERSION[:WEIGHT][,…]", value_parser = parse_split, requires = "alias")]
    split: Option<Split>,
    /// Delete the alias
    #[arg(long, requires = "alias", conflicts_with = "split")]
    delete: bool,
}

/// Versions with their weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split(BTreeMap<u64, u32>);

fn parse_split(text: &str) -> Result<Split, String> {
    const EXAMPLE: &str = "2 or 1:90,2:10 for example";
    let mut split = BTreeMap::new();
    for part in text.split(',') {
        let (version, weight) = match part.split_once(':') {
            Some((version, weight)) => (version, Some(weight)),
            None => (part, None),
        };
        let version = version.trim();
        let number = version.parse::<u64>().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("\"{version}\" is not a version number; {EXAMPLE}"))?;
        let weight = match weight.map(str::trim) {
            None => 1,
            Some(text) => text.parse().map_err(|_| format!("\"{text}\" is not a weight; {EXAMPLE}"))?,
        };
        if split.insert(number, weight).is_some() {
            return Err(format!("version {number} stands there twice"));
        }
    }
    Ok(Split(split))
}

/// Shows, sets or deletes an alias.
///
/// # Errors
/// Those of the API.
pub async fn run(args: Args, session: &Session) -> Result<()> {
    let client = &session.client;
    let Some(alias) = &args.alias else {
        let list = client.aliases(&args.name, 1_000).await?;
        let row = |a: &AliasView| vec![a.name.clone(), weights(&a.weights), age(&session.clock, a.updated_at)];
        return session.list(&list, |a| a.name.clone(), &["alias", "version", "changed"], row);
    };
    if args.delete {
        client.delete_alias(&args.name, alias).await?;
        return match (session.json(), session.quiet) {
            (true, _) => Ok(()),
            (false, true) => print_line(alias.as_str()),
            (false, false) => print_line(&format!("alias {alias} of function {} deleted", args.name)),
        };
    }
    let Some(Split(split)) = args.split else {
        return show(&client.alias(&args.name, alias).await?, session);
    };
    let request = AliasRequest { weights: Some(split), version: None };
    show(&client.put_alias(&args.name, alias, &request).await?, session)
}

/// Prints an alias.
///
/// # Errors
/// When stdout can't be written.
pub fn show(alias: &Answer<AliasView>, session: &Session) -> Result<()> {
    let people = |a: &AliasView| {
        let changed = format!("{} ({} ago)", a.updated_at, age(&session.clock, a.updated_at));
        fields(&[
            ("alias", a.name.clone()),
            ("function", a.function.clone()),
            ("version", weights(&a.weights)),
            ("changed", changed),
        ])
    };
    session.show(alias, |a| weights(&a.weights), people)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_versions_with_weights() {
        assert_eq!(parse_split("2"), Ok(Split([(2, 1)].into())));
        assert_eq!(parse_split("1:90, 2:10"), Ok(Split([(1, 90), (2, 10)].into())));
        for bad in ["", "0", "x", "1:", "1:x", "1:-1", "1,1", "1,,2", "live"] {
            assert!(parse_split(bad).is_err(), "{bad}");
        }
    }
}
