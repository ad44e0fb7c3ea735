//! A version of a workflow as the engine runs it: the plan, the mapping, and the parts that run elsewhere.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use lyra_afcl::Graph;
use lyra_types::{Error, Result};
use serde::{Deserialize, Serialize};

use super::choose::Chooser;
use crate::core::Plan;
use crate::mapping::{Mapping, Resource};
use crate::schedule::Bound;

/// What is stored of a compiled version, in the blob store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compiled {
    /// The graph, with its cuts taken out.
    pub graph: Graph,
    /// The type mapping.
    pub mapping: Mapping,
    /// The graph of each cut, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cuts: BTreeMap<String, Graph>,
}

/// A version, ready to run.
pub struct Program {
    /// The plan.
    pub plan: std::sync::Arc<Plan>,
    /// The type mapping.
    pub mapping: Mapping,
    /// The graph of each cut, by its name.
    pub cuts: BTreeMap<String, Graph>,
    /// The places of each type's resources.
    pub bound: HashMap<String, Bound>,
}

/// Types that the engine serves itself, without a resource.
pub const DELAY: &str = "lyra:delay";
/// Waits until somebody outside completes it.
pub const CALLBACK: &str = "lyra:callback";

impl Program {
    /// Makes a stored version ready.
    ///
    /// # Errors
    /// When it can't be read, or its graph breaks the rules.
    pub fn read(bytes: &Bytes, chooser: &Chooser) -> Result<Program> {
        let compiled: Compiled = serde_json::from_slice(bytes)
            .map_err(|error| Error::internal(format!("a stored workflow can't be read: {error}")))?;
        Program::new(compiled, chooser)
    }

    /// Makes a compiled version ready.
    ///
    /// # Errors
    /// When its graph breaks the rules.
    pub fn new(compiled: Compiled, chooser: &Chooser) -> Result<Program> {
        let names = compiled.mapping.types.iter();
        let names = names.map(|of| (of.function_type.clone(), of.resources.iter().map(Resource::id).collect()));
        let plan = Plan::new(compiled.graph)?.with_resources(names.collect());
        let bound = chooser.bind(&compiled.mapping);
        Ok(Program { bound, plan: std::sync::Arc::new(plan), mapping: compiled.mapping, cuts: compiled.cuts })
    }

    /// The resources of a type; empty for those that the engine serves itself.
    pub fn resources(&self, function_type: &str) -> &[Resource] {
        let found = self.mapping.types.iter().find(|of| of.function_type == function_type);
        found.map_or(&[], |of| of.resources.as_slice())
    }
}
