//! Tests of [`super`].

use super::*;

fn js(source: &str) -> DeployRequest {
    DeployRequest {
        runtime: "js".to_owned(),
        code: CodeInput { source: Some(source.to_owned()), ..CodeInput::default() },
        ..DeployRequest::default()
    }
}

fn fields(request: DeployRequest) -> Vec<String> {
    let error = check(request).unwrap_err();
    assert_eq!(error.code, Code::InvalidField);
    assert!(error.detail.starts_with(&error.errors[0].field), "{error}");
    error.errors.into_iter().map(|fault| fault.field).collect()
}

fn reason(request: DeployRequest) -> String {
    check(request).unwrap_err().errors.remove(0).reason
}

#[test]
fn fills_in_the_documented_defaults() {
    let checked = check(js("export default 1")).unwrap();
    assert_eq!((checked.memory_mb, checked.timeout_ms, checked.max_attempts), (128, 60_000, 3));
    assert_eq!((checked.isolation.as_str(), checked.reuse, checked.promote), ("auto", false, true));
    assert_eq!((checked.concurrency, checked.min_instances, checked.max_instances), (1_000, 0, 1_000));
    assert_eq!(checked.code, "export default 1");
}

#[test]
fn tells_every_fault_in_one_answer() {
    let request = DeployRequest {
        memory_mb: Some(8),
        timeout_ms: Some(0),
        concurrency: Some(0),
        max_attempts: Some(101),
        min_instances: Some(5),
        max_instances: Some(4),
        isolation: Some("vm".to_owned()),
        balancing: Some("random".to_owned()),
        sessions: Some(SessionsRequest { application: "Chat".to_owned(), key: "body".to_owned() }),
        handler: Some("a b".to_owned()),
        env: [("1A".to_owned(), String::new()), ("B".to_owned(), "\0".to_owned())].into(),
        labels: [(String::new(), String::new())].into(),
        runtime: "cobol".to_owned(),
        ..js("")
    };
    let mut told = fields(request);
    told.sort();
    let expected = [
        "balancing",
        "concurrency",
        "env.1A",
        "env.B",
        "handler",
        "isolation",
        "labels.",
        "max_attempts",
        "memory_mb",
        "min_instances",
        "min_instances",
        "runtime",
        "sessions.application",
        "sessions.key",
        "timeout_ms",
    ];
    assert_eq!(told, expected);
}

#[test]
fn ranges_hold_at_both_ends() {
    for (memory, fits) in [(15, false), (16, true), (1_024, true), (1_025, false)] {
        assert_eq!(check(DeployRequest { memory_mb: Some(memory), ..js("1") }).is_ok(), fits, "{memory}");
    }
    for (timeout, fits) in [(0, false), (1, true), (900_000, true), (900_001, false)] {
        assert_eq!(check(DeployRequest { timeout_ms: Some(timeout), ..js("1") }).is_ok(), fits, "{timeout}");
    }
}

#[test]
fn runtimes_of_the_interface_that_are_missing_are_told_from_unknown_ones() {
    for known in OTHER_RUNTIMES {
        assert!(reason(DeployRequest { runtime: known.to_owned(), ..js("1") }).contains("not in this build yet"));
    }
    assert!(reason(DeployRequest { runtime: "cobol".to_owned(), ..js("1") }).contains("there is no runtime \"cobol\""));
}

#[test]
fn code_comes_in_exactly_one_form_that_fits_the_runtime() {
    let with = |runtime: &str, code: CodeInput| DeployRequest { runtime: runtime.to_owned(), code, ..js("") };
    let some = |text: &str| Some(text.to_owned());
    assert!(reason(with("js", CodeInput::default())).contains("none of"));
    let both = CodeInput { source: some("1"), zip: some("AA=="), ..CodeInput::default() };
    assert!(reason(with("js", both)).contains("both source and zip"));
    let wasm = CodeInput { wasm: some("AGFzbQ=="), ..CodeInput::default() };
    assert_eq!(check(with("wasm", wasm.clone())).unwrap().code, &b"\0asm"[..]);
    assert_eq!(fields(with("js", wasm)), ["code.wasm"]);
    assert_eq!(fields(with("wasm", CodeInput { source: some("1"), ..CodeInput::default() })), ["code.source"]);
    assert_eq!(fields(with("js", CodeInput { image: some("x:1"), ..CodeInput::default() })), ["code.image"]);
    let bad = reason(with("wasm", CodeInput { wasm: some("!!"), ..CodeInput::default() }));
    assert!(bad.contains("is not base64"), "{bad}");
    let bad = reason(with("js", CodeInput { zip: some("AAAA"), ..CodeInput::default() }));
    assert!(bad.contains("is not a zip archive"), "{bad}");
    assert_eq!(reason(js("")), "is empty");
    assert!(reason(js(&" ".repeat(limit::MAX_SOURCE + 1))).contains("at most"));
}

