//! Patches and ownership of fields.

use lyra_types::Timestamp;
use lyra_types::resources::{ManagedFieldsEntry, Time};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::fields::Fields;
use super::*;

const SHAPE: Shape = Shape(&[
    ("spec.containers", &["name"]),
    ("spec.containers.env", &["name"]),
    ("spec.containers.ports", &["containerPort", "protocol"]),
]);

fn manager(name: &str) -> Manager<'_> {
    Manager { name, subresource: "", now: Time::from(Timestamp::from_millis(0)) }
}

#[test]
fn strategic_merge_knows_keys_and_directives() {
    let object = json!({"spec": {"containers": [
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "b", "image": "b:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
    ], "secrets": ["s"], "policy": {"max": 1, "min": 0}}});
    let change = json!({"spec": {
        "$setElementOrder/containers": [{"name": "a"}],
        "containers": [
            {"name": "a", "image": "a:2", "env": [{"name": "X", "$patch": "delete"}, {"name": "Z", "value": "3"}]},
            {"name": "b", "ports": [{"containerPort": 80, "name": "http"}]},
            {"name": "c", "image": "c:1"},
        ],
        "secrets": ["t"], "policy": {"$patch": "replace", "max": 5},
    }});
    let patched = patch(&object, PatchType::Strategic, &change, SHAPE).unwrap();
    assert_eq!(
        patched,
        json!({"spec": {"containers": [
            {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}, {"name": "Z", "value": "3"}]},
            {"name": "b", "image": "b:1", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]},
            {"name": "c", "image": "c:1"},
        ], "secrets": ["t"], "policy": {"max": 5}}})
    );
    for bad in [json!([]), json!({"spec": {"containers": [{"image": "x"}]}}), json!({"$patch": "eat"})] {
        assert!(matches!(patch(&object, PatchType::Strategic, &bad, SHAPE), Err(PatchFault::Malformed(_))), "{bad}");
    }
}

#[test]
fn json_and_merge_patches_are_carried_out_or_refused_whole() {
    let object = json!({"metadata": {"labels": {"a": "1"}}});
    let patched = patch(&object, PatchType::Merge, &json!({"metadata": {"labels": {"a": null, "b": "2"}}}), SHAPE);
    assert_eq!(patched, Ok(json!({"metadata": {"labels": {"b": "2"}}})));
    let change =
        json!([{"op": "add", "path": "/metadata/labels/b", "value": "2"}, {"op": "test", "path": "/x", "value": 1}]);
    assert!(matches!(patch(&object, PatchType::Json, &change, SHAPE), Err(PatchFault::Unfit(_))));
    assert!(matches!(patch(&object, PatchType::Json, &json!({"op": 1}), SHAPE), Err(PatchFault::Malformed(_))));
}

