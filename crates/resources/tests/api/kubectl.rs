//! The real `kubectl` against the API. The one of PATH is used: Debian's 1.20 is what `./test` brings where there is none, and
//! every test passes with it; what only a newer one can is left out then, and said.

use std::process::{Output, Stdio};
use std::time::Duration;

use lyra_types::TenantName;
use lyra_types::resources::{AccessEndPoint, ApplicationSession, SessionStatus};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::server::Server;

/// Longest that one command may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

const MANIFESTS: &str = "
apiVersion: lyra.dev/v1
kind: Application
metadata: {name: echo, labels: {tier: gold}}
spec:
  usingNodeSessionService: true
  scalingPolicy: {minimumInstance: 0, maximumInstance: 100, burst: 10,
    scalingPolicyType: idle_session_number, idleSessionNumThreshold: {low: 1, high: 3}}
  containers:
  - {name: echo, image: 'echo:v1', ports: [{containerPort: 80, name: http, protocol: TCP}],
     env: [{name: SESSION_WRAPPER_OPEN_SESSION_CMD, value: /opt/bin/sessionwrapper-echoserver}],
     resources: {requests: {memory: 50M, cpu: 10m}, limits: {memory: 50M, cpu: 50m}}}
---
apiVersion: lyra.dev/v1
kind: ApplicationSession
metadata: {name: echo-1, labels: {application: echo}}
spec: {applicationName: echo, sessionData: my-session-data, openTimeoutSeconds: 30,
       closeGracePeriodSeconds: 30, killInstanceWhenSessionClosed: true}
";

struct Site {
    dir: tempfile::TempDir,
    server: Server,
}

