//! What a program is told: the files that it can read, and the session as the session service opens it; and by what its instance is
//! known again, which holds nothing that is secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lyra_isolation::{Files, Hosting, Port, Protocol as Carried, SECRETS};
use lyra_session::Open;
use lyra_types::resources::Protocol;
use lyra_wire::sessions::{AppConfig, AppKey, AppVersion, SessionKey};
use serde::{Deserialize, Serialize};

use lyra_types::InstanceId;

use crate::secrets::Delivered;

/// Folder of the configuration's files.
const CONFIG: &str = "config/";

/// By what a later process of this worker knows an instance again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    instance: InstanceId,
    app: AppKey,
    /// Which values of its secrets it was given for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    given: Vec<u64>,
}

/// Whether it is the label of this instance.
pub(super) fn is_label_of(label: &str, instance: InstanceId, app: &AppKey) -> bool {
    serde_json::from_str::<Label>(label).is_ok_and(|found| found.instance == instance && found.app == *app)
}

/// Which values of its secrets an instance with this label was given for good.
pub(super) fn given(label: &str) -> Vec<u64> {
    serde_json::from_str::<Label>(label).map(|label| label.given).unwrap_or_default()
}

/// What an instance of the version is started with.
pub(super) fn hosting(app: &AppVersion, instance: InstanceId, secrets: Option<&Delivered>) -> Hosting {
    let given = secrets.map(|of| of.fixed.clone()).unwrap_or_default();
    let label = Label { instance, app: app.key.clone(), given };
    let port = |port: &lyra_wire::sessions::AppPort| Port {
        name: port.name.clone(),
        port: port.port,
        protocol: match port.protocol {
            Protocol::Tcp => Carried::Tcp,
            Protocol::Udp => Carried::Udp,
        },
    };
    Hosting {
        ports: app.ports.iter().map(port).collect(),
        service: app.service,
        files: files(&app.config, secrets, None),
        // A label of a few names: it can be written.
        label: serde_json::to_string(&label).unwrap_or_default(),
        lasting: true,
        ..Hosting::default()
    }
}

/// `session.json`.
#[derive(Serialize)]
struct SessionFile<'a> {
    id: &'a str,
    name: &'a str,
    tenant: &'a str,
    application: &'a str,
    application_version: u64,
    data: &'a str,
    configuration_version: u64,
}

/// The files of an instance: its configuration, its secrets, and its session where it has one.
pub(super) fn files(
    config: &AppConfig,
    secrets: Option<&Delivered>,
    session: Option<(&SessionKey, &AppKey, &str)>,
) -> Files {
    let mut files: Files =
        config.files.iter().map(|(name, text)| (name.clone(), Bytes::copy_from_slice(text.as_bytes()))).collect();
    for (name, value) in secrets.iter().flat_map(|of| &of.files) {
        files.insert(format!("{SECRETS}{name}"), Bytes::copy_from_slice(value.reveal()));
    }
    if let Some((key, app, data)) = session {
        let file = SessionFile {
            id: &key.uid,
            name: &key.name,
            tenant: app.tenant.as_str(),
            application: &app.application,
            application_version: app.version,
            data,
            configuration_version: config.revision,
        };
        // A struct of texts and numbers can be written.
        files.insert("session.json".to_owned(), serde_json::to_vec_pretty(&file).unwrap_or_default().into());
    }
    files
}

/// The configuration as the session service tells it: without secrets.
pub(super) fn configuration(config: &AppConfig) -> Arc<BTreeMap<String, String>> {
    let key = |(name, text): (&String, &String)| Some((name.strip_prefix(CONFIG)?.to_owned(), text.clone()));
    Arc::new(config.files.iter().filter_map(key).collect())
}

/// The session as it is opened.
pub(super) fn open(key: &SessionKey, app: &AppKey, data: &str) -> Open {
    Open {
        id: key.uid.as_str().into(),
        name: key.name.clone(),
        tenant: key.tenant.as_str().to_owned(),
        application: app.application.clone(),
        application_version: u32::try_from(app.version).unwrap_or(u32::MAX),
        data: Bytes::copy_from_slice(data.as_bytes()),
    }
}
