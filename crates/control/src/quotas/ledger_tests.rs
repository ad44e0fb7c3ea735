//! The account of the members, under virtual time and whatever is lost.

use lyra_types::TenantName;
use proptest::prelude::*;

use super::*;

fn key() -> QuotaKey {
    QuotaKey { tenant: TenantName::default_tenant(), function: None }
}

fn limits(quota: &Quota) -> BTreeMap<QuotaKey, InForce> {
    of_calls([(key(), quota.clone())].into_iter(), &HashMap::new())
}

fn quota() -> Quota {
    Quota { rate: Some(100.0), concurrency: Some(10), memory_mb: Some(1_000), ..Quota::default() }
}

/// A member as gateways are: it applies what it hears.
#[derive(Default)]
struct Gateway {
    id: u64,
    have: Option<(u64, u64)>,
    share: Share,
    /// Wants so many calls at a time, of 100 MiB each.
    wants: u64,
    running: u64,
}

impl Gateway {
    fn new(id: u64, wants: u64) -> Gateway {
        Gateway { id, wants, ..Gateway::default() }
    }

    fn claim(&self, ledger: &mut Ledger, now: Instant, quota: &Quota) -> Shares {
        let want = Want {
            key: key(),
            rate: self.wants * 10_000_000,
            concurrency: self.wants,
            memory_mb: self.wants * 100,
            largest_mb: 100,
            running: self.running,
            running_mb: self.running * 100,
        };
        let mut claim = Claim { member: self.id, patient: false, have: self.have, holds: None, wants: vec![want] };
        let answer = ledger.claim(now, claim.clone(), &limits(quota));
        if !answer.tell_all {
            return answer;
        }
        claim.holds = Some(if self.have.is_some() { vec![(key(), self.share)] } else { Vec::new() });
        ledger.claim(now, claim, &limits(quota))
    }

    fn apply(&mut self, answer: Shares) {
        self.have = Some((answer.session, answer.number));
        if let Some(limit) = answer.limits.into_iter().find(|limit| limit.key == key()) {
            self.share = limit.share;
        }
    }

    fn talk(&mut self, ledger: &mut Ledger, now: Instant) {
        let answer = self.claim(ledger, now, &quota());
        self.apply(answer);
    }

    /// Lets calls begin and end as far as its share goes.
    fn work(&mut self, ends: u64) {
        self.running = self.running.saturating_sub(ends);
        let share = self.share.concurrency.unwrap_or(0).min(self.share.memory_mb.unwrap_or(0) / 100);
        self.running = self.running.max(self.wants.min(share));
    }
}

fn alone(now: Instant) -> Ledger {
    Ledger::new(1, now, true)
}

#[tokio::test(start_paused = true)]
async fn a_sole_member_has_it_all_at_once() {
    let now = lyra_kit::Clock::system().instant();
    let (mut ledger, mut gateway) = (alone(now), Gateway::new(1, 0));
    gateway.talk(&mut ledger, now);
    let whole = Share { rate: Some(100_000_000), burst: Some(100_000), concurrency: Some(10), memory_mb: Some(1_000) };
    assert_eq!(gateway.share, whole);
    let again = gateway.claim(&mut ledger, now, &quota());
    assert!(!again.whole && again.limits.is_empty(), "what has not changed is not told again");
    gateway.apply(again);
    let other = Quota { concurrency: Some(3), ..Quota::default() };
    let changed = gateway.claim(&mut ledger, now, &other);
    assert_eq!(changed.limits[0].share, Share { concurrency: Some(3), ..Share::default() });
    gateway.apply(changed);
    let gone = gateway.claim(&mut ledger, now, &Quota { functions: Some(1), ..Quota::default() });
    assert_eq!(gone.gone, [key()]);
}

#[tokio::test(start_paused = true)]
async fn shares_follow_what_is_wanted_within_a_few_claims() {
    let now = lyra_kit::Clock::system().instant();
    let (mut ledger, mut busy, mut idle) = (alone(now), Gateway::new(1, 50), Gateway::new(2, 0));
    for _ in 0..3 {
        busy.talk(&mut ledger, now);
        idle.talk(&mut ledger, now);
    }
    assert_eq!((busy.share.concurrency, idle.share.concurrency), (Some(10), Some(0)));
    assert_eq!((busy.share.rate, idle.share.rate), (Some(100_000_000), Some(0)));
    (busy.wants, idle.wants) = (0, 50);
    for _ in 0..3 {
        busy.talk(&mut ledger, now);
        idle.talk(&mut ledger, now);
    }
    assert_eq!((busy.share.concurrency, idle.share.concurrency), (Some(0), Some(10)));
}

