//! Properties and constraints of functions, as settings; `docs/reference/afcl.md` lists them.

use std::time::Duration;

use serde_json::Value;

use super::Lowering;
use crate::diagnostic::DiagnosticCode as Code;
use crate::document::{Construct, Setting, list, quote, unknown};
use crate::graph::{Catch, Memo, Retry, Settings};

/// Properties that say how a function is called.
const PROPERTIES: &[&str] = &[
    "timeout",
    "retry-attempts",
    "retry-initial",
    "retry-factor",
    "retry-maximum",
    "retry-jitter",
    "retry-never",
    "redundancy",
    "catch",
    "catch-codes",
    "alternatives",
    "memo",
    "memo-ttl",
    "memo-keys",
];

/// Properties of AFCL that have no effect here: the type mapping decides, or they are for other tools.
const WITHOUT_EFFECT: &[&str] =
    &["resource", "deployment", "invoke-type", "simValue", "service", "provider", "language"];

/// Constraints of functions, from 1.0.
const CONSTRAINTS: &[&str] =
    &["FT-Retries", "FT-AltPlan-0", "C-latestStartingTime", "C-latestFinishingTime", "C-maxRunningTime"];

/// Most tries, and most calls at once.
const MOST: u32 = 1000;

impl<'d> Lowering<'d, '_> {
    /// How a function is called.
    pub(super) fn settings(&mut self, function: &'d Construct) -> Settings {
        let mut settings = Settings::default();
        let mut plans = Vec::new();
        for property in &function.properties {
            if self.property(property, &mut settings).is_none() {
                let message =
                    format!("the property {} {}", quote(&property.name.value), expected(&property.name.value));
                self.findings.error(property.value.at, Code::InvalidProperty, message);
            }
        }
        for constraint in &function.constraints {
            if self.constraint(constraint, &mut settings, &mut plans).is_none() {
                let message =
                    format!("the constraint {} {}", quote(&constraint.name.value), expected(&constraint.name.value));
                self.findings.error(constraint.value.at, Code::InvalidConstraint, message);
            }
        }
        plans.sort_by_key(|(number, _)| *number);
        let planned = plans.into_iter().flat_map(|(_, types)| types);
        for function_type in planned {
            settings.catch.get_or_insert_with(nothing_caught).alternatives.push(function_type);
        }
        settings
    }

    /// One property; none where its value is not one that it takes.
    fn property(&mut self, property: &Setting, settings: &mut Settings) -> Option<()> {
        let value = &property.value.value;
        let name = property.name.value.as_str();
        let retry = |settings: &mut Settings, set: &mut dyn FnMut(&mut Retry)| {
            set(settings.retry.get_or_insert_with(one_try));
        };
        match name {
            "timeout" => settings.timeout = Some(duration(value).filter(|time| !time.is_zero())?),
            "retry-attempts" => {
                let attempts = whole(value).filter(|n| (1..=MOST).contains(n))?;
                retry(settings, &mut |retry| retry.attempts = attempts);
            }
            "retry-initial" => {
                let time = duration(value)?;
                retry(settings, &mut |retry| retry.initial = time);
            }
            "retry-maximum" => {
                let time = duration(value)?;
                retry(settings, &mut |retry| retry.maximum = time);
            }
            "retry-factor" => {
                let factor = real(value).filter(|factor| (1.0..=100.0).contains(factor))?;
                retry(settings, &mut |retry| retry.factor = factor);
            }
            "retry-jitter" => {
                let jitter = real(value).filter(|jitter| (0.0..=1.0).contains(jitter))?;
                retry(settings, &mut |retry| retry.jitter = jitter);
            }
            "retry-never" => {
                let codes = words(value)?;
                retry(settings, &mut |retry| retry.never.clone_from(&codes));
            }
            "redundancy" => settings.redundancy = Some(whole(value).filter(|n| (1..=MOST).contains(n))?),
            "catch" => {
                let object = match value {
                    Value::Object(object) => object.clone(),
                    Value::String(text) => serde_json::from_str(text).ok()?,
                    _ => return None,
                };
                settings.catch.get_or_insert_with(nothing_caught).value = Some(object);
            }
            "catch-codes" => settings.catch.get_or_insert_with(nothing_caught).codes = words(value)?,
            "alternatives" => settings.catch.get_or_insert_with(nothing_caught).alternatives = words(value)?,
            "memo" => match truth(value)? {
                true => drop(settings.memo.get_or_insert_with(Memo::default)),
                false => settings.memo = None,
            },
            "memo-ttl" => settings.memo.get_or_insert_with(Memo::default).ttl = Some(duration(value)?),
            "memo-keys" => settings.memo.get_or_insert_with(Memo::default).keys = words(value)?,
            _ => self.check_property(property),
        }
        Some(())
    }

    /// Whether a property that is not a setting may stand there.
    pub(super) fn check_property(&mut self, property: &Setting) {
        let name = property.name.value.as_str();
        if !name.starts_with("x-") && !WITHOUT_EFFECT.contains(&name) {
            let hint = unknown(name, PROPERTIES).replace("it has", "there are");
            let message = format!("there is no property {}{hint}; names that begin with `x-` are yours", quote(name));
            self.findings.error(property.name.at, Code::UnknownProperty, message);
        }
    }

    /// One constraint; none where its value is not one that it takes.
    fn constraint(
        &mut self,
        constraint: &Setting,
        settings: &mut Settings,
        plans: &mut Vec<(u32, Vec<String>)>,
    ) -> Option<()> {
        let value = &constraint.value.value;
        match constraint.name.value.as_str() {
            "FT-Retries" => {
                let retries = whole(value).filter(|n| *n < MOST)?;
                settings.retry.get_or_insert_with(one_try).attempts = retries + 1;
            }
            "C-latestStartingTime" => settings.latest_start = Some(milliseconds(value)?),
            "C-latestFinishingTime" => settings.latest_end = Some(milliseconds(value)?),
            "C-maxRunningTime" => settings.timeout = Some(milliseconds(value)?),
            "FT-AltStrat-requiredAvailability" => {
                real(value).filter(|availability| (0.0..=1.0).contains(availability))?;
                let message =
                    "FT-AltStrat-requiredAvailability has no effect: FT-AltPlan-0, … say what is called instead";
                self.findings.warn(constraint.name.at, Code::NoEffect, message);
            }
            name => match name.strip_prefix("FT-AltPlan-").map(str::parse) {
                Some(Ok(number)) => {
                    let text = value.as_str()?;
                    // The first part is how probable success is.
                    let types = text.split(';').skip(1).map(str::trim).filter(|part| !part.is_empty());
                    plans.push((number, types.map(str::to_owned).collect()));
                }
                _ => self.unknown_constraint(constraint, "a function", CONSTRAINTS),
            },
        }
        Some(())
    }

    /// Reports a constraint that does not exist here.
    pub(super) fn unknown_constraint(&mut self, constraint: &Setting, what: &str, known: &[&str]) {
        let name = quote(&constraint.name.value);
        let hint = if known.is_empty() { "; it takes none".to_owned() } else { format!("; it takes {}", list(known)) };
        let message = format!("{what} has no constraint {name}{hint}");
        self.findings.error(constraint.name.at, Code::UnknownConstraint, message);
    }

    /// Checks properties and constraints of a compound, of which it takes those in `known`.
    pub(super) fn check_settings(&mut self, compound: &'d Construct, known: &[&str]) {
        for property in &compound.properties {
            if PROPERTIES.contains(&property.name.value.as_str()) {
                let message = format!(
                    "the property {} belongs to functions, not to {} {}",
                    quote(&property.name.value),
                    compound.kind.keyword(),
                    quote(&compound.name.value)
                );
                self.findings.error(property.name.at, Code::UnknownProperty, message);
            } else {
                self.check_property(property);
            }
        }
        for constraint in &compound.constraints {
            if !known.contains(&constraint.name.value.as_str()) {
                self.unknown_constraint(constraint, compound.kind.keyword(), known);
            }
        }
    }

    /// `concurrency`: most iterations that are under way at a time.
    pub(super) fn concurrency(&mut self, compound: &'d Construct) -> Option<u32> {
        let constraint = compound.constraints.iter().find(|constraint| constraint.name.value == "concurrency")?;
        let found = whole(&constraint.value.value).filter(|n| *n >= 1);
        if found.is_none() {
            let message = "the constraint `concurrency` takes a whole number from 1";
            self.findings.error(constraint.value.at, Code::InvalidConstraint, message);
        }
        found
    }
}

