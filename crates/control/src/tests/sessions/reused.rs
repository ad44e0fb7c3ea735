//! Instances that serve one session after the other (`killInstanceWhenSessionClosed: false`).

use super::*;

impl Place {
    async fn open_again(&self, name: &str) {
        let mut object = ApplicationSession::default();
        (object.metadata.name, object.metadata.namespace) = (name.to_owned(), "default".to_owned());
        object.spec.application_name = "game".to_owned();
        object.spec.kill_instance_when_session_closed = false;
        let caller = Caller::operator("test");
        self.api().sessions().create(object, WriteOptions { caller: &caller, dry_run: false }).await.unwrap();
        self.until_status(name, SessionStatus::Available).await;
    }

    /// The instance of a session that is opened, and closed at once.
    async fn used(&self, name: &str) -> String {
        self.open_again(name).await;
        let instance = self.session(name).unwrap().status.instance;
        self.close(name).await;
        self.until("it is gone", |of| of.session(name).is_none()).await;
        tokio::time::sleep(10 * SECOND).await;
        instance
    }
}

fn standing(node: &Node) -> (usize, u32) {
    let held = node.held.lock();
    let stand = held.hosted.values().filter(|of| of.state == InstanceState::Standby).count();
    (stand, held.stands.values().sum())
}

#[tokio::test(start_paused = true)]
async fn an_instance_stands_again_after_its_session_where_the_policy_has_room_for_it() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    let bounds = Threshold { low: 1, high: 2 };
    place.apply("game", |app| app.spec.scaling_policy.idle_session_num_threshold = Some(bounds)).await;
    place.until("one stands", |_| standing(&node) == (1, 1)).await;
    place.used("a").await;
    assert_eq!(standing(&node), (2, 2), "the one that was started meanwhile, and the one that had the session");
    place.used("b").await;
    assert_eq!(standing(&node), (2, 2), "neither was too much");
    assert_eq!(instances(&node), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_too_much_for_the_policy_goes() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    let bounds = Threshold { low: 1, high: 1 };
    place.apply("game", |app| app.spec.scaling_policy.idle_session_num_threshold = Some(bounds)).await;
    place.until("one stands", |_| standing(&node) == (1, 1)).await;
    place.used("a").await;
    assert_eq!((standing(&node), instances(&node)), ((1, 1), 1));
}

#[tokio::test(start_paused = true)]
async fn one_instance_serves_all_sessions_where_no_more_are_allowed() {
    let place = Place::new().await;
    let node = Node::new(1, Nature::default());
    let _talk = node.join(std::slice::from_ref(&place.site.registry));
    let change = |app: &mut Application| {
        let policy = &mut app.spec.scaling_policy;
        policy.maximum_instance = 1;
        policy.idle_session_num_threshold = Some(Threshold { low: 0, high: 1 });
    };
    place.apply("game", change).await;
    let first = place.used("a").await;
    assert_eq!(standing(&node), (1, 1));
    assert_eq!((place.used("b").await, place.used("c").await), (first.clone(), first));
}
