//! No session reaches another, nor the node: tried from the inside.

use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn a_program_reaches_neither_another_session_nor_the_node() {
    let dir = directory();
    let worker = Worker::start(dir.path()).await;
    let (one, _) = worker.up(Hosting { service: true, ..hosting() }).await;
    let (two, _) = worker.up(Hosting { service: true, ..hosting() }).await;
    // Reached from everywhere but from within.
    let exposed = two.expose(Ipv4Addr::UNSPECIFIED.into(), 20_000..=29_999).await.expect("exposed");
    let node = TcpListener::bind("0.0.0.0:0").await.unwrap();
    assert_eq!(order(&*one, json!({"interfaces": 0})).await, Ok(json!(["lo"])));
    assert_eq!(order(&*two, json!({"listen": 7100})).await, Ok(json!("done")));
    let mut hosts =
        vec!["127.0.0.1".to_owned(), "127.0.0.2".to_owned(), "::1".to_owned(), "169.254.169.254".to_owned()];
    hosts.extend(addresses_of_this_machine());
    let ports = [exposed[0].address.port(), exposed[1].address.port(), node.local_addr().unwrap().port(), 7100];
    for host in &hosts {
        for port in ports {
            let tried = order(&*one, json!({"connect": [host, port]})).await;
            assert!(tried.is_err(), "{host}:{port} is reached: {tried:?}");
        }
        if !host.contains(':') {
            let tried = order(&*one, json!({"send": [host, exposed[2].address.port()]})).await;
            assert!(tried.is_err(), "{host} answers a datagram: {tried:?}");
        }
    }
    // The very same ports of its own are there, and are its own.
    assert_eq!(order(&*one, json!({"connect": ["127.0.0.1", 7001]})).await, Ok(json!("done")));
    let (mine, others) = (one.service().unwrap(), two.service().unwrap());
    let serve = async {
        use tokio::io::AsyncReadExt;
        let (mut peer, _) = mine.accept().await.unwrap();
        let _ = peer.read(&mut [0; 10]).await;
        peer.write_all(b"x").await.unwrap();
    };
    let (_, answer) = timeout(async { tokio::join!(serve, order(&*one, json!({"serve": "hi"}))) }).await;
    assert_eq!(answer, Ok(json!("x")));
    let nobody = futures::FutureExt::now_or_never(others.accept());
    assert!(nobody.is_none(), "nobody has come to the other's session service");
    drop((one, two));
    worker.finish(dir.path()).await;
}

fn addresses_of_this_machine() -> Vec<String> {
    let said = std::process::Command::new("hostname").arg("-I").output().expect("hostname runs").stdout;
    String::from_utf8_lossy(&said).split_whitespace().map(str::to_owned).collect()
}
