//! What a path names.

use percent_encoding::percent_decode_str;

use crate::Status;

/// What a path names.
pub(super) enum What {
    /// A document about the server.
    Document,
    /// A question about access.
    Review(Review),
    /// Objects; and whether the path asks to watch them (the old form).
    Target(Target, bool),
}

/// Questions about access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Review {
    /// `selfsubjectaccessreviews`: may I do that?
    Access,
    /// `selfsubjectrulesreviews`: what may I do?
    Rules,
    /// `selfsubjectreviews`: who am I?
    Subject,
}

/// Objects that a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: Option<String>,
    pub(super) resource: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Target {
    /// Reads a path.
    ///
    /// # Errors
    /// 404 where there is nothing of the kind.
    pub(super) fn parse(path: &str) -> Result<What, Status> {
        let segments: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned))
            .collect::<Result<_, _>>()
            .map_err(|_| Status::bad_request("the path is not UTF-8"))?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments[..] {
            ["api", "v1", ref rest @ ..] => ("", "v1", rest),
            ["apis", group, version, ref rest @ ..] => (group, version, rest),
            ["api" | "version"] | ["apis"] | ["apis", _] | ["openapi", ..] => return Ok(What::Document),
            _ => return Err(Status::no_such_path()),
        };
        match (group, rest) {
            (_, []) => return Ok(What::Document),
            ("authorization.k8s.io", ["selfsubjectaccessreviews"]) => return Ok(What::Review(Review::Access)),
            ("authorization.k8s.io", ["selfsubjectrulesreviews"]) => return Ok(What::Review(Review::Rules)),
            ("authentication.k8s.io", ["selfsubjectreviews"]) => return Ok(What::Review(Review::Subject)),
            _ => {}
        }
        let (watched, rest) = match rest {
            ["watch", rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        if version != "v1" {
            return Err(Status::no_such_path());
        }
        let own = |text: &str| Some(text.to_owned());
        let (namespace, resource, name, subresource) = match rest {
            ["namespaces"] => (None, "namespaces", None, None),
            ["namespaces", name] => (None, "namespaces", own(name), None),
            ["namespaces", namespace, resource] => (own(namespace), *resource, None, None),
            ["namespaces", namespace, resource, name] => (own(namespace), *resource, own(name), None),
            ["namespaces", namespace, resource, name, sub] => (own(namespace), *resource, own(name), own(sub)),
            [resource] => (None, *resource, None, None),
            _ => return Err(Status::no_such_path()),
        };
        let target = Target {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace,
            resource: resource.to_owned(),
            name,
            subresource,
        };
        Ok(What::Target(target, watched))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Option<(Target, bool)> {
        match Target::parse(path) {
            Ok(What::Target(target, watched)) => Some((target, watched)),
            _ => None,
        }
    }

    #[test]
    fn paths_name_objects_collections_and_documents() {
        let (one, watched) = target("/apis/lyra.dev/v1/namespaces/game1/applications/echo/status").unwrap();
        assert_eq!(one.namespace.as_deref(), Some("game1"));
        assert_eq!((one.name.as_deref(), one.subresource.as_deref(), watched), (Some("echo"), Some("status"), false));
        let (all, watched) = target("/apis/lyra.dev/v1/watch/applicationsessions").unwrap();
        assert_eq!((all.namespace, all.name, watched), (None, None, true));
        assert_eq!(target("/api/v1/namespaces/game1").unwrap().0.name.as_deref(), Some("game1"));
        for document in ["/api", "/apis/", "/apis/lyra.dev", "/apis/lyra.dev/v1", "/openapi/v3/apis/x", "/version"] {
            assert!(matches!(Target::parse(document), Ok(What::Document)), "{document}");
        }
        for nothing in ["/", "/x", "/apis/a/v1/b/c", "/apis/lyra.dev/v2/applications", "/api/v1/a/b/c/d/e/f"] {
            assert!(Target::parse(nothing).is_err(), "{nothing}");
        }
    }
}
