//! The forms of a source, and how a bad one is refused.

use lyra_isolation::Isolation;
use lyra_types::error::FieldError;
use lyra_types::{Code, Error};
use serde_json::json;

use super::{Js, Settings, code, run, run_with};

fn named(handler: &str) -> Settings {
    Settings { handler: Some(handler.into()), ..Settings::default() }
}

async fn refused(source: &str) -> FieldError {
    refused_with(source, Settings::default()).await
}

async fn refused_with(source: &str, settings: Settings) -> FieldError {
    let js = Js::new();
    let code = code(source, &settings);
    let error = js.wasm.prepare(&code).await.expect_err(source);
    assert_eq!(error.code, Code::InvalidCode, "{error:?}");
    assert!(js.wasm.load(&code.key).await.expect("looks").is_none(), "nothing is kept of what was refused");
    one(error)
}

fn one(mut error: Error) -> FieldError {
    assert_eq!(error.errors.len(), 1, "{error:?}");
    error.errors.remove(0)
}

#[tokio::test]
async fn every_documented_form_is_taken() {
    for source in [
        "export default (event) => event.x * 2",
        "export default async function (event) { return event.x * 2 }",
        "export default function named(event) { return twice(event.x) }\nfunction twice(x) { return x * 2 }",
        "export function handler(event) { return event.x * 2 }",
        "export const handler = async (event) => event.x * 2;",
        "const factor = 2;\nexport { f as default };\nfunction f(event) { return event.x * factor }",
        "const factor = await Promise.resolve(2); export default (event) => event.x * factor",
        "function f(event) { return event.x * 2 }",
        "async function f(event) { return twice(event.x) }\nfunction twice(x) { return x * 2 }",
        "(event) => event.x * 2",
        "async (event) => { return event.x * 2 };",
        "(function (event) { return event.x * 2 })",
        "// what it does\nfunction (event) { return event.x * 2 }",
        "\u{feff}event => event.x * 2\n",
    ] {
        assert_eq!(run(source, r#"{"x":21}"#).await.expect(source), json!(42), "{source}");
    }
}

#[tokio::test]
async fn a_handler_can_be_named() {
    let source = "export const first = () => 1; export const second = () => 2; export default () => 3";
    assert_eq!(run_with(source, "null", named("second")).await.expect("runs"), json!(2));
    assert_eq!(run(source, "null").await.expect("runs"), json!(3));
    let field = refused_with(source, named("third")).await;
    assert_eq!((field.field.as_str(), field.reason.as_str()), ("handler", "the module has no export \"third\""));

    assert_eq!(run_with("function add(a, b) { return a + b }", "[2,3]", named("add")).await.expect("runs"), json!(5));
    assert_eq!(refused_with("function add(a, b) { return a + b }", named("sub")).await.field, "handler");
}

#[tokio::test]
async fn syntax_errors_say_where() {
    for (source, line, column) in [
        ("export default (a) => {\n  return a +;\n}", 2, 13),
        ("function add(a, b) { return a + ; }", 1, 33),
        ("async function add(a, b) {\n  const x = ;\n}", 2, 13),
        ("function add(a) {\n  return 1\n", 3, 1),
        ("export default () => 'open", 1, 22),
    ] {
        let field = refused(source).await;
        assert_eq!((field.line, field.column), (Some(line), Some(column)), "{source:?}: {}", field.reason);
        assert!(field.reason.starts_with("SyntaxError: "), "{}", field.reason);
        assert_eq!(field.field, "code.source");
    }
}

#[tokio::test]
async fn an_error_of_top_level_code_says_where() {
    let field = refused("const config = undefined;\nconst port = config.port;\nexport default () => port").await;
    assert_eq!((field.line, field.column.is_some()), (Some(2), true));
    assert!(field.reason.starts_with("TypeError: "), "{}", field.reason);
    let field = refused("await Promise.reject(new RangeError('no'));\nexport default () => 1").await;
    assert_eq!(field.reason, "RangeError: no");
    let field = refused("throw 'text';\nexport default () => 1").await;
    assert_eq!(field.reason, "Error: text");
}

#[tokio::test]
async fn what_is_no_function_is_refused() {
    for (source, reason) in [
        ("export default 42", "the handler is a number, not a function; export `(event, context) => result`"),
        (
            "export default class Handler {}",
            "the handler is a class, not a function; export `(event, context) => result`",
        ),
        ("class Handler { call() {} }", "the handler is a class, not a function; export `(event, context) => result`"),
        (
            "export default { fetch() {} }",
            "the handler is an object, not a function; export `(event, context) => result`",
        ),
        ("({ a: 1 })", "the handler is an object, not a function; export `(event, context) => result`"),
        (
            "export const other = () => 1",
            "the module exports neither `default` nor `handler`; export the function to call as one of them",
        ),
        (
            "const f = () => 1;",
            "the source exports nothing and is not a single function; put `export default` before the function to call",
        ),
    ] {
        assert_eq!(refused(source).await.reason, reason, "{source}");
    }
    assert!(!refused("").await.reason.is_empty());
}

#[tokio::test]
async fn modules_can_not_be_imported() {
    for source in ["import fs from 'node:fs';\nexport default () => 1", "export { x as default } from './other.js'"] {
        let field = refused(source).await;
        assert!(field.reason.contains("js functions have no modules to import"), "{}", field.reason);
    }
    let caught =
        run("export default async () => { try { await import('fs') } catch (e) { return e.message } }", "null").await;
    assert!(caught.expect("runs").as_str().expect("text").contains("bundle them into one file"));
}

#[tokio::test]
async fn top_level_code_that_does_not_end_is_refused() {
    let reason = refused("for (;;);\nexport default () => 1").await.reason;
    assert_eq!(reason, "top-level code did not end within 10 s");
    let reason = refused("await new Promise(() => {});\nexport default () => 1").await.reason;
    assert_eq!(reason, "top-level code waits for a promise that nothing is left to settle");
}

#[tokio::test]
async fn top_level_code_has_no_more_memory_than_the_function() {
    let settings = Settings { memory_mb: 16, ..Settings::default() };
    let field =
        refused_with("const a = []; for (;;) a.push(new Array(1000).fill(1));\nexport default () => 1", settings).await;
    assert_eq!(field.reason, "the code needs more than its 16 MiB of memory to be loaded");
}

#[tokio::test]
async fn top_level_code_runs_once_and_its_state_is_the_start_of_every_instance() {
    let source = "
        let count = 0;
        const table = new Map([['a', 1]]);
        const buffer = new Uint8Array(3 << 20).fill(7);
        globalThis.seen = count += 1;
        await new Promise((resolve) => setTimeout(resolve, 5));
        setTimeout(() => { globalThis.late = true }, 0);
        export default () => [count++, seen, table.get('a'), buffer.length, buffer[buffer.length - 1], typeof late];
    ";
    let js = Js::new();
    let function = js.deploy(source).await;
    for _ in 0..3 {
        let result = function.call("null").await.expect("runs");
        assert_eq!(result, json!([1, 1, 1, 3 << 20, 7, "undefined"]));
    }
}

#[tokio::test]
async fn an_image_outlives_the_process() {
    let js = Js::new();
    let function = js.deploy("const started = 41; export default () => started + 1").await;
    let weight = function.template.weight();
    assert!(weight < 200_000, "a small function's image is small, not {weight} bytes");
    let again = super::Js::with(|config| config.images_dir = js.dir().to_owned());
    let code = code("const started = 41; export default () => started + 1", &Settings::default());
    let template = again.wasm.load(&code.key).await.expect("loads").expect("is there");
    let function = super::Function { template, ..function };
    assert_eq!(function.call("null").await.expect("runs"), json!(42));
}

#[tokio::test]
async fn a_damaged_image_is_made_again() {
    let js = Js::new();
    let source = "() => 1";
    let function = js.deploy(source).await;
    drop(function);
    let image = std::fs::read_dir(js.dir()).expect("lists").flatten().map(|file| file.path());
    let image = image.into_iter().find(|path| path.extension().is_some_and(|e| e == "js")).expect("there");
    let mut bytes = std::fs::read(&image).expect("reads");
    bytes[40] ^= 1;
    std::fs::write(&image, bytes).expect("writes");
    let code = code(source, &Settings::default());
    assert!(js.wasm.load(&code.key).await.expect("looks").is_none());
    assert_eq!(js.deploy(source).await.call("null").await.expect("runs"), json!(1));
}

#[tokio::test]
async fn a_source_that_is_no_text_is_refused() {
    let js = Js::new();
    let mut code = code("() => 1", &Settings::default());
    code.bytes = bytes::Bytes::from_static(b"() => 1\n// \xff");
    let field = one(js.wasm.prepare(&code).await.expect_err("refuses"));
    assert_eq!((field.line, field.column), (Some(2), Some(4)));
}

#[tokio::test]
async fn deep_nesting_in_a_source_is_an_error_and_no_crash() {
    let deep = |open: &str, middle: &str, close: &str| {
        format!("export default () => {}{middle}{}", open.repeat(20_000), close.repeat(20_000))
    };
    for source in [
        deep("(", "1", ")"),
        deep("[", "", "]"),
        deep("{a:", "1", "}"),
        deep("!", "1", ""),
        deep("-(", "1", ")"),
        deep("(() => ", "1", ")"),
        deep("function(){return ", "1", "}"),
        deep("a?b:", "1", ""),
        deep("`${", "1", "}`"),
        deep("new ", "Date", ""),
        deep("class { static x = ", "1", "}"),
        format!("export default () => {{ {}{} }}", "{".repeat(20_000), "}".repeat(20_000)),
        format!("export default () => {{ {} ; }}", "if (1) ".repeat(20_000)),
        format!("export default () => {{ {} ; }}", "a: ".repeat(20_000)),
        format!("export default () => /{}{}/", "(".repeat(20_000), ")".repeat(20_000)),
        format!("export default () => {{ let {}a{} = 1 }}", "[".repeat(20_000), "]".repeat(20_000)),
    ] {
        let js = Js::new();
        let outcome = js.wasm.prepare(&code(&source, &Settings::default())).await;
        if let Err(error) = outcome {
            let reason = &error.errors[0].reason;
            assert!(!reason.contains("crash"), "{}: {reason}", &source[..60]);
        }
    }
}
