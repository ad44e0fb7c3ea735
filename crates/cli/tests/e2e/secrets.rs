//! Secrets, by the command line: set, given to functions, changed, sealed with another key; and nowhere to be found.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lyra_testkit::{Cluster, Lyra, Options};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::start::{BINARY, alone, server};

/// Values that are nowhere else.
const PASSWORD: &str = "correct-horse-battery-staple";
const NEW_PASSWORD: &str = "another-horse-and-another-staple";
const TLS_KEY: &str = "-----BEGIN NO KEY-----\nc2VjcmV0LWxpbmUtb2YtYS1rZXk\n-----END NO KEY-----\n";
const TLS_LINE: &str = "c2VjcmV0LWxpbmUtb2YtYS1rZXk";

/// Longest wait for a changed secret to be in use.
const LONG: Duration = Duration::from_secs(60);

const JS: &str = "export default (event, context) => {
  console.log('the password is ' + context.env.DB_PASSWORD);
  if (event === 'throw') throw new Error('no entry with ' + context.env.DB_PASSWORD);
  return [...context.env.DB_PASSWORD].reverse().join('');
};
";

const PY: &str = "import os, stat
def handler(event, context):
    path = '/run/secrets/tls.key'
    text = open(path).read()
    print('the password is', os.environ['DB_PASSWORD'], 'and the key', text)
    try:
        open('/run/secrets/other', 'w')
        return 'could write'
    except OSError:
        pass
    try:
        os.chmod(path, 0o600)
        return 'could change'
    except OSError:
        pass
    return {'password': os.environ['DB_PASSWORD'][::-1], 'key': text[::-1], 'mode': stat.S_IMODE(os.stat(path).st_mode),
            'owned': os.stat(path).st_uid == os.getuid(), 'files': os.listdir('/run/secrets')}
";

/// Another function, of which instances may come from the same interpreter, looks for what it was not given. It knows only how they begin, how long they are and their hashes: so what it finds was there before.
const SPY: &str = "import hashlib, os
def handler(event, context):
    found = [name for name in os.environ if 'PASSWORD' in name]
    if os.path.exists('/run/secrets'):
        found.append('/run/secrets')
    searched = 0
    for line in open('/proc/self/maps').readlines():
        area, rights = line.split()[:2]
        if 'r' not in rights or '[v' in line:
            continue
        begin, end = (int(part, 16) for part in area.split('-'))
        with open('/proc/self/mem', 'rb', 0) as memory:
            try:
                memory.seek(begin)
                data = memory.read(end - begin)
            except (OSError, OverflowError, ValueError):
                continue
        searched += len(data)
        for beginning, length, digest in event:
            at = data.find(beginning.encode())
            while at >= 0:
                if hashlib.sha256(data[at:at + length]).hexdigest() == digest:
                    found.append(line)
                at = data.find(beginning.encode(), at + 1)
    assert searched > 1 << 20
    return found
";

/// What the spy is told of a text.
fn hint(text: &str) -> serde_json::Value {
    json!([&text[..6], text.len(), hex::encode(Sha256::digest(text))])
}

fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

/// Files below `dir`, and command lines of all processes, that hold one of `texts`.
pub(super) fn places(dir: &Path, texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |name: String, bytes: &[u8]| {
        for text in texts {
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(format!("{name} holds {}…", &text[..4]));
            }
        }
    };
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    look(entry.path().display().to_string(), &std::fs::read(entry.path()).unwrap_or_default());
                }
                _ => {}
            }
        }
    }
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        look(format!("{:?}", entry.path()), &std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
    }
    found
}

pub(super) async fn set(lyra: &Lyra, name: &str, value: &str) -> Result<String> {
    lyra.commands().run_with_input(["secret", "set", name, "--value-stdin"], value.as_bytes()).await?.ok()
}

