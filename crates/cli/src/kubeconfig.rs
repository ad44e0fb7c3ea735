//! `lyra kubeconfig`: what `kubectl` and other clients of Kubernetes need to reach applications and sessions.
//!
//! Asks the server only where a token is given and no tenant: for the tenant that the token is bound to.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::failure::Result;
use crate::output::{note, print};
use crate::session::Global;

/// Flags of `kubeconfig`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra kubeconfig > lyra.kubeconfig
  kubectl --kubeconfig lyra.kubeconfig get applications,applicationsessions
  lyra kubeconfig --url https://lyra.example --tenant game1 --token \"$TOKEN\" > game1.kubeconfig
  lyra kubeconfig --url https://10.0.0.1:8443 --ca ca.pem --token \"$TOKEN\" > game1.kubeconfig

The certificate of --ca goes into the configuration, and so does the token: whoever reads it has it.
kubectl sends a token over https:// only.")]
pub struct Args {
    /// Have kubectl trust whoever answers, whatever certificate it shows: for tests
    #[arg(long)]
    insecure_skip_tls_verify: bool,
}

/// Prints a configuration with one cluster, one user and one context, whose namespace is the tenant.
///
/// # Errors
/// When the URL, the token, the tenant or the certificates can't be one, or stdout can't be written.
pub async fn run(args: &Args, global: &Global) -> Result<()> {
    // A client finds out what can't be used, without a connection.
    let (target, session) = (global.target()?, global.session()?);
    let is_secure = session.client.url().starts_with("https://");
    if target.token.is_some() && !is_secure {
        note(&format!(
            "kubectl sends no token over plain HTTP, so {} will not know who asks: serve HTTPS (`lyra up --tls-cert \
             FILE --tls-key FILE`, or a proxy) and give its https:// address with --url",
            session.client.url()
        ));
    }
    let url = session.client.url().to_owned();
    let namespace = match (&target.token, &target.tenant) {
        (Some(_), None) => match session.in_own_tenant(global).await {
            Ok(session) => session.client.tenant().to_string(),
            Err(failure) => {
                note(&format!(
                    "the namespace is `default`, since the token's tenant could not be asked for ({}); --tenant names one",
                    failure.error().detail
                ));
                "default".to_owned()
            }
        },
        (_, tenant) => tenant.as_ref().map_or("default", |tenant| tenant.as_str()).to_owned(),
    };
    let trust = match (is_secure, args.insecure_skip_tls_verify) {
        (false, _) => Trust::System,
        (true, true) => Trust::Anybody,
        (true, false) => target.authorities.map_or(Trust::System, Trust::Authority),
    };
    print(&configuration(&url, &trust, target.token.as_deref(), &namespace))
}

/// Whose certificates `kubectl` believes.
enum Trust {
    /// Those of the system's authorities.
    System,
    /// Those of this authority (PEM).
    Authority(Vec<u8>),
    /// Any.
    Anybody,
}

/// The configuration, in YAML.
fn configuration(url: &str, trust: &Trust, token: Option<&str>, tenant: &str) -> String {
    // A JSON string is a YAML string, whatever is in it.
    let quoted = |text: &str| Value::from(text).to_string();
    let user = match token {
        Some(token) => format!("{{token: {}}}", quoted(token)),
        None => "{}".to_owned(),
    };
    let trust = match trust {
        Trust::System => String::new(),
        Trust::Authority(pem) => format!("\n    certificate-authority-data: {}", STANDARD.encode(pem)),
        Trust::Anybody => "\n    insecure-skip-tls-verify: true".to_owned(),
    };
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: lyra
  cluster:
    server: {}{trust}
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
        let text = configuration("http://127.0.0.1:8080", &Trust::System, None, "game1");
        assert!(text.contains("server: \"http://127.0.0.1:8080\"\nusers:"), "{text}");
        assert!(text.contains("namespace: \"game1\"") && text.contains("user: {}"), "{text}");
        let text = configuration("https://x", &Trust::Authority(b"PEM".to_vec()), Some("a\"\nb: c"), "game1");
        assert!(text.contains(r#"user: {token: "a\"\nb: c"}"#), "{text}");
        assert!(text.contains("    certificate-authority-data: UEVN\n"), "{text}");
        let text = configuration("https://x", &Trust::Anybody, None, "game1");
        assert!(text.contains("    insecure-skip-tls-verify: true\n"), "{text}");
    }
}
