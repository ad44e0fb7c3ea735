//! The classic routes where their requests are not let in, or control can't be asked: the envelope all the same.

use lyra_gateway::{Config, Tokens};
use serde_json::json;

use crate::client::{Answer, Gateway, OK, start, start_with};

#[track_caller]
fn envelope(answer: &Answer) -> (u16, bool) {
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    let body = answer.json();
    assert!(body["res"].as_str().is_some_and(|text| text.starts_with("[ERR] ")), "{body}");
    (answer.status, body["error"] == json!(true))
}

async fn get(gateway: &Gateway, path: &str) -> Answer {
    gateway.get(path).await
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_in_the_envelope() {
    let tokens = Tokens::parse("a-long-enough-token").unwrap();
    let gateway = start_with(Config { tokens, ..Config::default() }).await;
    let refused = get(&gateway, "/u/ada/fn").await;
    assert_eq!(envelope(&refused), (401, true));
    assert!(refused.header("www-authenticate").starts_with("Bearer"));
    assert_eq!(envelope(&get(&gateway, "/J/5ff867daccccb5e5167f5a0f").await), (401, true));
}

#[tokio::test]
async fn without_control_the_answer_comes_at_once_and_says_when_to_try_again() {
    let gateway = start().await;
    for path in ["/u/ada/fn", "/u/ada/time", "/u/ada/fn/f", "/j/5ff867daccccb5e5167f5a0f"] {
        let answer = get(&gateway, path).await;
        assert_eq!(envelope(&answer), (503, true), "{path}");
        assert_eq!(answer.header("retry-after"), "1", "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_no_route_is_not_found_in_the_envelope() {
    let gateway = start().await;
    for path in ["/u", "/u/ada", "/j", "/j/x/y", "/u/ada/fn/f/run"] {
        assert_eq!(envelope(&get(&gateway, path).await), (404, true), "{path}");
    }
    assert_eq!(get(&gateway, "/users").await.problem().code, "not_found");
    assert_eq!(get(&gateway, "/healthz").await.status, OK);
}