/// Invokes until it answers so.
async fn until(lyra: &Lyra, function: &str, expected: &serde_json::Value) -> Result<()> {
    let invoke = async {
        loop {
            let output = lyra.cli(["invoke", function, "-d", "null"]).await?;
            if output.code == 0 && &output.json()? == expected {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(LONG, invoke).await.context("the change did not get there")?
}

#[tokio::test]
async fn secrets_reach_their_functions_and_nothing_else() -> Result<()> {
    let mut lyra = server().await?;
    let scratch = lyra.scratch().to_owned();
    std::fs::write(scratch.join("report.js"), JS)?;
    let refused = lyra.cli(["deploy", "report.js", "--secret", "db-password=DB_PASSWORD"]).await?.expect(2)?;
    ensure!(refused.stderr.contains("there is no secret db-password"), "{}", refused.stderr);
    let refused = lyra.cli(["secret", "set", "db-password=hunter2"]).await?.expect(2)?;
    ensure!(refused.stderr.contains("list of processes") && !refused.stderr.contains("hunter2"), "{}", refused.stderr);
    assert_eq!(set(&lyra, "db-password", PASSWORD).await?.trim(), "db-password set (version 1)");
    // Outside of what is searched below.
    let key_file = tempfile::NamedTempFile::new()?;
    std::fs::write(key_file.path(), TLS_KEY)?;
    lyra.cli(["secret", "set", "tls-key", "--from-file", &key_file.path().display().to_string()]).await?.ok()?;

    lyra.cli(["deploy", "report.js", "--secret", "db-password=DB_PASSWORD"]).await?.ok()?;
    std::fs::write(scratch.join("keeper.py"), PY)?;
    let given = ["--secret", "db-password=DB_PASSWORD", "--secret", "tls-key:tls.key"];
    lyra.cli([&["deploy", "keeper.py"][..], &given].concat()).await?.ok()?;
    let kept = |password: &str| json!({ "password": reversed(password), "key": reversed(TLS_KEY), "mode": 0o400, "owned": true, "files": ["tls.key"] });
    assert_eq!(lyra.cli(["invoke", "report", "-d", "null"]).await?.json()?, json!(reversed(PASSWORD)));
    assert_eq!(lyra.cli(["invoke", "keeper", "-d", "null"]).await?.json()?, kept(PASSWORD));
    let thrown = lyra.cli(["invoke", "report", "-d", "\"throw\""]).await?.expect(1)?;
    ensure!(thrown.stderr.contains("no entry with ***"), "{}", thrown.stderr);
    for function in ["report", "keeper"] {
        lyra.commands().until_shown(&["logs", function], "the password is ***").await?;
    }

    // Functions that are not given it find no trace of it.
    std::fs::write(scratch.join("spy.py"), SPY)?;
    lyra.cli(["deploy", "spy.py", "--memory", "512"]).await?.ok()?;
    let wanted = json!([hint(PASSWORD), hint(TLS_LINE)]).to_string();
    assert_eq!(lyra.cli(["invoke", "spy", "-d", &wanted]).await?.json()?, json!([]));

    // A change reaches instances that are kept, and those that are made anew.
    set(&lyra, "db-password", NEW_PASSWORD).await?;
    until(&lyra, "keeper", &kept(NEW_PASSWORD)).await?;
    until(&lyra, "report", &json!(reversed(NEW_PASSWORD))).await?;

    let listed = lyra.cli(["secret", "ls", "-o", "json"]).await?.ok()?;
    let shown = lyra.cli(["secret", "get", "db-password"]).await?.ok()?;
    let function = lyra.cli(["fn", "get", "keeper"]).await?.ok()?;
    ensure!(
        shown.contains("keeper, report") && function.contains("tls-key in /run/secrets/tls.key"),
        "{shown}{function}"
    );
    lyra.commands().until_shown(&["audit", "ls"], "/v1/secrets/db-password").await?;
    let audit = lyra.cli(["audit", "ls", "-o", "json"]).await?.ok()?;
    let texts = [PASSWORD, NEW_PASSWORD, TLS_LINE];
    for (what, output) in [("list", listed), ("secret", shown), ("function", function), ("audit", audit)] {
        ensure!(!texts.iter().any(|text| output.contains(text)), "{what}: {output}");
    }
    let refused = lyra.cli(["secret", "rm", "db-password"]).await?.expect(2)?;
    ensure!(refused.stderr.contains("keeper"), "{}", refused.stderr);

    // Nothing is left of it by a crash, and all of it is there after.
    lyra.kill().await?;
    lyra.restart().await?;
    assert_eq!(lyra.cli(["invoke", "keeper", "-d", "null"]).await?.json()?, kept(NEW_PASSWORD));
    assert_eq!(places(&lyra.data_dir(), &texts), Vec::<String>::new());
    ensure!(!texts.iter().any(|text| lyra.log().contains(text)), "{}", lyra.log());

    lyra.cli(["secret", "rm", "db-password", "--force"]).await?.ok()?;
    let gone = async {
        loop {
            let output = lyra.cli(["invoke", "report", "-d", "null"]).await?;
            if output.code != 0 {
                return anyhow::Ok(output);
            }
        }
    };
    let gone = tokio::time::timeout(LONG, gone).await.context("a deleted secret is still in use")??;
    ensure!(gone.code == 2 && gone.stderr.contains("db-password"), "{}: {}", gone.code, gone.stderr);
    Ok(())
}

#[tokio::test]
async fn another_key_takes_over_though_the_rotation_was_killed() -> Result<()> {
    let mut lyra = server().await?;
    let names: Vec<String> = (0..40).map(|n| format!("s{n}")).collect();
    for name in &names {
        set(&lyra, name, PASSWORD).await?;
    }
    let path = lyra.data_dir().join("secrets.key").display().to_string();
    std::fs::write(lyra.scratch().join("report.js"), JS)?;
    lyra.cli(["deploy", "report.js", "--secret", "s7=DB_PASSWORD"]).await?.ok()?;
    alone().run(["secret", "new-key", &path]).await?.ok()?;
    // Wherever it is when it dies, the next one goes on from there.
    let commands = lyra.commands();
    let rotating = lyra_kit::tasks::spawn("rotate", async move { commands.run(["secret", "rotate-key"]).await });
    tokio::task::yield_now().await;
    lyra.kill().await?;
    let _whatever = rotating.await?;
    lyra.restart().await?;
    lyra.cli(["secret", "rotate-key"]).await?.ok()?;
    let keys = lyra.cli(["secret", "keys", "-o", "json"]).await?.json()?;
    assert_eq!((&keys["keys"][0]["secrets"], &keys["keys"][1]["secrets"]), (&json!(40), &json!(0)));
    // The old key goes.
    let text = std::fs::read_to_string(&path)?;
    let first = text.lines().find(|line| !line.starts_with('#')).context("a key")?;
    std::fs::write(&path, format!("{first}\n"))?;
    lyra.kill().await?;
    lyra.restart().await?;
    assert_eq!(lyra.cli(["invoke", "report", "-d", "null"]).await?.json()?, json!(reversed(PASSWORD)));
    // With a wrong key, or one that others can read, it does not start, and says why.
    lyra.kill().await?;
    let other = lyra.scratch().join("other.key").display().to_string();
    alone().run(["secret", "new-key", &other]).await?.ok()?;
    let data = lyra.data_dir().display().to_string();
    let up = ["up", "--data-dir", &data, "--listen", "127.0.0.1:0", "--secrets-key"];
    let refused = alone().run([&up[..], &[&other]].concat()).await?.expect(2)?;
    ensure!(refused.stderr.contains("lacks keys") && refused.stderr.contains("40 secrets"), "{}", refused.stderr);
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
    let refused = alone().run([&up[..], &[&path]].concat()).await?.expect(2)?;
    ensure!(refused.stderr.contains("chmod 600"), "{}", refused.stderr);
    Ok(())
}

#[tokio::test]
async fn a_worker_elsewhere_fetches_secrets_and_goes_on_without_control() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let key = dir.path().join("secrets.key").display().to_string();
    alone().run(["secret", "new-key", &key]).await?.ok()?;
    let mut cluster = Cluster::start_with_tls(1, &["--secrets-key", &key]).await?;
    let commands = cluster.commands();
    commands.run_with_input(["secret", "set", "db-password"], PASSWORD.as_bytes()).await?.ok()?;
    let source = dir.path().join("report.js");
    std::fs::write(&source, JS)?;
    let path = source.display().to_string();
    commands.run(["deploy", &path, "--secret", "db-password=DB_PASSWORD"]).await?.ok()?;
    let invoke = || commands.run(["invoke", "report", "-d", "null"]);
    assert_eq!(invoke().await?.json()?, json!(reversed(PASSWORD)));
    cluster.kill("c1").await?;
    // Each of these is a new instance.
    for _ in 0..3 {
        assert_eq!(invoke().await?.json()?, json!(reversed(PASSWORD)));
    }
    Ok(())
}

#[tokio::test]
async fn a_server_makes_its_key_for_its_owner_alone() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), ..Options::default() }).await?;
    let mode = std::fs::metadata(lyra.data_dir().join("secrets.key"))?.permissions().mode() & 0o777;
    if mode != 0o600 {
        bail!("the mode is {mode:o}");
    }
    Ok(())
}
