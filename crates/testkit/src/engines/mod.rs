//! Starts the real servers that Lyra keeps its data in, each on free ports with its data in a temporary directory.
//!
//! What a test starts dies with the test's process, however that ends.

mod etcd;
mod nats;
mod program;
mod s3;

pub use etcd::Etcd;
pub use nats::{Nats, NatsOptions};
pub use program::{Place, Port};
pub use s3::S3;
