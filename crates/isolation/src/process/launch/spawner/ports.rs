//! Ports of sandboxes that are reached on the node: the launcher's part, which is to keep them and to have them carried.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::super::error::{Fault, Step};
use super::super::system;
use super::super::wire::Reply;
use super::porter::{Bounds, Done, Porter, Purpose};
use super::{Server, gone, token};
use crate::session::{Exposed, Traffic};

const STEP: &str = "exposing the ports of a sandbox";

/// What is exposed of a sandbox.
pub(super) struct Exposure {
    pub(super) ports: Vec<Exposed>,
    bounds: Bounds,
    /// On the node, one for each port: for another porter, should this one die.
    sockets: Vec<OwnedFd>,
    /// The request that it came with.
    request: u64,
}

impl Server {
    pub(super) fn expose(&mut self, id: u64, sandbox: u64, exposed: (Vec<Exposed>, Bounds), sockets: Vec<OwnedFd>) {
        if let Err(fault) = self.try_expose(id, sandbox, exposed, sockets) {
            self.answer(id, Err(fault), &[]);
        }
    }

    fn try_expose(
        &mut self,
        id: u64,
        sandbox: u64,
        (ports, bounds): (Vec<Exposed>, Bounds),
        sockets: Vec<OwnedFd>,
    ) -> Result<(), Fault> {
        let known = self.sandboxes.get(&sandbox).ok_or_else(gone).step(STEP)?;
        if known.exposure.is_some() || ports.is_empty() || ports.len() != sockets.len() {
            return Err(Fault::new(STEP, &io::Error::from_raw_os_error(libc::EINVAL)));
        }
        self.start_porter()?;
        if let Some(known) = self.sandboxes.get_mut(&sandbox) {
            known.exposure = Some(Exposure { ports, bounds, sockets, request: id });
            self.carry(sandbox, Purpose::Expose(id));
        }
        Ok(())
    }

    /// Hands what is exposed of a sandbox to the porter.
    fn carry(&mut self, id: u64, purpose: Purpose) {
        let (Some(sandbox), Some(porter)) = (self.sandboxes.get(&id), &mut self.porter) else { return };
        let Some(exposure) = &sandbox.exposure else { return };
        let ports = exposure.ports.iter().map(|exposed| exposed.port.clone()).collect();
        let mut descriptors = vec![sandbox.network.as_fd()];
        descriptors.extend(exposure.sockets.iter().map(AsFd::as_fd));
        porter.expose((id, purpose), ports, exposure.bounds, &descriptors);
    }

    /// Hides what is exposed of a sandbox; its ports are free when the request is answered.
    pub(super) fn hide(&mut self, id: u64, sandbox: u64) {
        let exposure = self.sandboxes.get_mut(&sandbox).and_then(|sandbox| sandbox.exposure.take());
        match (&mut self.porter, exposure) {
            (Some(porter), Some(_)) => porter.hide(sandbox, Purpose::Hide(id)),
            _ => self.tell(&Reply::Carried { id, traffic: Traffic::default() }, &[]),
        }
    }

    pub(super) fn count(&mut self, id: u64, sandbox: u64) {
        match &mut self.porter {
            Some(porter) => porter.count(sandbox, Purpose::Count(id)),
            None => self.tell(&Reply::Carried { id, traffic: Traffic::default() }, &[]),
        }
    }

    /// A sandbox has ended: its ports are not carried any more. It counts as gone once the porter has let go of them.
    pub(super) fn hide_ended(&mut self, sandbox: u64, exposure: Option<Exposure>) {
        if let (Some(porter), Some(_)) = (&mut self.porter, exposure) {
            self.hiding.insert(sandbox);
            porter.hide(sandbox, Purpose::End);
        }
    }

    fn start_porter(&mut self) -> Result<(), Fault> {
        if self.porter.is_none() {
            let porter = Porter::start()?;
            self.events.add(porter.socket.as_fd(), token::PORTER).step(STEP)?;
            self.porter = Some(porter);
        }
        Ok(())
    }

    /// The porter has something to say.
    pub(super) fn porter_told(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(porter) = &mut self.porter {
            match porter.receive(&mut buffer) {
                Ok(Some(done)) => self.carried(done),
                Ok(None) => break,
                Err(_) => {
                    // Its end follows.
                    self.events.remove(porter.socket.as_fd());
                    let _gone = system::kill(porter.pid, libc::SIGKILL);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    fn carried(&mut self, done: Done) {
        let Done { sandbox, purpose, result } = done;
        match (purpose, result) {
            (Purpose::Expose(id) | Purpose::Count(id) | Purpose::Hide(id), Ok(traffic)) => {
                self.tell(&Reply::Carried { id, traffic }, &[]);
            }
            // A porter that is gone holds no ports.
            (Purpose::Hide(id), Err(_)) => self.tell(&Reply::Carried { id, traffic: Traffic::default() }, &[]),
            (Purpose::Expose(id), Err(fault)) => {
                if let Some(sandbox) = self.sandboxes.get_mut(&sandbox) {
                    sandbox.exposure.take_if(|exposure| exposure.request == id);
                }
                self.answer(id, Err(fault), &[]);
            }
            (Purpose::Count(id), Err(fault)) => self.answer(id, Err(fault), &[]),
            (Purpose::End, _) => drop(self.hiding.remove(&sandbox)),
            (Purpose::Again, _) => {}
        }
    }

    /// The porter has died. Another one goes on with what is exposed, unless it has never worked.
    pub(super) fn porter_ended(&mut self) {
        let Some(mut porter) = self.porter.take() else { return };
        self.events.remove(porter.socket.as_fd());
        for done in porter.lost() {
            self.carried(done);
        }
        if self.over || !porter.proven || self.start_porter().is_err() {
            return;
        }
        let exposed = |(id, sandbox): (&u64, &super::Sandbox)| sandbox.exposure.is_some().then_some(*id);
        let exposed: Vec<u64> = self.sandboxes.iter().filter_map(exposed).collect();
        for id in exposed {
            self.carry(id, Purpose::Again);
        }
    }
}
