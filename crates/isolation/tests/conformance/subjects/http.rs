//! The runtime `http`. Its programs need no interpreter.

use lyra_types::Runtime;

use super::process::{Sandboxed, of_guest};

pub async fn subject() -> Sandboxed {
    Sandboxed::new(Runtime::Http, 0, 64, of_guest).await
}
