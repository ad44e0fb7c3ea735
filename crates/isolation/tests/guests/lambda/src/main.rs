//! Returns its event and what it is told of the call, or fails when the event says so.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

async fn handler(event: LambdaEvent<Value>) -> Result<Value, Error> {
    if event.payload == "fail" {
        return Err("as asked for".into());
    }
    Ok(json!([event.payload, event.context.request_id, event.context.env_config.function_name]))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handler)).await
}
