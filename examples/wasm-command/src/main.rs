//! A function as an ordinary program: the event comes on stdin, the result goes to stdout, lines on
//! stderr are logs, and an exit status other than 0 fails the call.
//!
//! `{"text": "to be or not to be"}` -> `{"words": 6, "distinct": 4, "longest": "not"}`
//!
//! It runs the same everywhere: `echo '{"text":"a b"}' | cargo run`.

use std::collections::BTreeSet;
use std::io;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Event {
    text: String,
}

#[derive(Serialize)]
struct Result<'a> {
    words: usize,
    distinct: usize,
    longest: Option<&'a str>,
}

fn main() -> ExitCode {
    let event: Event = match serde_json::from_reader(io::stdin().lock()) {
        Ok(event) => event,
        Err(error) => {
            eprintln!("the event is not of the form {{\"text\": \"…\"}}: {error}");
            return ExitCode::from(2);
        }
    };
    let words = event.text.split_whitespace();
    let distinct: BTreeSet<&str> = words.clone().collect();
    // The first of the longest ones.
    let longest = words.clone().rev().max_by_key(|word| word.chars().count());
    let result = Result { words: words.count(), distinct: distinct.len(), longest };
    match serde_json::to_writer(io::stdout().lock(), &result) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the result can't be written: {error}");
            ExitCode::FAILURE
        }
    }
}
