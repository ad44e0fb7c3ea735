//! From a request to a running program: reports of first processes, and forks of interpreters.

use std::io;
use std::os::fd::AsFd;

use super::super::error::{Fault, Step};
use super::super::plan::{Plan, Program};
use super::super::system;
use super::super::wire::{self, Reply};
use super::keeping::Keepsake;
use super::sandbox::{Starting, Users};
use super::{Key, Server, Told, Zygote, first, token};

/// What an interpreter tells is short.
const TOLD: usize = 4096;

impl Server {
    pub(super) fn spawn(&mut self, id: u64, plan: Plan) {
        if let Err(fault) = self.begin(id, plan) {
            self.tell(&Reply::Failed { id, fault }, &[]);
        }
    }

    fn begin(&mut self, id: u64, mut plan: Plan) -> Result<(), Fault> {
        if plan.lasting.is_some() {
            self.home.check()?;
        }
        if matches!(self.workshop.users, Users::Same) {
            // An ordinary user's interpreter can't enter the sandbox, so it is started there.
            plan.program = without_fork(plan.program);
        }
        if let Program::Python { interpreter, preload, .. } = &plan.program {
            self.zygote(&(interpreter.clone(), preload.clone()))?;
        }
        let sandbox = self.workshop.make(plan)?;
        self.numbers.insert(sandbox.pid, id);
        let report = sandbox.starting.as_ref().map(|starting| starting.report.as_fd());
        let watched = self
            .events
            .add(sandbox.control.as_fd(), token::of(id, token::CONTROL))
            .and_then(|()| report.map_or(Ok(()), |report| self.events.add(report, token::of(id, token::REPORT))));
        if watched.is_err() {
            // Out of memory for one more: its end is noticed all the same, and answers the request.
            let _gone = system::pidfd_signal(sandbox.pidfd.as_fd(), libc::SIGKILL);
        }
        self.sandboxes.insert(id, sandbox);
        Ok(())
    }