fn one_try() -> Retry {
    Retry {
        attempts: 1,
        initial: Retry::default_initial(),
        factor: Retry::default_factor(),
        maximum: Retry::default_maximum(),
        jitter: Retry::default_jitter(),
        never: Vec::new(),
    }
}

fn nothing_caught() -> Catch {
    Catch { codes: Vec::new(), alternatives: Vec::new(), value: None }
}

/// What a property or constraint takes.
fn expected(name: &str) -> &'static str {
    match name {
        "timeout" | "retry-initial" | "retry-maximum" | "memo-ttl" => "takes a duration: `30s`, `500ms`, `2m`",
        "retry-attempts" | "redundancy" => "takes a whole number from 1 to 1000",
        "retry-factor" => "takes a number from 1 to 100",
        "retry-jitter" | "FT-AltStrat-requiredAvailability" => "takes a number from 0 to 1",
        "retry-never" | "catch-codes" | "alternatives" | "memo-keys" => "takes names, separated by commas",
        "catch" => "takes the output to go on with, an object",
        "memo" => "takes true or false",
        "FT-Retries" => "takes a whole number from 0 to 999",
        "C-latestStartingTime" | "C-latestFinishingTime" | "C-maxRunningTime" => "takes milliseconds",
        _ => "takes `PROBABILITY; FUNCTION TYPE; FUNCTION TYPE; …`",
    }
}

fn duration(value: &Value) -> Option<Duration> {
    let time = humantime::parse_duration(value.as_str()?).ok()?;
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
    (time <= LONGEST).then_some(time)
}

fn milliseconds(value: &Value) -> Option<Duration> {
    const LONGEST: u64 = 366 * 24 * 3600 * 1000;
    let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())?;
    (number <= LONGEST).then_some(Duration::from_millis(number))
}

fn whole(value: &Value) -> Option<u32> {
    let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())?;
    u32::try_from(number).ok()
}

fn real(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn truth(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| value.as_str()?.trim().parse().ok())
}

fn words(value: &Value) -> Option<Vec<String>> {
    let each = |item: &Value| item.as_str().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    match value {
        Value::String(text) => {
            let words: Vec<String> = text.split(',').map(|word| word.trim().to_owned()).collect();
            words.iter().all(|word| !word.is_empty()).then_some(words)
        }
        Value::Array(items) => items.iter().map(each).collect(),
        _ => None,
    }
}
