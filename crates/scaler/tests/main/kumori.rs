//! The classic system's platform: a tool that asks for its password on a terminal, and knows how many workers there are from the
//! variable file.

use std::path::Path;

use lyra_scaler::Kumori;
use lyra_scaler::backends::{Backend, BackendError, Change, KumoriBackend};
use lyra_wire::scaler::Load;

use super::{LONG, program};

/// What it is told is written to `told`, but for the password, of which it only looks whether it is right.
const TOOL: &str = r#"#!/bin/sh
echo "$@" >> told
case "$1" in
login)
  [ -t 0 ] || exit 4
  stty -echo
  printf 'Password: '
  read -r password
  [ "$2" = ada@example.org ] && [ "$password" = 's3cr&t "word' ] || exit 5
  touch logged-in;;
describe)
  [ -e logged-in ] || exit 6
  count=$(sed -n 's/^#NUM_WORKERS: //p' manifests/variables/num_workers/manifest.cue)
  echo 'role worker'
  seq -f 'instance worker-%g' "$count"
  echo 'role frontend';;
update)
  [ -e logged-in ] || exit 6;;
esac
"#;

fn set_up(dir: &Path) -> KumoriBackend {
    let tool = program(dir, "kumorictl", TOOL);
    let variable = dir.join("manifests/variables/num_workers");
    std::fs::create_dir_all(&variable).unwrap();
    std::fs::write(variable.join("manifest.cue"), "package num_workers\n#NUM_WORKERS: 1\n").unwrap();
    let (credentials, directory) = (dir.join("KUMORI_CREDENTIALS"), dir.to_owned());
    KumoriBackend::new(Kumori { credentials, program: tool, directory, timeout: LONG, ..Kumori::default() })
}

#[tokio::test]
async fn the_variable_is_written_and_the_deployment_updated_after_a_login_on_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let backend = set_up(dir.path());
    std::fs::write(dir.path().join("KUMORI_CREDENTIALS"), "ada@example.org\ns3cr&t \"word\n").unwrap();
    assert_eq!(backend.current(&Load::default()).await.unwrap(), 1);
    let change = Change { from: 1, to: 4, reason: "queue", going: Vec::new() };
    backend.apply(&change).await.unwrap();
    let written = std::fs::read_to_string(dir.path().join("manifests/variables/num_workers/manifest.cue")).unwrap();
    assert_eq!(written, "package num_workers\n#NUM_WORKERS: 4\n");
    assert_eq!(backend.current(&Load::default()).await.unwrap(), 4);
    let told = std::fs::read_to_string(dir.path().join("told")).unwrap();
    assert!(told.contains("update deployment joarosa.faas/faasdep --deployment ./manifests/deployment"), "{told}");
    assert!(!told.contains("s3cr"), "the password is no argument: {told}");
}

#[tokio::test]
async fn credentials_may_come_late_and_wrong_ones_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, path) = (set_up(dir.path()), dir.path().join("KUMORI_CREDENTIALS"));
    let waits = async || matches!(backend.current(&Load::default()).await, Err(BackendError::NotReady(_)));
    assert!(waits().await, "there is no file");
    std::fs::write(&path, "ada@example.org\n").unwrap();
    assert!(waits().await, "half of it is there");
    std::fs::write(&path, "ada@example.org\nwrong-word\n").unwrap();
    let said = backend.current(&Load::default()).await.unwrap_err().to_string();
    assert!(said.contains('5') && !said.contains("wrong-word"), "{said}");
    std::fs::write(&path, "$(touch broken-out)\nword\n").unwrap();
    assert!(backend.current(&Load::default()).await.unwrap_err().to_string().contains("no name"));
    assert!(!dir.path().join("broken-out").exists());
}
