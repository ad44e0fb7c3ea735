//! What is wrong with a document is said, each with its place. The documents are written with `@` before what is wrong.

use lyra_afcl::{Diagnostics, compile};

/// The place of each `@` in a document, which are taken out.
fn places(text: &str) -> (String, Vec<(u32, u32)>) {
    let mut places = Vec::new();
    let mut clean = String::new();
    for (line, content) in text.lines().enumerate() {
        let mut column = 1;
        for c in content.chars() {
            if c == '@' {
                places.push((u32::try_from(line).unwrap() + 1, column));
            } else {
                clean.push(c);
                column += 1;
            }
        }
        clean.push('\n');
    }
    (clean, places)
}

fn errors(text: &str) -> Diagnostics {
    match compile(text) {
        Ok(_) => panic!("compiles:\n{text}"),
        Err(errors) => errors,
    }
}

/// The document has exactly these errors, where its `@` stand.
fn refused(document: &str, codes: &[&str], says: &str) {
    let (text, places) = places(document);
    let found = errors(&text);
    let got: Vec<(&str, (u32, u32))> =
        found.errors.iter().map(|error| (error.code.as_str(), (error.at.line, error.at.column))).collect();
    let want: Vec<(&str, (u32, u32))> = codes.iter().copied().zip(places.iter().copied()).collect();
    assert_eq!(codes.len(), places.len(), "one mark for each error:\n{document}");
    assert_eq!(got, want, "{found}\n{text}");
    assert!(found.to_string().contains(says), "says {says:?}: {found}");
}

/// A workflow `wf` with the input `x`, a number, and the collection `c`; `body` is its body, `out` what it gives.
fn workflow(body: &str, out: &str) -> String {
    format!(
        "name: wf
dataIns:
- {{name: x, type: number, source: x}}
- {{name: c, type: collection, source: c}}
workflowBody:
- function: {{name: use, type: Use, dataIns: [{{name: x, type: number, source: wf/x}}, {{name: c, type: collection, source: wf/c}}], dataOuts: [{{name: y, type: number}}, {{name: l, type: collection}}]}}
{body}
dataOuts:
- {{name: y, type: number, source: {out}}}
"
    )
}

/// The same, giving what `use` gives.
fn with(body: &str) -> String {
    workflow(body, "use/y")
}

/// A function with these inputs.
fn reader(inputs: &str) -> String {
    with(&format!("- function: {{name: f, type: F, dataIns: [{inputs}]}}"))
}

#[test]
fn what_is_no_document_is_refused_with_its_place() {
    refused("@", &["syntax"], "empty");
    refused("@[]", &["wrong_shape"], "must be an object");
    refused("name: wf\nworkflowBody: @[\n", &["syntax"], "not YAML or JSON");
    refused("name: wf\n@---\nname: wf", &["syntax"], "second document");
    refused("@{\"name\": \"wf\"}", &["missing_field"], "needs the field `workflowBody`");
    refused("name: wf\nworkflowBody: @text", &["wrong_shape"], "must be a list");
    refused("name: wf\nworkflowBody: @[]", &["missing_field"], "at least one");
    refused("name: wf\nworkflowBody: !mine @[]", &["syntax"], "tags");
}

#[test]
fn unknown_constructs_and_fields_are_refused_with_what_was_meant() {
    refused(&with("- @funktion: {}"), &["unknown_construct"], "did you mean `function`?");
    refused(&with("- @{function: {name: f, type: F}, if: {}}"), &["wrong_shape"], "one field");
    refused(&with("- function: {name: f, type: F, @dataIn: []}"), &["unknown_field"], "did you mean `dataIns`?");
    refused(&with("- function: {name: f, type: F, @type: G}"), &["duplicate_field"], "twice");
    refused(&with("- function: @{name: f}"), &["missing_field"], "`type`");
    refused(&with("- function: {name: @a/b, type: F}"), &["invalid_name"], "must not be empty");
    refused(&with("- function: {name: @'a,b', type: F}"), &["invalid_name"], "must not be empty");
    refused(&with("- function: {name: @use, type: F}"), &["duplicate_name"], "unique");
    refused(&with("- function: {name: @wf, type: F}"), &["duplicate_name"], "unique");
    refused(
        &with("- function: {name: f, type: F, dataOuts: [{name: a, type: number}, {name: @a, type: number}]}"),
        &["duplicate_name"],
        "already",
    );
    refused(&reader("{name: a, type: @bool, source: wf/x}"), &["unknown_type"], "`boolean`");
    refused(&reader("{name: a, type: @file, source: wf/x}"), &["unknown_type"], "address");
    refused(&reader("@{name: a, type: number}"), &["missing_field"], "`source`");
    refused(&reader("{name: a, type: number, source: 1, value: @1}"), &["wrong_shape"], "one of the two");
}

