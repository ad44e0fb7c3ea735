//! Arguments that several commands have.

use std::fmt::Display;
use std::str::FromStr;

/// Flags of a list.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    pub limit: usize,
}

/// What has a name that is checked before anything is asked.
pub trait Name: FromStr<Err: Display> + Clone + Send + Sync + 'static {}

impl<T: FromStr<Err: Display> + Clone + Send + Sync + 'static> Name for T {}

fn name<T: Name>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// One thing.
#[derive(Debug, clap::Args)]
pub struct One<T: Name> {
    /// Its name
    #[arg(value_name = "NAME", value_parser = name::<T>)]
    pub name: T,
}

/// Some things.
#[derive(Debug, clap::Args)]
pub struct Several<T: Name> {
    /// Their names
    #[arg(value_name = "NAME", required = true, value_parser = name::<T>)]
    pub names: Vec<T>,
}
