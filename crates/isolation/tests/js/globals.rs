//! The globals beside ECMAScript's own.

use serde_json::json;

use super::{Js, value};

#[tokio::test]
async fn what_there_is_and_what_there_is_not() {
    let there = value("return ['console','setTimeout','setInterval','clearTimeout','clearInterval','queueMicrotask','structuredClone','TextEncoder','TextDecoder','URL','URLSearchParams','atob','btoa','crypto','performance','DOMException','WeakRef','Intl'].map((n) => [n, typeof globalThis[n]]).filter(([, t]) => t === 'undefined').map(([n]) => n)").await;
    assert_eq!(there, json!(["Intl"]));
    let absent = value("return [typeof process, typeof require, typeof fetch, typeof module, typeof std, typeof os, typeof WebAssembly, typeof Deno]").await;
    assert_eq!(absent, json!(vec!["undefined"; 8]));
    let listed = value("return Object.keys(globalThis)").await;
    assert_eq!(listed, json!([]), "globals are not enumerable");
}

#[tokio::test]
async fn random_numbers_differ_between_instances() {
    let js = Js::new();
    let source = "const early = Math.random(); export default () => [early, Math.random(), Math.random(), crypto.randomUUID(), crypto.getRandomValues(new Uint32Array(4)).join()]";
    let function = js.deploy(source).await;
    let (first, second) = (function.call("null").await.expect("runs"), function.call("null").await.expect("runs"));
    assert_eq!(first[0], second[0], "top-level code ran once");
    for i in 1..5 {
        assert_ne!(first[i], second[i], "{i}");
    }
    assert_ne!(first[1], first[2]);
    let uuid = first[3].as_str().expect("text");
    assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
    let spread = value("let n = 0; for (let i = 0; i < 10000; i++) { const x = Math.random(); if (x < 0 || x >= 1) return -1; if (x < 0.5) n++ } return n").await;
    assert!((4_500..5_500).contains(&spread.as_i64().expect("a number")), "{spread}");
}

