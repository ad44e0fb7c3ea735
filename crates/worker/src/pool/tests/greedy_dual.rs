//! Greedy-Dual in the pool beside a model that is too simple to be wrong: whatever is called in whatever order, the
//! same instances are there.

use super::*;

/// An instance as the model sees it.
#[derive(Debug)]
struct Kept {
    id: lyra_types::InstanceId,
    version: usize,
    /// `None` while it serves; else the clock at the end of its last call, and the number of the step.
    rested: Option<(f64, usize)>,
}

/// The policy by the book: every priority is made anew, over all idle instances, for every eviction.
#[derive(Debug, Default)]
struct Model {
    clock: f64,
    kept: Vec<Kept>,
    frequency: [u64; 4],
    cost: [Option<f64>; 4],
}

const MEMORY: u32 = 1_000;
const SIZES: [u32; 4] = [128, 300, 200, 450];

impl Model {
    fn held(&self, only_busy: bool) -> u32 {
        let counted = self.kept.iter().filter(|kept| !only_busy || kept.rested.is_none());
        counted.map(|kept| SIZES[kept.version]).sum()
    }

    fn priority(&self, kept: &Kept) -> Option<f64> {
        let (clock, _) = kept.rested?;
        let worth = self.cost[kept.version]? / f64::from(SIZES[kept.version]);
        let instances = self.kept.iter().filter(|other| other.version == kept.version).count();
        Some(clock + self.frequency[kept.version] as f64 / instances as f64 * worth)
    }

    fn evict(&mut self) {
        let idle =
            self.kept.iter().enumerate().filter_map(|(at, kept)| Some((self.priority(kept)?, kept.rested?.1, at)));
        let (priority, _, at) = idle.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).expect("one is idle");
        self.clock = self.clock.max(priority);
        let gone = self.kept.remove(at);
        if !self.kept.iter().any(|kept| kept.version == gone.version) {
            self.frequency[gone.version] = 0;
        }
    }

    /// Makes room for one more of the version.
    fn start(&mut self, version: usize) {
        while self.held(false) + SIZES[version] > MEMORY {
            self.evict();
        }
    }

    fn ends(&mut self, id: lyra_types::InstanceId, step: usize, took: Option<f64>) {
        let kept = self.kept.iter_mut().find(|kept| kept.id == id).expect("it is there");
        kept.rested = Some((self.clock, step));
        if let Some(took) = took {
            let cost = &mut self.cost[kept.version];
            *cost = Some(cost.map_or(took, |before| 0.8 * before + 0.2 * took));
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A call of a version; a start, where it needs one, takes so many ms.
    Call(usize, u16),
    /// One of the calls that run ends.
    End(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4usize, 10..5_000u16).prop_map(|(version, took)| Step::Call(version, took)),
        3 => any::<prop::sample::Index>().prop_map(Step::End),
    ]
}

async fn play(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (pool, count) = (pool(u64::from(MEMORY), 1_000, Policy::GreedyDual), Arc::<Lock<usize>>::default());
    let versions: Vec<_> = (0u64..).zip(SIZES).map(|(number, size)| version(number, size, 0)).collect();
    let mut model = Model::default();
    let mut busy: Vec<(Instance, Option<f64>)> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        match step {
            Step::Call(of, took) => {
                let idle = model.kept.iter().filter(|kept| kept.version == of && kept.rested.is_some()).count();
                if idle == 0 && model.held(true) + SIZES[of] > MEMORY {
                    continue;
                }
                model.frequency[of] += 1;
                let mut claim = claim(&pool, &versions[of]);
                let grant = match poll(&mut claim) {
                    Poll::Ready(grant) => grant,
                    Poll::Pending => {
                        settle().await;
                        let Poll::Ready(grant) = poll(&mut claim) else { panic!("there is room once idle ones went") };
                        grant
                    }
                };
                let took = f64::from(took) / 1e3;
                let (instance, took) = match grant.expect("the pool is there") {
                    Grant::Idle(instance) => (instance, None),
                    Grant::Start(lease) => {
                        let start = Duration::from_secs_f64(took);
                        (Instance::new(Nothing::boxed(&count), lease, start), Some(took))
                    }
                    Grant::Room(_) => panic!("a call asks for no room"),
                };
                let id = instance.lease.id();
                if took.is_some() {
                    prop_assert_eq!(idle, 0, "one was idle");
                    model.start(of);
                    model.kept.push(Kept { id, version: of, rested: None });
                } else {
                    let kept = model.kept.iter_mut().find(|kept| kept.id == id);
                    kept.expect("the model has it").rested = None;
                }
                busy.push((instance, took));
            }
            Step::End(which) if !busy.is_empty() => {
                let (instance, took) = busy.swap_remove(which.index(busy.len()));
                model.ends(instance.lease.id(), number, took);
                pool.put(instance, pool.shared.clock.instant());
            }
            Step::End(_) => {}
        }
        settle().await;
        let mut there: Vec<_> = pool.list().iter().map(|status| status.id).collect();
        let mut expected: Vec<_> = model.kept.iter().map(|kept| kept.id).collect();
        there.sort();
        expected.sort();
        prop_assert_eq!(there, expected, "after step {}: {:?}", number, model);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn greedy_dual_ends_the_instance_of_the_lowest_priority_of_all(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(steps))?;
    }
}
