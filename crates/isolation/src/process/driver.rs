//! What of NVIDIA's driver is put into the sandbox of an instance that was granted GPUs.
//!
//! A process needs the nodes of its devices and the user-mode libraries that belong to the kernel module. A sandbox sees
//! all of `/usr`, so where the driver is installed in the usual way its libraries are there already. Elsewhere
//! (a driver that lives in a container of its own, below `/run/nvidia/driver` for example) exactly its libraries are shown
//! in a directory of their own, so that nothing else from there, its C library above all, comes before the system's.
//!
//! What must hold: of devices only what was granted; of the driver only files to be read. Not handed in: the sockets of
//! NVIDIA's daemons (persistence, fabric manager, MPS), which are the machine's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::launch::{Bind, Device, Plan};
use crate::Grant;

/// Where libraries of a driver are that is not installed with the system.
const LIBRARIES: &str = "/opt/nvidia/lib";

/// What is in every sandbox, and where its loader looks by itself.
const SYSTEM: &str = "/usr";

/// Places of libraries below the root of a driver, the most likely first.
const PLACES: [&str; 9] = [
    #[cfg(target_arch = "x86_64")]
    "usr/lib/x86_64-linux-gnu",
    #[cfg(not(target_arch = "x86_64"))]
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/nvidia/lib64",
    "usr/local/nvidia/lib",
    "lib64",
    "lib",
    "opt/nvidia/lib64",
    "opt/nvidia/lib",
];

/// The loader's own places.
const SEARCHED: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

/// The library that is the driver's interface; the others stand beside it.
const INTERFACE: &str = "libcuda.so.1";

/// The library that GPUs are found through.
const MANAGEMENT: &str = "libnvidia-ml.so.1";

/// What computing takes: the interface, its compilers, the management library, OpenCL. Not what draws.
const NAMES: [&str; 11] = [
    "libcuda",
    "libcudadebugger",
    "libnvidia-allocator",
    "libnvidia-cfg",
    "libnvidia-compiler",
    "libnvidia-fatbinaryloader",
    "libnvidia-gpucomp",
    "libnvidia-ml",
    "libnvidia-nvvm",
    "libnvidia-opencl",
    "libnvidia-ptxjitcompiler",
];

/// The driver as sandboxes see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Driver {
    root: PathBuf,
    /// Libraries that are not in every sandbox anyway.
    binds: Vec<Bind>,
    /// Where the loader has to be told to look.
    library_path: Option<PathBuf>,
}

impl Driver {
    /// Looks for the driver's libraries below `root`. Reads some directories.
    pub(super) fn find(root: &Path) -> Driver {
        let place = place_of(root, INTERFACE);
        let nothing = Driver { root: root.to_owned(), ..Driver::default() };
        match place {
            // A program may bring the library itself, or fail and say so.
            None => nothing,
            Some(place) if root == Path::new("/") && place.starts_with(SYSTEM) => {
                let searched = SEARCHED.iter().any(|known| place == Path::new(known));
                Driver { library_path: (!searched).then_some(place), ..nothing }
            }
            Some(place) => Driver { binds: libraries(&place), library_path: Some(PathBuf::from(LIBRARIES)), ..nothing },
        }
    }

    /// Adds to a plan what its instance was granted.
    pub(super) fn add(&self, plan: &mut Plan, grant: &Grant) {
        if grant.gpus.is_empty() {
            return;
        }
        plan.devices.extend(grant.nodes().into_iter().map(|node| {
            // A driver in a container of its own may have made its nodes there, or on the machine.
            let there = self.root.join(node.strip_prefix("/").unwrap_or(&node));
            Device { source: if there.exists() { there } else { node.clone() }, target: node }
        }));
        plan.binds.extend(self.binds.iter().cloned());
    }

    /// Sets the variables that tell a program of its devices, over what the function has asked for.
    pub(super) fn tell(&self, env: &mut Vec<(String, String)>, grant: &Grant) {
        for (name, value) in grant.env() {
            env.retain(|(known, _)| known != name);
            env.push((name.to_owned(), value));
        }
        let Some(path) = self.library_path.as_ref().filter(|_| !grant.gpus.is_empty()) else { return };
        match env.iter_mut().find(|(name, _)| name == "LD_LIBRARY_PATH") {
            Some((_, value)) => *value = format!("{value}:{}", path.display()),
            None => env.push(("LD_LIBRARY_PATH".to_owned(), path.display().to_string())),
        }
    }
}

