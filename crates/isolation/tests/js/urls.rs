//! `URL` and `URLSearchParams`.

use serde_json::json;

use super::value;

#[tokio::test]
async fn urls_are_parsed_by_the_standard() {
    let result = value("
        const u = new URL('../b?x=1#h', 'https://user:pa ss@EXAMPLE.com:8080/a/c/');
        return [u.href, u.origin, u.protocol, u.username, u.password, u.host, u.hostname, u.port, u.pathname, u.search, u.hash, String(u), JSON.stringify({ u }), Object.prototype.toString.call(u)]").await;
    assert_eq!(
        result,
        json!([
            "https://user:pa%20ss@example.com:8080/a/b?x=1#h",
            "https://example.com:8080",
            "https:",
            "user",
            "pa%20ss",
            "example.com:8080",
            "example.com",
            "8080",
            "/a/b",
            "?x=1",
            "#h",
            "https://user:pa%20ss@example.com:8080/a/b?x=1#h",
            "{\"u\":\"https://user:pa%20ss@example.com:8080/a/b?x=1#h\"}",
            "[object URL]"
        ])
    );
    let more = value("
        return ['http://münchen.de/ü', 'data:text/plain,hi', 'http://[::1]:80/', 'file:///C:/a/../b', 'http://1.1/', 'HTTP://a\\n.b/\\tx'].map((t) => new URL(t).href)").await;
    assert_eq!(
        more,
        json!([
            "http://xn--mnchen-3ya.de/%C3%BC",
            "data:text/plain,hi",
            "http://[::1]/",
            "file:///C:/b",
            "http://1.0.0.1/",
            "http://a.b/x"
        ])
    );
}

#[tokio::test]
async fn bad_urls_are_refused() {
    let result = value(
        "
        const out = [];
        for (const args of [['nope'], ['/a'], ['http://a b'], ['x', 'also bad'], ['http://h:99999'], ['']]) {
            try { new URL(...args); out.push('parsed') } catch (e) { out.push(e instanceof TypeError) }
            out.push(URL.canParse(...args), URL.parse(...args));
        }
        out.push(URL.canParse('a', 'http://b'), URL.parse('http://c').href);
        return out",
    )
    .await;
    let mut expected = Vec::new();
    for _ in 0..6 {
        expected.extend([json!(true), json!(false), json!(null)]);
    }
    expected.extend([json!(true), json!("http://c/")]);
    assert_eq!(result, json!(expected));
}

#[tokio::test]
async fn every_part_can_be_set() {
    let result = value("
        const u = new URL('http://h/p');
        u.protocol = 'https'; u.username = 'a@'; u.password = 'b'; u.hostname = 'X.org'; u.port = '444'; u.pathname = 'q r'; u.search = 'k=v'; u.hash = 'z';
        const first = u.href;
        u.host = 'y.net:1'; u.port = 'x'; u.port = ''; u.protocol = 'mailto'; u.search = ''; u.hash = '';
        const second = u.href;
        let name = ''; try { u.href = 'bad' } catch (e) { name = e.name }
        u.href = 'ftp://f/';
        return [first, second, name, u.href, u.origin]").await;
    assert_eq!(
        result,
        json!([
            "https://a%40:b@x.org:444/q%20r?k=v#z",
            "https://a%40:b@y.net/q%20r",
            "TypeError",
            "ftp://f/",
            "ftp://f"
        ])
    );
}

#[tokio::test]
async fn search_parameters_follow_their_url_both_ways() {
    let result = value(
        "
        const u = new URL('http://h/?a=1&b=2&a=3'), p = u.searchParams;
        const out = [p.get('a'), p.getAll('a'), p.has('b'), p.has('b', '9'), p.size, p === u.searchParams];
        p.append('c', 'x y&='); out.push(u.search);
        p.set('a', '9'); p.delete('b'); out.push(u.href);
        u.search = '?z=%26'; out.push(p.get('z'), p.size);
        u.href = 'http://h/?q=1'; out.push(p.toString());
        p.delete('q'); out.push(u.href);
        return out",
    )
    .await;
    assert_eq!(
        result,
        json!([
            "1",
            ["1", "3"],
            true,
            false,
            3,
            true,
            "?a=1&b=2&a=3&c=x+y%26%3D",
            "http://h/?a=9&c=x+y%26%3D",
            "&",
            1,
            "q=1",
            "http://h/"
        ])
    );
}

#[tokio::test]
async fn search_parameters_stand_alone_too() {
    let result = value("
        const out = [];
        out.push(new URLSearchParams('?a=b+c&%C3%BC=%00&d').toString());
        out.push(new URLSearchParams({ x: 1, y: 'z' }).toString(), new URLSearchParams([['a', 'b'], ['a', 'c']]).toString(), new URLSearchParams(new Map([['m', 'n']])).toString(), new URLSearchParams(new URLSearchParams('p=q')).toString());
        const p = new URLSearchParams('c=1&a=2&b=3&a=1');
        p.sort(); out.push(p.toString(), [...p], [...p.keys()], [...p.values()]);
        const seen = []; p.forEach((v, k) => seen.push(k + v)); out.push(seen);
        p.delete('a', '2'); out.push(p.toString(), new URLSearchParams('\\ud800=1').toString(), new URLSearchParams().toString());
        try { new URLSearchParams([['a']]) } catch (e) { out.push(e.name) }
        return out").await;
    assert_eq!(
        result,
        json!([
            "a=b+c&%C3%BC=%00&d=",
            "x=1&y=z",
            "a=b&a=c",
            "m=n",
            "p=q",
            "a=2&a=1&b=3&c=1",
            [["a", "2"], ["a", "1"], ["b", "3"], ["c", "1"]],
            ["a", "a", "b", "c"],
            ["2", "1", "3", "1"],
            ["a2", "a1", "b3", "c1"],
            "a=1&b=3&c=1",
            "%EF%BF%BD=1",
            "",
            "TypeError"
        ])
    );
}

#[tokio::test]
async fn too_long_ones_are_refused() {
    let result = value(
        "
        const long = 'http://h/' + 'x'.repeat(2 << 20);
        let name; try { new URLSearchParams('a='.repeat(2 << 20)) } catch (e) { name = e.name }
        return [URL.canParse(long), name]",
    )
    .await;
    assert_eq!(result, json!([false, "RangeError"]));
}
