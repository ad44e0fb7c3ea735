//! Users: made or reset, removed, their time.

use lyra_types::{Error, Result};
use lyra_wire::classic::{ClassicAnswer, ClassicName, ClassicRequest};

use super::Asked;
use super::envelope::Envelope;

/// The user's name, where the caller may act for it.
pub(super) fn user(asked: &Asked<'_>, name: &str) -> Result<ClassicName> {
    let user = ClassicName::new(name)?;
    asked.allowed(&user.tenant())?;
    Ok(user)
}

/// The answer where there is no such user.
pub(super) fn no_user(name: &str) -> Envelope {
    Envelope::fault(format!("[ERR] User <{name}> does not exist."))
}

/// What control answers once this gateway routes by it.
pub(super) async fn done(asked: &Asked<'_>, request: ClassicRequest) -> Result<ClassicAnswer> {
    let answer = asked.app.control.classic(request).await?;
    if let ClassicAnswer::Done { revision } = answer
        && !asked.app.table.wait_for(revision, asked.app.config.route_wait).await
    {
        tracing::warn!(revision, "the change is stored, but this gateway does not route by it yet");
    }
    Ok(answer)
}

/// An answer that is none to the question.
pub(super) fn unexpected() -> Error {
    Error::internal("control answered another question")
}

pub(super) async fn put(asked: &Asked<'_>, name: &str) -> Result<Envelope> {
    let user = user(asked, name)?;
    done(asked, ClassicRequest::PutUser(user)).await?;
    Ok(Envelope::ok(1))
}

pub(super) async fn remove(asked: &Asked<'_>, name: &str) -> Result<Envelope> {
    let user = user(asked, name)?;
    done(asked, ClassicRequest::RemoveUser(user)).await?;
    Ok(Envelope::ok(1))
}

pub(super) async fn time(asked: &Asked<'_>, name: &str) -> Result<Envelope> {
    match asked.app.control.classic(ClassicRequest::Time(user(asked, name)?)).await? {
        ClassicAnswer::Time(ms) => Ok(Envelope::ok(ms)),
        ClassicAnswer::NoUser => Ok(no_user(name)),
        _ => Err(unexpected()),
    }
}
