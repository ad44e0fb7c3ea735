//! Users: made or reset, removed, their time.

use lyra_fleet::throttle::address_key;
use lyra_types::{Code, Error, Result, Scopes};
use lyra_wire::accounts::NewToken;
use lyra_wire::classic::{ClassicAnswer, ClassicName, ClassicRequest};

use super::envelope::Envelope;
use super::{Asked, Route};
use crate::access::By;
use crate::access::gate::Peer;
use crate::rest::login::known;

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

/// Makes a user, or resets the one that is there. With authentication on a user is a tenant that has tokens, and who makes it gets the
/// first: this once.
pub(super) async fn put(asked: &Asked<'_>, name: &str) -> Result<Envelope> {
    if asked.identity.by == By::Local {
        done(asked, ClassicRequest::PutUser(user(asked, name)?)).await?;
        return Ok(Envelope::ok(1));
    }
    let (app, signs_up) = (asked.app, asked.signs_up(Route::PutUser));
    let user = if signs_up { ClassicName::new(name)? } else { user(asked, name)? };
    let tenant = user.tenant();
    if signs_up {
        take_sign_up(asked)?;
    }
    match app.accounts.create_tenant(&tenant).await {
        Ok(made) => drop(known(app, made).await),
        Err(error) if error.code != Code::Conflict => return Err(error),
        Err(_) if signs_up => {
            let detail = format!("user {name} exists; only its owner or an operator may reset it");
            return Err(Error::new(Code::Unauthenticated, detail));
        }
        Err(_) => {}
    }
    let there = app.control.classic(ClassicRequest::Time(user.clone())).await?;
    done(asked, ClassicRequest::PutUser(user)).await?;
    if !matches!(there, ClassicAnswer::NoUser) {
        return Ok(Envelope::ok(1));
    }
    let token = NewToken {
        name: "classic".to_owned(),
        tenant: Some(tenant),
        user: None,
        scopes: Some(Scopes::OF_TENANT),
        expires_in: None,
    };
    let issued = known(app, app.accounts.create_token(token).await?).await;
    Ok(Envelope::ok(1).with("token", issued.secret.reveal()))
}

/// Counts a try of a stranger to make a user, also of one that is there: names are not to be found out by trying.
fn take_sign_up(asked: &Asked<'_>) -> Result<()> {
    let address = Peer::address(&asked.parts)?;
    asked.classic.sign_ups.take(address_key(address)).map_err(|wait| {
        Error::new(Code::LimitReached, "too many users were made from this address; wait before the next one")
            .with_retry_after(wait)
    })
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
