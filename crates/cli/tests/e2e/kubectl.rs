//! A server with a certificate and tokens, as its users meet it: with the real `kubectl` over a configuration of `lyra kubeconfig`, with
//! `lyra` itself, and with clients that do not behave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lyra_testkit::{Cli, Lyra, Options, Output};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::start::{BINARY, ECHO, alone, server};

const OPERATOR: &str = "an-operators-token-of-some-length";

const MANIFEST: &str = "
apiVersion: lyra.dev/v1
kind: Application
metadata: {name: count}
spec:
  scalingPolicy: {minimumInstance: 0, maximumInstance: 1, scalingPolicyType: idle_session_number,
    idleSessionNumThreshold: {low: 1, high: 1}}
  containers: [{name: main, function: count, ports: [{name: http, containerPort: 8080}]}]
";

/// An authority of the test's own, and a server whose certificate it has signed.
struct Site {
    lyra: Lyra,
    dir: tempfile::TempDir,
}

/// Makes an authority, `ca.pem`, and what it vouches for: `cert.pem` and `key.pem`, in place of those that are there.
pub(super) fn issue(dir: &Path) -> Result<()> {
    let (authority, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut of_authority = CertificateParams::default();
    of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = of_authority.self_signed(&authority)?;
    let issuer = Issuer::new(of_authority, authority);
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    let files = [("ca.pem", root.pem()), ("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())];
    for (name, text) in files {
        let fresh = dir.join("new");
        fs::write(&fresh, text)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        fs::rename(fresh, dir.join(name))?;
    }
    Ok(())
}

impl Site {
    async fn start() -> Result<Site> {
        let dir = tempfile::tempdir()?;
        issue(dir.path())?;
        fs::write(dir.path().join("tokens"), format!("{OPERATOR}\n"))?;
        let flags = [("--tls-cert", "cert.pem"), ("--tls-key", "key.pem"), ("--token-file", "tokens")];
        let args = flags.iter().flat_map(|(flag, file)| [flag.to_string(), path(&dir, file)]).collect();
        let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), args, ..Options::default() }).await?;
        fs::write(lyra.scratch().join("echo.js"), ECHO)?;
        fs::write(lyra.scratch().join("count.yaml"), MANIFEST)?;
        assert!(lyra.url().starts_with("https://127.0.0.1:"), "{}", lyra.url());
        Ok(Site { lyra, dir })
    }

    /// Commands of somebody who trusts the authority.
    fn with(&self, token: &str) -> Cli {
        self.lyra.commands().env("LYRA_CA", &path(&self.dir, "ca.pem")).env("LYRA_TOKEN", token)
    }

    fn root(&self) -> Cli {
        self.with(OPERATOR)
    }

    /// A token of a tenant.
    async fn token(&self, tenant: &str, scopes: &str) -> Result<String> {
        let create = ["token", "create", tenant, "--no-user", "--scope", scopes, "--tenant", tenant, "-q"];
        Ok(self.root().run(create).await?.ok()?.trim().to_owned())
    }

    /// `kubectl` with what `lyra kubeconfig` prints for a token.
    async fn kubectl(&self, name: &str, token: &str, flags: &[&str]) -> Result<Kubectl> {
        let printed = self.with(token).run([&["kubeconfig"], flags].concat()).await?;
        assert_eq!(printed.stderr, "", "nothing is wrong with it");
        let config = self.lyra.scratch().join(name);
        fs::write(&config, printed.ok()?)?;
        Ok(Kubectl {
            cli: Cli::new("kubectl").within(self.lyra.scratch()).env("KUBECONFIG", &config.display().to_string()),
            config,
        })
    }
}

fn path(dir: &tempfile::TempDir, file: &str) -> String {
    dir.path().join(file).display().to_string()
}

/// The real one.
struct Kubectl {
    cli: Cli,
    config: PathBuf,
}

impl Kubectl {
    async fn run(&self, line: &str) -> Result<Output> {
        self.cli.run(line.split(' ')).await.context("these tests need kubectl")
    }

    /// Asks `auth can-i`.
    async fn can(&self, line: &str) -> Result<bool> {
        let said = self.run(&format!("auth can-i {line}")).await?;
        match (said.code, said.stdout.trim()) {
            (0, "yes") => Ok(true),
            (1, no) if no.starts_with("no") => Ok(false),
            _ => anyhow::bail!("{line}: {said:?}"),
        }
    }
}

