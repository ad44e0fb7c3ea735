//! Who asks, and what that lets them do.
//!
//! A request passes three checks, in this order: [`crate::auth`] finds out who sends it (401), the route's row says which scopes it needs
//! (403, [`needs`]), and whoever reads a tenant's name from it holds it against the caller's own (403, [`Identity::check_tenant`]).
//! What must hold: none of the three asks another process while a token is known here; and a request without an [`Identity`] gets
//! nowhere.

pub(crate) mod audit;
pub(crate) mod gate;
pub(crate) mod grants;
mod identity;
mod lasting;
mod needs;
pub(crate) mod oidc;

pub(crate) use identity::{By, Identity};
pub(crate) use lasting::while_good;
pub(crate) use needs::Needs;
