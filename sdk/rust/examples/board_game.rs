//! A game server: one session is one board, on which players claim fields.
//!
//! Players connect to `$PORT` and write lines: `claim X Y`, `board`, `quit`. Everyone sees each claim; the board is over when all
//! fields are claimed, and so is the session. The session's data is the size of the board, `3` for example. Configuration:
//! `motto`, a line for everyone who comes.

#![expect(clippy::disallowed_methods, reason = "a program outside of Lyra, which has no lyra-kit")]

use std::collections::HashMap;
use std::sync::Arc;

use lyra_session_sdk::{Event, Lyra, Session};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast};

/// Longest line of a player, in bytes.
const MAX_LINE: u64 = 256;

struct Board {
    size: usize,
    claims: Mutex<HashMap<(usize, usize), u32>>,
    news: broadcast::Sender<String>,
    full: Notify,
}

impl Board {
    fn new(data: &str) -> Result<Board, String> {
        let size = if data.is_empty() { Ok(3) } else { data.parse() };
        let size = size.ok().filter(|size| (1..=26).contains(size));
        let size = size.ok_or_else(|| format!("the session's data must be a size from 1 to 26, not {data:?}"))?;
        Ok(Board { size, claims: Mutex::default(), news: broadcast::Sender::new(64), full: Notify::new() })
    }

    fn claim(&self, player: u32, words: &[&str]) -> Result<(), &'static str> {
        let field = |word: &&str| word.parse().ok().filter(|at| *at < self.size);
        let (Some(x), Some(y)) = (words.first().and_then(field), words.get(1).and_then(field)) else {
            return Err("no such field");
        };
        let mut claims = self.claims.lock();
        if claims.contains_key(&(x, y)) {
            return Err("taken");
        }
        claims.insert((x, y), player);
        // Nobody may be listening.
        let _ = self.news.send(format!("player {player} claims {x} {y}"));
        if claims.len() == self.size * self.size {
            let _ = self.news.send("the board is full".to_owned());
            self.full.notify_one();
        }
        Ok(())
    }

    fn picture(&self) -> String {
        let claims = self.claims.lock();
        let mut rows = Vec::new();
        for y in 0..self.size {
            let mark = |x| claims.get(&(x, y)).map_or_else(|| ".".to_owned(), u32::to_string);
            rows.push((0..self.size).map(mark).collect::<Vec<_>>().join(" "));
        }
        rows.join("\n")
    }

    async fn serve(&self, player: u32, stream: TcpStream, greeting: &str) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut news = self.news.subscribe();
        writer.write_all(format!("you are player {player}\n{greeting}").as_bytes()).await?;
        let mut line = String::new();
        loop {
            let answer = tokio::select! {
                read = async { (&mut reader).take(MAX_LINE).read_line(&mut line).await } => {
                    if read? == 0 {
                        return Ok(());
                    }
                    let words: Vec<&str> = line.split_whitespace().collect();
                    let answer = match words.as_slice() {
                        ["claim", field @ ..] => self.claim(player, field).err().map(str::to_owned),
                        ["board"] => Some(self.picture()),
                        ["quit"] => return Ok(()),
                        _ => Some("say claim X Y, board or quit".to_owned()),
                    };
                    line.clear();
                    answer
                }
                Ok(told) = news.recv() => Some(told),
            };
            if let Some(answer) = answer {
                writer.write_all(format!("{answer}\n").as_bytes()).await?;
            }
        }
    }
}

/// Takes players until the board is full.
async fn play(session: Session, board: Arc<Board>, listener: TcpListener, motto: Arc<Mutex<String>>) {
    let mut players = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = board.full.notified() => break,
        };
        let Ok((stream, _)) = accepted else { continue };
        players += 1;
        let (player, session, board) = (players, session.clone(), Arc::clone(&board));
        let greeting = motto.lock().clone();
        tokio::spawn(async move {
            let id = format!("player-{player}");
            if session.client_joined(&id).is_ok() {
                // Whoever breaks off is gone, as who quits.
                let _ = board.serve(player, stream, &greeting).await;
                session.client_left(&id);
            }
        });
    }
    session.closed_because("the board is full", None).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::var("PORT").map_or(Ok(8080), |port| port.parse())?;
    let mut lyra = Lyra::connect()?;
    let motto = Arc::new(Mutex::new(String::new()));
    let mut game = None;
    while let Some(event) = lyra.next().await {
        match event {
            Event::Open(session) => {
                let board = Board::new(&String::from_utf8_lossy(session.data()));
                match (board, TcpListener::bind(("0.0.0.0", port)).await) {
                    (Err(reason), _) => session.fail(reason),
                    (_, Err(error)) => session.fail(format!("port {port}: {error}")),
                    (Ok(board), Ok(listener)) => {
                        *motto.lock() = line(session.configuration().data.get("motto"));
                        session.ready();
                        game = Some(tokio::spawn(play(session, Arc::new(board), listener, Arc::clone(&motto))));
                    }
                }
            }
            Event::Configuration(new) => *motto.lock() = line(new.data.get("motto")),
            Event::Close(close) => {
                game.take().inspect(tokio::task::JoinHandle::abort);
                close.session.closed().await;
            }
        }
    }
    Ok(())
}

fn line(motto: Option<&String>) -> String {
    motto.map(|motto| format!("{motto}\n")).unwrap_or_default()
}
