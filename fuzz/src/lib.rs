//! What the fuzz targets do with an input: send it to a whole platform through its HTTP door.
//!
//! What must hold for every input: no answer is a fault of Lyra (5xx but for what a function did itself), no panic
//! anywhere in the process (libFuzzer's hook aborts on one, also on one that is caught), no answer takes a minute, and
//! other functions go on working. Code that was accepted is also called, and the call broken off if it lasts.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lyra_node::embedded::{Config, Node};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// An answer that takes longer is a hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// A call of fuzzed code is broken off after so long.
const CALL: Duration = Duration::from_millis(300);
/// After so many inputs, a good function is deployed and called.
const CHECK_EVERY: u64 = 32;
/// Codes that a call of somebody's code may end with; any other one with 5xx is Lyra's fault.
const FAULTS_OF_FUNCTIONS: [&str; 6] =
    ["function_error", "timeout", "out_of_memory", "instance_crashed", "result_too_large", "invalid_result"];

static PLATFORM: LazyLock<Platform> = LazyLock::new(|| Platform::start().expect("the platform starts"));

struct Platform {
    runtime: Runtime,
    http: Client,
    url: String,
    inputs: AtomicU64,
    _folder: tempfile::TempDir,
}

/// Sends `body` as a deploy; calls what was accepted.
pub fn deploy_json(body: &[u8]) {
    let body = body.to_vec();
    PLATFORM.input(async |platform| {
        let answer = platform.send(Method::PUT, "/v1/functions/fuzzed", "application/json", body).await;
        if platform.accepted(answer).await {
            platform.call(Method::POST, "/v1/functions/fuzzed/invoke").await;
            platform.remove().await;
        }
    });
}

/// Uploads `wasm`; calls what was accepted, as a handler and over HTTP.
pub fn wasm_upload(wasm: &[u8]) {
    let wasm = wasm.to_vec();
    PLATFORM.input(async |platform| {
        let answer = platform.send(Method::PUT, "/v1/functions/fuzzed/code", "application/wasm", wasm).await;
        if platform.accepted(answer).await {
            platform.call(Method::POST, "/v1/functions/fuzzed/invoke").await;
            platform.call(Method::GET, "/fn/default/fuzzed/").await;
            platform.remove().await;
        }
    });
}

impl Platform {
    fn start() -> anyhow::Result<Platform> {
        // An `Err` means that there is a provider already. No TLS is used here, but reqwest wants one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = Runtime::new()?;
        let folder = tempfile::Builder::new().prefix("lyra-fuzz-").tempdir()?;
        let config = Config::new(folder.path().join("data"), ([127, 0, 0, 1], 0).into());
        let node = runtime.block_on(Box::pin(Node::start(config)))?;
        let url = format!("http://{}", node.addr());
        runtime.block_on(async {
            lyra_kit::tasks::spawn("fuzzed node", Box::pin(node.run_until(CancellationToken::new())));
        });
        let http = Client::builder().no_proxy().retry(reqwest::retry::never()).build()?;
        Ok(Platform { runtime, http, url, inputs: AtomicU64::new(0), _folder: folder })
    }

    fn input(&self, work: impl AsyncFnOnce(&Platform)) {
        self.runtime.block_on(async {
            work(self).await;
            if self.inputs.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECK_EVERY) {
                self.others_go_on().await;
            }
        });
    }

    async fn send(&self, method: Method, path: &str, media_type: &str, body: Vec<u8>) -> Response {
        let request = self.http.request(method.clone(), format!("{}{path}", self.url));
        let sent = request.header("content-type", media_type).body(body).send();
        match tokio::time::timeout(PATIENCE, sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => panic!("{method} {path} gets no answer: {error:?}"),
            Err(_) => panic!("{method} {path} hangs"),
        }
    }

    /// Whether a deploy was accepted. It may be refused, but it may not fail.
    async fn accepted(&self, answer: Response) -> bool {
        let status = answer.status();
        let text = answer.text().await.expect("an answer has a body");
        assert!(!status.is_server_error(), "{status}: {text}");
        if !status.is_success() {
            let problem: Value = serde_json::from_str(&text).expect("a refusal is a problem document");
            assert!(problem["code"].is_string() && problem["detail"].is_string(), "{text}");
        }
        status.is_success()
    }

    /// Calls fuzzed code. It may do anything but make Lyra fail.
    async fn call(&self, method: Method, path: &str) {
        let called = async {
            let answer = self.send(method, path, "application/json", br#"{"a":2,"b":3}"#.to_vec()).await;
            (answer.status(), answer.headers().clone(), answer.bytes().await)
        };
        // Dropping the request breaks the call off.
        let Ok((status, headers, Ok(body))) = tokio::time::timeout(CALL, called).await else { return };
        let is_problem = headers.get("content-type").is_some_and(|value| value == "application/problem+json");
        if status.is_server_error() && is_problem {
            let problem: Value = serde_json::from_slice(&body).expect("a problem document is JSON");
            let code = problem["code"].as_str().unwrap_or_default();
            assert!(FAULTS_OF_FUNCTIONS.contains(&code), "{status}: {problem}");
        }
    }

    async fn remove(&self) {
        let answer = self.send(Method::DELETE, "/v1/functions/fuzzed", "application/json", Vec::new()).await;
        assert!(answer.status().is_success(), "the fuzzed function can't be deleted: {}", answer.status());
    }

    async fn others_go_on(&self) {
        let deploy = br#"{"runtime":"js","code":{"source":"export default (e) => e.a + e.b"}}"#.to_vec();
        let deployed = self.send(Method::PUT, "/v1/functions/good", "application/json", deploy).await;
        assert!(deployed.status().is_success(), "a good deploy is refused: {}", deployed.status());
        let event = br#"{"a":2,"b":3}"#.to_vec();
        let answer = self.send(Method::POST, "/v1/functions/good/invoke", "application/json", event).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.text().await.expect("an answer has a body"), "5");
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder).expect("seeds are there").map(|entry| entry.expect("readable").path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{files:?}");
        files.iter().map(|file| std::fs::read(file).expect("readable")).collect()
    }

    #[test]
    fn the_seeds_of_deploys_leave_the_platform_whole() {
        seeds("deploy_json").iter().for_each(|seed| super::deploy_json(seed));
    }

    #[test]
    fn the_seeds_of_uploads_leave_the_platform_whole() {
        seeds("wasm_upload").iter().for_each(|seed| super::wasm_upload(seed));
    }
}
