//! What controllers have a say in before an object is written.

use async_trait::async_trait;
use lyra_types::resources::{Application, ApplicationSession};

use crate::{Caller, Status};

/// What is about to happen to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// Its metadata or spec are changed by a client (never its status).
    Update,
    /// It is deleted.
    Delete,
}

/// An object that is about to be written. Its defaults are filled in and the rules of its kind hold.
#[derive(Debug)]
pub struct Review<'a, K> {
    /// What is about to happen.
    pub operation: Operation,
    /// The object as it is to be; may be changed where it is made or changed. Where it is deleted: as it is.
    pub object: &'a mut K,
    /// The object as it is, where there is one.
    pub old: Option<&'a K>,
    /// Who asks.
    pub caller: &'a Caller,
    /// Nothing will be written.
    pub dry_run: bool,
}

/// Has a say in what clients write. Asked after validation, before the write. It may be asked more than once for one request (when somebody else
/// writes at the same time), and what it let through may fail to be written: so it may not count on it.
///
/// A refusal is any [`Status`]: [`Status::invalid`], [`Status::too_many_requests`], …
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Looks at an application.
    ///
    /// # Errors
    /// A refusal.
    async fn application(&self, review: Review<'_, Application>) -> Result<(), Status>;

    /// Looks at a session.
    ///
    /// # Errors
    /// A refusal.
    async fn session(&self, review: Review<'_, ApplicationSession>) -> Result<(), Status>;
}

/// Lets everything in.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmitAll;

#[async_trait]
impl Admission for AdmitAll {
    async fn application(&self, _: Review<'_, Application>) -> Result<(), Status> {
        Ok(())
    }

    async fn session(&self, _: Review<'_, ApplicationSession>) -> Result<(), Status> {
        Ok(())
    }
}