#[tokio::test]
async fn kubectl_works_with_a_tenants_token_in_its_namespace_only() -> Result<()> {
    let site = Site::start().await?;
    for tenant in ["acme", "rival"] {
        site.root().run(["tenant", "create", tenant]).await?.ok()?;
    }
    let (dev, viewer) = (site.token("acme", "deploy,invoke,read").await?, site.token("acme", "read").await?);
    site.with(&dev).run(["deploy", "echo.js", "--name", "count"]).await?.ok()?;

    // Nobody names the namespace: it is the token's.
    let kubectl = site.kubectl("dev", &dev, &[]).await?;
    let config = fs::read_to_string(&kubectl.config)?;
    assert!(config.contains("namespace: \"acme\"") && config.contains("certificate-authority-data: "), "{config}");
    assert!(config.contains(&dev) && !config.contains("insecure"), "{config}");
    let none = kubectl.run("get applications").await?;
    assert!(none.stderr.contains("No resources found in acme namespace"), "{none:?}");
    let applied = kubectl.run("apply -f count.yaml").await?.ok()?;
    assert_eq!(applied, "application.lyra.dev/count created\n");
    assert_eq!(kubectl.run("get applications -o name").await?.ok()?, "application.lyra.dev/count\n");
    let listed = site.with(&dev).run(["app", "ls", "-q"]).await?.ok()?;
    assert_eq!(listed, "count\n", "the same that `lyra` sees");

    for (line, may) in [
        ("create applications", true),
        ("delete applicationsessions", true),
        ("get applications -n acme", true),
        ("get applications -n rival", false),
        ("create applicationsessions -n rival", false),
        ("get applications --all-namespaces", false),
    ] {
        assert_eq!(kubectl.can(line).await?, may, "{line}");
    }
    let reads = site.kubectl("viewer", &viewer, &[]).await?;
    assert!(reads.can("get applications").await? && !reads.can("delete applications").await?);
    assert_eq!(reads.run("get applications -o name").await?.ok()?, "application.lyra.dev/count\n");
    for line in ["get applications -n rival", "apply -f count.yaml -n rival", "get applications --all-namespaces"] {
        let refused = kubectl.run(line).await?.expect(1)?;
        assert!(refused.stderr.contains("(Forbidden)"), "{line}: {refused:?}");
    }
    let refused = reads.run("delete application count").await?.expect(1)?;
    assert!(refused.stderr.contains("(Forbidden)"), "{refused:?}");

    // An operator's namespace is the one that is asked for.
    let root = site.kubectl("root", OPERATOR, &["--tenant", "acme"]).await?;
    assert_eq!(root.run("get applications -A -o name").await?.ok()?, "application.lyra.dev/count\n");
    assert!(root.can("delete applications -n rival").await?);
    assert_eq!(kubectl.run("delete application count").await?.ok()?, "application.lyra.dev \"count\" deleted\n");
    Ok(())
}

