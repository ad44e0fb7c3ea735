//! Applications and sessions: objects of the Kubernetes-style API (`/apis/lyra.dev/v1/namespaces/{tenant}/…`), the client's
//! tenant being the namespace.
//!
//! One set of methods serves both kinds, as one set of routes does. Errors are Lyra's own (the module `status`).

use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use lyra_types::Code;
use lyra_types::resources::{Application, ApplicationSession, GROUP, ObjectMeta, VERSION};
use reqwest::{Method, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::patience::{AGAIN, passes};
use crate::{Answer, Client, Error, Listing, Result};

/// Who the server says has set the fields that this client applies.
const MANAGER: &str = "lyra";
/// Longest that one watch goes on before it is begun anew.
const WATCH: Duration = Duration::from_secs(30);
/// Most bytes of one event of a watch: more than an object may have.
const MAX_EVENT: usize = 8 << 20;
/// Most objects in one page of a list.
const MAX_PAGE: usize = 500;

/// A kind of object that clients write.
pub trait Object: Serialize + DeserializeOwned + Send {
    /// The kind: `Application`.
    const KIND: &'static str;
    /// The resource, as paths have it: `applications`.
    const PLURAL: &'static str;
    /// Name, identity and versions.
    fn meta(&self) -> &ObjectMeta;
}

impl Object for Application {
    const KIND: &'static str = "Application";
    const PLURAL: &'static str = "applications";
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl Object for ApplicationSession {
    const KIND: &'static str = "ApplicationSession";
    const PLURAL: &'static str = "applicationsessions";
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// How a manifest is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// Take over fields that others have set.
    pub force: bool,
    /// Only look whether it could be done.
    pub dry_run: bool,
}

/// An object after a manifest was applied.
#[derive(Debug, Clone)]
pub struct Applied<K> {
    /// The object.
    pub object: Answer<K>,
    /// Whether it is new.
    pub created: bool,
}

/// A list as the API words it.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    items: Vec<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(rename = "continue", default)]
    next: String,
}

/// A line of a watch.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Client {
    fn objects_url<K: Object>(&self, name: Option<&str>) -> Url {
        let base = ["apis", GROUP, VERSION, "namespaces", self.tenant.as_str(), K::PLURAL];
        self.at(&base.into_iter().chain(name).collect::<Vec<_>>())
    }

    /// The address of a session over HTTP at this server (`/s/{tenant}/{session}/`).
    pub fn session_url(&self, session: &str) -> String {
        self.at(&["s", self.tenant.as_str(), session, ""]).to_string()
    }

    /// An object by its name.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn object<K: Object>(&self, name: &str) -> Result<Answer<K>> {
        self.fetch(self.request(Method::GET, self.objects_url::<K>(Some(name)))).await
    }

    /// Objects that `selector`, a field selector such as `spec.applicationName=chat`, is about, in the order of their names;
    /// `limit` at most. An empty selector is about all.
    ///
    /// # Errors
    /// `bad_request` for a selector that is none.
    pub async fn objects<K: Object>(&self, selector: &str, limit: usize) -> Result<Listing<K>> {
        let mut all = Listing { items: Vec::new(), next: None };
        loop {
            let page = (limit - all.items.len()).min(MAX_PAGE);
            let mut query = vec![("limit", page.to_string())];
            if !selector.is_empty() {
                query.push(("fieldSelector", selector.to_owned()));
            }
            query.extend(all.next.take().map(|next: String| ("continue", next)));
            let whole = self.send(self.request(Method::GET, self.objects_url::<K>(None)).query(&query)).await?;
            let read = || -> serde_json::Result<(Vec<Answer<K>>, String)> {
                let page: Page = serde_json::from_slice(&whole.body)?;
                let items = page.items.iter().map(|item| Answer::read(item.get().as_bytes()));
                Ok((items.collect::<serde_json::Result<_>>()?, page.metadata.next))
            };
            let (items, next) = read().map_err(|error| self.misunderstood(&error))?;
            let empty = items.is_empty();
            all.items.extend(items);
            all.next = Some(next).filter(|next| !next.is_empty());
            if all.next.is_none() || all.items.len() >= limit || empty {
                return Ok(all);
            }
        }
    }

    /// Makes an object. With `metadata.generateName` in place of a name, the server completes it.
    ///
    /// # Errors
    /// `conflict` when there is one of that name, `invalid_field` with the fields at fault, `not_found` when it names another
    /// object that is not there, `limit_reached` when the application of a session is busy.
    pub async fn create_object<K: Object>(&self, object: &K) -> Result<Answer<K>> {
        let url = self.objects_url::<K>(None);
        let query = [("fieldManager", MANAGER)];
        self.fetch(self.request(Method::POST, url).query(&query).json(object)).await
    }

    /// Makes an object, or changes it, so that it is as the manifest says in all that the manifest names (server-side apply).
    /// Fields that the kind does not have are refused.
    ///
    /// # Errors
    /// Those of [`Client::create_object`]; `conflict` also when others have set what the manifest changes.
    pub async fn apply_object<K: Object>(
        &self,
        name: &str,
        manifest: &Value,
        options: ApplyOptions,
    ) -> Result<Applied<K>> {
        let mut query = vec![("fieldManager", MANAGER), ("fieldValidation", "Strict")];
        query.extend(options.force.then_some(("force", "true")));
        query.extend(options.dry_run.then_some(("dryRun", "All")));
        let request = self.request(Method::PATCH, self.objects_url::<K>(Some(name))).query(&query);
        // JSON is YAML.
        let request = request.header(CONTENT_TYPE, "application/apply-patch+yaml").body(manifest.to_string());
        let whole = self.send(request).await?;
        let object = Answer::read(&whole.body).map_err(|error| self.misunderstood(&error))?;
        Ok(Applied { object, created: whole.status == StatusCode::CREATED })
    }

    /// Has an object deleted. It may be there for a while: a session closes first, an application ends its sessions and
    /// instances.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_object<K: Object>(&self, name: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, self.objects_url::<K>(Some(name)))).await.map(drop)
    }

    /// Waits until an object is as wanted, or gone, for `limit` at most: `done` is asked about each state of it, and about `None`
    /// when there is no such object. A server that is away meanwhile is waited for.
    ///
    /// # Errors
    /// [`Error::Deadline`] when that is not so in time, or what the server last failed with; `permission_denied` and the like at
    /// once.
    pub async fn wait_object<K: Object>(
        &self,
        name: &str,
        limit: Duration,
        mut done: impl FnMut(Option<&K>) -> bool + Send,
    ) -> Result<Option<Answer<K>>> {
        let mut last = None;
        let waiting = async {
            loop {
                match self.look_and_watch(name, &mut done).await {
                    Ok(Some(seen)) => return Ok(seen),
                    Ok(None) => last = None,
                    Err(error) if passes(&error) => {
                        last = Some(error);
                        tokio::time::sleep(AGAIN).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        match tokio::time::timeout(limit, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(last.unwrap_or(Error::Deadline { after: limit })),
        }
    }

    /// One look, and one watch of what comes after it. `None`: it is not as wanted yet.
    async fn look_and_watch<K: Object>(
        &self,
        name: &str,
        done: &mut (impl FnMut(Option<&K>) -> bool + Send),
    ) -> Result<Option<Option<Answer<K>>>> {
        let object = match self.object::<K>(name).await {
            Ok(object) => Some(object),
            Err(error) if error.code() == Code::NotFound => None,
            Err(error) => return Err(error),
        };
        if done(object.as_ref().map(|object| &object.value)) {
            return Ok(Some(object));
        }
        let revision = object.map(|object| object.meta().resource_version.clone()).unwrap_or_default();
        let query = [
            ("watch", "true"),
            ("fieldSelector", &format!("metadata.name={name}")),
            ("resourceVersion", &revision),
            ("timeoutSeconds", &WATCH.as_secs().to_string()),
        ];
        let request = self.http.request(Method::GET, self.objects_url::<K>(None)).timeout(WATCH + self.timeout);
        let mut events = Events { response: self.open(request.query(&query)).await?, client: self, read: Vec::new() };
        while let Some(line) = events.next().await? {
            let event: Event<'_> = serde_json::from_slice(&line).map_err(|error| self.misunderstood(&error))?;
            match event.kind {
                "ADDED" | "MODIFIED" => {
                    let object: Answer<K> =
                        Answer::read(event.object.get().as_bytes()).map_err(|error| self.misunderstood(&error))?;
                    if done(Some(&object.value)) {
                        return Ok(Some(Some(object)));
                    }
                }
                "DELETED" if done(None) => return Ok(Some(None)),
                // The watch can't go on from there; another look tells how things stand.
                "ERROR" => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Lines of a watch.
struct Events<'a> {
    response: Response,
    client: &'a Client,
    read: Vec<u8>,
}

impl Events<'_> {
    /// The next line; `None` at the watch's end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.read, rest)));
            }
            if self.read.len() > MAX_EVENT {
                let url = self.client.url().to_owned();
                return Err(Error::Protocol { url, reason: "an event of a watch has no end".to_owned() });
            }
            let chunk = self.response.chunk().await.map_err(|error| self.client.transport_error(&error, None))?;
            match chunk {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}
