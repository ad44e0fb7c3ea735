//! Ways out of a sandbox, tried by a native program as functions run; those of Python are tried in `launch/escapes.rs`.

use std::time::Duration;

use lyra_types::Runtime;

use super::{Fixture, Settings, guest};

#[tokio::test]
async fn native_code_finds_no_way_out_whatever_its_contract() {
    let fixture = Fixture::new().await;
    // A process that could be hurt: this one.
    let outside = std::process::id().to_string();
    for runtime in [Runtime::Native, Runtime::Http] {
        let settings =
            Settings::of(runtime).env("DEED", "escape").env("OUTSIDE", &outside).timeout(Duration::from_secs(60));
        let function = fixture.deploy(&guest::native(), settings).await;
        assert_eq!(function.call("1").await.expect("answers"), "{\"open\":[],\"tried\":true}", "{runtime}");
    }
}

/// The same in the words of Node.js, which has no system calls of its own.
#[tokio::test]
async fn node_sees_and_writes_nothing_of_the_machine() {
    let fixture = Fixture::new().await;
    let source = r#"
const fs = require('fs'), net = require('net'), os = require('os');
exports.handler = async ({ outside }) => {
    const open = [];
    const refused = (what, work) => { try { work(); open.push(what); } catch {} };
    for (const path of ['/root', '/home', '/etc/shadow', '/sys', '/proc/1/environ', '/proc/1/root', '/dev/mem', '/dev/kmsg']) {
        refused('see ' + path, () => fs.statSync(path).isDirectory() ? fs.readdirSync(path) : fs.readFileSync(path));
    }
    for (const path of ['/usr/x', '/x', '/dev/x', '/var/task/x', '/opt/lyra/x', '/proc/sysrq-trigger', '/sys/fs/cgroup/cgroup.procs']) {
        refused('write ' + path, () => fs.writeFileSync(path, '1'));
    }
    refused('kill outside', () => process.kill(outside, 0));
    refused('raise the priority', () => os.setPriority(0, -10));
    refused('root', () => process.setuid(0));
    const connected = await new Promise((done) => {
        const socket = net.connect(9, '192.0.2.1', () => done(true)).on('error', () => done(false));
        setTimeout(() => { socket.destroy(); done(false); }, 1000);
    });
    if (connected) open.push('connect');
    return open;
};
"#;
    let function = fixture.node(source).await;
    let event = format!("{{\"outside\":{}}}", std::process::id());
    assert_eq!(function.call(&event).await.expect("answers"), "[]");
}
