//! The Kubernetes-style API, server side: objects of a few kinds, kept in the cluster's store, served to controllers as
//! typed values and to clients (`kubectl`, client libraries) over HTTP.
//!
//! - [`ResourceApi`] joins the parts; [`Resources`] is one kind of object to a controller: read from the *watch cache*, write,
//!   [`Resources::subscribe`].
//! - [`ResourceApi::handle`] answers HTTP requests of callers that somebody else has authenticated ([`Caller`]).
//! - [`Admission`] is what the controllers have a say in before an object is written.
//!
//! What must hold:
//! - `resourceVersion` is the store's revision of an object, so it is the same in every process and over restarts.
//! - Every write is conditional on the revision that it was made from. A process sees its own write in its cache before the
//!   writer is answered.
//! - A watch shows every change from its `resourceVersion` on (several changes of one object may be shown as one), or ends with
//!   410 Gone; it never blocks a writer.
//!
//! What it does not do: act on objects. Deleting what belongs to an object, filling in its status, ending it when its time has
//! come: that is the controllers' part. It does not authenticate either.

mod admission;
mod api;
mod cache;
mod caller;
mod events;
pub mod http;
mod kind;
mod kinds;
mod patch;
mod resources;
mod selector;
mod status;
mod validation;

pub use admission::{Admission, AdmitAll, Operation, Review};
pub use api::{Deps, ResourceApi, Settings};
pub use cache::{Key, Stored, Subscription};
pub use caller::{Access, Caller};
pub use events::{EventType, Recorder};
pub use kind::{Column, Kind, Names};
pub use resources::{DeleteOptions, Preconditions, Resources, WriteOptions};
pub use status::{Cause, Details, Status};
pub use validation::Problems;
