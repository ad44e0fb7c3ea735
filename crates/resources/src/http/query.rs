//! Parameters of requests.

use crate::Status;

/// What a client does about fields that the server does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum FieldValidation {
    /// Says nothing.
    Ignore,
    /// Says it in `Warning` headers.
    #[default]
    Warn,
    /// Refuses.
    Strict,
}

/// What a table shows of each object beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

/// Parameters of a request. Unknown ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Query {
    pub(super) watch: bool,
    pub(super) resource_version: String,
    pub(super) resource_version_match: String,
    pub(super) send_initial_events: Option<bool>,
    pub(super) allow_watch_bookmarks: bool,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) limit: usize,
    pub(super) continue_token: String,
    pub(super) label_selector: String,
    pub(super) field_selector: String,
    pub(super) dry_run: bool,
    pub(super) field_manager: String,
    pub(super) field_validation: FieldValidation,
    pub(super) force: bool,
    pub(super) grace_period_seconds: Option<i64>,
    pub(super) include: Include,
}

impl Query {
    /// Reads a query string.
    ///
    /// # Errors
    /// 400 with the parameter that is not valid.
    pub(super) fn parse(text: &str) -> Result<Query, Status> {
        let mut query = Query::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let wrong = || Status::bad_request(format!("{name}: Invalid value: \"{}\"", value.escape_debug()));
            match &*name {
                "watch" => query.watch = flag(&value).ok_or_else(wrong)?,
                "resourceVersion" => query.resource_version = value.into_owned(),
                "resourceVersionMatch" => query.resource_version_match = value.into_owned(),
                "sendInitialEvents" => query.send_initial_events = Some(flag(&value).ok_or_else(wrong)?),
                "allowWatchBookmarks" => query.allow_watch_bookmarks = flag(&value).ok_or_else(wrong)?,
                "timeoutSeconds" => query.timeout_seconds = Some(value.parse().map_err(|_| wrong())?),
                "limit" if value.is_empty() => {}
                "limit" => query.limit = value.parse().map_err(|_| wrong())?,
                "continue" => query.continue_token = value.into_owned(),
                "labelSelector" => query.label_selector = value.into_owned(),
                "fieldSelector" => query.field_selector = value.into_owned(),
                "dryRun" => match &*value {
                    "" => {}
                    "All" => query.dry_run = true,
                    _ => return Err(wrong()),
                },
                "fieldManager" => query.field_manager = value.into_owned(),
                "fieldValidation" => {
                    query.field_validation = match &*value {
                        "" | "Warn" => FieldValidation::Warn,
                        "Ignore" => FieldValidation::Ignore,
                        "Strict" => FieldValidation::Strict,
                        _ => return Err(wrong()),
                    }
                }
                "force" => query.force = flag(&value).ok_or_else(wrong)?,
                "gracePeriodSeconds" => query.grace_period_seconds = Some(value.parse().map_err(|_| wrong())?),
                "includeObject" => {
                    query.include = match &*value {
                        "None" => Include::None,
                        "" | "Metadata" => Include::Metadata,
                        "Object" => Include::Object,
                        _ => return Err(wrong()),
                    }
                }
                _ => {}
            }
        }
        if query.field_manager.len() > 128 || query.field_manager.chars().any(char::is_control) {
            return Err(Status::bad_request(
                "fieldManager: Invalid value: may not be more than 128 printable characters",
            ));
        }
        Ok(query)
    }

    /// The revision that was named, if one was.
    pub(super) fn revision(&self) -> Result<Option<u64>, Status> {
        if self.resource_version.is_empty() {
            return Ok(None);
        }
        self.resource_version.parse().map(Some).map_err(|_| {
            let shown: String = self.resource_version.chars().take(40).collect();
            Status::bad_request(format!("resourceVersion: Invalid value: \"{}\"", shown.escape_debug()))
        })
    }
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_bad_ones_refused() {
        let query =
            Query::parse("watch=1&resourceVersion=12&limit=500&labelSelector=a%3Db&x=y&dryRun=All&force").unwrap();
        assert!(query.watch && query.dry_run && query.force);
        assert_eq!((query.limit, query.label_selector.as_str(), query.revision()), (500, "a=b", Ok(Some(12))));
        for bad in ["limit=-1", "watch=maybe", "dryRun=Some", "fieldValidation=Loud", "timeoutSeconds=x"] {
            assert_eq!(Query::parse(bad).unwrap_err().code, 400, "{bad}");
        }
        assert!(Query::parse("resourceVersion=abc").unwrap().revision().is_err());
    }
}
