//! Rules of the containers of an application.

use std::collections::BTreeSet;

use lyra_types::name::Qualifier;
use lyra_types::resources::{Container, ContainerPort, PortRef, Probe};

use crate::validation::{Problems, check_unique, is_label};

/// Containers of one application.
const MAX_CONTAINERS: usize = 8;
/// Ports of one container.
const MAX_PORTS: usize = 16;
/// Environment variables of one container.
const MAX_ENV: usize = 256;
/// Longest delay, period and timeout of a probe, in seconds (a day).
const MAX_PROBE_SECONDS: u32 = 86_400;

/// Finds what is wrong with the containers at `spec.containers`.
pub(super) fn check(containers: &[Container], problems: &mut Problems) {
    if containers.is_empty() {
        problems.required("spec.containers", "an application needs one container or more");
    }
    if containers.len() > MAX_CONTAINERS {
        problems.too_many("spec.containers", containers.len(), MAX_CONTAINERS);
    }
    let names = containers.iter().map(|container| container.name.as_str()).enumerate();
    check_unique("spec.containers", names.filter(|(_, name)| !name.is_empty()), problems);
    for (index, container) in containers.iter().enumerate() {
        check_one(&format!("spec.containers[{index}]"), container, problems);
    }
    let ports = || containers.iter().flat_map(|container| &container.ports);
    let names: Vec<&str> = ports().map(|port| port.name.as_str()).filter(|name| !name.is_empty()).collect();
    if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
        problems.invalid("spec.containers", names.join(", "), "names of ports must be unique in the application");
    }
    let numbers: Vec<_> = ports().map(|port| (port.container_port, port.protocol)).collect();
    if numbers.iter().collect::<BTreeSet<_>>().len() < numbers.len() {
        problems.forbidden("spec.containers", "the containers of an instance share its ports: each may be named once");
    }
}

fn check_one(field: &str, container: &Container, problems: &mut Problems) {
    if container.name.is_empty() {
        problems.required(format!("{field}.name"), "");
    } else if !is_label(&container.name) {
        problems.invalid(format!("{field}.name"), &container.name, "must be a DNS label");
    }
    match (container.image.is_empty(), container.function.is_empty()) {
        (true, true) => problems.required(format!("{field}.image"), "image or function must be given"),
        (false, false) => problems.forbidden(format!("{field}.function"), "may not be given together with image"),
        (true, false) => {
            if let Err(error) = Qualifier::split(&container.function) {
                problems.invalid(format!("{field}.function"), &container.function, &error.detail);
            }
        }
        (false, true) => {
            if container.image.len() > 1_024 || !container.image.bytes().all(|byte| byte.is_ascii_graphic()) {
                problems.invalid(format!("{field}.image"), &container.image, "must be the name of an image");
            }
        }
    }
    if !matches!(container.image_pull_policy.as_str(), "" | "Always" | "IfNotPresent" | "Never") {
        problems.invalid(
            format!("{field}.imagePullPolicy"),
            &container.image_pull_policy,
            "must be Always, IfNotPresent or Never",
        );
    }
    if container.env.len() > MAX_ENV {
        problems.too_many(format!("{field}.env"), container.env.len(), MAX_ENV);
    }
    for (index, variable) in container.env.iter().enumerate() {
        let field = format!("{field}.env[{index}].name");
        if variable.name.is_empty() {
            problems.required(field, "");
        } else if variable.name.contains(['=', '\0']) || variable.name.len() > 256 {
            problems.invalid(field, &variable.name, "must be 1 to 256 characters without '='");
        }
    }
    let variables = container.env.iter().map(|variable| variable.name.as_str()).enumerate();
    check_unique(&format!("{field}.env"), variables.filter(|(_, name)| !name.is_empty()), problems);
    if container.ports.len() > MAX_PORTS {
        problems.too_many(format!("{field}.ports"), container.ports.len(), MAX_PORTS);
    }
    for (index, port) in container.ports.iter().enumerate() {
        check_port(&format!("{field}.ports[{index}]"), port, problems);
    }
    check_resources(field, container, problems);
    for (name, probe) in [("livenessProbe", &container.liveness_probe), ("readinessProbe", &container.readiness_probe)]
    {
        if let Some(probe) = probe {
            check_probe(&format!("{field}.{name}"), probe, container, problems);
        }
    }
}

