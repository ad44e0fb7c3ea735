//! Truth tables of the policies, from their papers' definitions.
#![expect(clippy::disallowed_methods, reason = "ages are made by hand")]

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn build(policy: Policy, begin: Instant) -> Box<dyn KeepAlive> {
    policy.build(MINUTE, &Hybrid::default(), begin)
}

fn track(calls: u64, cold_ms: u64, mib: u64) -> Track {
    Track { calls, memory: mib << 20, cold: Some(Duration::from_millis(cold_ms)), ..Track::default() }
}

fn rested(since: Instant, stamp: f64) -> Rested {
    Rested { since, stamp, served: 1 }
}

#[test]
fn ttl_and_lru_let_the_longest_idle_go_first_and_only_ttl_lets_go_without_pressure() {
    let begin = Instant::now();
    let (ttl, lru) = (build(Policy::Ttl, begin), build(Policy::Lru, begin));
    let (old, new) = (rested(begin, 0.0), rested(begin + MINUTE, 0.0));
    let (mut cheap, mut dear) = (track(1, 1, 1), track(9, 9_000, 1));
    for policy in [&ttl, &lru] {
        assert!(policy.rank(&mut dear, &old) < policy.rank(&mut cheap, &new));
    }
    assert_eq!(ttl.keep(&mut dear, &old), Some(MINUTE));
    assert_eq!(lru.keep(&mut dear, &old), None);
}

#[test]
fn greedy_dual_ranks_by_clock_and_frequency_times_cost_by_size() {
    let begin = Instant::now();
    let mut policy = build(Policy::GreedyDual, begin);
    // (frequency, cold start in ms, MiB, stamp) and the priority by the paper's formula.
    for (calls, cold, mib, stamp, priority) in [
        (1, 1_000, 128, 0.0, 1.0 / 128.0),
        (10, 1_000, 128, 0.0, 10.0 / 128.0),
        (10, 3_000, 128, 0.0, 30.0 / 128.0),
        (10, 3_000, 512, 0.0, 30.0 / 512.0),
        (10, 3_000, 512, 0.5, 0.5 + 30.0 / 512.0),
    ] {
        let rank = policy.rank(&mut track(calls, cold, mib), &rested(begin, stamp));
        assert!((rank - priority).abs() < 1e-9, "{rank} is not {priority}");
    }
    assert_eq!(policy.stamp(), 0.0);
    policy.evicted(0.25);
    assert_eq!(policy.stamp(), 0.25, "the clock is the priority of what went last");
    policy.evicted(0.10);
    assert_eq!(policy.stamp(), 0.25, "and never goes back");
    // What was valuable once and is not called any more goes at last.
    let abandoned = policy.rank(&mut track(100, 1_000, 128), &rested(begin, 0.0));
    for _ in 0..100 {
        let stamp = policy.stamp();
        let newcomer = policy.rank(&mut track(1, 1_000, 128), &rested(begin, stamp));
        policy.evicted(newcomer);
    }
    let newcomer = policy.rank(&mut track(1, 1_000, 128), &rested(begin, policy.stamp()));
    assert!(newcomer > abandoned);
}

#[test]
fn landlord_lets_the_one_go_whose_credit_for_each_byte_is_used_up_first() {
    let begin = Instant::now();
    let mut policy = build(Policy::Landlord, begin);
    // Credits 1 s, 3 s, 3 s over 100, 100 and 600 MiB: 10, 30 and 5 ms for each MiB.
    let mut tracks = [track(50, 1_000, 100), track(1, 3_000, 100), track(1, 3_000, 600)];
    let ranks = |policy: &dyn KeepAlive, tracks: &mut [Track; 3]| {
        tracks.each_mut().map(|track| (policy.rank(track, &rested(begin, 0.0)) * 1e3).round() as u64)
    };
    assert_eq!(ranks(&*policy, &mut tracks), [10, 30, 5], "the frequency does not count");
    policy.evicted(0.005);
    policy.evicted(0.010);
    // All have paid 10 ms for each MiB; one that is used now has its whole credit again.
    let again = policy.rank(&mut tracks[0], &rested(begin, policy.stamp()));
    assert!((again - 0.020).abs() < 1e-9);
}

fn times(idle_minutes: &[u64]) -> IdleTimes {
    let mut times = IdleTimes::new(MINUTE, 240);
    for minutes in idle_minutes {
        times.record(MINUTE * u32::try_from(*minutes).expect("small"));
    }
    times
}

fn window(idle_minutes: &[u64]) -> (f64, f64) {
    let window = Hybrid::default().window(Some(&times(idle_minutes)));
    (window.prewarm.as_secs_f64() / 60.0, window.keep.as_secs_f64() / 60.0)
}

fn close(left: (f64, f64), right: (f64, f64)) -> bool {
    (left.0 - right.0).abs() < 1e-6 && (left.1 - right.1).abs() < 1e-6
}

#[test]
fn hybrid_windows_are_those_of_the_papers_definition() {
    // Every idle time 30 minutes: pre-warm at 27, and stay to 110 % of the end of the bin.
    assert!(close(window(&[30; 20]), (27.0, 31.0 * 1.1 - 27.0)));
    // The head is the 5th percentile, the tail the 99th: one outlier in a hundred is left out.
    let mut spread = vec![20; 10];
    spread.extend([40; 89]);
    spread.push(200);
    assert!(close(window(&spread), (18.0, 41.0 * 1.1 - 18.0)));
    // A head in the first bin: nothing is unloaded.
    assert!(close(window(&[0; 20]), (0.0, 1.1)));
    // Nothing known: the whole range.
    assert!(close(window(&[]), (0.0, 240.0)));
    // Idle times all over the range: the histogram says nothing.
    assert!(close(window(&(0..240).collect::<Vec<_>>()), (0.0, 240.0)));
    // Mostly beyond the range: around the usual one, 15 % to both sides.
    assert!(close(window(&[300, 300, 900, 300, 300]), (255.0, 90.0)));
    // As often within as beyond: the histogram stands.
    assert!(close(window(&[30, 300]), (27.0, 31.0 * 1.1 - 27.0)));
}

