//! What failed is tried again, whatever else is looked at and written meanwhile.

use super::*;

async fn delete(place: &Place, application: &str) {
    let caller = Caller::operator("test");
    let options = WriteOptions { caller: &caller, dry_run: false };
    place.api().applications().delete(&tenant(), application, &DeleteOptions::default(), options).await.unwrap();
}

fn fault(place: &Place) -> Option<String> {
    place.application("game").status.conditions.first().map(|of| of.reason.clone())
}

#[tokio::test(start_paused = true)]
async fn an_application_that_never_had_a_version_goes_when_it_is_deleted() {
    let place = Place::new().await;
    place.apply("game", |app| app.spec.containers[0].function = "never".to_owned()).await;
    place.until("it says what is missing", |of| fault(of).as_deref() == Some("FunctionNotFound")).await;
    place.open("game", "closed").await.unwrap();
    place.until_status("closed", SessionStatus::Pending).await;
    place.close("closed").await;
    place.until("it is gone", |of| of.session("closed").is_none()).await;
    place.open("game", "late").await.unwrap();
    place.until_status("late", SessionStatus::Timeout).await;
    delete(&place, "game").await;
    place.until("the application is gone", |of| of.api().applications().get(&tenant(), "game").is_none()).await;
    assert!(place.session("late").is_none(), "with all of its sessions");
}

#[tokio::test(start_paused = true)]
async fn a_version_whose_code_no_worker_could_load_is_tried_again() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    node.held.lock().preloads_to_fail = 3;
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place.apply("game", |_| ()).await;
    place.until("it says why", |of| fault(of).as_deref() == Some("PreloadFailed")).await;
    place.until("it has a version", |of| of.application("game").status.version == 1).await;
    assert_eq!(node.held.lock().preloads_to_fail, 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_open_was_lost_on_the_way_is_opened_by_the_next_try() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place.apply("game", |_| ()).await;
    place.until("it has a version", |of| of.application("game").status.version == 1).await;
    node.held.lock().opens_to_lose = 2;
    place.open("game", "one").await.unwrap();
    place.until("it has waited long enough to be written", |of| of.status("one") != Some(SessionStatus::Unset)).await;
    place.until_status("one", SessionStatus::Available).await;
    assert_eq!(node.held.lock().opened.len(), 1);
}
