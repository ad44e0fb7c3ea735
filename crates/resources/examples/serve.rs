//! Serves the resource API alone on loopback, for trying out clients: `serve FILE [ADDR:PORT]`. Objects are kept in FILE.
//! Prints the address that it listens on.

#[path = "../tests/api/server.rs"]
mod server;

use std::path::PathBuf;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a tool for the command line")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().expect("usage: serve FILE [ADDR:PORT]"));
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let server = server::Server::start(&data, listen.parse().expect("an address and port")).await;
    println!("{}", server.address);
    let stop = lyra_kit::shutdown::on_signals().expect("signals can be handled");
    stop.cancelled().await;
    println!("{} watches were begun", *server.watches.borrow());
    server.stop().await;
}