#[test]
fn hybrid_unloads_what_has_served_and_keeps_what_was_prewarmed() {
    let begin = Instant::now();
    let mut policy = build(Policy::Hybrid, begin);
    let mut track = track(1, 1_000, 128);
    for n in 1..=20u32 {
        policy.called(&mut track, begin + MINUTE * 30 * n);
        track.ended = Some(begin + MINUTE * 30 * n);
        policy.ended(&mut track, begin + MINUTE * 30 * n);
    }
    let now = begin + MINUTE * 600;
    assert_eq!(policy.prewarm(&mut track), Some(MINUTE * 27));
    assert_eq!(policy.keep(&mut track, &rested(now, 0.0)), Some(Duration::ZERO));
    let prewarmed = Rested { served: 0, ..rested(now, 0.0) };
    assert_eq!(policy.keep(&mut track, &prewarmed).map(|keep| keep.as_secs()), Some(426));
}

/// The decision of section 4.2 of the paper, for distributions of the kinds that its figure 12 shows.
#[test]
fn hybrid_decides_as_the_paper_does_for_each_kind_of_distribution() {
    let several = |groups: &[(u64, usize)]| {
        groups.iter().flat_map(|(minutes, count)| std::iter::repeat_n(*minutes, *count)).collect::<Vec<_>>()
    };
    // A clear head and tail: pre-warming window up to the head less 10 %, kept until the tail plus 10 %.
    let clear = several(&[(58, 2), (59, 10), (60, 70), (61, 15), (62, 3)]);
    assert!(close(window(&clear), (0.9 * 59.0, 1.1 * 63.0 - 0.9 * 59.0)));
    // No head, a tail: never unloaded before the tail, which leaves out the one idle time in a hundred.
    let falling = several(&[(0, 60), (1, 20), (2, 10), (3, 9), (120, 1)]);
    assert!(close(window(&falling), (0.0, 1.1 * 4.0)));
    // The head is rounded down and the tail up to the edge of a bin, so that no idle time falls out at the edge.
    assert!(close(window(&several(&[(10, 50), (11, 50)])), (0.9 * 10.0, 1.1 * 12.0 - 0.9 * 10.0)));
    // One peak on even ground is representative (coefficient of variation over 2) until the ground hides it.
    let peak = |ground: usize| [(0..240).collect::<Vec<_>>().repeat(ground), vec![30; 60]].concat();
    assert!(window(&peak(1)).1 < 240.0 * 1.1 && times(&peak(1)).variation() > 2.0);
    assert!(close(window(&peak(3)), (0.0, 240.0)));
    // Just half beyond the range is not too many; one more is, and the histogram is left for the forecast.
    assert!(close(window(&several(&[(30, 5), (600, 5)])), (27.0, 1.1 * 31.0 - 27.0)));
    assert!(close(window(&several(&[(30, 5), (600, 6)])), (0.85 * 600.0, 0.3 * 600.0)));
}

/// The paper has one instance for each application. Where calls overlap, each instance has an idle time of its own.
#[test]
fn hybrid_learns_how_long_each_of_several_instances_is_idle() {
    let begin = Instant::now();
    let mut policy = build(Policy::Hybrid, begin);
    let mut track = track(1, 1_000, 128);
    // Every minute one call, every 40 minutes a second one beside it.
    for minute in 0..=400u32 {
        let (at, end) = (begin + MINUTE * minute, begin + MINUTE * minute + MINUTE / 2);
        let calls = if minute % 40 == 0 { 2 } else { 1 };
        (0..calls).for_each(|_| policy.called(&mut track, at));
        (0..calls).for_each(|_| policy.ended(&mut track, end));
    }
    let times = track.idle_times.as_deref().expect("learnt");
    assert_eq!(times.percentile(0.5), Some(0), "the first instance is idle for half a minute");
    assert_eq!(times.percentile(1.0), Some(39), "the second one for half a minute less than forty");
    let keep = policy.keep(&mut track, &rested(begin, 0.0)).expect("a time");
    assert!(keep >= MINUTE * 40, "both are kept: {keep:?}");
    assert_eq!(track.vacated.len(), 2, "as many entries as calls ran at once");
}

#[test]
fn hybrid_lets_the_longest_idle_go_under_pressure_however_short_its_window() {
    let begin = Instant::now();
    let policy = build(Policy::Hybrid, begin);
    let mut unknown = track(1, 1_000, 128);
    let mut popular = track(100, 1_000, 128);
    popular.idle_times = Some(Box::new(times(&[0; 50])));
    let (now, before) = (rested(begin + MINUTE, 0.0), rested(begin, 0.0));
    assert!(policy.keep(&mut popular, &now) < policy.keep(&mut unknown, &before));
    assert!(policy.rank(&mut unknown, &before) < policy.rank(&mut popular, &now));
}

#[test]
fn policies_have_names_that_parse() {
    for name in ["ttl", "lru", "greedy-dual", "landlord", "hybrid"] {
        assert_eq!(Policy::parse(name).map(|policy| policy.name()), Some(name));
    }
    assert_eq!(Policy::parse("best"), None);
}
