//! Tests of [`super`]: what an alias takes, and that rollbacks go back and never forth.

use lyra_types::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::functions::tests_support::version;

fn route(versions: impl IntoIterator<Item = u64>) -> Route {
    let function = FunctionName::new("f").unwrap();
    Route {
        tenant: TenantName::default_tenant(),
        versions: versions.into_iter().map(|number| (number, version(&function, number))).collect(),
        function,
        generation: 1,
        created_at: Timestamp::default(),
        aliases: BTreeMap::new(),
    }
}

fn set_live(route: &mut Route, weights: BTreeMap<u64, u32>) {
    let live = moved(route.aliases.get("live"), AliasName::live(), weights, Timestamp::default());
    route.aliases.insert(AliasName::live(), live);
}

fn roll_back(route: &mut Route) -> Result<BTreeMap<u64, u32>> {
    let weights = before(route)?;
    let live =
        Alias { name: AliasName::live(), weights: weights.clone(), previous: None, updated_at: Timestamp::default() };
    route.aliases.insert(AliasName::live(), live);
    Ok(weights)
}

fn asked(weights: &[(u64, u32)]) -> AliasRequest {
    AliasRequest { weights: Some(weights.iter().copied().collect()), version: None }
}

#[test]
fn an_alias_takes_existing_versions_with_weights_in_range() {
    let route = route(1..=20);
    assert_eq!(weights(&asked(&[(1, 90), (2, 10)]), &route).unwrap(), [(1, 90), (2, 10)].into());
    assert_eq!(weights(&AliasRequest { version: Some(2), weights: None }, &route).unwrap(), [(2, 1)].into());
    assert!(weights(&asked(&[(1, 1_000_000)]), &route).is_ok());
    let refused = |request: AliasRequest| weights(&request, &route).unwrap_err();
    assert!(refused(asked(&[(1, 0), (2, 1)])).detail.contains("weight is 0"));
    assert!(refused(asked(&[(1, 1_000_001)])).detail.contains("more than 1000000"));
    assert!(refused(asked(&[(21, 1)])).detail.contains("version 21 of f does not exist"));
    assert!(refused(AliasRequest { version: Some(0), weights: None }).errors[0].field == "version");
    assert!(refused(asked(&[])).detail.contains("takes 1 to 16"));
    assert!(refused(asked(&(1..=17).map(|v| (v, 1)).collect::<Vec<_>>())).detail.contains("takes 1 to 16"));
    assert!(refused(AliasRequest::default()).detail.contains("give weights or version"));
    assert!(refused(AliasRequest { version: Some(1), ..asked(&[(1, 1)]) }).detail.contains("not both"));
    assert_eq!(refused(asked(&[(1, 0), (30, 1), (40, 1)])).errors.len(), 3, "every fault is told");
}

#[test]
fn a_second_rollback_goes_further_back() {
    let mut route = route(1..=3);
    for version in 1..=3 {
        set_live(&mut route, [(version, 1)].into());
    }
    assert_eq!(roll_back(&mut route).unwrap(), [(2, 1)].into());
    assert_eq!(roll_back(&mut route).unwrap(), [(1, 1)].into());
    assert_eq!(roll_back(&mut route).unwrap_err().code, Code::Conflict);
}

#[test]
fn a_rollback_of_a_split_ends_the_split() {
    let mut route = route(1..=3);
    set_live(&mut route, [(2, 1)].into());
    set_live(&mut route, [(2, 90), (3, 10)].into());
    set_live(&mut route, [(2, 90), (3, 10)].into());
    assert_eq!(roll_back(&mut route).unwrap(), [(2, 1)].into(), "the same weights again are no change");
    assert_eq!(roll_back(&mut route).unwrap(), [(1, 1)].into());
}

#[test]
fn a_rollback_to_a_version_that_is_gone_takes_the_next_lower_one() {
    let mut route = route([1, 3, 5]);
    set_live(&mut route, [(4, 1)].into());
    set_live(&mut route, [(5, 1)].into());
    assert_eq!(roll_back(&mut route).unwrap(), [(3, 1)].into());
}

#[derive(Debug, Clone)]
enum Step {
    Set(Vec<(u64, u32)>),
    Back,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever was done: `live` points at versions that exist with weights in range, every draw picks one of them,
    /// and rollbacks in a row reach an end, each lower than the one before once the recorded change is undone.
    #[test]
    fn rollbacks_in_a_row_always_come_to_an_end(
        versions in prop::collection::btree_set(1u64..12, 1..8),
        steps in prop::collection::vec(prop_oneof![
            3 => prop::collection::vec((1u64..12, 1u32..=1_000_000), 1..4).prop_map(Step::Set),
            1 => Just(Step::Back),
        ], 0..12),
        draws in prop::collection::vec(any::<u64>(), 8),
    ) {
        let mut route = route(versions.iter().copied());
        for step in steps {
            match step {
                Step::Set(wanted) => {
                    if let Ok(weights) = weights(&asked(&wanted), &route) {
                        set_live(&mut route, weights);
                    }
                }
                Step::Back => drop(roll_back(&mut route)),
            }
            if let Some(live) = route.aliases.get("live") {
                prop_assert!(live.weights.keys().all(|version| versions.contains(version)));
                for draw in &draws {
                    let picked = live.pick(*draw);
                    prop_assert!(picked.is_some_and(|version| live.weights.contains_key(&version)));
                }
            }
        }
        let mut seen = Vec::new();
        while let Ok(weights) = roll_back(&mut route) {
            seen.push(*weights.keys().next().unwrap());
            prop_assert!(seen.len() <= versions.len() + 1, "{seen:?}");
        }
        prop_assert!(seen.windows(2).all(|pair| pair[1] < pair[0]), "{seen:?}");
    }
}
