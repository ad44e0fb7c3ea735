//! The kind `Application`: its names, columns and rules.

use std::borrow::Cow;

use async_trait::async_trait;
use lyra_types::Timestamp;
use lyra_types::resources::{
    Application, ApplicationSpec, ApplicationStatus, GROUP, ObjectMeta, ScalingPolicy, ScalingPolicyType, Threshold,
    VERSION,
};
use lyra_types::secret::MAX_FUNCTION_SECRETS;
use serde_json::{Value, json};

use super::{containers, schema_of};
use crate::admission::{Admission, Review};
use crate::kind::{Column, Kind, Names};
use crate::validation::{Problems, check_unique, is_label, is_label_value};
use crate::{ResourceApi, Resources, Status};

/// Instances that are started or ended at once when nothing, or 0, is given.
const DEFAULT_BURST: u32 = 2;
/// Bytes of all entries of `configData` together (512 KiB: an object must fit into the store).
const MAX_CONFIG_DATA: usize = 512 << 10;
/// Most instances that an application may ask for.
const MAX_INSTANCES: u32 = 100_000;

#[async_trait]
impl Kind for Application {
    const NAMES: Names = Names {
        group: GROUP,
        version: VERSION,
        kind: "Application",
        list_kind: "ApplicationList",
        plural: "applications",
        singular: "application",
        short: &["app"],
        categories: &["all", "lyra"],
        description: "Application is code whose instances are held ready, one for each session.",
    };

    const SELECTABLE: &'static [&'static str] = &["status.version"];

    const KEYED_LISTS: &'static [(&'static str, &'static [&'static str])] = &[
        ("spec.containers", &["name"]),
        ("spec.containers.env", &["name"]),
        ("spec.containers.ports", &["containerPort", "protocol"]),
        ("status.conditions", &["type"]),
        ("status.versions", &["version"]),
        ("metadata.ownerReferences", &["uid"]),
    ];

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn same_spec(&self, other: &Application) -> bool {
        self.spec == other.spec
    }

    fn take_status(&mut self, from: &Application) {
        self.status.clone_from(&from.status);
    }

    fn take_spec(&mut self, from: &Application) {
        self.spec.clone_from(&from.spec);
    }

    fn fill_in(&mut self) {
        let policy = &mut self.spec.scaling_policy;
        if policy.burst == 0 {
            policy.burst = DEFAULT_BURST;
        }
    }

    fn validate(&self, _: Option<&Application>, problems: &mut Problems) {
        let spec = &self.spec;
        containers::check(&spec.containers, problems);
        check_policy(&spec.scaling_policy, problems);
        for key in spec.config_data.keys() {
            // Each is a file.
            if key.is_empty() || key.len() > 253 || key == "." || key == ".." || !is_file_name(key) {
                problems.invalid(
                    "spec.configData",
                    key,
                    "a key must be 1 to 253 alphanumeric characters, '-', '_' or '.'",
                );
            }
        }
        let size: usize = spec.config_data.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > MAX_CONFIG_DATA {
            problems.too_long("spec.configData", size, MAX_CONFIG_DATA, "");
        }
        if spec.secrets.len() > MAX_FUNCTION_SECRETS {
            problems.too_many("spec.secrets", spec.secrets.len(), MAX_FUNCTION_SECRETS);
        }
        for (index, secret) in spec.secrets.iter().enumerate() {
            if !is_label(secret) {
                problems.invalid(format!("spec.secrets[{index}]"), secret, "must be the name of a secret");
            }
        }
        check_unique("spec.secrets", spec.secrets.iter().enumerate(), problems);
    }

    fn warnings(&self) -> Vec<String> {
        containers::warnings(&self.spec.containers)
    }

    fn selectable(&self, path: &str) -> Option<Cow<'_, str>> {
        match path {
            "status.version" => Some(self.status.version.to_string().into()),
            _ => None,
        }
    }

    fn columns() -> &'static [Column] {
        const fn number(name: &'static str, description: &'static str, priority: u8) -> Column {
            Column { name, r#type: "integer", description, priority }
        }
        const COLUMNS: &[Column] = &[
            number("Version", "The version that new sessions get.", 0),
            number("Desired", "Instances that are wanted now.", 0),
            number("Ready", "Instances that are ready, with or without a session.", 0),
            number("Idle", "Instances that are ready and have no session.", 0),
            number("Allocated", "Instances that have a session.", 0),
            Column {
                name: "Age",
                r#type: "string",
                description: "Time since the application was created.",
                priority: 0,
            },
            number("Min", "Fewest instances that are held without a session.", 1),
            number("Max", "Most instances.", 1),
            number("Total", "Instances that are there.", 1),
            Column {
                name: "Code",
                r#type: "string",
                description: "Images and functions of the containers.",
                priority: 1,
            },
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (status, policy) = (&self.status, &self.spec.scaling_policy);
        let code: Vec<&str> = self
            .spec
            .containers
            .iter()
            .map(|container| if container.image.is_empty() { &*container.function } else { &*container.image })
            .collect();
        vec![
            json!(status.version),
            json!(status.desired_instances),
            json!(status.ready_instances),
            json!(status.idle_instances),
            json!(status.allocated_instances),
            json!(super::session::age(&self.metadata, now)),
            json!(policy.minimum_instance),
            json!(policy.maximum_instance),
            json!(status.total_instances),
            json!(code.join(",")),
        ]
    }

    fn schemas() -> (Value, Value) {
        (schema_of::<ApplicationSpec>(), schema_of::<ApplicationStatus>())
    }

    async fn admit(admission: &dyn Admission, review: Review<'_, Application>) -> Result<(), Status> {
        admission.application(review).await
    }

    fn of(api: &ResourceApi) -> &Resources<Application> {
        api.applications()
    }
}

