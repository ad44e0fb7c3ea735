//! The kinds of the Kubernetes-style API: `Application` and `ApplicationSession` of `lyra.dev/v1`, and the metadata that
//! every object has.
//!
//! These are the objects as they stand in the store and as clients see them: `camelCase` JSON, fields in the order of these
//! structs, nothing that is absent or empty is written. A doc comment here is what `kubectl explain` shows. Unknown fields are
//! left out when an object is read. What is valid is not said here: the crate `lyra-resources` checks it.

mod application;
mod container;
mod metadata;
mod probe;
mod quantity;
mod session;

pub use application::{
    Application, ApplicationSpec, ApplicationStatus, ApplicationVersion, DeploymentAction, DeploymentHistory,
    DeploymentStatus, ScalingPolicy, ScalingPolicyType, Threshold,
};
pub use container::{Container, ContainerPort, EnvVar, Protocol, ResourceRequirements};
pub use metadata::{Condition, ConditionStatus, ManagedFieldsEntry, ObjectMeta, OwnerReference, Time};
pub use probe::{HttpGetAction, HttpHeader, PortRef, Probe, TcpSocketAction};
pub use quantity::Quantity;
pub use session::{
    AccessEndPoint, ApplicationSession, ApplicationSessionSpec, ApplicationSessionStatus, LocalObjectReference,
    SessionStatus,
};

/// The API group.
pub const GROUP: &str = "lyra.dev";
/// The version of the group.
pub const VERSION: &str = "v1";
/// Group and version, as `apiVersion` has them.
pub const API_VERSION: &str = "lyra.dev/v1";

/// Whether a value is the default one; such a field is not written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fixtures_of_the_original_are_read_and_defaults_filled_in() {
        let application: Application = serde_json::from_value(json!({
            "apiVersion": "lyra.dev/v1", "kind": "Application",
            "metadata": {"name": "echo", "namespace": "game1"},
            "spec": {
                "usingNodeSessionService": true,
                "scalingPolicy": {"minimumInstance": 0, "maximumInstance": 100, "burst": 10,
                    "scalingPolicyType": "idle_session_number", "idleSessionNumThreshold": {"low": 1, "high": 3}},
                "containers": [{"name": "echo", "image": "echo:v1", "ports": [{"containerPort": 80, "name": "http"}],
                    "env": [{"name": "A", "value": "b"}],
                    "resources": {"requests": {"memory": "50M", "cpu": "10m"}, "limits": {"memory": "50M", "cpu": 1}}}],
                "workingMode": "stale", "sessionConfig": {"numOfSessionOfInstance": 1},
            },
        }))
        .unwrap();
        let container = &application.spec.containers[0];
        assert_eq!(container.ports[0].protocol, Protocol::Tcp);
        assert_eq!(container.resources.requests["memory"].bytes(), Some(50_000_000));
        assert_eq!(container.resources.limits["cpu"].millis(), Some(1_000));
        let session: ApplicationSession = serde_json::from_value(json!({
            "metadata": {"name": "echo-1"}, "spec": {"applicationName": "echo"},
        }))
        .unwrap();
        assert_eq!(session.spec, ApplicationSessionSpec { application_name: "echo".into(), ..Default::default() });
        assert_eq!((session.spec.close_grace_period_seconds, session.spec.open_timeout_seconds), (60, 10));
        assert!(session.spec.kill_instance_when_session_closed);
        assert_eq!(session.spec.ttl_seconds_after_finished, 300);
        assert_eq!(serde_json::to_value(&session).unwrap()["status"], serde_json::Value::Null);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut session = ApplicationSession::default();
        session.metadata.creation_timestamp = Some(Time::from(crate::Timestamp::from_millis(1_700_000_000_123)));
        session.status.session_status = SessionStatus::InUse;
        session.status.access_end_points = vec![AccessEndPoint {
            name: Some("http".into()),
            protocol: Protocol::Udp,
            ip_address: "10.0.0.1".into(),
            port: 30_000,
            url: None,
        }];
        let json = serde_json::to_string(&session).unwrap();
        assert!(json.contains(r#""creationTimestamp":"2023-11-14T22:13:20Z""#), "{json}");
        assert!(json.contains(r#""sessionStatus":"InUse""#), "{json}");
        assert!(json.starts_with(r#"{"apiVersion":"lyra.dev/v1","kind":"ApplicationSession","#), "{json}");
        assert_eq!(serde_json::from_str::<ApplicationSession>(&json).unwrap(), session);
    }
}
