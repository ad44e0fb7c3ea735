//! The type mapping: which resources a function type may be enacted on.
//!
//! The format is Apollo's, `[{functionType, resources: [{type, implementationId?, properties}]}]`, with
//! resource types of Lyra's own added. It is checked in full when a workflow is deployed; which of a type's resources
//! a task gets is decided when it is scheduled.

mod headers;
mod parse;
mod schema;

use std::collections::BTreeMap;
use std::time::Duration;

use lyra_types::SecretName;
use serde::{Deserialize, Serialize};

use crate::config::Extraction;

pub use parse::{MAX_RESOURCES, MAX_TIMEOUT_SECONDS, MAX_TYPE_LEN, MAX_TYPES};
pub use schema::schema;

/// Longest wait for the answer of a [`ResourceKind::Serverless`] that names none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// All function types of a workflow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mapping {
    /// One entry for each type; a type is in here once.
    pub types: Vec<TypeMapping>,
}

/// Where one function type may run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeMapping {
    /// The type, as functions of the document name it.
    #[serde(rename = "functionType")]
    pub function_type: String,
    /// Its resources, at least one, in the order of preference.
    pub resources: Vec<Resource>,
}

/// Something that can enact a function type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// What is called.
    #[serde(flatten)]
    pub kind: ResourceKind,
    /// How values get there and back.
    #[serde(default, skip_serializing_if = "Transfer::is_default")]
    pub transmission: Transfer,
}

/// How values get to a resource and back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Transfer {
    /// Inputs above this many bytes go by URL, and the answer may hold URLs; none: all go as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references_above: Option<u64>,
    /// Where large outputs are taken to; what the settings say where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Extraction>,
}

impl Transfer {
    fn is_default(&self) -> bool {
        *self == Transfer::default()
    }
}

/// What is called, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "properties")]
pub enum ResourceKind {
    /// A Lyra function of the same tenant.
    Function {
        /// `NAME`, `NAME@VERSION` or `NAME@ALIAS`.
        name: String,
        /// Whether it is handed in as a durable job rather than called.
        #[serde(default)]
        job: bool,
    },
    /// Any URL that takes a POST of a JSON object and answers with one.
    Serverless {
        /// Where.
        #[serde(rename = "Uri")]
        uri: String,
        /// Longest wait for the answer in seconds; 30 where none.
        #[serde(rename = "TimeoutInSeconds", default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<f64>,
        /// Headers beside Lyra's own, by their names in lower case.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, HeaderText>,
    },
    /// A container image on this machine. [`Mapping::parse`] refuses it as long as there is no container back end.
    Local {
        /// The image.
        #[serde(rename = "Image")]
        image: String,
    },
    /// One of the operations that are built in: `Addition`, `Subtraction`, `SumCollection`, `SplitArray`.
    Demo {},
    /// Another workflow of the same tenant.
    Workflow {
        /// `NAME` or `NAME@VERSION`.
        name: String,
    },
    /// A part of the workflow itself, on another Lyra.
    Cut {
        /// Its address, `http://HOST:PORT`.
        url: String,
        /// Name of the token to call it with, which the settings of the workflow role know.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderText {
    /// This, for everybody to see who may see the workflow.
    Plain(String),
    /// The value of a secret of the tenant, as it is when the call is made.
    Secret {
        /// Its name.
        secret: SecretName,
        /// What stands before it: `Bearer `, for example.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        prefix: String,
    },
}

impl Mapping {
    /// The resources of a type; none where it is not mapped.
    pub fn resources(&self, function_type: &str) -> &[Resource] {
        let mapping = self.types.iter().find(|mapping| mapping.function_type == function_type);
        mapping.map_or(&[], |mapping| mapping.resources.as_slice())
    }
}

impl Resource {
    /// Its id in schedules and traces: `Demo`, `function:NAME`, the URL, `image:IMAGE`, `workflow:NAME`, `cut:URL`.
    pub fn id(&self) -> String {
        match &self.kind {
            ResourceKind::Function { name, .. } => format!("function:{name}"),
            ResourceKind::Serverless { uri, .. } => uri.clone(),
            ResourceKind::Local { image } => format!("image:{image}"),
            ResourceKind::Demo {} => "Demo".to_owned(),
            ResourceKind::Workflow { name } => format!("workflow:{name}"),
            ResourceKind::Cut { url, .. } => format!("cut:{url}"),
        }
    }

    /// Whether it stands for this machine, whose capacity is limited, rather than for a service that grows.
    pub fn is_local(&self) -> bool {
        matches!(self.kind, ResourceKind::Demo {} | ResourceKind::Local { .. })
    }

    /// Whether it is a run itself, which calls nothing: its tasks do.
    pub fn is_run(&self) -> bool {
        matches!(self.kind, ResourceKind::Workflow { .. } | ResourceKind::Cut { .. })
    }

    /// Its own limit of one call, where it names one.
    pub fn timeout(&self) -> Option<Duration> {
        match &self.kind {
            ResourceKind::Serverless { timeout_seconds, .. } => {
                let named =
                    timeout_seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
                Some(named.unwrap_or(DEFAULT_TIMEOUT))
            }
            _ => None,
        }
    }
}
