//! What single requests are answered.

use http::{Method, header};
use http_body_util::BodyExt;
use lyra_resources::{Caller, Status};
use lyra_types::resources::SessionStatus;
use lyra_types::{Scope, Scopes, TenantName};
use serde_json::{Value, json};

use crate::site::{APPLICATIONS, Lines, SESSIONS, Site, application, pair, read, revision, session};

#[tokio::test]
async fn a_created_object_has_defaults_identity_and_no_status_of_the_client() {
    let site = Site::new().await;
    let mut wanted = session("a");
    wanted["status"] = json!({"sessionStatus": "Available"});
    wanted["metadata"]["uid"] = json!("mine");
    wanted["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
    let (code, created) = site.json(Method::POST, SESSIONS, wanted).await;
    assert_eq!((code, &created["status"]), (201, &Value::Null));
    assert_ne!(created["metadata"]["uid"], "mine");
    assert_eq!(created["metadata"]["deletionTimestamp"], Value::Null);
    assert_eq!((&created["metadata"]["generation"], &created["metadata"]["namespace"]), (&json!(1), &json!("game1")));
    assert_eq!(
        created["spec"],
        json!({"applicationName": "echo", "killInstanceWhenSessionClosed": true, "closeGracePeriodSeconds": 60,
            "openTimeoutSeconds": 10, "ttlSecondsAfterFinished": 300})
    );
    assert_eq!(site.get(&format!("{SESSIONS}/a")).await, (200, created));
    let (code, status) = site.json(Method::POST, SESSIONS, session("a")).await;
    assert_eq!((code, status["reason"].as_str()), (409, Some("AlreadyExists")));
    let (code, status) = site.get(&format!("{SESSIONS}/b")).await;
    assert_eq!((code, status["reason"].as_str()), (404, Some("NotFound")));
    assert_eq!(status["message"], "applicationsessions.lyra.dev \"b\" not found");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let site = Site::new().await;
    let mut object = site.create("a").await;
    object["status"] = json!({"sessionStatus": "Closed"});
    object["spec"]["closeGracePeriodSeconds"] = json!(1);
    let path = format!("{SESSIONS}/a");
    let (code, updated) = site.json(Method::PUT, &path, object.clone()).await;
    assert_eq!((code, &updated["status"], &updated["metadata"]["generation"]), (200, &Value::Null, &json!(2)));
    let (code, stale) = site.json(Method::PUT, &path, object.clone()).await;
    assert_eq!((code, stale["reason"].as_str()), (409, Some("Conflict")));
    object["metadata"]["resourceVersion"] = updated["metadata"]["resourceVersion"].clone();
    object["spec"]["closeGracePeriodSeconds"] = json!(9);
    let (code, updated) = site.json(Method::PUT, &format!("{path}/status"), object.clone()).await;
    assert_eq!(code, 200, "{updated}");
    assert_eq!(updated["status"]["sessionStatus"], "Closed");
    assert_eq!(
        (&updated["spec"]["closeGracePeriodSeconds"], &updated["metadata"]["generation"]),
        (&json!(1), &json!(2))
    );
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let (code, status) = site.json(Method::PUT, &path, object.clone()).await;
    assert_eq!((code, status["reason"].as_str()), (422, Some("Invalid")), "a replacement names what it replaces");
    let (code, _) = site.json(Method::PUT, &format!("{SESSIONS}/none"), session("none")).await;
    assert_eq!(code, 422);
    let mut unknown = session("none");
    unknown["metadata"]["resourceVersion"] = json!("1");
    assert_eq!(site.json(Method::PUT, &format!("{SESSIONS}/none"), unknown).await.0, 404, "no creation by replacement");
}

#[tokio::test]
async fn rules_hold_on_create_and_on_every_kind_of_change() {
    let site = Site::new().await;
    let mut bad = application("echo");
    bad["spec"]["scalingPolicy"]["maximumInstance"] = json!(0);
    let (code, status) = site.json(Method::POST, APPLICATIONS, bad).await;
    assert_eq!((code, status["reason"].as_str()), (422, Some("Invalid")));
    assert_eq!(status["details"]["causes"][0]["field"], "spec.scalingPolicy.maximumInstance");
    assert_eq!(site.json(Method::POST, APPLICATIONS, application("echo")).await.0, 201);
    let path = format!("{APPLICATIONS}/echo");
    let change = json!({"spec": {"scalingPolicy": {"maximumInstance": 0}}});
    for media in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        assert_eq!(site.patch(&path, media, change.clone()).await.0, 422, "{media}");
    }
    let operations = json!([{"op": "replace", "path": "/spec/scalingPolicy/maximumInstance", "value": 0}]);
    assert_eq!(site.patch(&path, "application/json-patch+json", operations).await.0, 422);
    let (code, _) =
        site.patch(&format!("{path}?fieldManager=x&force=true"), "application/apply-patch+yaml", change).await;
    assert_eq!(code, 422);
    assert_eq!(site.patch(&path, "text/plain", json!({})).await.0, 415);
    let mut full = session("s");
    full["spec"]["applicationName"] = json!("full");
    let response = site.send(Method::POST, SESSIONS, &[], full).await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    let (code, status) = read(response).await;
    assert_eq!((code, status["reason"].as_str()), (429, Some("TooManyRequests")));
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    site.create("s").await;
    let change = json!({"spec": {"applicationName": "other"}});
    assert_eq!(site.patch(&format!("{SESSIONS}/s"), "application/merge-patch+json", change).await.0, 422);
}