#[test]
fn apply_adds_changes_and_takes_back_what_it_set() {
    let first = json!({"metadata": {"labels": {"team": "x"}}, "spec": {"max": 3, "containers": [
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:1"}]}});
    let (object, managed) = apply(&json!({}), &first, &[], &manager("me"), false, SHAPE).unwrap();
    assert_eq!(object, first);
    let second = json!({"spec": {"max": 4, "containers": [{"name": "a", "image": "a:2"}]}});
    let (object, managed) = apply(&object, &second, &managed, &manager("me"), false, SHAPE).unwrap();
    let mut tidy = object.clone();
    tidy["metadata"].as_object_mut().unwrap().clear();
    assert_eq!(
        tidy,
        json!({"metadata": {}, "spec": {"max": 4, "containers": [{"name": "a", "image": "a:2", "env": []}]}}),
        "what is not wanted any more goes"
    );
    assert_eq!(managed.len(), 1);
    let (again, same) = apply(&object, &second, &managed, &manager("me"), false, SHAPE).unwrap();
    assert_eq!((again, same), (object, managed), "an apply that changes nothing changes nothing");
}

#[test]
fn what_another_manager_set_is_a_conflict_unless_forced() {
    let (object, managed) =
        apply(&json!({}), &json!({"spec": {"max": 3, "min": 1}}), &[], &manager("one"), false, SHAPE).unwrap();
    let other = json!({"spec": {"max": 5}});
    let conflicts = apply(&object, &other, &managed, &manager("two"), false, SHAPE).unwrap_err();
    assert_eq!(conflicts, [Conflict { manager: "one".into(), operation: "Apply".into(), field: ".spec.max".into() }]);
    let (object, managed) = apply(&object, &other, &managed, &manager("two"), true, SHAPE).unwrap();
    assert_eq!(object, json!({"spec": {"max": 5, "min": 1}}));
    // The first one lets go of what it has lost without taking it away.
    let (object, managed) =
        apply(&object, &json!({"spec": {"min": 1}}), &managed, &manager("one"), false, SHAPE).unwrap();
    assert_eq!(object, json!({"spec": {"max": 5, "min": 1}}));
    // The same value is shared, and stays until both let go.
    let (object, managed) =
        apply(&object, &json!({"spec": {"min": 1, "max": 5}}), &managed, &manager("two"), false, SHAPE).unwrap();
    let (object, managed) = apply(&object, &json!({"spec": {}}), &managed, &manager("one"), false, SHAPE).unwrap();
    assert_eq!(object, json!({"spec": {"max": 5, "min": 1}}));
    let (object, _) = apply(&object, &json!({"spec": {}}), &managed, &manager("two"), false, SHAPE).unwrap();
    assert_eq!(object, json!({"spec": {}}));
}

#[test]
fn an_update_takes_over_what_it_changes() {
    let (old, managed) =
        apply(&json!({}), &json!({"spec": {"max": 3, "min": 1}}), &[], &manager("one"), false, SHAPE).unwrap();
    let new = json!({"spec": {"max": 9, "min": 1}});
    let managed = after_update(&managed, Some(&old), &new, &manager("editor"), SHAPE);
    let owners: Vec<_> = managed.iter().map(|entry| (entry.manager.as_str(), entry.fields_v1.to_string())).collect();
    assert_eq!(
        owners,
        [("one", r#"{"f:spec":{"f:min":{}}}"#.to_owned()), ("editor", r#"{"f:spec":{"f:max":{}}}"#.to_owned())]
    );
    let conflicts =
        apply(&new, &json!({"spec": {"max": 3, "min": 1}}), &managed, &manager("one"), false, SHAPE).unwrap_err();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(after_update(&managed, Some(&new), &new, &manager("third"), SHAPE), managed);
    let mut many = managed;
    for number in 0..30 {
        let (old, new) = (json!({"spec": {"n": number}}), json!({"spec": {"n": number + 1}, "x": number}));
        many = after_update(&many, Some(&old), &new, &manager(&format!("m{number}")), SHAPE);
    }
    assert!(many.len() <= 11);
}

/// A small object that managers may want.
fn configuration() -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map("[XY]", 0..3u8, 0..3);
    let container = (prop::option::of(0..3u8), env).prop_map(|(image, env)| {
        let env: Vec<Value> =
            env.into_iter().map(|(name, value)| json!({"name": name, "value": value.to_string()})).collect();
        let mut container = json!({});
        if let Some(image) = image {
            container["image"] = json!(format!("i:{image}"));
        }
        if !env.is_empty() {
            container["env"] = json!(env);
        }
        container
    });
    let containers = prop::collection::btree_map("[ab]", container, 0..3);
    (prop::option::of(0..3u8), containers, prop::collection::btree_map("[lm]", "[01]", 0..3)).prop_map(
        |(max, containers, labels)| {
            let mut object = json!({"spec": {}});
            if let Some(max) = max {
                object["spec"]["max"] = json!(max);
            }
            if !containers.is_empty() {
                let items = containers.into_iter().map(|(name, mut container)| {
                    container["name"] = json!(name);
                    container
                });
                object["spec"]["containers"] = items.collect();
            }
            if !labels.is_empty() {
                object["metadata"] = json!({"labels": labels});
            }
            object
        },
    )
}

/// Whether all that is wanted is there with its value.
fn holds(object: &Value, wanted: &Value) -> bool {
    Fields::changed(Some(object), &overlaid(object, wanted), "", SHAPE).is_empty()
}

fn overlaid(object: &Value, wanted: &Value) -> Value {
    apply(object, wanted, &[], &manager("checker"), true, SHAPE).unwrap().0
}

proptest! {
    #[test]
    fn fields_are_read_back_as_they_were_written(object in configuration()) {
        let fields = Fields::of(&object, "", SHAPE);
        prop_assert_eq!(Fields::from_json(&fields.to_json()), fields);
    }

    #[test]
    fn a_manager_that_applies_gets_what_it_wants_and_others_keep_theirs(
        steps in prop::collection::vec((0..3usize, configuration(), any::<bool>()), 1..12),
    ) {
        let names = ["one", "two", "three"];
        let mut object = json!({});
        let mut managed: Vec<ManagedFieldsEntry> = Vec::new();
        let mut wishes: [Option<Value>; 3] = [None, None, None];
        for (who, wanted, force) in steps {
            match apply(&object, &wanted, &managed, &manager(names[who]), force, SHAPE) {
                Err(conflicts) => {
                    prop_assert!(!force && !conflicts.is_empty());
                    prop_assert!(conflicts.iter().all(|conflict| conflict.manager != names[who]));
                    continue;
                }
                Ok((new, entries)) => {
                    object = new;
                    managed = entries;
                }
            }
            prop_assert!(holds(&object, &wanted), "{object} has {wanted}");
            wishes[who] = Some(wanted);
            if !force {
                // Nobody lost a value that it still owns.
                for entry in &managed {
                    let owned = Fields::from_json(&entry.fields_v1);
                    let mut there = owned.clone();
                    there.keep_existing(&Fields::of(&object, "", SHAPE));
                    prop_assert_eq!(there.paths(), owned.paths(), "{} still has what it set", &entry.manager);
                }
            }
        }
        // When all let go, nothing that was applied is left.
        for name in names {
            if let Ok((new, entries)) = apply(&object, &json!({}), &managed, &manager(name), true, SHAPE) {
                object = new;
                managed = entries;
            }
        }
        let rest = Fields::of(&object, "", SHAPE).paths();
        let containers = rest.iter().filter(|path| path.contains("image") || path.contains("value") || path.contains("max")).count();
        prop_assert_eq!(containers, 0, "{:?} is left", rest);
    }
}