    /// A first process has something to say, or its program runs.
    pub(super) fn reported(&mut self, id: u64) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        let Some(starting) = &sandbox.starting else { return };
        let mut bytes = [0; TOLD];
        let said = match system::read(starting.report.as_fd(), &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => &[][..],
            Ok(count) => &bytes[..count],
        };
        self.events.remove(starting.report.as_fd());
        if said == first::READY {
            self.fork_interpreter(id);
        } else if let Ok(fault) = wire::decode::<Fault>(said) {
            self.fail(id, fault);
        } else if matches!(sandbox.plan.program, Program::Exec(_)) && !system::is_readable(sandbox.pidfd.as_fd()) {
            // Were the first process gone too, its end would tell whether the program has run.
            self.runs(id);
        }
    }

    /// The program of a sandbox runs: hands out what belongs to it.
    pub(super) fn runs(&mut self, id: u64) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        let Some(starting) = sandbox.starting.take() else { return };
        let pid = u32::try_from(sandbox.pid).unwrap_or(0);
        let reply = Reply::Spawned { id, pid, group: sandbox.group.clone() };
        let Ok(pidfd) = sandbox.pidfd.try_clone() else { return self.fail(id, too_many()) };
        let keepsake = match sandbox.plan.lasting.is_some().then(|| Keepsake::of(&starting)).transpose() {
            Ok(keepsake) => keepsake,
            Err(_) => return self.fail(id, too_many()),
        };
        sandbox.kept = keepsake;
        let mut descriptors = vec![pidfd.as_fd(), starting.stdout.0.as_fd(), starting.stderr.0.as_fd()];
        descriptors.extend(starting.listeners.iter().map(AsFd::as_fd));
        self.tell(&reply, &descriptors);
    }

    /// A start has failed: the answer goes out at once, the rest is cleared away when the first process has ended.
    fn fail(&mut self, id: u64, fault: Fault) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        sandbox.starting = None;
        let _gone = system::pidfd_signal(sandbox.pidfd.as_fd(), libc::SIGKILL);
        self.tell(&Reply::Failed { id, fault }, &[]);
    }

    /// Gets an interpreter ready and answers when it is.
    pub(super) fn warm(&mut self, id: u64, key: Key) {
        if matches!(self.workshop.users, Users::Same) {
            return self.answer(id, Ok(()), &[]);
        }
        let answer = match self.zygote(&key) {
            Ok(zygote) if !zygote.ready => return zygote.waiting.push(id),
            Ok(_) => Ok(()),
            Err(fault) => Err(fault),
        };
        self.answer(id, answer, &[]);
    }

    fn zygote(&mut self, key: &Key) -> Result<&mut Zygote, Fault> {
        if !self.zygotes.contains_key(key) {
            let zygote = Zygote::start(key, &self.workshop.filter)?;
            let token = token::of(u64::try_from(zygote.pid()).unwrap_or(0), token::ZYGOTE);
            self.events.add(zygote.socket.as_fd(), token).step("watching an interpreter")?;
            self.zygotes.insert(key.clone(), zygote);
        }
        self.zygotes.get_mut(key).ok_or_else(|| has_ended(key))
    }

    /// A sandbox stands and waits for its program to be forked into it.
    fn fork_interpreter(&mut self, id: u64) {
        if let Err(fault) = self.ask_for_fork(id) {
            self.fail(id, fault);
        }
    }

    fn ask_for_fork(&mut self, id: u64) -> Result<(), Fault> {
        const STEP: &str = "forking an interpreter";
        let Some(sandbox) = self.sandboxes.get(&id) else { return Ok(()) };
        let Program::Python { interpreter, preload, .. } = &sandbox.plan.program else { return Ok(()) };
        let Some(starting) = &sandbox.starting else { return Ok(()) };
        let open = |door| std::fs::OpenOptions::new().write(true).open(door);
        let doors: Vec<_> = sandbox.group.doors().into_iter().map(open).collect::<io::Result<_>>().step(STEP)?;
        let mut descriptors = vec![sandbox.pidfd.as_fd(), starting.stdout.1.as_fd(), starting.stderr.1.as_fd()];
        descriptors.extend(doors.iter().map(AsFd::as_fd));
        let key = (interpreter.clone(), preload.clone());
        let zygote = self.zygotes.get_mut(&key).ok_or_else(|| has_ended(&key))?;
        let own_users = matches!(self.workshop.users, Users::Own { .. });
        let count_processes = !self.workshop.hierarchy.abilities().pids;
        let asked = zygote.fork(id, &sandbox.plan, &descriptors, (own_users, count_processes));
        // One that ends just now is told of as one that has ended.
        asked.map_err(|fault| if HUNG_UP.contains(&fault.errno) { has_ended(&key) } else { fault })
    }

    /// An interpreter has something to say.
    pub(super) fn zygote_told(&mut self, pid: i32) {
        let Some(zygote) = self.zygotes.values_mut().find(|zygote| zygote.pid() == pid) else { return };
        let mut buffer = [0; TOLD];
        let told = match wire::receive(zygote.socket.as_fd(), &mut buffer) {
            Ok((bytes, _)) if !bytes.is_empty() => wire::decode::<Told>(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            _ => Err(io::Error::from_raw_os_error(libc::EPIPE)),
        };
        match told {
            Ok(Told::Ready { .. }) => {
                zygote.ready = true;
                for id in std::mem::take(&mut zygote.waiting) {
                    self.answer(id, Ok(()), &[]);
                }
            }
            Ok(Told::Forked { id, forked }) => {
                zygote.asked.retain(|asked| *asked != id);
                zygote.children.insert(forked, id);
                if let Some(sandbox) = self.sandboxes.get_mut(&id) {
                    sandbox.forked = Some(forked);
                    self.runs(id);
                }
            }
            Ok(Told::Failed { id, failed, errno }) => {
                zygote.asked.retain(|asked| *asked != id);
                let fault = Fault { operation: "forking an interpreter".to_owned(), errno, advice: failed };
                self.fail(id, fault);
            }
            Ok(Told::Ended { ended, status }) => {
                if let Some(id) = zygote.children.remove(&ended) {
                    self.fork_ended(id, status);
                }
            }
            Err(_) => {
                // It is not what it should be any more; its end follows.
                self.events.remove(zygote.socket.as_fd());
                let _gone = system::kill(pid, libc::SIGKILL);
            }
        }
    }

    /// A program that was forked into a sandbox has ended, and so shall the sandbox.
    pub(super) fn fork_ended(&mut self, id: u64, status: i32) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        sandbox.status.get_or_insert(status);
        sandbox.forked = None;
        let _gone = system::pidfd_signal(sandbox.pidfd.as_fd(), libc::SIGKILL);
    }

    /// An interpreter has ended: what waits for it fails, the next one to want it starts it again. Its children go on.
    pub(super) fn zygote_ended(&mut self, key: &Key) {
        let Some(zygote) = self.zygotes.remove(key) else { return };
        self.events.remove(zygote.socket.as_fd());
        for id in zygote.waiting {
            self.answer(id, Err(has_ended(key)), &[]);
        }
        for id in zygote.asked {
            self.fail(id, has_ended(key));
        }
    }
}

/// Errors of a socket whose other end is gone.
const HUNG_UP: [i32; 2] = [libc::EPIPE, libc::ECONNRESET];

fn has_ended(key: &Key) -> Fault {
    let fault = Fault::new(&format!("starting {}", key.0.display()), &super::gone());
    fault.advise("the interpreter has ended; it must be Python 3.9 or newer with ctypes")
}

/// The same program, started afresh.
fn without_fork(program: Program) -> Program {
    let Program::Python { interpreter, script, arguments, .. } = program else { return program };
    let mut words = vec![interpreter.to_string_lossy().into_owned()];
    words.extend(["-I", "-S", "-B", "-c"].map(str::to_owned));
    words.push(script);
    words.extend(arguments);
    Program::Exec(words)
}

fn too_many() -> Fault {
    Fault::new("handing out a sandbox", &io::Error::from_raw_os_error(libc::EMFILE))
}

/// The fault that a first process has reported, if there is one to be read.
pub(super) fn read_fault(starting: &Starting) -> Option<Fault> {
    let mut bytes = [0; TOLD];
    let count = system::read(starting.report.as_fd(), &mut bytes).ok()?;
    wire::decode(bytes.get(..count)?).ok()
}
