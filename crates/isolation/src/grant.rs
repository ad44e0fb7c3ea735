//! What the worker grants to one instance: devices and secrets.
//!
//! The worker has charged devices already; they are this instance's until it is gone. A back end makes exactly these
//! devices reachable and no others. Secrets are for this instance alone: they never get to what instances of several functions share,
//! such as images, interpreters that are forked, or a disk.

use std::path::PathBuf;
use std::sync::Arc;

use lyra_types::{SecretBytes, SecretUse};

/// A GPU, as the worker found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its number on this machine.
    pub index: u32,
    /// Its unique name, `GPU-…`.
    pub uuid: String,
    /// Its product name.
    pub name: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Device nodes that a process needs to use it, those shared by all GPUs counted in.
    pub nodes: Vec<PathBuf>,
}

/// What one instance may use besides memory and processors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
    /// Bytes of each GPU's memory that are meant for it.
    pub gpu_memory: u64,
    /// Its secrets, where it is given any.
    pub secrets: Option<Arc<Given>>,
}

/// Secrets that an instance is given.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Given {
    env: Vec<(String, SecretBytes)>,
    files: Vec<(String, SecretBytes)>,
}

impl Given {
    /// The values of `uses`, each with its use.
    ///
    /// # Errors
    /// The name of the secret whose value no variable can hold.
    pub fn new<'a>(values: impl IntoIterator<Item = (&'a SecretUse, SecretBytes)>) -> Result<Given, &'a SecretUse> {
        let mut given = Given::default();
        for (of, value) in values {
            if let Some(name) = &of.env {
                if value.as_variable().is_none() {
                    return Err(of);
                }
                given.env.push((name.clone(), value.clone()));
            }
            given.files.extend(of.file.clone().map(|name| (name, value)));
        }
        Ok(given)
    }

    /// Variables and their values.
    pub fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_variable()?)))
    }

    /// Names of files, and what they hold.
    pub fn files(&self) -> impl Iterator<Item = (&str, &SecretBytes)> {
        self.files.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Every value.
    pub fn values(&self) -> impl Iterator<Item = &SecretBytes> {
        self.env.iter().chain(&self.files).map(|(_, value)| value)
    }
}

impl Grant {
    /// Variables that hold secrets.
    pub fn secret_env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.secrets.iter().flat_map(|given| given.env())
    }

    /// Environment variables that tell CUDA which devices to use.
    ///
    /// By unique name, since numbers change with what a sandbox sees. The limit on memory takes effect where NVIDIA's
    /// MPS serves the device; elsewhere the driver offers none.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        if self.gpus.is_empty() {
            return Vec::new();
        }
        let join = |parts: Vec<String>| parts.join(",");
        let names = join(self.gpus.iter().map(|gpu| gpu.uuid.clone()).collect());
        let mib = self.gpu_memory >> 20;
        let limits = join((0..self.gpus.len()).map(|n| format!("{n}={mib}M")).collect());
        vec![
            ("CUDA_VISIBLE_DEVICES", names.clone()),
            ("NVIDIA_VISIBLE_DEVICES", names),
            ("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", limits),
        ]
    }

    /// Device nodes that must be there inside of the sandbox, each once.
    pub fn nodes(&self) -> Vec<PathBuf> {
        let mut nodes: Vec<_> = self.gpus.iter().flat_map(|gpu| gpu.nodes.iter().cloned()).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32) -> Gpu {
        let nodes = vec![PathBuf::from(format!("/dev/nvidia{index}")), PathBuf::from("/dev/nvidiactl")];
        Gpu { index, uuid: format!("GPU-{index}"), name: "test".into(), memory: 8 << 30, nodes }
    }

    #[test]
    fn names_its_devices_by_unique_name_and_each_node_once() {
        let grant = Grant { gpus: vec![gpu(0), gpu(3)], gpu_memory: 4 << 30, secrets: None };
        let env = grant.env();
        assert!(env.contains(&("CUDA_VISIBLE_DEVICES", "GPU-0,GPU-3".into())));
        assert!(env.contains(&("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "0=4096M,1=4096M".into())));
        assert_eq!(grant.nodes(), ["/dev/nvidia0", "/dev/nvidia3", "/dev/nvidiactl"].map(PathBuf::from));
        assert!(Grant::default().env().is_empty() && Grant::default().nodes().is_empty());
    }

    #[test]
    fn secrets_go_where_they_are_used_and_do_not_show() {
        let of = |env: Option<&str>, file: Option<&str>| SecretUse {
            name: "s".parse().unwrap(),
            env: env.map(str::to_owned),
            file: file.map(str::to_owned),
        };
        let (text, bytes) = (SecretBytes::new(b"hunter2".to_vec()), SecretBytes::new(vec![0xff, 0]));
        let (env, file) = (of(Some("KEY"), None), of(None, Some("tls.key")));
        let given = Given::new([(&env, text.clone()), (&file, bytes.clone())]).unwrap();
        assert_eq!(given.env().collect::<Vec<_>>(), [("KEY", "hunter2")]);
        assert_eq!(given.files().collect::<Vec<_>>(), [("tls.key", &bytes)]);
        assert!(!format!("{given:?}").contains("hunter2"));
        assert_eq!(Given::new([(&env, bytes)]).unwrap_err(), &env);
    }
}
