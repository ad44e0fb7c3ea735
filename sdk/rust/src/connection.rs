//! Keeps a stream to the session server, for as long as the program lives.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::lyra::Shared;
use crate::wire::{Address, Broken, Wire};

/// First and longest wait before connecting again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Runs until nobody is interested any more, or the server has given the instance up.
pub(crate) async fn run(address: Address, shared: Weak<Shared>) {
    let mut pause = PAUSES.0;
    while let Some(strong) = shared.upgrade() {
        let hello = strong.local.lock().hello();
        let over = strong.over.clone();
        drop(strong);
        let opened = tokio::select! {
            () = over.cancelled() => return,
            opened = Wire::open(&address, &hello) => opened,
        };
        let broken = match opened {
            Ok(wire) => {
                pause = PAUSES.0;
                pump(wire, &shared).await
            }
            Err(broken) => Some(broken),
        };
        let Some(strong) = shared.upgrade() else { return };
        match broken {
            Some(Broken::GivenUp(_)) | None => return strong.end(),
            Some(_) => {}
        }
        drop(strong);
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Passes messages both ways until the stream breaks. `None` when nobody is interested any more.
async fn pump(mut wire: Wire, shared: &Weak<Shared>) -> Option<Broken> {
    loop {
        let strong = shared.upgrade()?;
        let unsaid = strong.local.lock().unsaid();
        let (over, changed) = (strong.over.clone(), Arc::clone(&strong.changed));
        drop(strong);
        for message in &unsaid {
            if let Err(broken) = wire.send(message).await {
                return Some(broken);
            }
        }
        let received = tokio::select! {
            () = over.cancelled() => return None,
            () = changed.notified() => continue,
            received = wire.receive() => received,
        };
        match received {
            Ok(message) => {
                let strong = shared.upgrade()?;
                strong.local.lock().hear(message);
                strong.heard.notify_waiters();
            }
            Err(broken) => return Some(broken),
        }
    }
}
