//! A function in Rust: the sum of two numbers. What is around the handler is in `runtime.rs`.

mod runtime;

use serde_json::{Value, json};

fn handler(event: &Value) -> Result<Value, String> {
    let number = |name: &str| event[name].as_i64().ok_or_else(|| format!("`{name}` must be a whole number"));
    let sum = number("a")?.checked_add(number("b")?).ok_or("the sum is too large")?;
    Ok(json!({ "sum": sum }))
}

fn main() -> std::io::Result<()> {
    runtime::run(handler)
}
