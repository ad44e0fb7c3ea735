//! Programs that speak the AWS Lambda Runtime API themselves.

use std::path::Path;
use std::process::Command;

use lyra_types::{Code, Runtime};

use super::{Fixture, Settings, thrown, zip};

/// A bootstrap with nothing but what every Python has.
const BOOTSTRAP: &[u8] = br#"#!/usr/bin/env python3
import http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
root = "/2018-06-01/runtime/"
def ask(method, path, body=None, headers={}):
    api.request(method, root + path, body, headers)
    answer = api.getresponse()
    return answer, answer.read()
while True:
    answer, event = ask("GET", "invocation/next")
    id = answer.headers["Lambda-Runtime-Aws-Request-Id"]
    event = json.loads(event)
    if event == "exit":
        os._exit(0)
    if event == "fail":
        ask("POST", f"invocation/{id}/error", json.dumps({"errorType": "Mine", "errorMessage": "no", "stackTrace": ["a", "b"]}), {"Lambda-Runtime-Function-Error-Type": "Mine"})
        continue
    if event == "text":
        ask("POST", f"invocation/{id}/response", "no json")
        continue
    if event == "wrong":
        answer, _ = ask("POST", f"invocation/nobody/response", "1")
        event = answer.status
    print("working", flush=True)
    deadline = int(answer.headers.get("Lambda-Runtime-Deadline-Ms", 0)) > 0
    ask("POST", f"invocation/{id}/response", json.dumps([event, id, os.environ["_HANDLER"], os.environ["AWS_LAMBDA_FUNCTION_NAME"]]))
"#;

#[tokio::test]
async fn a_bootstrap_takes_invocations_and_answers_them() {
    let fixture = Fixture::new().await;
    let archive = zip(&[("bootstrap", BOOTSTRAP, 0o755)]);
    let function = fixture.deploy(&archive, Settings::of(Runtime::Native).handler("a.b")).await;
    let mut one = function.start().await;
    let answer = |event: &str| format!("[{event}, \"inv_00000000010000000000000001\", \"a.b\", \"guest\"]");
    assert_eq!(function.call_on(&mut *one, "{}").await.expect("answers"), answer("{}"));
    assert!(function.lines.has("working"));
    let error = function.call_on(&mut *one, "\"fail\"").await.expect_err("fails");
    let what = error.thrown.expect("says what");
    assert_eq!((&*what.name, &*what.message, &*what.stack), ("Mine", "no", "a\nb"));
    let error = function.call_on(&mut *one, "\"text\"").await.expect_err("no JSON");
    assert_eq!(error.code, Code::InvalidResult, "{error}");
    assert_eq!(function.call_on(&mut *one, "\"wrong\"").await.expect("answers"), answer("400"));
    assert!(one.is_reusable());
    let error = function.call_on(&mut *one, "\"exit\"").await.expect_err("ends");
    assert_eq!(error.code, Code::InstanceCrashed, "{error}");
    assert!(error.detail.contains("status 0") && !one.is_reusable(), "{error}");
    assert_eq!(function.call("1").await.expect("answers"), answer("1"));
}

#[tokio::test]
async fn one_executable_file_is_a_package_and_other_files_are_refused() {
    let fixture = Fixture::new().await;
    let native = || Settings::of(Runtime::Native);
    let function = fixture.deploy(BOOTSTRAP, native()).await;
    assert!(function.call("1").await.is_ok());
    let error = fixture.refusal(b"text", native()).await;
    assert_eq!(error.code, Code::InvalidCode);
    let error = fixture.refusal(&zip(&[("main", b"\x7fELF", 0o755)]), native()).await;
    assert!(error.detail.contains("no file named bootstrap"), "{error}");
    let error = fixture.refusal(&zip(&[("bootstrap", b"echo", 0o755)]), native()).await;
    assert!(error.detail.contains("#!"), "{error}");
}

#[tokio::test]
async fn a_bootstrap_that_ends_before_it_serves_fails_the_call_with_its_lines_in_the_log() {
    let fixture = Fixture::new().await;
    let function = fixture.deploy(b"#!/bin/sh\necho soon over\nexit 3\n", Settings::of(Runtime::Native)).await;
    let error = function.call("1").await.expect_err("fails");
    assert_eq!(error.code, Code::InstanceCrashed);
    assert!(error.detail.contains("status 3") && function.lines.has("soon over"), "{error}");
}

/// The real package from PyPI, unmodified.
#[tokio::test]
async fn the_package_awslambdaric_runs_unmodified() {
    let fixture = Fixture::new().await;
    let dir = tempfile::tempdir().expect("a directory");
    let installed = Command::new("/usr/bin/env")
        .args(["python3", "-m", "pip", "install", "--quiet", "--no-input", "--only-binary=:all:", "--python-version"])
        .args([python_version(), "--target".to_owned(), dir.path().display().to_string(), "awslambdaric".to_owned()])
        .output()
        .expect("pip starts: apt-get install python3-pip");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    std::fs::write(
        dir.path().join("app.py"),
        "def handler(event, context):\n    if event == 'fail':\n        raise ValueError('bad')\n    return [event, context.function_name, context.aws_request_id]\n",
    )
    .expect("written");
    let bootstrap: &[u8] = b"#!/bin/sh\nexec /usr/bin/python3 -m awslambdaric app.handler\n";
    let mut files = vec![("bootstrap".to_owned(), bootstrap.to_vec())];
    collect(dir.path(), dir.path(), &mut files);
    let files: Vec<(&str, &[u8], u32)> = files.iter().map(|(name, content)| (&**name, &**content, 0o755)).collect();
    let function = fixture.deploy(&zip(&files), Settings::of(Runtime::Native)).await;
    let mut one = function.start().await;
    let expected = r#"[{"a": 1}, "guest", "inv_00000000010000000000000001"]"#;
    for _ in 0..2 {
        assert_eq!(function.call_on(&mut *one, "{\"a\":1}").await.expect("answers"), expected);
    }
    assert_eq!(thrown(function.call_on(&mut *one, "\"fail\"").await), ("ValueError".into(), "bad".into()));
}

/// The version of the interpreter that the bootstrap names.
fn python_version() -> String {
    let script = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = Command::new("/usr/bin/python3").args(["-c", script]).output().expect("apt-get install python3");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).expect("below").display().to_string();
            files.push((name, std::fs::read(&path).expect("reads")));
        }
    }
}

/// The real crate, unmodified.
#[tokio::test]
async fn a_bootstrap_built_with_the_crate_lambda_runtime_runs() {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/lambda");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lambda");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(guest.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .expect("cargo starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let program = std::fs::read(target.join("release/bootstrap")).expect("was built");
    let fixture = Fixture::new().await;
    let function = fixture.deploy(&program, Settings::of(Runtime::Native)).await;
    let mut one = function.start().await;
    let expected = r#"[{"a":1},"inv_00000000010000000000000001","guest"]"#;
    for _ in 0..2 {
        assert_eq!(function.call_on(&mut *one, "{\"a\":1}").await.expect("answers"), expected);
    }
    let (_, message) = thrown(function.call_on(&mut *one, "\"fail\"").await);
    assert_eq!(message, "as asked for");
    assert!(one.is_reusable());
}
