//! What the server has to know of a kind of object.

use std::borrow::Cow;
use std::fmt::Debug;

use async_trait::async_trait;
use lyra_types::Timestamp;
use lyra_types::resources::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admission::{Admission, Review};
use crate::validation::Problems;
use crate::{ResourceApi, Resources, Status};

/// What a kind is called.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// API group.
    pub group: &'static str,
    /// Version of the group.
    pub version: &'static str,
    /// Kind of one object.
    pub kind: &'static str,
    /// Kind of a list.
    pub list_kind: &'static str,
    /// Resource: as in paths.
    pub plural: &'static str,
    /// Resource, for one.
    pub singular: &'static str,
    /// Short names of the resource.
    pub short: &'static [&'static str],
    /// Categories that the resource is in.
    pub categories: &'static [&'static str],
    /// What an object of the kind is, in a sentence or two.
    pub description: &'static str,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer` or `date`.
    pub r#type: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: u8,
}

/// A kind of object.
#[async_trait]
pub trait Kind: Serialize + DeserializeOwned + Debug + Clone + PartialEq + Default + Send + Sync + 'static {
    /// What it is called.
    const NAMES: Names;

    /// Fields that a field selector may name, beside `metadata.name` and `metadata.namespace`.
    const SELECTABLE: &'static [&'static str];

    /// Lists of the spec whose items have a key: path within the object (without indices), and the names of the key's fields.
    const KEYED_LISTS: &'static [(&'static str, &'static [&'static str])];

    /// Metadata.
    fn meta(&self) -> &ObjectMeta;

    /// Metadata.
    fn meta_mut(&mut self) -> &mut ObjectMeta;

    /// Whether the specs are the same.
    fn same_spec(&self, other: &Self) -> bool;

    /// Takes the status of `from`.
    fn take_status(&mut self, from: &Self);

    /// Takes of the status of `old` what no client may say: others go by it.
    fn keep_status(&mut self, _old: &Self) {}

    /// Takes the spec of `from`.
    fn take_spec(&mut self, from: &Self);

    /// Fills in what depends on other fields, or where a value means "the default".
    fn fill_in(&mut self);

    /// Finds what is wrong with the spec, and what of it may not change.
    fn validate(&self, old: Option<&Self>, problems: &mut Problems);

    /// What of the spec is right, and does nothing: clients show it to whoever writes it.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The value of a field that a selector may name.
    fn selectable(&self, path: &str) -> Option<Cow<'_, str>>;

    /// Columns of a table, after the name.
    fn columns() -> &'static [Column];

    /// Cells of its row, one for each of [`Kind::columns`].
    fn cells(&self, now: Timestamp) -> Vec<Value>;

    /// The schemas of spec and status.
    fn schemas() -> (Value, Value);

    /// Asks the controllers.
    async fn admit(admission: &dyn Admission, review: Review<'_, Self>) -> Result<(), Status>;

    /// The objects of the kind.
    fn of(api: &ResourceApi) -> &Resources<Self>;
}