#[test]
fn sources_are_resolved_or_refused() {
    refused(&reader("{name: a, type: number, source: @us/y}"), &["unknown_source"], "did you mean `use/y`?");
    refused(&reader("{name: a, type: string, source: @http://host/path}"), &["unknown_source"], "write it as `value:`");
    refused(&reader("{name: a, type: number, source: @use/z}"), &["unknown_port"], "it has `l` and `y`");
    refused(
        &reader("{name: a, type: string, source: @use/y}"),
        &["type_mismatch"],
        "is of type `number`, read here as `string`",
    );
    refused(&reader("{name: a, type: number, source: @five}"), &["invalid_constant"], "no number");
    refused(&reader("{name: a, type: boolean, value: @1}"), &["invalid_constant"], "no boolean");
    refused(
        &with(
            "- function: {name: f, type: F, dataIns: [{name: @a, type: number, source: f/b}], dataOuts: [{name: b, type: number}]}",
        ),
        &["self_dependency"],
        "reads what it makes",
    );
    refused(&workflow("", "@nobody/y"), &["unknown_source"], "no function or compound `nobody`");
    refused(&workflow("", "@5"), &["unknown_source"], "no source");
    refused(
        "name: wf\ndataIns: [{name: @x, type: number, source: x}]\nworkflowBody: [{function: {name: f, type: F}}]",
        &["disconnected_data"],
        "nobody reads the input `x`",
    );
    refused(
        &with("- function: {name: @f, type: F, dataIns: [{name: a, type: number, source: g/b}], dataOuts: [{name: b, type: number}]}
- function: {name: g, type: F, dataIns: [{name: a, type: number, source: f/b}], dataOuts: [{name: b, type: number}]}"),
        &["cycle"],
        "wait for each other: `f` → `g` → `f`",
    );
}

#[test]
fn what_stands_in_a_compound_is_not_seen_from_outside() {
    let inner = "- if: {name: i, condition: [{data1: wf/x, data2: '1', type: number, operator: ==}], then: [{function: {name: g, type: G, dataOuts: [{name: b, type: number}]}}], dataIns: [{name: p, type: number, source: wf/x}], dataOuts: [{name: q, type: number, source: 'g/b,i/p'}]}";
    refused(&workflow(inner, "@g/b"), &["not_visible"], "give `i` a dataOut");
    refused(&workflow(inner, "@i/p"), &["not_visible"], "is an input of the if");
    let reads_itself = inner.replace("type: G,", "type: G, dataIns: [{name: a, type: number, source: @i/q}],");
    refused(&with(&reads_itself), &["self_dependency"], "is what the if makes");
    let each = "- parallelFor: {name: p, iterators: [2], loopBody: [{function: {name: g, type: G, dataOuts: [{name: b, type: number}]}}]}";
    refused(&workflow(each, "@g/b"), &["not_visible"], "give `p` a dataOut");
}

#[test]
fn conditions_compare_what_can_be_compared() {
    let condition = |comparison: &str| {
        with(&format!("- if: {{name: i, condition: [{comparison}], then: [{{function: {{name: g, type: G}}}}]}}"))
    };
    refused(&condition("{data1: wf/x, data2: '1', type: number, operator: @=<}"), &["unknown_operator"], "write `<=`");
    refused(
        &condition("{data1: wf/x, data2: '1', type: number, operator: @like}"),
        &["unknown_operator"],
        "startsWith",
    );
    refused(
        &condition("@{data1: wf/x, data2: '1', type: number, operator: contains}"),
        &["operator_type"],
        "does not go with",
    );
    refused(
        &condition("@{data1: wf/c, data2: '[]', type: collection, operator: ==}"),
        &["operator_type"],
        "index of its last element",
    );
    refused(&condition("@{data1: a, data2: b, type: string, operator: <}"), &["operator_type"], "does not go with");
    refused(&condition("{data1: @wf/x, data2: b, type: string, operator: ==}"), &["type_mismatch"], "number");
    refused(&condition("@{data1: wf/x, type: number, operator: ==}"), &["missing_field"], "`data2`");
    refused(
        &condition("{data1: wf/x, data2: '1', type: number, operator: ==, negation: @maybe}"),
        &["wrong_shape"],
        "true or false",
    );
    refused(
        &condition("{data1: wf/x, data2: '1', type: number, operator: ==, combinedWith: @xor}"),
        &["wrong_shape"],
        "`and` or `or`",
    );
    refused(
        &with("- if: {name: i, condition: @[], then: [{function: {name: g, type: G}}]}"),
        &["missing_field"],
        "at least one comparison",
    );
    refused(
        &with(
            "- if: {name: i, condition: [{data1: wf/x, data2: '1', type: number, operator: ==}], then: [{function: {name: g, type: G, dataOuts: [{name: b, type: number}]}}], dataOuts: [{name: @o, type: number, source: g/b}]}",
        ),
        &["incomplete_pair"],
        "one for each side",
    );
}

#[test]
fn loops_say_what_they_iterate_over_and_hand_on() {
    let loops = |head: &str, tail: &str| {
        with(&format!(
            "- while: {{name: w, {head}, condition: [{{data1: w/counter, data2: '3', type: number, operator: <}}], loopBody: [{{function: {{name: g, type: G, dataIns: [{{name: a, type: number, source: w/v}}], dataOuts: [{{name: b, type: number}}]}}}}]{tail}}}"
        ))
    };
    let input = "dataIns: [{name: @v, type: number, source: wf/x}]";
    refused(&loops(input, ""), &["loop_without_output"], "needs a dataOut `v`");
    refused(
        &loops(input, ", dataOuts: [{name: v, type: number, source: wf/x}]"),
        &["loop_invariant"],
        "in each further iteration",
    );
    refused(
        &loops(
            "dataIns: [{name: v, type: number, source: wf/x}]",
            ", dataOuts: [{name: @v, type: string, source: g/b}]",
        ),
        &["type_mismatch"],
        "another type",
    );
    let each = |name: &str, head: &str, tail: &str| {
        with(&format!(
            "- parallelFor: {{name: {name}, {head} loopBody: [{{function: {{name: g, type: G, dataOuts: [{{name: b, type: number}}]}}}}]{tail}}}"
        ))
    };
    refused(&each("@p", "", ""), &["invalid_iterators"], "needs `iterators`");
    refused(&each("p", "iterators: [@nobody],", ""), &["invalid_iterators"], "is no dataIn");
    refused(&each("p", "iterators: [@3, @4],", ""), &["invalid_iterators"; 2], "stands alone");
    refused(&each("p", "iterators: [@'-1'],", ""), &["invalid_iterators"], "whole number of times");
    refused(
        &each("p", "iterators: [e], dataIns: [{name: e, type: number, source: @wf/x}],", ""),
        &["type_mismatch"],
        "no collection",
    );
    refused(
        &each("p", "iterators: [e, @e], dataIns: [{name: e, type: number, source: wf/c}],", ""),
        &["invalid_iterators"],
        "twice",
    );
    refused(
        &each("p", "iterators: [2],", ", dataOuts: [{name: @o, type: number, source: g/b}]"),
        &["type_mismatch"],
        "is a `collection`",
    );
    refused(
        &each("p", "iterators: [2],", ", dataOuts: [{name: o, type: collection, source: @wf/x}]"),
        &["loop_invariant"],
        "the same in each iteration",
    );
    refused(
        &each("p", "iterators: [2], constraints: [{name: concurrency, value: @0}],", ""),
        &["invalid_constraint"],
        "from 1",
    );
    refused(
        &each("p", "iterators: [2], constraints: [{name: @speed, value: 0}],", ""),
        &["unknown_constraint"],
        "`concurrency`",
    );
    refused(&each("p", "loopCounter: @{from: 0, to: 2, step: 0},", ""), &["invalid_counter"], "never arrive");
}

#[test]
fn constraints_take_what_they_can_do() {
    let on = |data_type: &str, constraint: &str| {
        reader(&format!("{{name: a, type: {data_type}, source: wf/c, constraints: [{constraint}]}}"))
    };
    refused(
        &on("collection", "{name: @sort, value: 1}"),
        &["unknown_constraint"],
        "`element-index`, `block`, `split` and `replicate`",
    );
    refused(&on("number", "{name: element-index, value: @-1}"), &["invalid_constraint"], "from 0");
    refused(&on("number", "{name: element-index, value: @first}"), &["invalid_constraint"], "whole numbers");
    refused(
        &on("collection", "{name: element-index, value: @'3:1'}"),
        &["invalid_constraint"],
        "not before their start",
    );
    refused(&on("collection", "{name: element-index, value: @'0:1:0'}"), &["invalid_constraint"], "strides from 1");
    refused(&on("collection", "{name: element-index, value: @'0:1:2:3'}"), &["invalid_constraint"], "start:end:stride");
    refused(&on("collection", "{name: block, value: @'1,0'}"), &["invalid_constraint"], "at least 2");
    refused(&on("collection", "{name: block, value: @'3,3'}"), &["invalid_constraint"], "less than the size");
    refused(&on("collection", "{name: block, value: @'3'}"), &["invalid_constraint"], "a size and an overlap");
    refused(&on("collection", "{name: split, value: @1}"), &["invalid_constraint"], "at least 2");
    refused(&on("collection", "{name: replicate, value: @'1'}"), &["invalid_constraint"], "at least 2");
    refused(&on("collection", "{name: split, value: @wf/x/y}"), &["unknown_port"], "`x/y`");
    refused(&on("string", "{name: @split, value: 2}"), &["type_mismatch"], "gives a collection");
    refused(
        &reader("{name: a, type: number, source: @wf/x, constraints: [{name: element-index, value: 0}]}"),
        &["type_mismatch"],
        "no collection",
    );
}

#[test]
fn properties_are_known_and_in_range() {
    let property = |property: &str| with(&format!("- function: {{name: f, type: F, properties: [{property}]}}"));
    refused(&property("{name: @retry-atempts, value: 3}"), &["unknown_property"], "did you mean `retry-attempts`?");
    refused(&property("{name: timeout, value: @soon}"), &["invalid_property"], "`30s`");
    refused(&property("{name: timeout, value: @0s}"), &["invalid_property"], "`30s`");
    refused(&property("{name: retry-attempts, value: @0}"), &["invalid_property"], "from 1 to 1000");
    refused(&property("{name: retry-factor, value: @0.5}"), &["invalid_property"], "from 1 to 100");
    refused(&property("{name: retry-jitter, value: @2}"), &["invalid_property"], "from 0 to 1");
    refused(&property("{name: catch, value: @nothing}"), &["invalid_property"], "an object");
    refused(&property("{name: memo, value: @perhaps}"), &["invalid_property"], "true or false");
    refused(&property("{name: alternatives, value: @'a,,b'}"), &["invalid_property"], "separated by commas");
    let constraint = |constraint: &str| with(&format!("- function: {{name: f, type: F, constraints: [{constraint}]}}"));
    refused(&constraint("{name: FT-Retries, value: @many}"), &["invalid_constraint"], "0 to 999");
    refused(&constraint("{name: C-maxRunningTime, value: @1s}"), &["invalid_constraint"], "milliseconds");
    refused(&constraint("{name: @FT-Magic, value: 1}"), &["unknown_constraint"], "`FT-Retries`");
    let own = |rest: &str| with(&format!("- function: {{name: @f, type: 'lyra:{rest}}}"));
    refused(&own("sleep'"), &["invalid_function"], "`lyra:delay` and `lyra:callback`");
    refused(&own("delay'"), &["invalid_function"], "needs a dataIn `seconds`");
    refused(
        &own("delay', dataIns: [{name: seconds, type: number, value: 1}], dataOuts: [{name: b, type: number}]"),
        &["invalid_function"],
        "hands on what it gets",
    );
}

#[test]
fn constructs_of_1_0_are_checked_too() {
    let switch = |cases: &str, tail: &str| {
        with(&format!(
            "- switch: {{name: s, dataEval: {{name: e, type: number, source: wf/x}}, cases: [{cases}]{tail}}}"
        ))
    };
    let case = "functions: [{function: {name: g, type: G, dataOuts: [{name: b, type: number}]}}]";
    refused(&switch(&format!("{{value: @one, {case}}}"), ""), &["invalid_constant"], "no number");
    let other = case.replace("name: g,", "name: h,");
    refused(&switch(&format!("{{value: 1, {case}}}, {{value: @1, {other}}}"), ""), &["duplicate_name"], "two cases");
    refused(
        &switch(&format!("{{value: 1, {case}}}"), ", dataOuts: [{name: @o, type: number, source: 'g/b,wf/x,wf/x'}]"),
        &["incomplete_pair"],
        "1 sources",
    );
    let sub = |body: &str, call: &str| {
        format!(
            "{}subFCs: [{{name: Sub, dataIns: [{{name: a, type: number}}], subFCBody: [{body}], dataOuts: [{{name: b, type: number, source: g/b}}]}}]\n",
            with(call)
        )
    };
    let body = "{function: {name: g, type: G, dataIns: [{name: a, type: number, source: Sub/a}], dataOuts: [{name: b, type: number}]}}";
    refused(&sub(body, "- function: {name: @f, type: Sub}"), &["unknown_port"], "needs the dataIn `a`");
    refused(
        &sub(
            body,
            "- function: {name: f, type: Sub, dataIns: [{name: a, type: number, source: wf/x}, {name: @z, type: number, source: wf/x}]}",
        ),
        &["unknown_port"],
        "no dataIn `z`",
    );
    let outer = body.replace("Sub/a", "@use/y");
    refused(
        &sub(&outer, "- function: {name: f, type: Sub, dataIns: [{name: a, type: number, source: wf/x}]}"),
        &["unknown_source"],
        "no function",
    );
    let itself = "{function: {name: @g, type: Sub, dataIns: [{name: a, type: number, source: Sub/a}], dataOuts: [{name: b, type: number}]}}";
    refused(
        &sub(itself, "- function: {name: f, type: Sub, dataIns: [{name: a, type: number, source: wf/x}]}"),
        &["recursion"],
        "calls itself",
    );
    refused(
        &with(
            "- sequence: {name: q, sequenceBody: [{function: {name: g, type: G}}], dataOuts: [{name: @o, type: number, source: 'use/y,use/y'}]}",
        ),
        &["wrong_shape"],
        "one source",
    );
}

#[test]
fn cuts_are_whole_and_convex() {
    let chain = "- function: {name: f, type: F, dataIns: [{name: a, type: number, source: use/y}], dataOuts: [{name: b, type: number}]}
- function: {name: g, type: F, dataIns: [{name: a, type: number, source: f/b}], dataOuts: [{name: b, type: number}]}
- parallelFor: {name: p, iterators: [2], loopBody: [{function: {name: h, type: H, dataOuts: [{name: b, type: number}]}}]}";
    let cut = |cuts: &str| format!("{}cuts: [{cuts}]\n", with(chain));
    refused(&cut("{name: @edge, members: [use, g]}"), &["invalid_cut"], "is not convex: `f`");
    refused(&cut("{name: @edge, members: [f, h]}"), &["invalid_cut"], "another scope");
    refused(&cut("{name: edge, members: [@nobody]}"), &["invalid_cut"], "no function or compound");
    refused(&cut("{name: @edge, members: []}"), &["invalid_cut"], "no members");
    refused(&cut("{name: one, members: [use, f]}, {name: @two, members: [f, g]}"), &["invalid_cut"], "overlap");
    refused(&cut("{name: @f, members: [g]}"), &["duplicate_name"], "there already");
    refused(&cut("{name: edge, members: [g], url: @here}"), &["invalid_cut"], "http://HOST:PORT");
}

#[test]
fn all_errors_are_found_at_once_up_to_a_bound() {
    let (text, places) = places(&with(
        "- function: {name: f, type: F, dataIns: [{name: a, type: number, source: @nobody/a}, {name: b, type: string, source: @use/y}]}
- if: {name: i, condition: [{data1: @wf/z, data2: '1', type: number, operator: ==}], then: [{function: {name: g, type: G, @colour: red}}]}",
    ));
    let found: Vec<(u32, u32)> = errors(&text).errors.iter().map(|error| (error.at.line, error.at.column)).collect();
    assert_eq!(found, places);
    let many: String = (0..200).map(|index| format!("{{name: a{index}, type: number, source: nobody/a}},")).collect();
    let found = errors(&reader(&many));
    assert_eq!((found.errors.len(), found.more), (lyra_afcl::limits::MAX_FINDINGS, 150));
    assert!(found.to_string().ends_with("and 150 more"));
}

#[test]
fn an_error_of_the_api_lists_each_place() {
    let error = lyra_types::Error::from(errors(&workflow("", "nobody/y")));
    assert_eq!(error.code, lyra_types::Code::InvalidField);
    let [field] = error.errors.as_slice() else { panic!("{error:?}") };
    assert_eq!((field.field.as_str(), field.line, field.column), ("definition", Some(9), Some(35)));
}

#[test]
fn what_nobody_reads_is_warned_of_where_it_does_no_harm() {
    let text = with(
        "- sequence: {name: q, dataIns: [{name: unread, type: number, source: nobody/x}], sequenceBody: [{function: {name: g, type: G}}]}",
    );
    let compiled = compile(&text).unwrap();
    let [warning] = compiled.warnings.as_slice() else { panic!("{:?}", compiled.warnings) };
    assert_eq!(warning.code.as_str(), "unread_data");
    assert!(warning.message.contains("q/unread"), "{warning}");
}
