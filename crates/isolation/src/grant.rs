//! Devices that the worker grants to one instance.
//!
//! The worker has charged them already; they are this instance's until it is gone. A back end makes exactly these
//! devices reachable and no others.

use std::path::PathBuf;

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
}

impl Grant {
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
        let grant = Grant { gpus: vec![gpu(0), gpu(3)], gpu_memory: 4 << 30 };
        let env = grant.env();
        assert!(env.contains(&("CUDA_VISIBLE_DEVICES", "GPU-0,GPU-3".into())));
        assert!(env.contains(&("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "0=4096M,1=4096M".into())));
        assert_eq!(grant.nodes(), ["/dev/nvidia0", "/dev/nvidia3", "/dev/nvidiactl"].map(PathBuf::from));
        assert!(Grant::default().env().is_empty() && Grant::default().nodes().is_empty());
    }
}
