//! Tries whose large inputs go by URL, and whose answers may: see [`links`](super::links).

use std::time::Duration;

use bytes::Bytes;
use lyra_types::function::Digest;
use lyra_types::{Code, Error};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::actor::Message;
use super::attempt::{Attempt, fetched};
use super::links::{Claim, url_of};
use super::{journal, values};
use crate::enact::Failure;

impl Attempt {
    /// The input, with a URL in the place of each value above this many bytes. They are good for longer than the try can take.
    pub(super) async fn lend(&self, above: u64, timeout: Duration) -> Result<Bytes, Failure> {
        let deps = &self.inner.deps;
        if !deps.links.has_address() {
            let message = "the mapping asks for values by URL, and nobody has said where gateways are reached: set \
                           workflow.public_url";
            return Err(Failure::lasting("no_public_url", message));
        }
        let expires = deps.clock.now() + timeout.saturating_add(deps.config.transmission.link_ttl);
        let most = deps.config.max_result_bytes;
        let (mut input, mut kept) = (self.enact.input.clone(), Vec::new());
        for value in input.values_mut().filter(|value| values::size_of(value) > above) {
            let (digest, size) = match values::named_by(value, &self.secret) {
                Some((digest, size)) => (digest.to_owned(), size),
                None => {
                    let size = values::size_of(value);
                    let whole = values::whole(value, &self.secret, deps.blobs.as_ref(), most).await;
                    let whole = whole.map_err(|error| fetched(&error))?;
                    let put = journal::keep(&whole, deps.blobs.as_ref(), &deps.random).await;
                    let digest = put.map_err(|error| fetched(&error))?;
                    kept.push(digest.clone());
                    (digest, size)
                }
            };
            let (tenant, run) = (self.tenant.clone(), self.run.clone());
            *value = deps.links.reference(&Claim { tenant, run, digest, size, expires });
        }
        if !kept.is_empty() {
            self.belongs_to_the_run(kept).await.map_err(|error| fetched(&error))?;
        }
        values::written(&input, &self.secret, deps.blobs.as_ref(), most).await.map_err(|error| fetched(&error.into()))
    }

