//! Jobs and dead letters.

use std::time::Duration;

use futures::StreamExt;
use http_body_util::{BodyExt, Empty};
use lyra_types::error::Thrown;
use lyra_types::job::JobStatus;
use lyra_types::{Code, Error};
use serde_json::json;

use crate::client::{OK, start};

#[tokio::test]
async fn a_job_is_shown_listed_and_cancelled() {
    let gateway = start().await;
    let id = gateway.control.job_of(JobStatus::Queued, None, None);
    let done = gateway.control.job_of(JobStatus::Succeeded, None, Some("1"));
    assert_eq!(gateway.get(&format!("/v1/jobs/{id}")).await.json()["status"], "queued");
    let listed = gateway.get("/v1/jobs?status=succeeded").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["id"], done.to_string());
    assert_eq!(gateway.get("/v1/jobs?function=echo&limit=1").await.json()["items"].as_array().unwrap().len(), 1);
    let cancelled = gateway.send(&format!("DELETE /v1/jobs/{id}"), &[], "").await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (OK, &json!("cancelled")));
    let ended = gateway.send(&format!("DELETE /v1/jobs/{done}"), &[], "").await;
    assert_eq!((ended.status, &ended.json()["status"]), (OK, &json!("succeeded")));
    let running = gateway.control.job_of(JobStatus::Running, None, None);
    assert_eq!(gateway.send(&format!("DELETE /v1/jobs/{running}?wait=0"), &[], "").await.status, 202);
}

#[tokio::test]
async fn a_result_is_the_answer_that_a_call_would_have_had() {
    let gateway = start().await;
    let result = async |status, error, result| {
        let id = gateway.control.job_of(status, error, result);
        gateway.get(&format!("/v1/jobs/{id}/result")).await
    };
    let done = result(JobStatus::Succeeded, None, Some("{\"a\":1}")).await;
    assert_eq!((done.status, done.text(), done.header("content-type")), (OK, "{\"a\":1}", "application/json"));
    assert!(done.header("lyra-invocation-id").starts_with("inv_"));
    for status in [JobStatus::Queued, JobStatus::Running] {
        let unfinished = result(status, None, None).await;
        assert_eq!((unfinished.status, unfinished.header("retry-after")), (202, "1"));
        assert_eq!(unfinished.json()["status"], status.as_str());
    }
    let thrown = Thrown { name: "RangeError".into(), message: "no".into(), stack: String::new() };
    let failed = result(JobStatus::Failed, Some(Error::thrown(thrown)), None).await;
    assert_eq!(failed.fault(), (500, "function_error".into()));
    assert_eq!(failed.json()["error"]["name"], "RangeError");
    let late = result(JobStatus::TimedOut, Some(Error::new(Code::Timeout, "too long")), None).await;
    assert_eq!(late.fault(), (504, "timeout".into()));
    let dead = result(JobStatus::Dead, Some(Error::new(Code::OutOfMemory, "too much")), None).await;
    assert_eq!(dead.fault(), (500, "out_of_memory".into()));
    assert_eq!(result(JobStatus::Cancelled, None, None).await.fault(), (409, "cancelled".into()));
    assert_eq!(result(JobStatus::Failed, None, None).await.fault(), (500, "function_error".into()));
}

