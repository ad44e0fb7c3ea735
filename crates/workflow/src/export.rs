//! Sends the spans of runs that have ended to a collector of OpenTelemetry, by OTLP over HTTP in JSON.
//!
//! What must hold: no run waits for a collector; what waits to be sent is bounded, and what finds no room, or is refused
//! again and again, is dropped and counted. A run whose process is killed at its end may be sent by nobody: spans are for
//! people to look at, and `GET /v1/runs/{id}/trace?format=otlp` has them for as long as the run is kept.

use std::time::Duration;

use lyra_kit::retry::Backoff;
use lyra_types::{Code, Error, Result, RunId, TenantName};
use lyra_wire::Workflows;
use lyra_wire::spans::spans;
use tokio::sync::mpsc;
use url::Url;

use crate::service::Service;

/// Runs that may wait to be sent.
pub(crate) const QUEUE: usize = 1_024;
/// Tokens of one run that are read at once, and at most.
const PAGE: usize = 10_000;
const MOST: usize = 100_000;
/// Longest time to a collector's answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Tries of one run.
const TRIES: u32 = 3;
const AGAIN: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(5) };

/// Runs that have ended, to be sent.
pub(crate) type Ended = mpsc::Receiver<(TenantName, RunId)>;

/// Where spans go: `ENDPOINT/v1/traces`, unless the endpoint has a path of its own.
///
/// # Errors
/// [`Code::InvalidField`] when it is no URL.
pub(crate) fn address(endpoint: &str) -> Result<Url> {
    let wrong = |why: &str| Error::field(Code::InvalidField, "workflow.otlp_endpoint", format!("\"{endpoint}\" {why}"));
    let mut url = Url::parse(endpoint).map_err(|_| wrong("is not a URL, such as http://127.0.0.1:4318"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("must begin with http:// or https://"));
    }
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Ok(url)
}

impl Service {
    /// Sends what has ended, one run after the other, until there are no more to come.
    pub(crate) async fn export_spans(self, url: Url, client: reqwest::Client, mut ended: Ended) {
        while let Some((tenant, id)) = ended.recv().await {
            if let Err(error) = self.export(&url, &client, &tenant, &id).await {
                self.engine().deps().metrics.spans_dropped.inc();
                tracing::warn!(%tenant, run = %id, %error, "the spans of a run could not be sent");
            }
        }
    }

    async fn export(&self, url: &Url, client: &reqwest::Client, tenant: &TenantName, id: &RunId) -> Result<()> {
        let run = self.run(tenant, id, Duration::ZERO).await?;
        let mut tokens = Vec::new();
        loop {
            let page = self.trace(tenant, id, tokens.len() as u64, PAGE).await?;
            let last = page.len() < PAGE;
            tokens.extend(page);
            if last {
                break;
            }
            if tokens.len() >= MOST {
                return Err(Error::new(Code::TooLarge, format!("it has more than {MOST} tokens")));
            }
        }
        let body = spans(&run, &tokens).to_string();
        let deps = self.engine().deps();
        let mut tries = 0;
        loop {
            let sent = client.post(url.clone()).header("content-type", "application/json").body(body.clone()).send();
            let failed = match tokio::time::timeout(ANSWER, sent).await {
                Ok(Ok(answer)) if answer.status().is_success() => return Ok(()),
                Ok(Ok(answer)) => format!("the collector answered {}", answer.status()),
                Ok(Err(error)) => format!("the collector can't be reached: {}", error.without_url()),
                Err(_) => "the collector did not answer in time".to_owned(),
            };
            tries += 1;
            if tries >= TRIES {
                return Err(Error::new(Code::Unavailable, failed));
            }
            deps.clock.sleep(AGAIN.delay(tries, &deps.random)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use lyra_kit::Clock;

    use super::*;
    use crate::Config;
    use crate::clearing::tests::Site;
    use crate::enact::tests::target::{Act, Target};

    #[tokio::test]
    async fn a_run_that_has_ended_is_sent_again_until_the_collector_takes_it() {
        let tries = std::sync::atomic::AtomicUsize::new(0);
        let answer = move |_: &str| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Act::json("503 Service Unavailable", ""),
            _ => Act::json("200 OK", "{}"),
        };
        let collector = Target::with(answer, None).await;
        let config = Config { otlp_endpoint: format!("http://{}", collector.address), ..Config::default() };
        let site = Site::with(config, Clock::system()).await;
        site.deploy("").await;
        site.run("r").await;
        while collector.requests.lock().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let requests = collector.requests.lock();
        assert!(requests[1].starts_with("POST /v1/traces HTTP/1.1"), "{}", requests[1]);
        let (_, body) = requests[1].split_once("\r\n\r\n").unwrap();
        let sent: serde_json::Value = serde_json::from_str(body).unwrap();
        let spans = sent["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans.len(), 3, "run, task, try: {sent}");
    }

    #[test]
    fn an_endpoint_without_a_path_gets_the_usual_one() {
        assert_eq!(address("http://127.0.0.1:4318").unwrap().as_str(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(address("https://otel.test/in/traces").unwrap().as_str(), "https://otel.test/in/traces");
        for wrong in ["", "127.0.0.1:4318", "grpc://127.0.0.1:4317"] {
            assert_eq!(address(wrong).unwrap_err().code, Code::InvalidField, "{wrong}");
        }
    }
}
