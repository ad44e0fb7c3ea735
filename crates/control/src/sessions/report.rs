//! What an application's status says.

use std::sync::Arc;
use std::time::Duration;

use lyra_resources::EventType;
use lyra_types::resources::{
    Application, ApplicationStatus, ApplicationVersion, Condition, ConditionStatus, DeploymentAction,
    DeploymentHistory, DeploymentStatus, Time,
};

use super::app::App;
use super::leading::{Done, Leading, Wake};
use super::versions;

/// The status of an application is written at most once in this time: its counts change with every session.
const BETWEEN: Duration = Duration::from_millis(200);

/// New sessions get an instance of a version.
const READY: &str = "VersionReady";
/// Instances fail before they are ready.
pub(super) const FAILING: &str = "InstancesFailing";

impl Leading {
    /// An instance of an application failed.
    pub(super) fn failed(&mut self, uid: &str, why: String) {
        let time = Time::from(self.time());
        let Some(app) = self.apps.get_mut(uid) else { return };
        self.of.api.events().record(app.object.object(), EventType::Warning, "InstanceFailed", &why);
        let (count, before) = app.failing.take().unwrap_or_default();
        if before != why {
            app.note(
                DeploymentAction::CreateInstance,
                DeploymentStatus::Failure,
                format!("an instance failed: {why}"),
                time,
            );
        }
        app.failing = Some((count.saturating_add(1), why));
    }

    /// Writes the status, if it is to be another.
    pub(super) fn write_application(&mut self, uid: &str) {
        let now = self.now();
        let Some(app) = self.apps.get(uid) else { return };
        if app.writing {
            return;
        }
        if let Some(written) = app.written.filter(|written| now < *written + BETWEEN) {
            return self.at(written + BETWEEN, Wake::App(uid.to_owned()));
        }
        let status = self.status_of(uid, app);
        if status == app.object.status {
            return;
        }
        let Some(app) = self.apps.get_mut(uid) else { return };
        (app.writing, app.written) = (true, Some(now));
        let (of, key, uid) = (Arc::clone(&self.of), app.key.clone(), uid.to_owned());
        self.begin(async move {
            let change = |object: &mut Application| object.status.clone_from(&status);
            let outcome = of.api.applications().update(&key.tenant, &key.name, Some(&uid), change).await;
            Done::WroteApp(uid, outcome.map(drop))
        });
    }

    fn status_of(&self, uid: &str, app: &App) -> ApplicationStatus {
        let tally = self.field.tally(uid);
        let mut status = ApplicationStatus {
            version: app.current,
            observed_generation: app.object.metadata.generation,
            desired_instances: app.allocated() + app.standing(),
            allocated_instances: app.allocated(),
            history: app.history.clone(),
            latest_history: app.history.first().cloned(),
            conditions: app.object.status.conditions.clone(),
            ..ApplicationStatus::default()
        };
        let numbers = app.versions.iter().flatten().map(|(number, _)| *number);
        for number in numbers {
            let mut version = ApplicationVersion { version: number, ..ApplicationVersion::default() };
            for of in tally.get(&number).into_iter().flat_map(|of| of.values()) {
                version.instances += of.all();
                version.idle_instances += of.ready;
                status.total_instances += of.all();
                status.pending_instances += of.creating;
                status.deleting_instances += of.ending;
                status.idle_instances += of.ready;
                status.ready_instances += of.ready + of.active;
            }
            version.preloaded = number <= app.current;
            version.sessions =
                u32::try_from(app.bound.values().filter(|of| **of == number).count()).unwrap_or(u32::MAX);
            status.versions.push(version);
        }
        self.conditions(app, &mut status);
        status
    }

    /// What an application says that takes sessions: also what it would have if its version were made now.
    fn ready_for(&self, app: &App) -> String {
        let takes = format!("version {} takes new sessions", app.current);
        let (Some(version), [container]) = (app.version(), &app.object.spec.containers[..]) else { return takes };
        let moved = versions::moved(&self.of.table, app.object.object(), &version.version);
        // While another version is made it is what was asked for.
        let Some((had, now)) = moved.filter(|_| version.template == versions::template(&app.object.spec)) else {
            return takes;
        };
        let (named, name) = (&container.function, &version.version.function.function);
        format!(
            "{takes}; it was made of {name}@{had}, and {named} is {name}@{now} by now: \
             for a version of that, name {name}@{now}"
        )
    }

    /// Whether an application would say something else of the version that it has than its status does.
    pub(super) fn is_outdated(&self, app: &App) -> bool {
        let ready = app.object.status.conditions.iter().find(|of| of.r#type == "Ready" && of.reason == READY);
        ready.is_some_and(|ready| ready.message != self.ready_for(app))
    }

    fn conditions(&self, app: &App, status: &mut ApplicationStatus) {
        let policy = &app.object.spec.scaling_policy;
        let time = Time::from(self.time());
        let mut set = |kind: &str, holds: bool, reason: &str, message: String| {
            let condition = Condition {
                r#type: kind.to_owned(),
                status: if holds { ConditionStatus::True } else { ConditionStatus::False },
                observed_generation: app.object.metadata.generation,
                last_transition_time: time,
                reason: reason.to_owned(),
                message,
            };
            Condition::set(&mut status.conditions, condition);
        };
        let newest = app.newest().map_or(0, |newest| newest.version.key.version);
        let current = app.current;
        let lacks = self.of.lacks_secret(app);
        match lacks.as_ref().or(app.fault.as_ref()) {
            Some(fault) => set("Ready", current > 0 && lacks.is_none(), fault.reason, fault.message.clone()),
            None if current == 0 => {
                set("Ready", false, "VersionNotReady", "the first version is not ready yet".to_owned())
            }
            None if app.failing.is_some() && status.ready_instances == 0 => {
                let (count, why) = app.failing.clone().unwrap_or_default();
                set("Ready", false, FAILING, failing(count, &why));
            }
            None => set("Ready", true, READY, self.ready_for(app)),
        }
        let missing = app.standing().saturating_sub(status.idle_instances + status.pending_instances);
        let starting = status.pending_instances;
        if app.is_deleted() {
            set("Progressing", true, "Deleting", "its sessions and instances end".to_owned());
        } else if newest > current {
            set("Progressing", true, "Preloading", format!("version {newest} is brought to the workers"));
        } else if let Some((count, why)) = &app.failing {
            set("Progressing", true, FAILING, failing(*count, why));
        } else if starting + missing > 0 {
            set("Progressing", true, "InstancesStarting", format!("{} instances start", starting + missing));
        } else {
            set("Progressing", false, "AtRest", String::new());
        }
        let full = app.allocated() >= policy.maximum_instance;
        let message =
            if full { format!("all {} instances have a session", policy.maximum_instance) } else { String::new() };
        set("Busy", full, if full { "MaximumReached" } else { "RoomLeft" }, message);
    }
}

/// What those are told who wait for an instance.
pub(super) fn failing(count: u32, why: &str) -> String {
    match count {
        1 => format!("an instance failed: {why}; another is started"),
        _ => format!("{count} instances failed one after the other, the last: {why}; another is started after a while"),
    }
}

impl App {
    /// Notes what was done.
    pub(super) fn note(&mut self, action: DeploymentAction, outcome: DeploymentStatus, message: String, time: Time) {
        /// Things done that a status tells.
        const HISTORY: usize = 10;
        let entry = DeploymentHistory {
            action,
            update_time: Some(time),
            reason: "scaling".to_owned(),
            message,
            deployment_status: outcome,
        };
        self.history.insert(0, entry);
        self.history.truncate(HISTORY);
    }
}