#[test]
fn a_secret_value_is_not_repeated_in_the_error() {
    let error =
        check(DeployRequest { env: [("KEY".to_owned(), "hunter2\0".to_owned())].into(), ..js("1") }).unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[test]
fn kept_instances_need_reuse() {
    let request = DeployRequest { min_instances: Some(1), ..js("1") };
    assert_eq!(fields(request.clone()), ["min_instances"]);
    assert_eq!(check(DeployRequest { reuse: Some(true), ..request }).unwrap().min_instances, 1);
}

#[test]
fn raw_code_keeps_to_the_functions_runtime() {
    let source = || RawCode::JavaScript(Bytes::from_static(b"1"));
    assert_eq!(raw_code(source(), None).unwrap().0, Runtime::Js);
    assert_eq!(raw_code(source(), Some(Runtime::Js)).unwrap().0, Runtime::Js);
    assert!(raw_code(source(), Some(Runtime::Wasm)).unwrap_err().detail.contains("runtime is wasm"));
    assert!(raw_code(RawCode::JavaScript(Bytes::from_static(b"\xff")), None).unwrap_err().detail.contains("UTF-8"));
    assert!(raw_code(RawCode::Wasm(Bytes::new()), None).unwrap_err().detail.contains("is empty"));
}

#[test]
fn a_balancing_policy_goes_by_its_name() {
    assert_eq!(check(js("1")).unwrap().balancing, None);
    for policy in Balancing::ALL {
        let request = DeployRequest { balancing: Some(policy.to_string()), ..js("1") };
        assert_eq!(check(request).unwrap().balancing, Some(policy));
    }
    let error = check(DeployRequest { balancing: Some("random".to_owned()), ..js("1") }).unwrap_err();
    assert!(error.detail.contains("\"random\" is not a policy") && error.detail.contains("ch-rlu"), "{error}");
}

#[test]
fn each_secret_has_one_place_that_the_runtime_has() {
    let with = |runtime: &str, secrets: &str| DeployRequest {
        runtime: runtime.to_owned(),
        env: [("TAKEN".to_owned(), String::new())].into(),
        secrets: serde_json::from_str(secrets).unwrap(),
        ..js("1")
    };
    let good = r#"[{"name":"a","env":"A"},{"name":"a","env":"B"}]"#;
    assert_eq!(check(with("js", good)).unwrap().secrets.len(), 2);
    assert_eq!(check(with("python", r#"[{"name":"a","file":"tls.key"}]"#)).unwrap().secrets.len(), 1);
    for (runtime, secrets, field) in [
        ("js", r#"[{"name":"a"}]"#, "secrets[0]"),
        ("python", r#"[{"name":"a","env":"A","file":"a"}]"#, "secrets[0]"),
        ("js", r#"[{"name":"a","file":"a"}]"#, "secrets[0].file"),
        ("python", r#"[{"name":"a","file":"../a"}]"#, "secrets[0].file"),
        ("python", r#"[{"name":"a","file":"a"},{"name":"b","file":"a"}]"#, "secrets[1].file"),
        ("js", r#"[{"name":"a","env":"TAKEN"}]"#, "secrets[0].env"),
        ("js", r#"[{"name":"a","env":"A"},{"name":"b","env":"A"}]"#, "secrets[1].env"),
        ("js", r#"[{"name":"a","env":"1A"}]"#, "secrets[0].env"),
    ] {
        assert_eq!(fields(with(runtime, secrets)), [field], "{runtime} {secrets}");
    }
}