/// The driver's management library, where the driver is not installed with the system: the loader does not look there.
pub fn management_library(root: &Path) -> Option<PathBuf> {
    let elsewhere = Some(root).filter(|root| *root != Path::new("/"));
    elsewhere.and_then(|root| Some(place_of(root, MANAGEMENT)?.join(MANAGEMENT)))
}

/// The directory below `root` that a library is in.
fn place_of(root: &Path, library: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| root.join(place)).find(|place| place.join(library).exists())
}

/// The driver's libraries in a directory, each under all the names that it has there.
fn libraries(place: &Path) -> Vec<Bind> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut found = BTreeMap::new();
    for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
        let is_wanted = name.split_once(".so.").is_some_and(|(stem, _)| NAMES.contains(&stem));
        // Several names of one file are links to it.
        if is_wanted && let Ok(file) = place.join(&name).canonicalize() {
            found.insert(name, file);
        }
    }
    found.into_iter().map(|(name, file)| Bind::new(file, Path::new(LIBRARIES).join(name))).collect()
}

#[cfg(test)]
mod tests {
    use lyra_types::InstanceId;

    use super::*;
    use crate::Gpu;

    fn grant() -> Grant {
        let gpu = Gpu {
            index: 1,
            uuid: "GPU-1".into(),
            name: "test".into(),
            memory: 8 << 30,
            nodes: vec!["/dev/nvidia1".into(), "/dev/nvidiactl".into()],
        };
        Grant { gpus: vec![gpu], gpu_memory: 8 << 30, secrets: None }
    }

    fn plan() -> Plan {
        Plan::new(InstanceId::from_parts(1, 1), vec!["/bin/true".to_owned()])
    }

    #[test]
    fn a_driver_elsewhere_is_shown_with_its_own_libraries_only() {
        let root = tempfile::tempdir().expect("a directory");
        let place = root.path().join("usr/lib64");
        fs::create_dir_all(&place).expect("made");
        let node = root.path().join("dev/nvidia1");
        fs::create_dir(root.path().join("dev")).and_then(|()| fs::write(&node, "")).expect("written");
        for name in ["libcuda.so.550.1", "libnvidia-ml.so.550.1", "libc.so.6", "libGLX_nvidia.so.0", "libcuda.so"] {
            fs::write(place.join(name), name).expect("written");
        }
        std::os::unix::fs::symlink("libcuda.so.550.1", place.join("libcuda.so.1")).expect("linked");
        let driver = Driver::find(root.path());
        let mut changed = plan();
        driver.add(&mut changed, &grant());
        let added: Vec<_> = changed.binds[plan().binds.len()..].iter().map(|bind| bind.target.clone()).collect();
        let expected = ["libcuda.so.1", "libcuda.so.550.1", "libnvidia-ml.so.550.1"];
        assert_eq!(added, expected.map(|name| Path::new(LIBRARIES).join(name)));
        let source = root.path().canonicalize().expect("there").join("usr/lib64/libcuda.so.550.1");
        assert_eq!(changed.binds[plan().binds.len()].source, source, "the file itself, not the link");
        let devices: Vec<_> = changed.devices.iter().map(|device| (&device.source, &device.target)).collect();
        let (one, control) = (PathBuf::from("/dev/nvidia1"), PathBuf::from("/dev/nvidiactl"));
        assert_eq!(devices, [(&node, &one), (&control, &control)], "what is not there is the machine's");
        assert_eq!(management_library(root.path()), None);
        fs::write(place.join(MANAGEMENT), "").expect("written");
        assert_eq!(management_library(root.path()), Some(place.join(MANAGEMENT)));
        assert_eq!(management_library(Path::new("/")), None);
        let mut env = vec![("CUDA_VISIBLE_DEVICES".to_owned(), "all".to_owned())];
        driver.tell(&mut env, &grant());
        let of =
            |name: &str| env.iter().filter(|(known, _)| known == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        assert_eq!((of("CUDA_VISIBLE_DEVICES"), of("LD_LIBRARY_PATH")), (vec!["GPU-1"], vec![LIBRARIES]));
    }

    #[test]
    fn without_a_grant_or_a_driver_nothing_is_added() {
        let root = tempfile::tempdir().expect("a directory");
        let driver = Driver::find(root.path());
        let (mut same, mut env) = (plan(), Vec::new());
        driver.add(&mut same, &Grant::default());
        driver.tell(&mut env, &Grant::default());
        assert!(same.devices.is_empty() && same.binds == plan().binds && env.is_empty());
        driver.tell(&mut env, &grant());
        assert!(env.iter().all(|(name, _)| name != "LD_LIBRARY_PATH"));
    }
}
