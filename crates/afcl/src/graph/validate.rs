//! Whether a graph keeps its own rules; see [`super::Graph::validate`].

use lyra_types::{Code, Error};

use super::Graph;

pub(super) fn validate(graph: &Graph) -> Result<(), Error> {
    if graph.scopes.is_empty() {
        return Err(Error::field(Code::InvalidField, "scopes", "has no scope".to_owned()));
    }
    Ok(())
}