impl Site {
    async fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("objects.db"), ([127, 0, 0, 1], 0).into()).await;
        let cluster = |who: &str| format!("{{name: {who}, cluster: {{server: 'http://{}/as/{who}'}}}}", server.address);
        let context =
            |who: &str| format!("{{name: {who}, context: {{cluster: {who}, user: nobody, namespace: game1}}}}");
        let config = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{}, {}, {}]\nusers: [{{name: nobody, user: {{}}}}]\ncontexts: [{}, {}, {}]\ncurrent-context: operator\n",
            cluster("operator"),
            cluster("game1"),
            cluster("nobody"),
            context("operator"),
            context("game1"),
            context("nobody"),
        );
        std::fs::write(dir.path().join("config"), config).unwrap();
        Site { dir, server }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("kubectl");
        // Arguments with spaces are quoted by '.
        let mut quoted = false;
        let mut arguments = vec![String::new()];
        for character in line.chars() {
            match character {
                '\'' => quoted = !quoted,
                ' ' if !quoted => arguments.push(String::new()),
                character => arguments.last_mut().unwrap().push(character),
            }
        }
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", self.dir.path().join("config"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn output(&self, line: &str, input: &str) -> Output {
        let spawned = self.command(line).spawn();
        let mut child = spawned.expect("kubectl is there: install it by `apt-get install kubernetes-client`");
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("kubectl ends").unwrap()
    }

    /// Runs a command that must succeed, and returns what it prints.
    async fn run(&self, line: &str, input: &str) -> String {
        let output = self.output(line, input).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {line}\n{out}{err}");
        out.into_owned()
    }

    /// Runs a command that must fail, and returns what it says.
    async fn fails(&self, line: &str, input: &str) -> String {
        let output = self.output(line, input).await;
        assert!(!output.status.success(), "kubectl {line} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Minor version of kubectl.
    async fn version(&self) -> u32 {
        let text = self.run("version --client -o json", "").await;
        let version: serde_json::Value = serde_json::from_str(&text).unwrap();
        let minor = version["clientVersion"]["minor"].as_str().unwrap();
        minor.trim_end_matches('+').parse().unwrap()
    }

    /// Whether kubectl is new enough; says what is left out where it is not.
    async fn has(&self, minor: u32, what: &str) -> bool {
        let version = self.version().await;
        if version < minor {
            eprintln!("left out with kubectl 1.{version}: {what} (needs 1.{minor})");
        }
        version >= minor
    }

    async fn set(&self, name: &str, change: impl Fn(&mut ApplicationSession) + Send) {
        let tenant = TenantName::new("game1").unwrap();
        self.server.api.sessions().update(&tenant, name, None, change).await.unwrap().expect("the session is there");
    }
}

fn opened(session: &mut ApplicationSession) {
    session.status.session_status = SessionStatus::Available;
    session.status.access_end_points =
        vec![AccessEndPoint { ip_address: "10.0.0.1".into(), port: 30_000, ..AccessEndPoint::default() }];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_names_the_two_kinds_and_no_internal_ones() {
    let site = Site::new().await;
    let resources = site.run("api-resources --api-group=lyra.dev --no-headers", "").await;
    let rows: Vec<Vec<&str>> = resources.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            ["applications", "app", "lyra.dev/v1", "true", "Application"],
            ["applicationsessions", "as", "lyra.dev/v1", "true", "ApplicationSession"]
        ]
    );
    let all = site.run("api-resources -o name", "").await;
    assert!(!all.contains("pods") && !all.contains("nodes"), "{all}");
    assert!(site.fails("get pods", "").await.contains("the server doesn't have a resource type"));
    assert!(site.run("api-versions", "").await.contains("lyra.dev/v1"));
    assert!(site.run("version", "").await.contains("lyra"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_knows_every_field() {
    let site = Site::new().await;
    let policy = site.run("explain app.spec.scalingPolicy", "").await;
    assert!(
        policy.contains("burst") && policy.contains("Most instances that are started or ended at once"),
        "{policy}"
    );
    let state = site.run("explain applicationsessions.status.sessionStatus", "").await;
    assert!(state.contains("InUse"), "{state}");
    let tree = site.run("explain app --recursive", "").await;
    for field in ["livenessProbe", "httpGet", "idleSessionNumThreshold", "configData", "finalizers", "conditions"] {
        assert!(tree.contains(field), "{field} in {tree}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_creates_changes_and_leaves_alone() {
    let site = Site::new().await;
    let out = site.run("apply -f -", MANIFESTS).await;
    assert_eq!(out, "application.lyra.dev/echo created\napplicationsession.lyra.dev/echo-1 created\n");
    let out = site.run("apply -f -", MANIFESTS).await;
    assert_eq!(out, "application.lyra.dev/echo unchanged\napplicationsession.lyra.dev/echo-1 unchanged\n");
    let changed = MANIFESTS.replace("echo:v1", "echo:v2").replace("burst: 10,", "");
    let dry = site.run("apply --dry-run=server -f -", &changed).await;
    assert!(dry.contains("configured (server dry run)"), "{dry}");
    assert_eq!(site.run("get app echo -o jsonpath={.metadata.generation}", "").await, "1");
    let diff = site.output("diff -f -", &changed).await;
    assert_eq!(diff.status.code(), Some(1), "{diff:?}");
    assert!(String::from_utf8_lossy(&diff.stdout).contains("+    image: echo:v2"));
    site.run("apply -f -", &changed).await;
    let shown = site
        .run(
            "get app echo -o jsonpath={.metadata.generation}/{.spec.containers[0].image}/{.spec.scalingPolicy.burst}",
            "",
        )
        .await;
    assert_eq!(shown, "2/echo:v2/2", "what is not wanted any more has its default again");
    assert!(site.fails("apply -f -", &MANIFESTS.replace("burst", "bursst")).await.contains("bursst"));
    let invalid = site.fails("apply -f -", &MANIFESTS.replace("maximumInstance: 100", "maximumInstance: 0")).await;
    assert!(invalid.contains("spec.scalingPolicy.maximumInstance: Required value"), "{invalid}");
    // Stale fields of the original's samples are left out where the client does not insist.
    let stale = MANIFESTS.replace("usingNodeSessionService", "workingMode: x\n  usingNodeSessionService");
    site.run("apply --validate=false -f -", &stale).await;
    site.run("delete -f -", MANIFESTS).await;
    assert_eq!(site.run("get app,as -A -o name", "").await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_shows_columns_wide_yaml_names_and_selections() {
    let site = Site::new().await;
    site.run("create -f -", MANIFESTS).await;
    site.set("echo-1", opened).await;
    let header = |text: &str| text.lines().next().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        header(&site.run("get app", "").await),
        ["NAME", "VERSION", "DESIRED", "READY", "IDLE", "ALLOCATED", "AGE"]
    );
    let sessions = site.run("get as", "").await;
    assert_eq!(header(&sessions), ["NAME", "APPLICATION", "STATUS", "ENDPOINT", "AGE"]);
    let row: Vec<&str> = sessions.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["echo-1", "echo", "Available", "10.0.0.1:30000"]);
    assert!(site.run("get as -o wide", "").await.contains("INSTANCE"));
    assert!(site.run("get as -A", "").await.starts_with("NAMESPACE"));
    assert!(site.run("get as echo-1 -o yaml", "").await.contains("sessionData: my-session-data"));
    assert!(site.run("get all", "").await.contains("applicationsession.lyra.dev/echo-1"));
    for (selection, found) in [
        ("-l application=echo", true),
        ("-l application!=echo", false),
        ("--field-selector status.sessionStatus=Available", true),
        ("--field-selector metadata.name=other", false),
    ] {
        let out = site.run(&format!("get as {selection} -o name"), "").await;
        assert_eq!(out == "applicationsession.lyra.dev/echo-1\n", found, "{selection}: {out}");
    }
    for number in 2..8 {
        let manifest = MANIFESTS.split("---").nth(1).unwrap().replace("echo-1", &format!("echo-{number}"));
        site.run("create -f -", &manifest).await;
    }
    let chunked = site.run("get as --chunk-size=2 -o name", "").await;
    assert_eq!(chunked.lines().count(), 7);
    let generated = MANIFESTS.split("---").nth(1).unwrap().replace("name: echo-1", "generateName: gen-");
    assert!(site.run("create -f -", &generated).await.contains("applicationsession.lyra.dev/gen-"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_edited_patched_labelled_and_replaced() {
    let site = Site::new().await;
    site.run("create -f -", MANIFESTS).await;
    let seconds = || site.run("get as echo-1 -o jsonpath={.spec.closeGracePeriodSeconds}", "");
    for (patch, expected) in [
        (r#"--type merge -p '{"spec":{"closeGracePeriodSeconds":5}}'"#, "5"),
        (r#"-p '{"spec":{"closeGracePeriodSeconds":6}}'"#, "6"),
        (r#"--type json -p '[{"op":"replace","path":"/spec/closeGracePeriodSeconds","value":7}]'"#, "7"),
    ] {
        site.run(&format!("patch as echo-1 {patch}"), "").await;
        assert_eq!(seconds().await, expected);
    }
    let containers = r#"{"spec":{"containers":[{"name":"echo","image":"echo:v3"}]}}"#;
    site.run(&format!("patch app echo -p '{containers}'"), "").await;
    let image =
        site.run("get app echo -o jsonpath={.spec.containers[0].image}{.spec.containers[0].env[0].name}", "").await;
    assert_eq!(image, "echo:v3SESSION_WRAPPER_OPEN_SESSION_CMD", "containers are merged by name");
    site.run("label app echo color=blue", "").await;
    site.run("annotate app echo note=x", "").await;
    assert_eq!(site.run("get app -l color=blue -o name", "").await, "application.lyra.dev/echo\n");
    let mut edit = site.command("edit app echo");
    edit.env("KUBE_EDITOR", "sed -i s/maximumInstance:.100/maximumInstance:\\ 50/");
    let edited = tokio::time::timeout(DEADLINE, edit.output()).await.unwrap().unwrap();
    assert!(edited.status.success(), "{edited:?}");
    assert_eq!(site.run("get app echo -o jsonpath={.spec.scalingPolicy.maximumInstance}", "").await, "50");
    site.run("replace -f -", MANIFESTS).await;
    assert_eq!(site.run("get app echo -o jsonpath={.spec.scalingPolicy.maximumInstance}", "").await, "100");
    if site.has(24, "--subresource").await {
        site.run(r#"patch as echo-1 --subresource=status --type merge -p '{"status":{"sessionStatus":"InUse"}}'"#, "")
            .await;
        assert_eq!(site.run("get as echo-1 -o jsonpath={.status.sessionStatus}", "").await, "InUse");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_side_apply_tells_of_conflicts() {
    let site = Site::new().await;
    site.run("apply --server-side -f -", MANIFESTS).await;
    site.run("apply --server-side -f -", MANIFESTS).await;
    let other = MANIFESTS.split("---").next().unwrap().replace("burst: 10", "burst: 20");
    let conflict = site.fails("apply --server-side --field-manager=other -f -", &other).await;
    assert!(
        conflict.contains("conflict with \"kubectl\"") && conflict.contains(".spec.scalingPolicy.burst"),
        "{conflict}"
    );
    site.run("apply --server-side --field-manager=other --force-conflicts --dry-run=server -f -", &other).await;
    assert_eq!(site.run("get app echo -o jsonpath={.spec.scalingPolicy.burst}", "").await, "10");
    site.run("apply --server-side --field-manager=other --force-conflicts -f -", &other).await;
    assert_eq!(site.run("get app echo -o jsonpath={.spec.scalingPolicy.burst}", "").await, "20");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_watches_and_wait_waits() {
    let site = Site::new().await;
    site.run("create -f -", MANIFESTS).await;
    let mut watch = site.command("get as -w --no-headers").spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line =
            tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("a line").unwrap().expect("it goes on");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(next().await[0], "echo-1");
    site.set("echo-1", opened).await;
    assert_eq!(next().await[2], "Available");
    if site.has(23, "wait --for=jsonpath").await {
        let wait = site.run("wait as/echo-1 --for=jsonpath={.status.sessionStatus}=Available --timeout=60s", "").await;
        assert!(wait.contains("condition met"), "{wait}");
        let (waited, ()) = tokio::join!(
            site.run("wait as/echo-1 --for=jsonpath={.status.sessionStatus}=InUse --timeout=60s", ""),
            site.set("echo-1", |session| session.status.session_status = SessionStatus::InUse),
        );
        assert!(waited.contains("condition met"), "{waited}");
    }
    // A delete waits until the object is gone, which its finalizer puts off.
    site.set("echo-1", |session| session.metadata.finalizers = vec!["lyra.dev/close".to_owned()]).await;
    let let_go = async {
        let tenant = TenantName::new("game1").unwrap();
        let mut changes = site.server.api.sessions().subscribe();
        while site.server.api.sessions().get(&tenant, "echo-1").is_some_and(|s| s.metadata.deletion_timestamp.is_none())
        {
            changes.next().await;
        }
        site.set("echo-1", |session| session.metadata.finalizers.clear()).await;
    };
    let (deleted, ()) = tokio::join!(site.run("delete as echo-1", ""), let_go);
    assert!(deleted.contains("deleted"), "{deleted}");
    watch.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describe_shows_status_conditions_and_events() {
    let site = Site::new().await;
    site.run("create -f -", MANIFESTS).await;
    site.set("echo-1", |session| {
        opened(session);
        session.status.conditions = serde_json::from_value(serde_json::json!([{
            "type": "Scheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Bound",
            "message": "bound to an instance"}]))
        .unwrap();
    })
    .await;
    crate::tell(&site.server, "echo", "Scaled", "three instances were started");
    let session = site.run("describe as echo-1", "").await;
    assert!(session.contains("bound to an instance") && session.contains("10.0.0.1"), "{session}");
    let application = site.run("describe app echo", "").await;
    assert!(application.contains("Scaled") && application.contains("three instances were started"), "{application}");
    assert!(site.run("get events", "").await.contains("three instances were started"));
    assert!(site.run("get ns", "").await.contains("game1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_is_limited_to_the_tenant_of_the_caller() {
    let site = Site::new().await;
    site.run("create -f -", MANIFESTS).await;
    assert_eq!(site.run("--context game1 auth can-i create applicationsessions.lyra.dev", "").await.trim(), "yes");
    let refused = site.output("--context game1 auth can-i create applicationsessions.lyra.dev -n game2", "").await;
    assert_eq!(String::from_utf8_lossy(&refused.stdout).lines().next().map(|line| line.starts_with("no")), Some(true));
    assert!(site.run("--context game1 get as -o name", "").await.contains("echo-1"));
    let forbidden = site.fails("--context game1 get as -n game2", "").await;
    assert!(
        forbidden.contains("Error from server (Forbidden): applicationsessions.lyra.dev is forbidden"),
        "{forbidden}"
    );
    assert!(site.fails("--context game1 get as -A", "").await.contains("at the cluster scope"));
    assert!(site.run("--context game1 auth can-i --list", "").await.contains("applicationsessions.lyra.dev"));
    let unknown = site.fails("--context nobody get as", "").await;
    assert!(unknown.contains("You must be logged in to the server"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_deleted_at_once_and_pruned() {
    let site = Site::new().await;
    site.run("apply -f -", MANIFESTS).await;
    site.run("create ns game1", "").await;
    let only = MANIFESTS.split("---").next().unwrap();
    let allowed = if site.version().await >= 26 { "allowlist" } else { "whitelist" };
    let line = format!("apply -f - --prune -l application=echo --prune-{allowed}=lyra.dev/v1/ApplicationSession");
    site.run(&line, &only.replace("tier: gold", "tier: gold, application: echo")).await;
    assert_eq!(site.run("get as -o name", "").await, "", "what is applied no more is pruned");
    site.run("apply -f -", MANIFESTS).await;
    site.run("delete as --all", "").await;
    site.run("delete app -l tier=gold", "").await;
    assert_eq!(site.run("get all -o name", "").await, "");
}
