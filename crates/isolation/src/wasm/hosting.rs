//! What serves sessions here: the code of `js` handlers and of HTTP components, called by what comes over their instances' ports.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use lyra_kit::{Clock, Random};
use lyra_types::{Error, FunctionVersion, InstanceId};

use crate::session::files::SessionFiles;
use crate::session::places::Places;
use crate::session::{Calls, DIRECTORY, DIRECTORY_VARIABLE, Hosting, told_port};

/// What instances of sessions share.
pub(super) struct Hosts {
    pub(super) calls: Arc<Calls>,
    places: Places,
}

impl Hosts {
    /// `dir`: where their files are. Those of an earlier process are removed: no instance here outlasts its worker.
    pub(super) fn new(dir: &Path, clock: Clock, random: Random) -> Hosts {
        let places = Places::new(dir);
        places.sweep(&BTreeSet::new());
        Hosts { calls: Arc::new(Calls::new(clock, random)), places }
    }

    /// Writes the files of an instance.
    pub(super) async fn files(&self, id: InstanceId, hosting: &Hosting) -> Result<SessionFiles, Error> {
        let (place, files) = (self.places.make(id, &hosting.files)?, hosting.files.clone());
        let written = lyra_kit::tasks::blocking(move || place.create(&files).map(|()| place)).await;
        written.map_err(|_| Error::internal("writing the session's files was broken off"))?
    }
}

/// The version as an instance of a session has it: kept from call to call, with the session's variables.
pub(super) fn hosted(id: InstanceId, version: &FunctionVersion, hosting: &Hosting) -> Arc<FunctionVersion> {
    let mut version = version.clone();
    version.reuse = true;
    version.env.extend(hosting.env.iter().cloned());
    let mut set = |name: &str, value: String| drop(version.env.insert(name.to_owned(), value));
    if let Some(port) = told_port(hosting) {
        set("PORT", port.to_string());
    }
    set(DIRECTORY_VARIABLE, DIRECTORY.to_owned());
    set("LYRA_INSTANCE", id.to_string());
    Arc::new(version)
}