fn is_file_name(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        || (key.len() <= 63 && is_label_value(key))
}

/// Finds what is wrong with the policy at `spec.scalingPolicy`.
fn check_policy(policy: &ScalingPolicy, problems: &mut Problems) {
    let field = |name: &str| format!("spec.scalingPolicy.{name}");
    if policy.maximum_instance == 0 {
        problems.required(field("maximumInstance"), "must be 1 or more");
    } else if policy.maximum_instance > MAX_INSTANCES {
        problems.invalid(field("maximumInstance"), policy.maximum_instance, "must be 100000 or less");
    } else if policy.maximum_instance < policy.minimum_instance {
        problems.invalid(field("maximumInstance"), policy.maximum_instance, "must be minimumInstance or more");
    }
    let (number, percent) = (policy.idle_session_num_threshold, policy.idle_session_percent_threshold);
    match policy.scaling_policy_type {
        ScalingPolicyType::Unset => {
            problems.required(field("scalingPolicyType"), "must be idle_session_number or idle_session_percent");
        }
        ScalingPolicyType::IdleSessionNumber if number.is_none() => {
            problems.required(field("idleSessionNumThreshold"), "scalingPolicyType is idle_session_number");
        }
        ScalingPolicyType::IdleSessionPercent if percent.is_none() => {
            problems.required(field("idleSessionPercentThreshold"), "scalingPolicyType is idle_session_percent");
        }
        ScalingPolicyType::IdleSessionNumber | ScalingPolicyType::IdleSessionPercent => {}
    }
    check_threshold(&field("idleSessionNumThreshold"), number, MAX_INSTANCES, problems);
    check_threshold(&field("idleSessionPercentThreshold"), percent, 100, problems);
}

