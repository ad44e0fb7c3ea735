//! A function that is deployed again, while an application names it.

use super::*;

fn ready(place: &Place) -> String {
    let conditions = place.application("game").status.conditions;
    conditions.into_iter().find(|of| of.r#type == "Ready").map(|of| of.message).unwrap_or_default()
}

async fn name(place: &Place, function: &str) {
    let change = |app: &mut Application| function.clone_into(&mut app.spec.containers[0].function);
    place.api().applications().update(&tenant(), "game", None, change).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_function_that_is_deployed_again_makes_no_version_and_the_application_says_how_to_have_one() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    place.apply("game", |_| ()).await;
    place.until("it is ready", |of| ready(of) == "version 1 takes new sessions").await;
    place.site.deploy("other", program).await;
    place.site.deploy("code", program).await;
    let moved = "version 1 takes new sessions; it was made of code@1, and code is code@2 by now: \
                 for a version of that, name code@2";
    place.until("it says so", |of| ready(of) == moved).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(place.application("game").status.version, 1, "what was asked for has not changed");
    place.open("game", "old").await.unwrap();
    place.until_status("old", SessionStatus::Available).await;
    name(&place, "code@2").await;
    place.until("it has another", |of| ready(of) == "version 2 takes new sessions").await;
    place.open("game", "new").await.unwrap();
    place.until_status("new", SessionStatus::Available).await;
    let versions = ["old", "new"].map(|name| place.session(name).unwrap().status.application_version);
    assert_eq!(versions, [1, 2]);
    // A number stands for the same for ever.
    place.site.deploy("code", program).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(ready(&place), "version 2 takes new sessions");
}
