//! A site of several hosts under traffic, while its parts are lost, frozen, cut off, slow or restarted.
//!
//! Each test starts real processes on hosts of their own (network namespaces), over an etcd of three members, NATS and
//! S3, with mutual TLS. After each, `Site::check` asks from outside what must hold (ARCHITECTURE.md): every acknowledged
//! version and job is there, each job ended once, no instance served two versions, nothing is over-committed or stays
//! charged. Calls may fail only as the test says.

mod faults;
mod gateways;
mod leader;
mod rolling;
mod scene;
mod sessions;
mod stores;
mod workflows;