fn check_threshold(field: &str, threshold: Option<Threshold>, most: u32, problems: &mut Problems) {
    let Some(Threshold { high, low }) = threshold else { return };
    if high < low {
        problems.invalid(format!("{field}.high"), high, "must be low or more");
    }
    if high > most {
        problems.invalid(format!("{field}.high"), high, &format!("must be {most} or less"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(change: impl FnOnce(&mut Application)) -> Vec<String> {
        let mut application: Application = serde_json::from_value(json!({
            "metadata": {"name": "echo", "namespace": "game1"},
            "spec": {
                "scalingPolicy": {"maximumInstance": 3, "minimumInstance": 1, "scalingPolicyType": "idle_session_number",
                    "idleSessionNumThreshold": {"low": 1, "high": 3}},
                "containers": [{"name": "a", "image": "echo:v1", "ports": [{"containerPort": 80, "name": "http"}]},
                    {"name": "b", "function": "echo@3"}],
            },
        }))
        .unwrap();
        change(&mut application);
        application.fill_in();
        let mut problems = Problems::default();
        application.validate(None, &mut problems);
        problems.into_causes().into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn a_good_application_has_no_faults_and_burst_0_means_the_default() {
        assert_eq!(faults(|_| {}), Vec::<String>::new());
        let mut application = Application::default();
        application.fill_in();
        assert_eq!(application.spec.scaling_policy.burst, 2);
    }

    #[test]
    fn each_rule_of_the_scaling_policy_is_kept() {
        type Change = fn(&mut ScalingPolicy);
        let rules: [(Change, &str); 8] = [
            (|policy| policy.maximum_instance = 0, "maximumInstance"),
            (|policy| policy.minimum_instance = 4, "maximumInstance"),
            (|policy| policy.scaling_policy_type = ScalingPolicyType::Unset, "scalingPolicyType"),
            (|policy| policy.idle_session_num_threshold = None, "idleSessionNumThreshold"),
            (
                |policy| policy.scaling_policy_type = ScalingPolicyType::IdleSessionPercent,
                "idleSessionPercentThreshold",
            ),
            (
                |policy| policy.idle_session_num_threshold = Some(Threshold { high: 1, low: 2 }),
                "idleSessionNumThreshold.high",
            ),
            (
                |policy| policy.idle_session_percent_threshold = Some(Threshold { high: 101, low: 2 }),
                "idleSessionPercentThreshold.high",
            ),
            (
                |policy| policy.idle_session_percent_threshold = Some(Threshold { high: 1, low: 2 }),
                "idleSessionPercentThreshold.high",
            ),
        ];
        for (change, field) in rules {
            assert_eq!(
                faults(|application| change(&mut application.spec.scaling_policy)),
                [format!("spec.scalingPolicy.{field}")]
            );
        }
    }

    #[test]
    fn each_rule_of_containers_is_kept() {
        type Change = fn(&mut ApplicationSpec);
        let rules: [(Change, &str); 14] = [
            (|spec| spec.containers.clear(), "spec.containers"),
            (|spec| spec.containers[0].name.clear(), "spec.containers[0].name"),
            (|spec| spec.containers[1].name = "a".into(), "spec.containers[1]"),
            (|spec| spec.containers[0].image.clear(), "spec.containers[0].image"),
            (|spec| spec.containers[0].function = "f".into(), "spec.containers[0].function"),
            (|spec| spec.containers[1].function = "F!".into(), "spec.containers[1].function"),
            (|spec| spec.containers[0].ports[0].container_port = 0, "spec.containers[0].ports[0].containerPort"),
            (|spec| spec.containers[0].ports[0].container_port = 70_000, "spec.containers[0].ports[0].containerPort"),
            (|spec| spec.containers[1].ports = spec.containers[0].ports.clone(), "spec.containers"),
            (|spec| spec.containers[0].env = vec![Default::default()], "spec.containers[0].env[0].name"),
            (
                |spec| {
                    drop(
                        spec.containers[0]
                            .resources
                            .limits
                            .insert("cpu".into(), lyra_types::resources::Quantity::new("lots")),
                    )
                },
                "spec.containers[0].resources.limits.cpu",
            ),
            (|spec| spec.containers[0].liveness_probe = Some(Default::default()), "spec.containers[0].livenessProbe"),
            (|spec| drop(spec.config_data.insert("../x".into(), String::new())), "spec.configData"),
            (|spec| spec.secrets = vec!["A".into()], "spec.secrets[0]"),
        ];
        for (change, field) in rules {
            let found = faults(|application| change(&mut application.spec));
            assert_eq!(found.first().map(String::as_str), Some(field), "{found:?}");
        }
    }

    #[test]
    fn a_probe_names_a_port_and_has_a_period() {
        let found = faults(|application| {
            application.spec.containers[0].readiness_probe = serde_json::from_value(json!({
                "httpGet": {"path": "x", "port": "nope"}, "periodSeconds": 0,
            }))
            .unwrap();
        });
        let field = "spec.containers[0].readinessProbe";
        assert_eq!(
            found,
            [format!("{field}.httpGet.path"), format!("{field}.httpGet.port"), format!("{field}.periodSeconds")]
        );
    }
}