#[tokio::test(start_paused = true)]
async fn what_runs_counts_until_it_has_ended() {
    let now = lyra_kit::Clock::system().instant();
    let (mut ledger, mut one, mut other) = (alone(now), Gateway::new(1, 10), Gateway::new(2, 0));
    one.talk(&mut ledger, now);
    one.work(0);
    assert_eq!(one.running, 10);
    (one.wants, other.wants) = (0, 10);
    for _ in 0..4 {
        one.talk(&mut ledger, now);
        other.talk(&mut ledger, now);
    }
    assert_eq!(other.share.concurrency, Some(0), "the calls of the first still run");
    one.running = 4;
    for _ in 0..4 {
        one.talk(&mut ledger, now);
        other.talk(&mut ledger, now);
    }
    assert_eq!(other.share.concurrency, Some(6));
}

#[tokio::test(start_paused = true)]
async fn the_share_of_a_member_that_is_gone_comes_back_after_a_lease() {
    let now = lyra_kit::Clock::system().instant();
    let (mut ledger, mut one, mut other) = (alone(now), Gateway::new(1, 10), Gateway::new(2, 10));
    for _ in 0..3 {
        one.talk(&mut ledger, now);
        other.talk(&mut ledger, now);
    }
    assert_eq!(one.share.concurrency, Some(5));
    let before = now + LEASE - Duration::from_millis(1);
    one.talk(&mut ledger, before);
    assert_eq!(one.share.concurrency, Some(5), "the other may still use its part");
    one.talk(&mut ledger, now + LEASE);
    assert_eq!((one.share.concurrency, ledger.members()), (Some(10), 1));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_confirms_what_is_held_and_gives_new_ones_little_for_a_lease() {
    let now = lyra_kit::Clock::system().instant();
    let (mut first, mut one) = (alone(now), Gateway::new(1, 10));
    one.talk(&mut first, now);
    let mut second = Ledger::new(2, now, false);
    let mut fresh = Gateway::new(2, 10);
    fresh.talk(&mut second, now);
    assert_eq!(fresh.share.concurrency, Some(2));
    one.talk(&mut second, now);
    assert_eq!(one.share.concurrency, Some(5), "it holds ten, and wants as much as the other");
    for _ in 0..3 {
        one.talk(&mut second, now + LEASE);
        fresh.talk(&mut second, now + LEASE);
    }
    assert_eq!((one.share.concurrency, fresh.share.concurrency), (Some(5), Some(5)));
}

proptest! {
    /// Members want this and that, answers are lost, members die and come back as others.
    #[test]
    fn what_members_may_use_never_comes_to_more_than_the_limit(
        steps in prop::collection::vec((0_usize..3, 0_u64..40, 0_u64..5, 0_u64..2_000, 0_u8..20), 1..200)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut now = runtime.block_on(async { lyra_kit::Clock::system().instant() });
        let mut ledger = alone(now);
        let mut gateways: Vec<Gateway> = (1..=3).map(|id| Gateway::new(id, 0)).collect();
        let mut born = 3;
        let mut heard = [now; 3];
        for (at, wants, ends, pause, chance) in steps {
            // All that live are heard of before their lease ends, as members see to.
            let next = now + Duration::from_millis(pause);
            for (place, gateway) in gateways.iter_mut().enumerate() {
                if next.duration_since(heard[place]) >= LEASE - Duration::from_millis(1) {
                    gateway.talk(&mut ledger, now);
                    heard[place] = now;
                }
            }
            now = next;
            let gateway = &mut gateways[at];
            gateway.wants = wants;
            gateway.work(ends);
            heard[at] = now;
            let answer = gateway.claim(&mut ledger, now, &quota());
            match chance {
                // The answer is lost.
                0..=3 => {}
                // It dies before it hears the answer, with its calls.
                4 => {
                    born += 1;
                    *gateway = Gateway::new(born, 0);
                }
                _ => gateway.apply(answer),
            }
            gateways[at].work(0);
            let used: u64 = gateways.iter().map(|gateway| gateway.running).sum();
            prop_assert!(used <= 10, "{used} run");
            let rate: u64 = gateways.iter().map(|gateway| gateway.share.rate.unwrap_or(0)).sum();
            prop_assert!(rate <= 100_000_000, "{rate}");
            let burst: u64 = gateways.iter().map(|gateway| gateway.share.burst.unwrap_or(0)).sum();
            prop_assert!(burst <= 100_000, "{burst}");
            let held = ledger.in_use(&key());
            prop_assert!(held.concurrency <= Some(10) && held.memory_mb <= Some(1_000), "{held:?}");
            prop_assert!(held.rate <= Some(100_000_000), "{held:?}");
        }
    }
}