#[tokio::test]
async fn kubectl_says_who_is_not_known() -> Result<()> {
    let site = Site::start().await?;
    site.root().run(["tenant", "create", "acme"]).await?.ok()?;
    let token = site.token("acme", "read").await?;
    let kubectl = site.kubectl("good", &token, &[]).await?;
    kubectl.run("get applications").await?.ok()?;
    let unknown = "lyra_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
    for wrong in [unknown, "nonsense"] {
        let wrong = site.kubectl("wrong", wrong, &["--tenant", "acme"]).await?;
        for line in ["get applications", "auth can-i get applications", "apply -f count.yaml"] {
            let refused = wrong.run(line).await?.expect(1)?;
            let says = ["Unauthorized", "must be logged in", "provide credentials"];
            assert!(says.iter().any(|text| refused.stderr.contains(text)), "{line}: {refused:?}");
        }
    }
    // Without a token kubectl asks for a name, and has nobody to answer.
    let nobody = fs::read_to_string(&kubectl.config)?.replace(&format!("token: \"{token}\""), "");
    fs::write(&kubectl.config, nobody)?;
    let refused = kubectl.run("get applications").await?.expect(1)?;
    assert!(refused.stderr.contains("Unauthorized") || refused.stderr.contains("EOF"), "{refused:?}");

    // A token that is revoked is none from then on.
    let kubectl = site.kubectl("revoked", &token, &[]).await?;
    let listed = site.root().run(["token", "ls", "--tenant", "acme", "-o", "json"]).await?.json()?;
    let id = listed["items"][0]["id"].as_str().context("an id")?.to_owned();
    site.root().run(["token", "rm", &id]).await?.ok()?;
    while kubectl.run("get applications").await?.code == 0 {}
    let refused = kubectl.run("get applications").await?.expect(1)?;
    assert!(refused.stderr.contains("must be logged in"), "{refused:?}");

    // Whoever trusts nobody in particular is asked to; whoever says so trusts anybody.
    let token = site.token("acme", "read").await?;
    let blind = site.lyra.commands().env("LYRA_TOKEN", &token).env("LYRA_TENANT", "acme");
    let config = site.lyra.scratch().join("blind");
    fs::write(&config, blind.run(["kubeconfig"]).await?.ok()?)?;
    let kubectl = Cli::new("kubectl").env("KUBECONFIG", &config.display().to_string());
    let refused = kubectl.run(["get", "applications"]).await?.expect(1)?;
    assert!(refused.stderr.contains("x509"), "{refused:?}");
    let insecure = blind.run(["kubeconfig", "--insecure-skip-tls-verify"]).await?.ok()?;
    assert!(insecure.contains("insecure-skip-tls-verify: true"), "{insecure}");
    fs::write(&config, insecure)?;
    kubectl.run(["get", "applications"]).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn lyra_speaks_https_and_says_what_is_wrong_with_a_certificate() -> Result<()> {
    let site = Site::start().await?;
    let root = site.root();
    root.run(["deploy", "echo.js"]).await?.ok()?;
    assert_eq!(root.run(["invoke", "echo", "-d", "7"]).await?.ok()?, "7\n");
    let plain = site.lyra.commands().env("LYRA_TOKEN", OPERATOR);
    let refused = plain.run(["fn", "ls"]).await?.expect(7)?;
    assert!(refused.stderr.contains("authority") && refused.stderr.contains("--ca"), "{}", refused.stderr);
    let by_flag = plain.run(["fn", "ls", "-q", "--certificate-authority", &path(&site.dir, "ca.pem")]).await?;
    assert_eq!(by_flag.ok()?, "echo\n");
    for (file, says) in [("none.pem", "can't be read"), ("key.pem", "no certificate in PEM")] {
        let refused = plain.run(["fn", "ls", "--ca", &path(&site.dir, file)]).await?.expect(2)?;
        assert!(refused.stderr.contains(says), "{file}: {}", refused.stderr);
    }
    let elsewhere = tempfile::tempdir()?;
    issue(elsewhere.path())?;
    let refused = plain.run(["fn", "ls", "--ca", &path(&elsewhere, "ca.pem")]).await?.expect(7)?;
    assert!(refused.stderr.contains("can't be trusted"), "{}", refused.stderr);
    // The other way round: each end finds out what the other speaks.
    let http = root.clone().env("LYRA_URL", &format!("http://{}", site.lyra.address()));
    let refused = http.run(["fn", "ls"]).await?.expect(2)?;
    assert!(refused.stderr.contains("https://"), "{}", refused.stderr);
    let other = server().await?;
    let https = alone().env("LYRA_URL", &format!("https://{}", other.address()));
    let refused = https.run(["fn", "ls"]).await?.expect(7)?;
    assert!(refused.stderr.contains("does not speak TLS"), "{}", refused.stderr);
    // And kubectl is known to send no token there.
    let warned = other.commands().env("LYRA_TOKEN", OPERATOR).run(["kubeconfig", "--tenant", "acme"]).await?;
    for part in ["kubectl sends no token over plain HTTP", "--tls-cert", "--url"] {
        assert!(warned.stderr.contains(part), "{part}: {}", warned.stderr);
    }
    assert!(warned.ok()?.contains(&format!("server: \"http://{}\"", other.address())));
    Ok(())
}

#[tokio::test]
async fn clients_that_say_nothing_or_speak_plain_http_hurt_nobody() -> Result<()> {
    let mut site = Site::start().await?;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(site.lyra.address()).await?);
    }
    site.root().run(["deploy", "echo.js"]).await?.ok()?;
    let mut plain = TcpStream::connect(site.lyra.address()).await?;
    plain
        .write_all(
            format!("GET /v1/functions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {OPERATOR}\r\n\r\n").as_bytes(),
        )
        .await?;
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://") && !answer.contains("echo"), "{answer}");
    assert_eq!(site.root().run(["invoke", "echo", "-d", "7"]).await?.ok()?, "7\n");
    // They do not hold up its end either.
    let (status, _) = site.lyra.terminate().await?;
    assert_eq!(status.code(), Some(0), "{}", site.lyra.log());
    assert!(!site.lyra.log().contains("broken off"), "{}", site.lyra.log());
    drop(silent);
    Ok(())
}

