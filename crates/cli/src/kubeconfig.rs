//! `lyra kubeconfig`: what `kubectl` and other clients of Kubernetes need to reach applications and sessions. Asks no server.

use serde_json::Value;

use crate::failure::Result;
use crate::output::{note, print};
use crate::session::Global;

/// Flags of `kubeconfig`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra kubeconfig > lyra.kubeconfig
  kubectl --kubeconfig lyra.kubeconfig get applications,applicationsessions
  lyra kubeconfig --url https://lyra.example --tenant game1 --token \"$TOKEN\" > game1.kubeconfig")]
pub struct Args {}

/// Prints a configuration with one cluster, one user and one context, whose namespace is the tenant.
///
/// # Errors
/// When the URL, the token or the tenant can't be one, or stdout can't be written.
pub fn run(_: &Args, global: &Global) -> Result<()> {
    let target = global.target()?;
    if target.token.is_some() && !target.url.starts_with("https://") {
        note("kubectl sends no token over plain HTTP: give an https:// address with --url");
    }
    print(&configuration(
        &target.url,
        target.token.as_deref(),
        target.tenant.as_ref().map_or("default", |tenant| tenant.as_str()),
    ))
}

/// The configuration, in YAML.
fn configuration(url: &str, token: Option<&str>, tenant: &str) -> String {
    // A JSON string is a YAML string, whatever is in it.
    let quoted = |text: &str| Value::from(text).to_string();
    let user = match token {
        Some(token) => format!("{{token: {}}}", quoted(token)),
        None => "{}".to_owned(),
    };
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: lyra
  cluster:
    server: {}
users:
- name: lyra
  user: {user}
contexts:
- name: lyra
  context:
    cluster: lyra
    user: lyra
    namespace: {}
current-context: lyra
",
        quoted(url),
        quoted(tenant)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_server_tenant_and_token_safely() {
        let text = configuration("http://127.0.0.1:8080", None, "game1");
        assert!(text.contains("server: \"http://127.0.0.1:8080\"") && text.contains("namespace: \"game1\""), "{text}");
        assert!(text.contains("user: {}"), "{text}");
        let text = configuration("https://x", Some("a\"\nb: c"), "game1");
        assert!(text.contains(r#"user: {token: "a\"\nb: c"}"#), "{text}");
    }
}
