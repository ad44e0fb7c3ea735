//! Tokens of an identity provider: a small one in the test, whose keys change.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use lyra_gateway::{Config, OidcConfig};
use lyra_kit::Clock;
use lyra_types::Role;
use lyra_wire::accounts::TenantState;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::accounts::FakeAccounts;
use crate::client::{Answer, Gateway, OK, start_among};

/// Beginnings of an Ed25519 key in PKCS#8 (RFC 8410), before its 32 bytes.
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A key pair of the provider.
struct Pair {
    kid: &'static str,
    seed: [u8; 32],
    public: [u8; 32],
}

/// Two pairs of RFC 8032, section 7.1.
fn pairs() -> [Pair; 2] {
    let bytes = |text: &str| -> [u8; 32] { hex::decode(text).unwrap().try_into().unwrap() };
    [
        Pair {
            kid: "one",
            seed: bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),
            public: bytes("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
        },
        Pair {
            kid: "two",
            seed: bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"),
            public: bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"),
        },
    ]
}

impl Pair {
    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.public);
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x, "alg": "EdDSA", "use": "sig"})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let key = EncodingKey::from_ed_der(&[&PKCS8[..], &self.seed].concat());
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

/// The provider.
struct Issuer {
    url: String,
    published: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let published = Arc::new(Mutex::new(vec![json!({"kty": "of the future", "kid": "x"})]));
        let asked = Arc::new(AtomicUsize::new(0));
        let (issuer, keys, count) = (url.clone(), Arc::clone(&published), Arc::clone(&asked));
        lyra_kit::tasks::spawn("issuer", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (issuer, keys, count) = (issuer.clone(), Arc::clone(&keys), Arc::clone(&count));
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let body = match request.uri().path() {
                        "/.well-known/openid-configuration" => {
                            json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})
                        }
                        _ => {
                            count.fetch_add(1, Ordering::SeqCst);
                            json!({"keys": *keys.lock()})
                        }
                    };
                    std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body.to_string())))))
                });
                let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                lyra_kit::tasks::spawn("issuer connection", served);
            }
        });
        Issuer { url, published, asked }
    }

    fn claims(&self, change: Value) -> Value {
        let now = Clock::system().now().millis() / 1_000;
        let mut claims = json!({"iss": self.url, "aud": ["lyra", "x"], "sub": "ada", "tenant": "acme", "roles": ["dev"], "exp": now + 600});
        let all = claims.as_object_mut().unwrap();
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(all.remove(name)),
                value => drop(all.insert(name.clone(), value.clone())),
            }
        }
        claims
    }

    async fn gateway(&self, accounts: &Arc<FakeAccounts>, refetch: Duration) -> Gateway {
        let oidc = OidcConfig {
            issuer: self.url.clone(),
            audience: vec!["lyra".into()],
            roles: [("dev".to_owned(), Role::Developer)].into(),
            operators: vec!["root".into()],
            refetch,
            ..OidcConfig::default()
        };
        start_among(Config { oidc, ..Config::default() }, None, Arc::clone(accounts)).await
    }
}

async fn whoami(gateway: &Gateway, token: &str) -> Answer {
    gateway.send("GET /v1/whoami", &[("authorization", &format!("Bearer {token}"))], "").await
}

fn accounts() -> Arc<FakeAccounts> {
    let accounts = Arc::new(FakeAccounts::default());
    accounts.set_tenant("acme", TenantState::Active);
    accounts.set_tenant("leaving", TenantState::Deleting);
    accounts
}

#[tokio::test]
async fn tokens_of_the_provider_are_taken_when_all_of_them_fits() {
    let (issuer, [one, two], accounts) = (Issuer::start().await, pairs(), accounts());
    issuer.published.lock().push(one.jwk());
    let gateway = issuer.gateway(&accounts, Duration::from_secs(60)).await;
    let good = one.sign(&issuer.claims(json!({})));
    let who = whoami(&gateway, &good).await;
    assert_eq!(who.status, OK, "{}", who.text());
    let who = who.json();
    assert_eq!((&who["name"], &who["by"]), (&"acme/ada".into(), &"oidc".into()));
    assert_eq!(who["scopes"], json!(["deploy", "invoke", "read"]));
    let root = whoami(&gateway, &one.sign(&issuer.claims(json!({"roles": "root"})))).await.json();
    assert_eq!(root["name"], "operator:ada");

    let status = async |token: String| whoami(&gateway, &token).await.status;
    let now = Clock::system().now().millis() / 1_000;
    for (change, expected) in [
        (json!({"iss": "https://other.example"}), 401),
        (json!({"aud": "other"}), 401),
        (json!({"aud": null}), 401),
        (json!({"exp": now - 120}), 401),
        (json!({"exp": null}), 401),
        (json!({"nbf": now + 600}), 401),
        (json!({"tenant": "nowhere"}), 403),
        (json!({"tenant": "leaving"}), 403),
        (json!({"tenant": null}), 403),
        (json!({"roles": ["nothing"]}), 403),
        (json!({"sub": null}), 403),
    ] {
        assert_eq!(status(one.sign(&issuer.claims(change.clone()))).await, expected, "{change}");
    }
    let (head, signature) = good.rsplit_once('.').unwrap();
    assert_eq!(status(format!("{head}.{}", signature.chars().rev().collect::<String>())).await, 401);
    let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), head.split_once('.').unwrap().1);
    assert_eq!(status(unsigned).await, 401);
    let secret = EncodingKey::from_secret(&one.public);
    let forged = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
    assert_eq!(status(jsonwebtoken::encode(&forged, &issuer.claims(json!({})), &secret).unwrap()).await, 401);
    assert_eq!(status("a.b.c".into()).await, 401);
    assert_eq!(status(two.sign(&issuer.claims(json!({})))).await, 401, "a key that is not the provider's");
    assert_eq!(gateway.get("/v1/whoami").await.status, 401);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "strangers do not have the keys read again and again");
}

#[tokio::test]
async fn a_new_key_is_found_and_the_provider_may_be_away() {
    let (issuer, [one, two], accounts) = (Issuer::start().await, pairs(), accounts());
    issuer.published.lock().push(one.jwk());
    let gateway = issuer.gateway(&accounts, Duration::from_millis(1)).await;
    assert_eq!(whoami(&gateway, &one.sign(&issuer.claims(json!({})))).await.status, OK);
    assert_eq!(whoami(&gateway, &two.sign(&issuer.claims(json!({})))).await.status, 401);
    *issuer.published.lock() = vec![two.jwk()];
    // The keys were asked for a moment ago; a moment later they are again.
    let mut answer = whoami(&gateway, &two.sign(&issuer.claims(json!({})))).await;
    while answer.status == 401 {
        answer = whoami(&gateway, &two.sign(&issuer.claims(json!({})))).await;
    }
    assert_eq!(answer.status, OK);
    assert_eq!(
        whoami(&gateway, &one.sign(&issuer.claims(json!({"sub": "bob"})))).await.status,
        401,
        "it was withdrawn"
    );

    let nowhere = Issuer { url: "http://127.0.0.1:1".into(), published: Arc::default(), asked: Arc::default() };
    let gateway = nowhere.gateway(&accounts, Duration::from_millis(1)).await;
    let answer = whoami(&gateway, &one.sign(&nowhere.claims(json!({})))).await;
    assert_eq!(answer.fault(), (503, "unavailable".into()));
}