#[tokio::test]
async fn a_new_certificate_is_shown_while_the_server_runs_and_a_bad_one_is_not() -> Result<()> {
    let site = Site::start().await?;
    let former = site.dir.path().join("former.pem");
    fs::copy(site.dir.path().join("ca.pem"), &former)?;
    let old = site.root().env("LYRA_CA", &former.display().to_string());
    old.run(["fn", "ls"]).await?.ok()?;
    issue(site.dir.path())?;
    while site.root().run(["fn", "ls"]).await?.code != 0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    old.run(["fn", "ls"]).await?.expect(7)?;
    assert!(site.lyra.log().contains("a new certificate is shown from now on"), "{}", site.lyra.log());
    // Others could read the new key: the pair is not taken.
    let key = site.dir.path().join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    fs::write(&key, fs::read(&key)?)?;
    while !site.lyra.log().contains("the former one still is") {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(site.lyra.log().contains("chmod 600"), "{}", site.lyra.log());
    site.root().run(["fn", "ls"]).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_refused_at_the_start() -> Result<()> {
    let dir = tempfile::tempdir()?;
    issue(dir.path())?;
    let (cert, key) = (path(&dir, "cert.pem"), path(&dir, "key.pem"));
    let data = path(&dir, "data");
    let up = async |flags: &[&str]| -> Result<String> {
        let refused = alone().run([&["up", "--listen", "127.0.0.1:0", "--data-dir", &data], flags].concat()).await?;
        Ok(refused.expect(2)?.stderr)
    };
    let said = up(&["--tls-cert", &cert]).await?;
    assert!(said.contains("gateway.tls_key"), "{said}");
    let said = up(&["--tls-key", &key]).await?;
    assert!(said.contains("gateway.tls_cert"), "{said}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640))?;
    let said = up(&["--tls-cert", &cert, "--tls-key", &key]).await?;
    assert!(said.contains("mode 640") && said.contains("chmod 600"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_gateway_apart_serves_https_too() -> Result<()> {
    let mut cluster = lyra_testkit::Cluster::start(1, &[]).await?;
    let dir = tempfile::tempdir()?;
    issue(dir.path())?;
    let (cert, key, ca) = (path(&dir, "cert.pem"), path(&dir, "key.pem"), path(&dir, "ca.pem"));
    let flags = ["--listen", "127.0.0.1:0", "--control", cluster.address("c1"), "--tls-cert", &cert, "--tls-key", &key];
    let flags = flags.map(str::to_owned);
    cluster.add_node("gateway", "g2", &flags.each_ref().map(String::as_str), &[]).await?;
    let url = cluster.address("g2").to_owned();
    assert!(url.starts_with("https://"), "{url}");
    let at = Cli::new(BINARY).env("LYRA_URL", &url).env("LYRA_CA", &ca);
    at.until_shown(&["worker", "ls", "-q"], "w1").await?;
    let kubeconfig = at.run(["kubeconfig"]).await?.ok()?;
    fs::write(dir.path().join("config"), kubeconfig)?;
    let kubectl = Cli::new("kubectl").env("KUBECONFIG", &path(&dir, "config"));
    // The gateway has to have heard of all there is first.
    kubectl.until_shown(&["get", "applications", "--token", "of-nobody", "-o", "json"], "\"items\": []").await?;
    Ok(())
}