    /// Has the run note what it has in the blob store, so that it is kept as long as the run, and no longer.
    async fn belongs_to_the_run(&self, blobs: Vec<String>) -> Result<(), Error> {
        let gone = || Error::new(Code::Unavailable, "the run has just ended");
        let (reply, answer) = oneshot::channel();
        let mail = self.mail.upgrade().ok_or_else(gone)?;
        mail.send(Message::Lent(blobs, reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The output, with what an answer gave by URL in its place: a value of the run's own by its reference, all else fetched.
    pub(super) async fn take_back(
        &self,
        mut output: Map<String, Value>,
        timeout: Duration,
    ) -> Result<Map<String, Value>, Failure> {
        let deps = &self.inner.deps;
        for (name, value) in &mut output {
            let Some(url) = url_of(value) else { continue };
            let claim = deps.links.own(url, deps.clock.now());
            let own = claim.filter(|claim| claim.tenant == self.tenant && claim.run == self.run);
            let bytes = match own {
                // A result that is kept for other runs can't refer to what goes with this one.
                Some(claim)
                    if self.settings.memo.is_none() && self.program.plan.may_stay(self.enact.key.task, name) =>
                {
                    *value = values::reference(&claim.digest, claim.size, &self.secret);
                    continue;
                }
                Some(claim) => {
                    let found = deps.blobs.get(&Digest(claim.digest)).await.map_err(|error| fetched(&error.into()))?;
                    let missing = || Failure::lasting("no_such_value", "the value that the answer names is gone");
                    journal::value_of(&found.ok_or_else(missing)?)
                }
                None => deps.enact.fetch(url, timeout).await?,
            };
            *value = serde_json::from_slice(&bytes).map_err(|error| {
                Failure::lasting("invalid_json", format!("what the answer gives as {name} by URL is no JSON: {error}"))
            })?;
        }
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lyra_kit::Clock;
    use lyra_types::workflow::RunStatus;
    use lyra_types::{RunId, TenantName, WorkflowName};
    use lyra_wire::Workflows;
    use lyra_wire::workflows::{NewRun, NewWorkflow};
    use serde_json::json;

    use super::*;
    use crate::Config;
    use crate::clearing::tests::Site;
    use crate::enact::tests::doubles::FakeEnds;
    use crate::enact::tests::target::{Act, Target};

    const PASSES: &str = "
name: passes
dataIns: [{ name: text, type: string, source: text }]
workflowBody:
  - function:
      name: first
      type: Passes
      dataIns: [{ name: text, type: string, source: passes/text }]
      dataOuts: [{ name: text, type: string }]
  - function:
      name: second
      type: Passes
      dataIns: [{ name: text, type: string, source: first/text }]
      dataOuts: [{ name: text, type: string }]
dataOuts: [{ name: text, type: string, source: second/text }]
";

    fn passes(url: &str) -> NewWorkflow {
        let resource = json!({
            "type": "Serverless", "properties": {"Uri": url}, "transmission": {"referencesAbove": 1_000},
        });
        NewWorkflow {
            name: WorkflowName::new("passes").expect("a name"),
            definition: PASSES.to_owned(),
            mappings: json!([{"functionType": "Passes", "resources": [resource]}]),
            schedule: None,
        }
    }

    async fn site(public_url: &str) -> Site {
        let config = Config { public_url: public_url.to_owned(), ..Config::default() };
        let dir = tempfile::tempdir().expect("a directory");
        Site::on(dir, config, Clock::system(), Arc::new(FakeEnds::default())).await
    }

    /// Answers with what it was sent.
    fn echo(request: &str) -> Act {
        Act::json("200 OK", request.split_once("\r\n\r\n").expect("a body").1)
    }

    /// The token of the URL in the body of a request.
    fn token(request: &str) -> String {
        let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
        let url = url_of(&body["text"]).expect("a URL").to_owned();
        url.rsplit('/').next().expect("a token").to_owned()
    }

    #[tokio::test]
    async fn a_large_input_goes_by_a_url_that_is_good_while_its_run_is_there_and_comes_back_by_it() {
        let target = Target::with(echo, None).await;
        let site = site("https://lyra.test").await;
        let tenant = TenantName::default_tenant();
        site.service.deploy(&tenant, passes(&target.url("/"))).await.expect("deployed");
        let run = async |id: &str, text: &str| {
            let input = json!({"text": text}).as_object().expect("an object").clone();
            let new = NewRun { input, id: Some(RunId::new(id).expect("an id")), ..NewRun::default() };
            let name = WorkflowName::new("passes").expect("a name");
            let id = site.service.start(&tenant, &name, new).await.expect("started").id;
            let run = site.service.run(&tenant, &id, Duration::from_secs(60)).await.expect("the run");
            assert_eq!(run.status, RunStatus::Succeeded, "{run:?}");
            assert_eq!(run.output.expect("an output")["text"], text);
            id
        };
        let text = "ü".repeat(5_000);
        let id = run("large", &text).await;
        let requests = target.requests.lock().clone();
        assert_eq!(requests.len(), 2);
        let tokens: Vec<String> = requests.iter().map(|request| token(request)).collect();
        for (request, token) in requests.iter().zip(&tokens) {
            assert!(!request.contains("üüü"), "the value itself is not sent");
            let value = site.service.value(token).await.expect("a value");
            assert_eq!(serde_json::from_slice::<Value>(&value).expect("JSON"), json!(text));
        }
        assert_eq!(site.service.value("AAAA.AAAA").await.expect_err("nobody made it").code, Code::NotFound);
        // What is small goes as it is.
        run("small", "x").await;
        // Also where it is so large that outputs stay in the blob store.
        run("huge", &"y".repeat(200_000)).await;
        assert!(target.requests.lock()[2].ends_with(r#"{"text":"x"}"#));
        let engine = site.service.engine();
        assert!(engine.forget(&tenant, &id, site.service.clock().now()).await.expect("forgotten"));
        for token in &tokens {
            assert_eq!(site.service.value(token).await.expect_err("it went with its run").code, Code::NotFound);
        }
        site.service.stop(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn without_an_address_of_the_gateways_nobody_is_promised_urls() {
        let site = site("").await;
        let refused = site.service.deploy(&TenantName::default_tenant(), passes("http://x.test/")).await;
        let refused = refused.expect_err("there are no URLs");
        assert_eq!((refused.code, refused.errors[0].field.as_str()), (Code::InvalidField, "mappings"));
        assert!(refused.detail.contains("workflow.public_url"), "{refused}");
        site.service.stop(Duration::ZERO).await;
    }
}