#[tokio::test]
async fn nothing_is_written_by_a_dry_run_of_any_verb() {
    let site = Site::new().await;
    let before = site.create("a").await;
    let path = format!("{SESSIONS}/a");
    let (code, shown) = site.json(Method::POST, &format!("{SESSIONS}?dryRun=All"), session("b")).await;
    assert_eq!((code, shown["spec"]["openTimeoutSeconds"].as_u64()), (201, Some(10)));
    assert_eq!(site.json(Method::POST, &format!("{SESSIONS}?dryRun=All"), session("a")).await.0, 409);
    let mut change = before.clone();
    change["spec"]["ttlSecondsAfterFinished"] = json!(1);
    let (code, shown) = site.json(Method::PUT, &format!("{path}?dryRun=All"), change.clone()).await;
    assert_eq!((code, shown["spec"]["ttlSecondsAfterFinished"].as_u64()), (200, Some(1)));
    let patch = json!({"spec": {"ttlSecondsAfterFinished": 1}});
    assert_eq!(site.patch(&format!("{path}?dryRun=All"), "application/merge-patch+json", patch).await.0, 200);
    let apply = format!("{SESSIONS}/c?dryRun=All&fieldManager=x");
    assert_eq!(site.patch(&apply, "application/apply-patch+yaml", session("c")).await.0, 201);
    assert_eq!(site.json(Method::DELETE, &format!("{path}?dryRun=All"), Value::Null).await.0, 200);
    assert_eq!(site.json(Method::DELETE, &path, json!({"dryRun": ["All"]})).await.0, 200);
    assert_eq!(site.json(Method::DELETE, &format!("{SESSIONS}?dryRun=All"), Value::Null).await.0, 200);
    let (_, list) = site.get(SESSIONS).await;
    assert_eq!(list["items"], json!([before]));
    assert_eq!(site.json(Method::POST, &format!("{SESSIONS}?dryRun=Some"), session("b")).await.0, 400);
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_ignored_as_the_client_says() {
    let site = Site::new().await;
    let mut stale = application("echo");
    stale["spec"]["workingMode"] = json!("x");
    stale["spec"]["sessionConfig"] = json!({"numOfSessionOfInstance": 1});
    let strict = format!("{APPLICATIONS}?fieldValidation=Strict");
    let (code, status) = site.json(Method::POST, &strict, stale.clone()).await;
    assert_eq!(code, 400);
    assert!(status["message"].as_str().unwrap().contains("unknown field \"spec.workingMode\""), "{status}");
    let response = site.send(Method::POST, APPLICATIONS, &[], stale.clone()).await;
    let warnings = response.headers().get_all(header::WARNING).iter().count();
    let (code, created) = read(response).await;
    assert_eq!((code, warnings, &created["spec"]["workingMode"]), (201, 2, &Value::Null));
    let path = format!("{APPLICATIONS}/echo?fieldValidation=Ignore");
    let response = site.send(Method::PATCH, &path, &[("content-type", "application/merge-patch+json")], stale).await;
    assert_eq!((response.status().as_u16(), response.headers().contains_key(header::WARNING)), (200, false));
    let double = r#"{"metadata":{"name":"x"},"spec":{"applicationName":"a","applicationName":"b"}}"#;
    let response = site.send(Method::POST, &format!("{SESSIONS}?fieldValidation=Strict"), &[], double).await;
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn a_patch_may_take_away_a_field_that_is_not_known_and_add_none() {
    let site = Site::new().await;
    site.json(Method::POST, APPLICATIONS, application("echo")).await;
    let path = format!("{APPLICATIONS}/echo?fieldValidation=Strict");
    for media in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        let (code, status) = site.patch(&path, media, json!({"spec": {"workingMode": "x"}})).await;
        assert_eq!(code, 400, "{status}");
        // `kubectl apply` does, where its user has let go of a field that had been left out with a warning.
        let (code, patched) = site.patch(&path, media, json!({"spec": {"workingMode": null}})).await;
        assert_eq!((code, &patched["metadata"]["generation"]), (200, &json!(1)), "{patched}");
    }
}

#[tokio::test]
async fn what_is_too_long_is_told_in_bytes_and_with_the_way_out() {
    let site = Site::new().await;
    let mut huge = application("huge");
    huge["spec"]["configData"] = json!({"level": "x".repeat(600 << 10)});
    let (code, refused) = site.json(Method::POST, APPLICATIONS, huge.clone()).await;
    assert_eq!(code, 422, "{refused}");
    let cause = &refused["details"]["causes"][0];
    assert_eq!(cause["message"], "Too long: 614405 bytes: may not be more than 524288 bytes", "{refused}");
    // What `kubectl apply` keeps of the object in the object itself has less room.
    huge["spec"]["configData"] = json!({"level": "x".repeat(400 << 10)});
    let copy = huge.to_string();
    huge["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": copy});
    let (code, refused) = site.json(Method::POST, APPLICATIONS, huge.clone()).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("metadata.annotations")), "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("use `kubectl apply --server-side`"), "{refused}");
    huge["metadata"]["annotations"] = json!({});
    assert_eq!(site.json(Method::POST, APPLICATIONS, huge).await.0, 201);
}