#[tokio::test]
async fn a_job_is_followed_to_its_end() {
    let gateway = start().await;
    let id = gateway.control.job_of(JobStatus::Queued, None, None);
    let open = async |id: &str| {
        let request = http::Request::get(format!("/v1/jobs/{id}/events")).header("host", gateway.address.to_string());
        gateway.open(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await
    };
    let response = open(&id.to_string()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = response.into_body().into_data_stream();
    let mut next = async || {
        let event = events.next().await?.unwrap();
        let data = std::str::from_utf8(&event).unwrap().strip_prefix("data: ").unwrap();
        Some(serde_json::from_str::<serde_json::Value>(data).unwrap()["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(next().await.unwrap(), "queued");
    for status in [JobStatus::Running, JobStatus::Succeeded] {
        gateway.control.jobs.lock().get_mut(&id).unwrap().job.status = status;
        assert_eq!(next().await.unwrap(), status.as_str());
    }
    assert_eq!(next().await, None, "it ends with the job");
    for id in ["job_00000000000000000000000000", "nope"] {
        assert_eq!(open(id).await.status().as_u16(), 404, "{id}");
    }
}

#[tokio::test]
async fn who_follows_a_job_learns_that_it_is_gone_and_keeps_no_gateway_from_stopping() {
    let mut gateway = start().await;
    let [gone, running] = [(); 2].map(|()| gateway.control.job_of(JobStatus::Running, None, None));
    let mut streams = Vec::new();
    for id in [gone, running] {
        let request = http::Request::get(format!("/v1/jobs/{id}/events")).header("host", gateway.address.to_string());
        let response = gateway.open(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await;
        streams.push(response.into_body().into_data_stream());
    }
    for stream in &mut streams {
        assert!(stream.next().await.unwrap().unwrap().starts_with(b"data: "));
    }
    gateway.control.jobs.lock().remove(&gone);
    let error = streams[0].next().await.unwrap().unwrap();
    assert!(error.starts_with(b"event: error") && error.windows(9).any(|text| text == b"not_found"), "{error:?}");
    assert!(streams[0].next().await.is_none());
    gateway.shutdown.cancel();
    assert!(streams[1].next().await.is_none());
    drop(streams);
    gateway.served.take().unwrap().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wait_is_bounded_and_ends_when_the_gateway_does() {
    let mut gateway = start().await;
    let id = gateway.control.job_of(JobStatus::Running, None, None);
    for bad in ["61", "-1", "soon", "", "NaN"] {
        let answer = gateway.get(&format!("/v1/jobs/{id}?wait={bad}")).await;
        assert_eq!(answer.fault(), (400, "bad_request".into()), "{bad}");
    }
    assert_eq!(gateway.get(&format!("/v1/jobs/{id}?wait=0.01")).await.json()["status"], "running");
    // The scripted job never ends: only the stop can end the wait of a minute within the time below.
    let path = format!("/v1/jobs/{id}/result?wait=60");
    let mut waiting = Box::pin(gateway.get(&path));
    tokio::select! {
        answer = &mut waiting => panic!("did not wait: {answer:?}"),
        () = tokio::time::sleep(Duration::from_millis(50)) => gateway.shutdown.cancel(),
    }
    let answer =
        tokio::time::timeout(Duration::from_secs(20), &mut waiting).await.expect("the wait ends with the gateway");
    assert_eq!(answer.status, 202);
    drop(waiting);
    gateway.served.take().unwrap().await.unwrap().unwrap();
}

#[tokio::test]
async fn dead_letters_are_listed_redriven_and_purged() {
    let gateway = start().await;
    let ids: Vec<_> = (0..4).map(|_| gateway.control.job_of(JobStatus::Dead, None, None)).collect();
    let queued = gateway.control.job_of(JobStatus::Queued, None, None);
    assert_eq!(gateway.get("/v1/dead-letters").await.json()["items"].as_array().unwrap().len(), 4);
    assert_eq!(gateway.get(&format!("/v1/dead-letters/{}", ids[0])).await.json()["status"], "dead");
    assert_eq!(gateway.get(&format!("/v1/dead-letters/{queued}")).await.fault(), (404, "not_found".into()));
    let redriven = gateway.send(&format!("POST /v1/dead-letters/{}/redrive", ids[0]), &[], "").await;
    assert_eq!(redriven.json()["status"], "queued");
    let again = gateway.send(&format!("POST /v1/dead-letters/{}/redrive", ids[0]), &[], "").await;
    assert_eq!(again.fault(), (409, "conflict".into()));
    assert_eq!(gateway.send(&format!("DELETE /v1/dead-letters/{}", ids[1]), &[], "").await.status, 204);
    let gone = gateway.send(&format!("DELETE /v1/dead-letters/{}", ids[1]), &[], "").await;
    assert_eq!(gone.fault(), (404, "not_found".into()));
    assert_eq!(gateway.send("POST /v1/dead-letters/redrive", &[], "").await.json(), json!({"count": 2}));
    gateway.control.job_of(JobStatus::Dead, None, None);
    assert_eq!(gateway.send("DELETE /v1/dead-letters", &[], "").await.json(), json!({"count": 1}));
}

#[tokio::test]
async fn what_is_no_job_is_not_found() {
    let gateway = start().await;
    for path in
        ["/v1/jobs/nope", "/v1/jobs/job_00000000000000000000000000", "/v1/jobs/nope/result", "/v1/dead-letters/x"]
    {
        assert_eq!(gateway.get(path).await.fault(), (404, "not_found".into()), "{path}");
    }
    let answer = gateway.get("/v1/jobs?status=asleep").await;
    assert_eq!(answer.fault(), (400, "bad_request".into()));
    assert!(answer.problem().detail.contains("timed_out"), "the words that are allowed are named");
}
