//! GPUs of this machine: which there are, and how busy they are.
//!
//! Found through NVIDIA's management library (NVML), which is loaded at run time where the driver has installed it.
//! Without it a worker runs as well, and refuses functions that ask for a GPU, with the reason given here.

use std::path::{Path, PathBuf};

use lyra_isolation::Gpu;
use nvml_wrapper::Nvml;

/// What a GPU does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Percent of the last moment in which it computed.
    pub utilisation: Option<u32>,
    /// Bytes of memory in use.
    pub memory_used: Option<u64>,
}

/// Where GPUs come from.
pub trait Source: Send + Sync + 'static {
    /// The GPUs, in a fixed order. Asked once, when the worker is made.
    ///
    /// # Errors
    /// Why there is none, as a part of a sentence.
    fn devices(&self) -> Result<Vec<Gpu>, String>;

    /// What the GPU of that unique name does now.
    fn load(&self, uuid: &str) -> Load;
}

/// A worker that gives out no GPUs.
#[derive(Debug, Clone, Copy)]
pub struct NoGpus;

impl Source for NoGpus {
    fn devices(&self) -> Result<Vec<Gpu>, String> {
        Err("none was looked for".to_owned())
    }

    fn load(&self, _: &str) -> Load {
        Load::default()
    }
}

/// The GPUs that NVIDIA's driver knows.
pub struct Nvidia {
    nvml: Result<Nvml, String>,
}

/// Nodes that every process on a GPU needs besides the device's own.
const SHARED_NODES: [&str; 3] = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"];

impl Nvidia {
    /// Loads the library: the file that is named, or the one that the system's loader finds.
    pub fn load_library(file: Option<&Path>) -> Nvidia {
        // The name without a version exists only where development files are installed.
        let named = |file: &Path| Nvml::builder().lib_path(file.as_os_str()).init();
        let nvml = match file {
            Some(file) => named(file),
            None => Nvml::init().or_else(|_| named(Path::new("libnvidia-ml.so.1"))),
        };
        Nvidia { nvml: nvml.map_err(|error| format!("NVIDIA's management library can't be used ({error})")) }
    }

    fn read(nvml: &Nvml) -> Result<Vec<Gpu>, nvml_wrapper::error::NvmlError> {
        let mut gpus = Vec::new();
        for index in 0..nvml.device_count()? {
            let device = nvml.device_by_index(index)?;
            let own = PathBuf::from(format!("/dev/nvidia{}", device.minor_number()?));
            let shared = SHARED_NODES.iter().map(Path::new).filter(|path| path.exists()).map(Path::to_path_buf);
            gpus.push(Gpu {
                index,
                uuid: device.uuid()?,
                name: device.name()?,
                memory: device.memory_info()?.total,
                nodes: std::iter::once(own).chain(shared).collect(),
            });
        }
        Ok(gpus)
    }
}

impl Source for Nvidia {
    fn devices(&self) -> Result<Vec<Gpu>, String> {
        let nvml = self.nvml.as_ref().map_err(Clone::clone)?;
        let gpus = Nvidia::read(nvml).map_err(|error| format!("the GPUs can't be read ({error})"))?;
        if gpus.is_empty() { Err("the driver knows none".to_owned()) } else { Ok(gpus) }
    }

    fn load(&self, uuid: &str) -> Load {
        let Some(device) = self.nvml.as_ref().ok().and_then(|nvml| nvml.device_by_uuid(uuid).ok()) else {
            return Load::default();
        };
        Load {
            utilisation: device.utilization_rates().ok().map(|rates| rates.gpu),
            memory_used: device.memory_info().ok().map(|memory| memory.used),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_library_says_so_and_one_with_it_names_each_device() {
        let source = Nvidia::load_library(None);
        match source.devices() {
            Ok(gpus) => {
                assert!(gpus.iter().all(|gpu| gpu.uuid.starts_with("GPU-") && gpu.memory > 0 && !gpu.nodes.is_empty()));
            }
            Err(reason) => assert!(!reason.is_empty()),
        }
        assert_eq!(source.load("GPU-of-no-machine"), Load::default());
        let elsewhere = Nvidia::load_library(Some(Path::new("/nonexistent/libnvidia-ml.so.1")));
        assert!(elsewhere.devices().expect_err("is not there").contains("management library"));
    }
}