#[tokio::test]
async fn random_values_have_limits() {
    let result = value("
        const names = [];
        for (const array of [new Uint8Array(65537), new Float32Array(1), [1], null]) {
            try { crypto.getRandomValues(array); names.push('none') } catch (e) { names.push(e.name) }
        }
        const view = new Uint8Array(new ArrayBuffer(16), 4, 8); crypto.getRandomValues(view);
        const whole = new Uint8Array(view.buffer);
        return [names, whole.slice(0, 4).every(b => b === 0), whole.slice(12).every(b => b === 0), crypto.getRandomValues(new BigInt64Array(1)).length]").await;
    assert_eq!(
        result,
        json!([["QuotaExceededError", "TypeMismatchError", "TypeMismatchError", "TypeMismatchError"], true, true, 1])
    );
}

#[tokio::test]
async fn clocks_run() {
    let result = value("
        const a = performance.now(), d = Date.now();
        await new Promise((r) => setTimeout(r, 20));
        const b = performance.now();
        return [a >= 0 && a < 10000, b - a >= 20, Date.now() - d >= 19, Math.abs(performance.timeOrigin + b - Date.now()) < 1000, new Date().getTimezoneOffset(), new Date(0).toString()]").await;
    assert_eq!(result[5].as_str().expect("text").split(" GMT").next(), Some("Thu Jan 01 1970 00:00:00"));
    for i in 0..4 {
        assert_eq!(result[i], json!(true), "{result}");
    }
    assert_eq!(result[4], json!(0));
}

#[tokio::test]
async fn the_clock_is_not_the_one_of_the_deploy() {
    let js = Js::new();
    let function =
        js.deploy("const deployed = Date.now(); export default () => [deployed, Date.now(), performance.now()]").await;
    let first = function.call("null").await.expect("runs");
    Clockwork::pass(first[0].as_i64().expect("a number")).await;
    let second = function.call("null").await.expect("runs");
    assert!(second[1].as_i64() > first[0].as_i64(), "{first} {second}");
    assert_eq!(first[0], second[0]);
    assert!(second[2].as_f64().expect("a number") < 10_000.0, "{second}");
}

/// Waits until the wall clock has moved on.
struct Clockwork;

impl Clockwork {
    async fn pass(since: i64) {
        let clock = lyra_kit::Clock::system();
        while clock.now().millis() <= since + 1 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn structured_clones_are_deep_and_keep_their_kind() {
    let result = value("
        const inner = { list: [1, , 3] };
        const error = new RangeError('r', { cause: inner });
        const root = { inner, again: inner, map: new Map([[inner, new Set([1n])]]), date: new Date(5), re: /a/gi, typed: new Float64Array([1.5]), error, und: undefined, boxed: new Number(3) };
        root.self = root;
        const copy = structuredClone(root);
        const buffer = new ArrayBuffer(8);
        const [x, y] = structuredClone([new Uint8Array(buffer, 2, 3), new DataView(buffer, 1)]);
        return [copy !== root, copy.self === copy, copy.inner === copy.again, copy.inner !== inner, 1 in copy.inner.list, copy.inner.list.length,
            [...copy.map.keys()][0] === copy.inner, [...copy.map.values()][0].has(1n), copy.date.getTime(), copy.date instanceof Date, String(copy.re), copy.typed[0],
            copy.error instanceof RangeError, copy.error.message, copy.error.cause === copy.inner, 'und' in copy, copy.boxed.valueOf(),
            x.length, x.byteOffset, x.buffer === y.buffer, x.buffer !== buffer, y.byteLength]").await;
    assert_eq!(
        result,
        json!([
            true, true, true, true, false, 3, true, true, 5, true, "/a/gi", 1.5, true, "r", true, true, 3, 3, 2, true,
            true, 7
        ])
    );
}

#[tokio::test]
async fn what_can_not_be_cloned_is_refused() {
    let result = value("
        return [() => 1, Symbol('x'), { deep: [function f() {}] }, new WeakMap(), Promise.resolve(), new Proxy({}, {})].map((v) => {
            try { structuredClone(v); return 'cloned' } catch (e) { return [e.name, e instanceof DOMException] } })").await;
    assert_eq!(result, json!(vec![json!(["DataCloneError", true]); 6]));
    let other = value("
        try { structuredClone() } catch (e) { return [e.name, structuredClone({ __proto__: { a: 1 }, b: 2 }), structuredClone({ get x() { return 3 } })] }").await;
    assert_eq!(other, json!(["TypeError", { "b": 2 }, { "x": 3 }]));
}

#[tokio::test]
async fn text_is_encoded_and_decoded() {
    let result = value("
        const e = new TextEncoder(), d = new TextDecoder();
        const into = new Uint8Array(4);
        return [e.encoding, [...e.encode('aü€😀')].join(), [...e.encode('\\ud800x')].join(), e.encode().length, e.encodeInto('aü€', into), [...into].join(),
            d.encoding, d.decode(e.encode('aü€😀')), d.decode(), d.decode(new Uint8Array([0xef, 0xbb, 0xbf, 97])), new TextDecoder('utf-8', { ignoreBOM: true }).decode(new Uint8Array([0xef, 0xbb, 0xbf, 97])).length,
            d.decode(new Uint8Array([255])), new TextDecoder('latin1').decode(new Uint8Array([0xe9])), new TextDecoder('utf-16le').decode(new Uint16Array([97, 0xd83d, 0xde00])),
            d.decode(new DataView(e.encode('xyz').buffer, 1)), d.decode(e.encode('ab').buffer), new TextDecoder('shift_jis').decode(new Uint8Array([0x82, 0xa0]))]").await;
    assert_eq!(
        result,
        json!(["utf-8", "97,195,188,226,130,172,240,159,152,128", "239,191,189,120", 0, { "read": 2, "written": 3 }, "97,195,188,0",
            "utf-8", "aü€😀", "", "a", 2, "\u{fffd}", "é", "a😀", "yz", "ab", "あ"])
    );
    let errors = value("
        const names = [];
        for (const f of [() => new TextDecoder('nope'), () => new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([255])), () => new TextDecoder().decode('text')]) {
            try { f(); names.push('none') } catch (e) { names.push(e.name) }
        }
        return names").await;
    assert_eq!(errors, json!(["RangeError", "TypeError", "TypeError"]));
}

#[tokio::test]
async fn text_is_decoded_in_pieces() {
    let result = value("
        const out = [];
        for (const [label, bytes] of [['utf-8', new TextEncoder().encode('\\ufeffa😀ü€z')], ['utf-16le', new Uint8Array(new Uint16Array([97, 0xd83d, 0xde00, 98]).buffer)],
                ['shift_jis', new Uint8Array([0x82, 0xa0, 97, 0x82, 0xa2])], ['windows-1252', new Uint8Array([0x80, 0xe9])]]) {
            const whole = new TextDecoder(label).decode(bytes);
            const d = new TextDecoder(label);
            let text = '';
            for (const byte of bytes) text += d.decode(new Uint8Array([byte]), { stream: true });
            text += d.decode();
            out.push(text === whole, text);
        }
        const d = new TextDecoder();
        d.decode(new Uint8Array([0xe2, 0x82]), { stream: true });
        out.push(d.decode());
        const f = new TextDecoder('utf-8', { fatal: true });
        f.decode(new Uint8Array([0xe2, 0x82]), { stream: true });
        try { f.decode() } catch (e) { out.push(e.name) }
        const big = 'ü€😀x'.repeat(400000);
        out.push(new TextDecoder().decode(new TextEncoder().encode(big)) === big);
        return out").await;
    assert_eq!(result, json!([true, "a😀ü€z", true, "a😀b", true, "あaい", true, "€é", "\u{fffd}", "TypeError", true]));
}

#[tokio::test]
async fn base64_is_there() {
    let result = value(
        "
        const names = [];
        for (const f of [() => atob('a'), () => btoa('€')]) try { f() } catch (e) { names.push(e.name) }
        return [btoa('\\xff\\0a'), atob('/wBh').charCodeAt(0), atob(' Y Q = = '), names]",
    )
    .await;
    assert_eq!(result, json!(["/wBh", 255, "a", ["InvalidCharacterError", "InvalidCharacterError"]]));
}
