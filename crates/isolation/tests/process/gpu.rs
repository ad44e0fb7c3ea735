//! GPUs that the worker grants: what an instance sees of them, and that no other does. The devices are stand-ins, made
//! like `/dev/zero`, with a driver of one file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lyra_isolation::{Gpu, Grant};
use lyra_types::Runtime;

use super::{Fixture, Settings, guest};

/// A machine's driver: nodes and a library below a directory of its own.
fn driver() -> tempfile::TempDir {
    let root = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().expect("a directory");
    let (dev, lib) = (root.path().join("dev"), root.path().join("usr/lib64"));
    std::fs::create_dir_all(&dev).and_then(|()| std::fs::create_dir_all(&lib)).expect("made");
    for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"] {
        let node = dev.join(name);
        let made =
            std::process::Command::new("/usr/bin/mknod").args(["-m", "666"]).arg(&node).args(["c", "1", "5"]).status();
        assert!(made.expect("mknod starts").success(), "these tests need root");
    }
    std::fs::write(lib.join("libcuda.so.1"), "stand-in").expect("written");
    std::fs::write(lib.join("libc.so.6"), "not this one").expect("written");
    root
}

fn gpu(index: u32) -> Gpu {
    let nodes = [format!("nvidia{index}"), "nvidiactl".into(), "nvidia-uvm".into()];
    let nodes = nodes.map(|name| Path::new("/dev").join(name)).to_vec();
    Gpu { index, uuid: format!("GPU-{index}"), name: "stand-in".into(), memory: 8 << 30, nodes }
}

fn grant(indexes: &[u32]) -> Grant {
    Grant { gpus: indexes.iter().map(|index| gpu(*index)).collect(), gpu_memory: 8 << 30, secrets: None }
}

/// Looks as the native guest does, in the two languages that have interpreters of their own.
const PYTHON: &str = r#"
import os
def look(name):
    with open("/dev/" + name, "r+b", buffering=0) as node: return node.read(1) == b"\0" and node.write(b"x") == 1
def handler(event, context):
    names = sorted(name for name in os.listdir("/dev") if name.startswith("nvidia"))
    library = open("/opt/nvidia/lib/libcuda.so.1").read() if os.path.exists("/opt/nvidia/lib") else ""
    return {"devices": names, "opened": [look(name) for name in names], "visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "path": os.environ.get("LD_LIBRARY_PATH", ""), "library": library}
"#;

const NODE: &str = r#"
const fs = require('fs');
exports.handler = () => {
    const devices = fs.readdirSync('/dev').filter((name) => name.startsWith('nvidia')).sort();
    const opened = devices.map((name) => { const fd = fs.openSync('/dev/' + name, 'r+'); return fs.readSync(fd, Buffer.alloc(1)) === 1; });
    const path = '/opt/nvidia/lib/libcuda.so.1';
    return { devices, opened, visible: process.env.CUDA_VISIBLE_DEVICES ?? '', path: process.env.LD_LIBRARY_PATH ?? '',
             library: fs.existsSync(path) ? fs.readFileSync(path, 'utf8') : '' };
};
"#;

#[tokio::test]
async fn an_instance_sees_the_devices_that_it_was_granted_and_no_other_does() {
    let root = driver();
    let fixture = Fixture::with(|config| config.settings.driver_root = root.path().to_owned()).await;
    let guest = guest::native();
    for (runtime, code) in [
        (Runtime::Native, guest.as_slice()),
        (Runtime::Http, guest.as_slice()),
        (Runtime::Python, PYTHON.as_bytes()),
        (Runtime::Nodejs, NODE.as_bytes()),
    ] {
        let settings = Settings::of(runtime).env("DEED", "look").env("CUDA_VISIBLE_DEVICES", "all of them");
        let function = fixture.deploy(code, settings).await;
        let mut none = function.start().await;
        let (mut one, mut two) = (function.start_with(&grant(&[1])).await, function.start_with(&grant(&[0, 1])).await);
        let seen = |json: String| serde_json::from_str::<serde_json::Value>(&json).expect("JSON");
        let of_none = seen(function.call_on(&mut *none, "1").await.expect("answers"));
        let of_one = seen(function.call_on(&mut *one, "1").await.expect("answers"));
        let of_two = seen(function.call_on(&mut *two, "1").await.expect("answers"));
        let expected = serde_json::json!({
            "devices": ["nvidia-uvm", "nvidia1", "nvidiactl"], "opened": [true, true, true],
            "visible": "GPU-1", "path": "/opt/nvidia/lib", "library": "stand-in",
        });
        assert_eq!(of_one, expected, "{runtime}");
        assert_eq!(
            of_two["devices"],
            serde_json::json!(["nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl"]),
            "{runtime}"
        );
        assert_eq!(of_two["visible"], "GPU-0,GPU-1", "{runtime}");
        assert_eq!((&of_none["devices"], &of_none["library"]), (&serde_json::json!([]), &"".into()), "{runtime}");
    }
}

#[tokio::test]
async fn a_device_that_is_none_is_not_handed_out() {
    let root = driver();
    std::fs::write(root.path().join("dev/nvidia7"), "a file").expect("written");
    let fixture = Fixture::with(|config| config.settings.driver_root = root.path().to_owned()).await;
    let function = fixture.deploy(PYTHON.as_bytes(), Settings::of(Runtime::Python)).await;
    let id = lyra_kit::Ids::default().instance();
    for index in [7, 8] {
        let error = function.template.start_with(id, &function.version, &grant(&[index])).await.err().expect("fails");
        assert_eq!(error.code, lyra_types::Code::Internal, "{error}");
    }
    assert!(function.call("1").await.is_ok(), "without it, it runs");
}
