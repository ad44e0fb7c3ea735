//! Users of the classic routes, their functions, and the ids of their jobs.
//!
//! # Layout in the store
//! ```text
//! classic/users/{tenant}      the user: name, when made, and the execution time that was there before
//! classic/numbers/{number}    the tenant whose classic jobs have this number; for ever, so that a job is found as long as it is kept
//! ```
//! Functions are those of the tenant whose `live` version has the label of the classic name. Removing one only *retires* it: it loses
//! `live`, so no new call finds it, and jobs that were accepted run to their end; then the leader deletes it.

mod numbers;
mod retired;
mod users;

use std::ops::Bound;
use std::sync::Arc;

use lyra_kit::Clock;
use lyra_store::{Blobs, Jobs as JobStore, Objects};
use lyra_types::api::{CodeInput, DeployRequest};
use lyra_types::function::{ResultForm, label};
use lyra_types::name::Qualifier;
use lyra_types::{Code, Error, FunctionName, FunctionVersion, Result, TenantName};
use lyra_wire::classic::{ClassicAnswer, ClassicName, ClassicRequest, ClassicSettings};
use lyra_wire::control::{Precondition, Route};

use crate::functions::Functions;
pub(crate) use numbers::Numbers;

/// Functions looked at for one page of sources.
const PAGE: usize = 100;
/// A page of sources ends when it has so many bytes.
const PAGE_BYTES: usize = 2 << 20;
/// Tries of a job whose process is lost; what a function throws is its result and is not tried again.
const ATTEMPTS: u32 = 3;

/// The classic users.
pub(crate) struct Classic {
    objects: Arc<dyn Objects>,
    blobs: Arc<dyn Blobs>,
    jobs: Arc<dyn JobStore>,
    functions: Arc<Functions>,
    numbers: Arc<Numbers>,
    clock: Clock,
}

impl Classic {
    pub(crate) fn new(deps: &crate::Deps, functions: Arc<Functions>, numbers: Arc<Numbers>) -> Classic {
        Classic {
            objects: Arc::clone(&deps.objects),
            blobs: Arc::clone(&deps.blobs),
            jobs: Arc::clone(&deps.jobs),
            functions,
            numbers,
            clock: deps.clock.clone(),
        }
    }

    /// Does what a classic route asks for.
    pub(crate) async fn answer(&self, request: ClassicRequest) -> Result<ClassicAnswer> {
        let user = match &request {
            ClassicRequest::Owner(number) => return Ok(ClassicAnswer::Owner(self.numbers.owner(*number).await?)),
            ClassicRequest::PutUser(user) => return self.put_user(user).await,
            ClassicRequest::RemoveUser(user) => return self.remove_user(user).await,
            ClassicRequest::User(user)
            | ClassicRequest::Time(user)
            | ClassicRequest::Functions { user, .. }
            | ClassicRequest::Function { user, .. }
            | ClassicRequest::PutFunction { user, .. }
            | ClassicRequest::RemoveFunction { user, .. } => user,
        };
        let Some(known) = self.user(user).await? else { return Ok(ClassicAnswer::NoUser) };
        let tenant = user.tenant();
        match request {
            ClassicRequest::Time(_) => Ok(ClassicAnswer::Time(self.time(&tenant, &known).await?)),
            ClassicRequest::Functions { after, .. } => self.sources(&tenant, after).await,
            ClassicRequest::Function { function, .. } => match self.version(&tenant, &function) {
                Some(version) => Ok(ClassicAnswer::Source(self.source(&version).await?)),
                None => Ok(ClassicAnswer::NoFunction),
            },
            ClassicRequest::PutFunction { function, source, settings, .. } => {
                self.put_function(&tenant, &function, source, settings).await
            }
            ClassicRequest::RemoveFunction { function, .. } => {
                let revision = match self.version(&tenant, &function) {
                    Some(_) => self.functions.retire(&tenant, &function.function()).await?,
                    None => 0,
                };
                Ok(ClassicAnswer::Done { revision })
            }
            _ => Ok(ClassicAnswer::Done { revision: 0 }),
        }
    }

    /// The version that runs of the function have, if there is such a function.
    fn version(&self, tenant: &TenantName, function: &ClassicName) -> Option<Arc<FunctionVersion>> {
        let route = self.functions.get(tenant, &function.function()).ok()?;
        live(&route)
    }

    async fn source(&self, version: &FunctionVersion) -> Result<String> {
        let code = self.blobs.get(&version.code).await?;
        let code = code.ok_or_else(|| Error::not_found("function", &version.function))?;
        Ok(String::from_utf8_lossy(&code).into_owned())
    }

    async fn sources(&self, tenant: &TenantName, after: Option<FunctionName>) -> Result<ClassicAnswer> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let routes = self.functions.table().list(tenant, from, PAGE);
        let whole = routes.len() == PAGE;
        let (mut functions, mut bytes, mut last) = (Vec::new(), 0, None);
        let mut cut = false;
        for route in routes {
            if bytes >= PAGE_BYTES {
                cut = true;
                break;
            }
            last = Some(route.function.clone());
            let Some(version) = live(&route) else { continue };
            let Some(name) = version.labels.get(label::CLASSIC) else { continue };
            let source = self.source(&version).await?;
            bytes += source.len();
            functions.push((name.clone(), source));
        }
        Ok(ClassicAnswer::Functions { functions, next: last.filter(|_| whole || cut) })
    }

    async fn put_function(
        &self,
        tenant: &TenantName,
        function: &ClassicName,
        source: String,
        settings: ClassicSettings,
    ) -> Result<ClassicAnswer> {
        let form = if settings.exact { ResultForm::String } else { ResultForm::Text };
        let labels = [(label::CLASSIC, function.as_str()), (label::RESULT, form.as_str())];
        let request = DeployRequest {
            runtime: "js".to_owned(),
            code: CodeInput { source: Some(source), ..CodeInput::default() },
            memory_mb: settings.memory_mb,
            timeout_ms: settings.timeout_ms,
            max_attempts: Some(ATTEMPTS),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..DeployRequest::default()
        };
        let deployed = self.functions.deploy(tenant, &function.function(), request, Precondition::None).await?;
        Ok(ClassicAnswer::Done { revision: deployed.revision })
    }
}

/// The version of a classic function that runs have.
fn live(route: &Route) -> Option<Arc<FunctionVersion>> {
    let version = route.resolve(&Qualifier::Live, 0).ok()?;
    version.labels.contains_key(label::CLASSIC).then(|| Arc::clone(version))
}

fn damaged(key: &str, error: &serde_json::Error) -> Error {
    tracing::error!(key, %error, "an object can't be read");
    Error::new(Code::Internal, "a record of the classic users can't be read")
}