/// What of the containers at `spec.containers` is right, and does nothing: for whoever writes it.
pub(super) fn warnings(containers: &[Container]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let field = format!("spec.containers[{index}]");
        if !container.image.is_empty() {
            warnings.push(format!(
                "{field}.image: images need a container engine, which workers do not have yet; name a function instead"
            ));
        }
        let unused = [
            ("command", !container.command.is_empty()),
            ("args", !container.args.is_empty()),
            ("workingDir", !container.working_dir.is_empty()),
        ];
        for (name, _) in unused.iter().filter(|(_, given)| *given && !container.function.is_empty()) {
            warnings.push(format!(
                "{field}.{name}: goes with an image; a function is run as it was deployed (give it what differs by env)"
            ));
        }
    }
    if containers.len() > 1 {
        warnings.push("spec.containers: several need a container engine, which workers do not have yet".to_owned());
    }
    warnings
}

fn check_port(field: &str, port: &ContainerPort, problems: &mut Problems) {
    if !(1..=65_535).contains(&port.container_port) {
        problems.invalid(
            format!("{field}.containerPort"),
            port.container_port,
            "must be between 1 and 65535, inclusive",
        );
    }
    if !port.name.is_empty() && !is_label(&port.name) {
        problems.invalid(format!("{field}.name"), &port.name, "must be a DNS label");
    }
}

fn check_resources(field: &str, container: &Container, problems: &mut Problems) {
    let resources = &container.resources;
    for (which, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        for (name, amount) in amounts {
            let field = format!("{field}.resources.{which}.{name}");
            if !amount.is_valid() {
                problems.invalid(field, amount, "must be a quantity such as 500m or 64Mi");
            } else if let Some(limit) = resources.limits.get(name)
                && which == "requests"
                && amount.millis() > limit.millis()
            {
                problems.invalid(field, amount, "must be no more than the limit");
            }
        }
    }
}

fn check_probe(field: &str, probe: &Probe, container: &Container, problems: &mut Problems) {
    let port = match (&probe.http_get, &probe.tcp_socket) {
        (Some(get), None) => {
            if !get.path.starts_with('/') {
                problems.invalid(format!("{field}.httpGet.path"), &get.path, "must start with /");
            }
            Some((format!("{field}.httpGet.port"), &get.port))
        }
        (None, Some(socket)) => Some((format!("{field}.tcpSocket.port"), &socket.port)),
        _ => {
            problems.required(field, "one of httpGet and tcpSocket must be given");
            None
        }
    };
    match port {
        Some((field, PortRef::Number(0))) => problems.invalid(field, 0, "must be between 1 and 65535, inclusive"),
        Some((field, PortRef::Name(name))) if !container.ports.iter().any(|port| port.name == *name) => {
            problems.invalid(field, name, "must be the name of one of the container's ports");
        }
        _ => {}
    }
    for (name, value, least) in [
        ("initialDelaySeconds", probe.initial_delay_seconds, 0),
        ("periodSeconds", probe.period_seconds, 1),
        ("timeoutSeconds", probe.timeout_seconds, 1),
        ("failureThreshold", probe.failure_threshold, 1),
        ("successThreshold", probe.success_threshold, 1),
    ] {
        if !(least..=MAX_PROBE_SECONDS).contains(&value) {
            problems.invalid(format!("{field}.{name}"), value, &format!("must be {least} to {MAX_PROBE_SECONDS}"));
        }
    }
}
