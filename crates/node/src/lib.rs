//! Puts roles together: the only crate that knows them all.
//!
//! Each role has a file in `roles/` that turns settings and the other roles' clients into one running service.
//! [`embedded`] runs all of them in one process over in-process clients and the embedded parts, which is `lyra up`;
//! [`apart`] some of them over gRPC clients of the others, which is `lyra node`.

pub mod apart;
pub mod child;
pub mod embedded;
pub mod settings;

mod classic;
mod ends;
mod footprint;
mod joined;
mod machine;
mod resources;
mod roles;
mod security;
mod workflows;

pub use embedded::{Config, Node};
pub use lyra_control::secrets::key_file;
pub use lyra_gateway::Tokens;
pub use lyra_scaler as scaler;
pub use lyra_store::{Access, S3Keys};
pub use lyra_wire::tls;
