//! What the store promises: it follows what it is told, stays bounded, and comes back after a restart.

use lyra_types::Runtime;
use lyra_types::invocation::Start;

use super::*;
use crate::fixtures::{phases, version};

const MS: Duration = Duration::from_millis(1);

fn store(config: Config) -> (Characteristics, Clock) {
    let clock = Clock::simulated(Timestamp::from_millis(1_000_000));
    (Characteristics::open(config, clock.clone()), clock)
}

fn saved_in(folder: &tempfile::TempDir) -> Config {
    Config { file: Some(folder.path().join("worker").join("characteristics")), ..Config::default() }
}

fn call(store: &Characteristics, clock: &Clock, of: &FunctionVersion, start: Start, exec: Duration) {
    store.arrived(of, clock.instant()).ended(start, &phases(3 * MS, exec), true);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_measured_is_the_default_of_the_runtime() {
    let (store, clock) = store(Config::default());
    let python = version("default", 1, 1);
    let default = Expected::of_runtime(Runtime::Python, 128);
    assert_eq!(store.expected(&python), default);
    assert!(store.get((1, 1)).is_none(), "asking makes no record");
    call(&store, &clock, &python, Start::Cold, 40 * MS);
    let expected = store.expected(&python);
    assert_eq!((expected.cold, expected.exec, expected.end_to_end), (3 * MS, 40 * MS, 43 * MS));
    assert_eq!((expected.warm, expected.inter_arrival, expected.memory), (default.warm, None, 128 << 20));
    assert_eq!(expected.start(Start::Cold), expected.cold);
    store.of(&python).needed(50 << 20);
    assert_eq!(store.expected(&python).memory, 50 << 20);
}

#[tokio::test(start_paused = true)]
async fn versions_are_told_apart_and_times_between_arrivals_are_measured() {
    let (store, clock) = store(Config::default());
    let (one, two) = (version("default", 1, 1), version("default", 1, 2));
    for _ in 0..10 {
        call(&store, &clock, &one, Start::Warm, MS);
        clock.sleep(20 * MS).await;
    }
    call(&store, &clock, &two, Start::Warm, 9 * MS);
    assert_eq!(store.expected(&one).inter_arrival, Some(20 * MS));
    assert_eq!((store.expected(&one).exec, store.expected(&two).exec), (MS, 9 * MS));
    let views = store.view();
    assert_eq!(views.iter().map(|view| (view.version, view.calls)).collect::<Vec<_>>(), [(1, 10), (2, 1)]);
    assert_eq!(views[0].exec.map(|exec| (exec.samples, exec.recent_median)), Some((10, MS)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_broke_says_nothing_of_how_long_calls_run() {
    let (store, clock) = store(Config::default());
    let of = version("default", 1, 1);
    store.arrived(&of, clock.instant()).ended(Start::Cold, &phases(7 * MS, MS), false);
    let expected = store.expected(&of);
    assert_eq!((expected.cold, expected.exec), (7 * MS, Expected::of_runtime(Runtime::Python, 128).exec));
    assert_eq!(store.of(&of).measured_exec(), None);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_versions_is_bounded_and_those_called_longest_ago_go_first() {
    let (store, clock) = store(Config { max_versions: 16, ..Config::default() });
    let kept = version("default", 1_000, 1);
    for generation in 0..100 {
        call(&store, &clock, &version("default", generation, 1), Start::Warm, MS);
        clock.sleep(MS).await;
        call(&store, &clock, &kept, Start::Warm, MS);
        clock.sleep(MS).await;
        assert!(store.view().len() <= 16);
    }
    let left: Vec<u64> = store.view().into_iter().map(|view| view.generation).collect();
    assert!(left.contains(&1_000) && left.contains(&99) && left.contains(&92) && !left.contains(&50), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_goes_with_its_function() {
    let (store, clock) = store(Config::default());
    for (generation, number) in [(1, 1), (1, 2), (2, 1)] {
        call(&store, &clock, &version("default", generation, number), Start::Warm, MS);
    }
    store.forget(1, Some(2));
    assert!(store.get((1, 1)).is_some() && store.get((1, 2)).is_none());
    store.forget(1, None);
    assert!(store.get((1, 1)).is_none() && store.get((2, 1)).is_some());
}

#[tokio::test(start_paused = true)]
async fn estimates_survive_a_restart_also_the_time_since_the_last_call() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let of = version("default", 1, 1);
    let (before, clock) = store(saved_in(&folder));
    for _ in 0..30 {
        call(&before, &clock, &of, Start::Warm, 12 * MS);
        clock.sleep(100 * MS).await;
    }
    before.save();
    // The worker is killed here: nothing else is done. The next one starts 900 ms later.
    let views = before.view();
    drop(before);
    clock.sleep(900 * MS).await;
    let after = Characteristics::open(saved_in(&folder), clock.clone());
    assert_eq!(after.view(), views);
    assert_eq!(after.expected(&of).exec, 12 * MS);
    after.arrived(&of, clock.instant());
    let view = after.view().remove(0).inter_arrival.expect("it was measured");
    assert_eq!((view.samples, view.recent_max), (30, 1_000 * MS));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_when_nothing_has_changed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (store, clock) = store(saved_in(&folder));
    let path = saved_in(&folder).file.expect("it has one");
    store.save();
    assert!(!path.exists());
    call(&store, &clock, &version("default", 1, 1), Start::Warm, MS);
    store.save();
    assert!(path.exists());
    std::fs::remove_file(&path).expect("it is there");
    store.save();
    assert!(!path.exists());
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_is_left_aside_and_replaced_by_the_next_save() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = saved_in(&folder).file.expect("it has one");
    let of = version("default", 1, 1);
    let (whole, clock) = store(saved_in(&folder));
    call(&whole, &clock, &of, Start::Warm, MS);
    whole.save();
    let good = std::fs::read(&path).expect("it was saved");
    let flipped = {
        let mut bytes = good.clone();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        bytes
    };
    let of_the_future = String::from_utf8_lossy(&good).replace("characteristics 1 ", "characteristics 2 ").into_bytes();
    for broken in [good[..good.len() / 2].to_vec(), Vec::new(), b"\0\0\0".to_vec(), flipped, of_the_future] {
        std::fs::write(&path, &broken).expect("it can be written");
        let (store, clock) = store(saved_in(&folder));
        assert!(store.view().is_empty());
        call(&store, &clock, &of, Start::Warm, MS);
        store.save();
        assert_eq!(Characteristics::open(saved_in(&folder), clock).view().len(), 1);
    }
    // What a crash leaves of a save that was under way is not read.
    std::fs::write(path.with_extension("new"), b"half").expect("it can be written");
    assert_eq!(Characteristics::open(saved_in(&folder), clock).view().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_cannot_be_written_is_no_reason_to_stop() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("worker"), b"a file, not a folder").expect("it can be written");
    let (store, clock) = store(saved_in(&folder));
    call(&store, &clock, &version("default", 1, 1), Start::Warm, MS);
    store.save();
    std::fs::remove_file(folder.path().join("worker")).expect("it is there");
    store.save();
    assert_eq!(Characteristics::open(saved_in(&folder), clock).view().len(), 1, "a failed save is tried again");
}
