//! The back end without root: its launcher runs as an ordinary user, by user namespaces.

use std::os::unix::fs::PermissionsExt;

use lyra_isolation::Isolation;
use lyra_isolation::process::{Config, ProcessError, Processes, Unavailable, launch};
use lyra_types::{Code, Runtime};

use super::{Fixture, Settings, guest};

/// A launcher as `words` start it, from where every user may.
async fn with_launcher(words: &[&str]) -> (Fixture, tempfile::TempDir) {
    let place = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().expect("a directory");
    let helper = place.path().join("lyra-sandbox");
    std::fs::copy(env!("CARGO_BIN_EXE_lyra-sandbox"), &helper).expect("copied");
    let helper = words.iter().map(Into::into).chain([helper.into_os_string()]).collect();
    (Fixture::with(|config| config.launch.helper = helper).await, place)
}

const ORDINARY: [&str; 4] = ["/usr/bin/setpriv", "--reuid=61235", "--regid=61235", "--clear-groups"];

#[tokio::test]
async fn every_runtime_works_for_an_ordinary_user() {
    let (fixture, _place) = with_launcher(&ORDINARY).await;
    let status = fixture.processes.status();
    assert!(status.abilities["privilege"].starts_with("unprivileged"), "{status:?}");
    assert!(status.abilities["cgroups"].starts_with("none"), "{status:?}");
    let python =
        b"import os\nn = 0\ndef handler(e, c):\n    global n\n    n += 1\n    return [n, os.getuid(), e]".as_slice();
    let node = b"let n = 0; exports.handler = (e) => [++n, process.getuid(), e];".as_slice();
    for (runtime, source) in [(Runtime::Python, python), (Runtime::Nodejs, node)] {
        let function = fixture.deploy(source, Settings::of(runtime)).await;
        // The first starts have others follow, with whatever is made ahead.
        for _ in 0..3 {
            let mut instance = function.start().await;
            for n in 1..3 {
                let answer = function.call_on(&mut *instance, "7").await.expect("answers");
                assert_eq!(answer, format!("[{n},1000,7]"), "{runtime}");
            }
        }
    }
    for runtime in [Runtime::Native, Runtime::Http] {
        let function = fixture.native(runtime, "count", std::time::Duration::from_secs(60)).await;
        let mut instance = function.start().await;
        for n in ["1", "2"] {
            assert_eq!(function.call_on(&mut *instance, "7").await.expect("answers"), n, "{runtime}");
        }
        let escape = Settings::of(runtime).env("DEED", "escape").env("OUTSIDE", &std::process::id().to_string());
        let escape = fixture.deploy(&guest::native(), escape).await;
        assert_eq!(escape.call("1").await.expect("answers"), "{\"open\":[],\"tried\":true}", "{runtime}");
        let error = fixture.native(runtime, "hoard", std::time::Duration::from_secs(60)).await.call("1").await;
        assert_eq!(error.expect_err("is too much").code, Code::OutOfMemory, "{runtime}");
    }
}

#[tokio::test]
async fn without_cgroups_an_instance_s_files_take_no_more_than_its_memory() {
    let (fixture, _place) = with_launcher(&ORDINARY).await;
    let source = b"def handler(e, c):\n    n = 0\n    try:\n        with open('/tmp/x', 'wb', 0) as file:\n            while n < 256 << 20:\n                n += file.write(bytes(1 << 20))\n    except OSError as error:\n        return [error.errno, n <= 64 << 20]\n    return n";
    let function = fixture.deploy(source, Settings::of(Runtime::Python).memory_mb(64)).await;
    assert_eq!(function.call("1").await.expect("answers"), "[28,true]");
}

/// In a user namespace of its own, the limit on further ones can be set to none for all that is started there.
#[tokio::test]
async fn where_nothing_can_be_sandboxed_each_deploy_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\"";
    let words = ["/usr/bin/unshare", "-Ur", "/bin/sh", "-c", script, env!("CARGO_BIN_EXE_lyra-sandbox")];
    let launch =
        launch::Config { helper: words.map(Into::into).to_vec(), ..launch::Config::new(dir.path().join("launch")) };
    let started = Processes::start(Config::new(dir.path().join("process"), launch), lyra_kit::Ids::default()).await;
    let error = started.err().expect("can't work");
    assert!(matches!(error, ProcessError::Launch(_)), "{error}");
    let back = Unavailable::new(&error);
    let status = back.status();
    assert!(status.unavailable.as_deref().is_some_and(|why| why.contains("user.max_user_namespaces")), "{status:?}");
    assert!(status.offers.iter().all(|offer| !offer.available && !offer.detail.is_empty()), "{status:?}");
    let code = super::code(b"def handler(e, c): pass", &Settings::of(Runtime::Python));
    let refused = back.prepare(&code).await.expect_err("is refused");
    assert_eq!(refused.code, Code::InvalidField);
    assert!(refused.errors[0].reason.contains("user.max_user_namespaces"), "{refused}");
}