#[tokio::test]
async fn yaml_is_taken_and_given() {
    let site = Site::new().await;
    let yaml =
        "apiVersion: lyra.dev/v1\nkind: ApplicationSession\nmetadata:\n  name: y\nspec:\n  applicationName: echo\n";
    let response = site.send(Method::POST, SESSIONS, &[("content-type", "application/yaml")], yaml).await;
    assert_eq!(response.status(), 201);
    let response = site.send(Method::GET, &format!("{SESSIONS}/y"), &[("accept", "application/yaml")], "").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/yaml");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(std::str::from_utf8(&body).unwrap().contains("applicationName: echo"));
    let response = site.send(Method::GET, SESSIONS, &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
    assert_eq!(response.status(), 406);
    let response = site.send(Method::POST, SESSIONS, &[("content-type", "text/html")], "<a>").await;
    assert_eq!(response.status(), 415);
    let large = site.send(Method::POST, SESSIONS, &[], " ".repeat(4 << 20)).await;
    assert_eq!(large.status(), 413);
}

#[tokio::test]
async fn pages_of_a_list_show_one_revision_whatever_changes_in_between() {
    let site = Site::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        site.create(name).await;
    }
    let (_, first) = site.get(&format!("{SESSIONS}?limit=2")).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    site.json(Method::DELETE, &format!("{SESSIONS}/d"), Value::Null).await;
    site.create("cc").await;
    site.patch(&format!("{SESSIONS}/e"), "application/merge-patch+json", json!({"metadata": {"labels": {"x": "y"}}}))
        .await;
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    let (code, second) = site.get(&format!("{SESSIONS}?limit=10&continue={token}")).await;
    assert_eq!(code, 200);
    let names: Vec<_> = second["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["c", "d", "e"]);
    assert_eq!(second["items"][2]["metadata"]["labels"], json!({"n": "e"}));
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"]["continue"], Value::Null);
    // A process that began later does not know what was: the list has to begin anew.
    let site = site.restart().await;
    let (code, status) = site.get(&format!("{SESSIONS}?limit=10&continue={token}")).await;
    assert_eq!((code, status["reason"].as_str()), (410, Some("Expired")));
    assert_eq!(site.get(&format!("{SESSIONS}?continue=nonsense")).await.0, 400);
}

#[tokio::test]
async fn selectors_choose_by_labels_and_fields() {
    let site = Site::new().await;
    for name in ["a", "b", "c"] {
        site.create(name).await;
    }
    let tenant = TenantName::new("game1").unwrap();
    let open = |session: &mut lyra_types::resources::ApplicationSession| {
        session.status.session_status = SessionStatus::Available
    };
    site.api().sessions().update(&tenant, "b", None, open).await.unwrap();
    for (query, names) in [
        ("labelSelector=n%20in%20(a,c)", vec!["a", "c"]),
        ("labelSelector=n!%3Da", vec!["b", "c"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=status.sessionStatus%3DAvailable", vec!["b"]),
        ("fieldSelector=spec.applicationName%3Decho,metadata.name!%3Db", vec!["a", "c"]),
    ] {
        let (code, list) = site.get(&format!("{SESSIONS}?{query}")).await;
        let found: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!((code, found), (200, names), "{query}");
    }
    for bad in ["labelSelector=a%3D%3D%3Db", "fieldSelector=spec.nothing%3D1"] {
        assert_eq!(site.get(&format!("{SESSIONS}?{bad}")).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn tables_have_the_columns_that_kubectl_prints() {
    let site = Site::new().await;
    site.json(Method::POST, APPLICATIONS, application("echo")).await;
    site.create("a").await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let columns = |table: &Value| -> Vec<String> {
        let columns = table["columnDefinitions"].as_array().unwrap();
        columns
            .iter()
            .filter(|column| column["priority"] == 0)
            .map(|column| column["name"].as_str().unwrap().to_uppercase())
            .collect()
    };
    let (_, table) = read(site.send(Method::GET, APPLICATIONS, &accept, "").await).await;
    assert_eq!(columns(&table), ["NAME", "VERSION", "DESIRED", "READY", "IDLE", "ALLOCATED", "AGE"]);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, table) =
        read(site.send(Method::GET, &format!("{SESSIONS}/a?includeObject=Object"), &accept, "").await).await;
    assert_eq!(columns(&table), ["NAME", "APPLICATION", "STATUS", "ENDPOINT", "AGE"]);
    assert_eq!(table["rows"][0]["cells"][1], "echo");
    assert_eq!(table["rows"][0]["object"]["spec"]["applicationName"], "echo");
    let response = site.send(Method::GET, &format!("{SESSIONS}?watch=1"), &accept, "").await;
    let mut lines = Lines { body: response.into_body(), text: String::new() };
    let first = lines.next().await.unwrap();
    assert_eq!(
        (first["object"]["kind"].as_str(), first["object"]["rows"][0]["cells"][0].as_str()),
        (Some("Table"), Some("a"))
    );
    site.create("b").await;
    let second = lines.next().await.unwrap();
    assert_eq!(second["object"]["columnDefinitions"], json!([]), "columns are told once");
}

#[tokio::test]
async fn an_object_that_is_held_is_marked_and_goes_when_it_is_let_go() {
    let site = Site::new().await;
    let mut held = session("a");
    held["metadata"]["annotations"] = json!({"test/hold": "yes"});
    let (_, created) = site.json(Method::POST, SESSIONS, held).await;
    assert_eq!(created["metadata"]["finalizers"], json!(["lyra.dev/close"]));
    let path = format!("{SESSIONS}/a");
    let options =
        json!({"propagationPolicy": "Foreground", "gracePeriodSeconds": 5, "preconditions": {"uid": "other"}});
    assert_eq!(site.json(Method::DELETE, &path, options).await.0, 409);
    let (code, marked) = site.json(Method::DELETE, &path, json!({"gracePeriodSeconds": 5})).await;
    assert_eq!((code, &marked["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(5)));
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["lyra.dev/close", "lyra.dev/another"]}});
    assert_eq!(site.patch(&path, "application/merge-patch+json", more).await.0, 422);
    let mut watch = site.watch(&format!("{SESSIONS}?watch=1&resourceVersion={}", revision(&marked))).await;
    let (code, _) = site.patch(&path, "application/merge-patch+json", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, 200);
    assert_eq!(watch.told().await, pair("DELETED", "a"));
    assert_eq!(site.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let site = Site::new().await;
    for name in ["a", "b", "c"] {
        site.create(name).await;
    }
    let (code, gone) = site.json(Method::DELETE, &format!("{SESSIONS}?labelSelector=n!%3Db"), Value::Null).await;
    assert_eq!((code, gone["items"].as_array().map(Vec::len)), (200, Some(2)));
    let (_, rest) = site.get(SESSIONS).await;
    assert_eq!(rest["items"][0]["metadata"]["name"], "b");
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn server_side_apply_keeps_who_set_what() {
    let site = Site::new().await;
    let path = |manager: &str| format!("{APPLICATIONS}/echo?fieldManager={manager}");
    let media = "application/apply-patch+yaml";
    let (code, created) = site.patch(&path("one"), media, application("echo")).await;
    assert_eq!(code, 201, "{created}");
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!((entry["manager"].as_str(), entry["operation"].as_str()), (Some("one"), Some("Apply")));
    assert_eq!(entry["fieldsV1"]["f:spec"]["f:scalingPolicy"]["f:maximumInstance"], json!({}));
    let (code, again) = site.patch(&path("one"), media, application("echo")).await;
    assert_eq!((code, revision(&again)), (200, revision(&created)), "the same again changes nothing");
    let mine = json!({"apiVersion": "lyra.dev/v1", "kind": "Application", "spec": {"scalingPolicy": {"maximumInstance": 9}}, "metadata": {"name": "echo"}});
    let (code, status) = site.patch(&path("two"), media, mine.clone()).await;
    assert_eq!((code, status["details"]["causes"][0]["reason"].as_str()), (409, Some("FieldManagerConflict")));
    assert_eq!(status["details"]["causes"][0]["field"], ".spec.scalingPolicy.maximumInstance");
    let (code, changed) = site.patch(&format!("{}&force=true", path("two")), media, mine).await;
    assert_eq!((code, &changed["spec"]["scalingPolicy"]["maximumInstance"]), (200, &json!(9)));
    assert_eq!(changed["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
    assert_eq!(site.patch(&format!("{APPLICATIONS}/echo"), media, json!({})).await.0, 400, "a manager is needed");
    let edit = json!({"spec": {"configData": {"a": "b"}}});
    site.patch(&path("editor"), "application/merge-patch+json", edit).await;
    let (_, object) = site.get(&format!("{APPLICATIONS}/echo")).await;
    let managers: Vec<_> =
        object["metadata"]["managedFields"].as_array().unwrap().iter().map(|entry| &entry["manager"]).collect();
    assert!(
        managers.contains(&&json!("one")) && managers.contains(&&json!("two")) && managers.contains(&&json!("editor"))
    );
}

#[tokio::test]
async fn a_caller_of_one_tenant_is_refused_elsewhere_in_kubernetes_words() {
    let site = Site::new().await;
    site.create("a").await;
    let user = Caller::of_tenants("user", [TenantName::new("game1").unwrap()]);
    let (asking, caller) = (&site, &user);
    let get = |path: String| async move { read(asking.send_as(caller, Method::GET, &path, &[], "").await).await };
    assert_eq!(get(SESSIONS.to_owned()).await.0, 200);
    let (code, status) = get(SESSIONS.replace("game1", "game2")).await;
    assert_eq!((code, status["reason"].as_str()), (403, Some("Forbidden")));
    assert_eq!(
        status["message"],
        "applicationsessions.lyra.dev is forbidden: User \"user\" cannot list resource \"applicationsessions\" in API \
         group \"lyra.dev\" in the namespace \"game2\""
    );
    let (code, status) = get("/apis/lyra.dev/v1/applicationsessions?watch=1".to_owned()).await;
    assert!(code == 403 && status["message"].as_str().unwrap().contains("cannot watch"), "{status}");
    for internal in ["/api/v1/pods", "/api/v1/namespaces/game1/pods", "/api/v1/nodes", "/apis/apps/v1/deployments"] {
        assert_eq!(get(internal.to_owned()).await.0, 404, "{internal}");
    }
    let ask = |namespace: &str, resource: &str| json!({"spec": {"resourceAttributes": {"namespace": namespace, "verb": "create", "group": "lyra.dev", "resource": resource}}});
    let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (namespace, resource, allowed) in
        [("game1", "applications", true), ("game2", "applications", false), ("game1", "pods", false)]
    {
        let (code, answer) = read(site.send_as(&user, Method::POST, review, &[], ask(namespace, resource)).await).await;
        assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(allowed)), "{namespace} {resource}");
    }
}

#[tokio::test]
async fn malformed_requests_are_told_what_is_wrong() {
    let site = Site::new().await;
    for (method, path, body, code) in [
        (Method::POST, SESSIONS, "{", 400),
        (Method::POST, SESSIONS, "[]", 400),
        (Method::POST, SESSIONS, r#"{"kind":"Pod"}"#, 400),
        (Method::POST, SESSIONS, r#"{"metadata":{"name":"A"},"spec":{"applicationName":"x"}}"#, 422),
        (Method::POST, SESSIONS, r#"{"metadata":{"name":"a","namespace":"x"},"spec":{"applicationName":"x"}}"#, 400),
        (Method::POST, SESSIONS, r#"{"metadata":{"name":"a","resourceVersion":"1"}}"#, 400),
        (Method::POST, "/apis/lyra.dev/v1/applicationsessions", "{}", 405),
        (Method::POST, "/apis/lyra.dev/v1/namespaces/BAD!/applicationsessions", "{}", 404),
        (Method::PUT, SESSIONS, "{}", 405),
        (Method::GET, "/apis/lyra.dev/v1/namespaces/game1/applicationsessions/a/logs", "", 404),
        (Method::GET, "/apis/nothing/v1/things", "", 404),
        (Method::POST, "/apis", "", 405),
        (Method::GET, "/apis/lyra.dev/v1/namespaces/%FF/applications", "", 400),
    ] {
        let (answered, status) = read(site.send(method.clone(), path, &[], body).await).await;
        assert_eq!((answered, status["kind"].as_str()), (code, Some("Status")), "{method} {path} {body}: {status}");
    }
}

#[tokio::test]
async fn events_are_shown_in_both_groups() {
    let site = Site::new().await;
    site.json(Method::POST, APPLICATIONS, application("echo")).await;
    for _ in 0..3 {
        crate::tell(&site.server, "echo", "Scaled", "to 3");
    }
    let (_, list) = site.get("/api/v1/namespaces/game1/events?fieldSelector=involvedObject.name%3Decho,involvedObject.kind%3DApplication").await;
    assert_eq!((&list["items"][0]["count"], &list["items"][0]["reason"]), (&json!(3), &json!("Scaled")));
    let (_, list) = site.get("/apis/events.k8s.io/v1/events").await;
    assert_eq!((&list["items"][0]["deprecatedCount"], &list["items"][0]["note"]), (&json!(3), &json!("to 3")));
    let (_, none) = site.get("/api/v1/events?fieldSelector=involvedObject.name%3Dother").await;
    assert_eq!(none["items"], json!([]));
    assert_eq!(site.get("/api/v1/events?fieldSelector=x%3Dy").await.0, 400);
    let mut watch = site.watch(&format!("/api/v1/events?watch=1&resourceVersion={}", revision(&list))).await;
    crate::tell(&site.server, "echo", "Scaled", "to 4");
    assert_eq!(watch.next().await.unwrap()["object"]["message"], "to 4");
}

#[tokio::test]
async fn a_status_is_an_error_that_can_be_shown() {
    let status = Status::forbidden("no");
    assert_eq!(status.to_string(), "no (403 Forbidden)");
    assert_eq!(status.to_json()["details"], Value::Null);
}

#[tokio::test]
async fn each_scope_has_its_verbs_and_no_other() {
    let site = Site::new().await;
    site.create("a").await;
    let objects = |root: &str| {
        let (list, one) = (root.to_owned(), format!("{root}/nothing"));
        [
            (Method::GET, list.clone(), "read"),
            (Method::GET, one.clone(), "read"),
            (Method::POST, list.clone(), "write"),
            (Method::PUT, one.clone(), "write"),
            (Method::PATCH, one.clone(), "write"),
            (Method::DELETE, one.clone(), "write"),
            (Method::DELETE, format!("{list}?labelSelector=none"), "write"),
            (Method::GET, format!("{one}/status"), "read"),
            (Method::PATCH, format!("{one}/status"), "write-status"),
        ]
    };
    let events = (Method::GET, "/api/v1/namespaces/game1/events".to_owned(), "read");
    for scope in Scope::ALL {
        let scopes = Scopes::of(&[scope]);
        let caller = match scope {
            Scope::Operator => Caller::operator("root").with_scopes(scopes),
            _ => Caller::of_tenants("ada", [TenantName::new("game1").unwrap()]).with_scopes(scopes),
        };
        let all = objects(APPLICATIONS).into_iter().map(|row| (row, false));
        let all = all.chain(objects(SESSIONS).into_iter().map(|row| (row, true))).chain([(events.clone(), false)]);
        for ((method, path, kind), of_sessions) in all {
            let may = match (scope, kind) {
                (Scope::Operator, _) => true,
                (Scope::Read, "read") => true,
                (Scope::Deploy, "write" | "write-status") => true,
                (Scope::Invoke, "read" | "write") => of_sessions,
                _ => false,
            };
            let headers = [("content-type", "application/merge-patch+json")];
            let headers = if method == Method::PATCH { &headers[..] } else { &[] };
            let body = if method == Method::GET { "" } else { "{}" };
            let (code, status) = read(site.send_as(&caller, method.clone(), &path, headers, body).await).await;
            assert_eq!(code != 403, may, "{scope:?} {method} {path}: {code} {status}");
            if scope != Scope::Operator {
                let elsewhere = path.replace("game1", "game2");
                let (code, _) = read(site.send_as(&caller, method.clone(), &elsewhere, headers, body).await).await;
                assert_eq!(code, 403, "{scope:?} {method} {elsewhere}");
            }
        }
        for document in ["/api", "/apis", "/apis/lyra.dev/v1", "/openapi/v2", "/openapi/v3"] {
            let answer = site.send_as(&caller, Method::GET, document, &[], "").await;
            assert_eq!(answer.status(), 200, "{scope:?} {document}");
        }
    }
}
