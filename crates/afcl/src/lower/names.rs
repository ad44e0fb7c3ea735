//! Which name means what, seen from where.
//!
//! Names of functions and compounds are unique within a frame, however deep they stand. What a port of a compound is
//! depends on the reader: from inside, its inputs; from outside, its outputs.

use std::collections::HashMap;

use super::{Context, Lowering, Place};
use crate::diagnostic::{DiagnosticCode as Code, Located, Position};
use crate::document::{list, nearest, quote};
use crate::graph::{DataId, ScopeId};

/// All names.
#[derive(Default)]
pub(super) struct Names<'d> {
    producers: Vec<Producer<'d>>,
    by_name: HashMap<(usize, &'d str), usize>,
    ports: HashMap<(usize, Side, &'d str), Port>,
}

struct Producer<'d> {
    name: &'d str,
    frame: usize,
    keyword: &'static str,
    /// The compound around it.
    parent: Option<usize>,
}

/// From where a port is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// By all that is not in the compound.
    Outside,
    /// By what is in it.
    Inside,
    /// By its condition only.
    Condition,
    /// By its condition and outputs: what a value of a loop is *after* the iteration.
    Next,
}

/// What a port is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Port {
    /// A datum.
    Data(DataId),
    /// A name for other data.
    Wire(usize),
    /// A datum that is made when it is read first.
    Lazy(usize),
    /// Something wrong that was reported.
    Broken,
    /// An input of a while that has no output of the same name; where it stands.
    NotCarried(Position),
}

impl<'d> Lowering<'d, '_> {
    /// Gives a producer its name.
    pub(super) fn register(
        &mut self,
        frame: usize,
        name: &'d Located<String>,
        keyword: &'static str,
        parent: Option<usize>,
    ) -> usize {
        let id = self.names.producers.len();
        self.names.producers.push(Producer { name: &name.value, frame, keyword, parent });
        if *self.names.by_name.entry((frame, &name.value)).or_insert(id) != id {
            let message = format!("the name {} is there already; names are unique in the workflow", quote(&name.value));
            self.findings.error(name.at, Code::DuplicateName, message);
        }
        id
    }

    /// Whether a producer is the one that its name means: not the second of two.
    pub(super) fn has_name(&self, frame: usize, producer: usize) -> bool {
        self.names.by_name.get(&(frame, self.name_of(producer))) == Some(&producer)
    }

    /// Gives a port its meaning.
    pub(super) fn set_port(&mut self, producer: usize, side: Side, name: &'d Located<String>, port: Port) {
        if self.names.ports.insert((producer, side, &name.value), port).is_some() {
            let message = format!("{} is there already in {}", quote(&name.value), quote(self.name_of(producer)));
            self.findings.error(name.at, Code::DuplicateName, message);
        }
    }

    /// Gives a port that stands in no document its meaning, unless there is one of that name.
    pub(super) fn set_built_in(&mut self, producer: usize, name: &'d str, port: Port) {
        self.names.ports.entry((producer, Side::Inside, name)).or_insert(port);
    }

    pub(super) fn name_of(&self, producer: usize) -> &'d str {
        self.names.producers[producer].name
    }

    /// Whether the reader stands in the compound.
    fn is_inside(&self, producer: usize, context: Context) -> bool {
        let mut around = context.compound;
        while let Some(id) = around {
            if id == producer {
                return true;
            }
            around = self.names.producers[id].parent;
        }
        false
    }

    /// What `producer/port` means to the reader; an error is reported where it means nothing.
    pub(super) fn look(&mut self, context: Context, at: Position, producer: &str, port: &str) -> Option<Port> {
        match self.peek(context, producer, port) {
            Some(Port::NotCarried(place)) => {
                let name = quote(producer);
                let message = format!(
                    "the body of {name} reads this input, so {name} needs a dataOut {} that says what it is in the next \
                     iteration; what does not change is read by its outer name",
                    quote(port)
                );
                self.findings.error(place, Code::LoopWithoutOutput, message);
                None
            }
            Some(Port::Broken) => None,
            Some(port) => Some(port),
            // A hint is a search, and nobody would read it.
            None if self.findings.is_full() => {
                self.findings.error(at, Code::UnknownSource, String::new());
                None
            }
            None => {
                match self.names.by_name.get(&(context.frame, producer)) {
                    None => self.unknown_producer(context.frame, at, producer, port),
                    Some(&id) => self.unknown_port(id, self.is_inside(id, context), at, port),
                }
                None
            }
        }
    }

    /// The same, silently.
    pub(super) fn peek(&self, context: Context, producer: &str, port: &str) -> Option<Port> {
        let id = *self.names.by_name.get(&(context.frame, producer))?;
        let inside = self.is_inside(id, context);
        let direct = inside && context.compound == Some(id);
        let sides: &[Side] = match (inside, direct, context.place) {
            (false, ..) => &[Side::Outside],
            (true, true, Place::Condition) => &[Side::Next, Side::Inside, Side::Condition],
            (true, true, Place::Outputs) => &[Side::Next, Side::Inside],
            _ => &[Side::Inside],
        };
        sides.iter().find_map(|side| self.names.ports.get(&(id, *side, port)).copied())
    }

    fn unknown_producer(&mut self, frame: usize, at: Position, producer: &str, port: &str) {
        const SEARCHED: usize = 2000;
        let names = self.names.producers.iter().filter(|known| known.frame == frame).map(|known| known.name);
        let hint = match nearest(producer, names.take(SEARCHED)) {
            Some(near) => format!("; did you mean {}?", quote(&format!("{near}/{port}"))),
            None => "; for a text with a `/` write it as `value:`, or between double quotes".to_owned(),
        };
        let message = format!("there is no function or compound {}{hint}", quote(producer));
        self.findings.error(at, Code::UnknownSource, message);
    }

    fn unknown_port(&mut self, producer: usize, inside: bool, at: Position, port: &str) {
        let Producer { name, keyword, .. } = self.names.producers[producer];
        let (side, other) = if inside { (Side::Inside, Side::Outside) } else { (Side::Outside, Side::Inside) };
        let source = quote(&format!("{name}/{port}"));
        if self.names.ports.contains_key(&(producer, other, port)) {
            let (code, message) = match inside {
                true => (
                    Code::SelfDependency,
                    format!("{source} is what the {keyword} makes; in it, name the function that makes the value"),
                ),
                false => (
                    Code::NotVisible,
                    format!(
                        "{source} is an input of the {keyword}, for what stands in it; name the input's own source"
                    ),
                ),
            };
            self.findings.error(at, code, message);
            return;
        }
        let of = |key: &&(usize, Side, &'d str)| key.0 == producer && key.1 == side;
        let mut known: Vec<&str> = self.names.ports.keys().filter(of).map(|(_, _, name)| *name).collect();
        known.sort_unstable();
        known.truncate(12);
        let hint = match nearest(port, known.iter().copied()) {
            Some(near) => format!("; did you mean {}?", quote(near)),
            None if known.is_empty() => "; it has none".to_owned(),
            None => format!("; it has {}", list(&known)),
        };
        let kind = if inside { "dataIn" } else { "dataOut" };
        let message = format!("{keyword} {} has no {kind} {}{hint}", quote(name), quote(port));
        self.findings.error(at, Code::UnknownPort, message);
    }

    /// Whether a reader in `from` sees what stands in `scope`; an error is reported where not.
    pub(super) fn check_visible(&mut self, at: Position, from: ScopeId, scope: ScopeId, source: &str) -> bool {
        if self.graph.is_within(from, scope) {
            return true;
        }
        let compound = quote(&self.graph.scope(scope).name);
        let message = format!(
            "{} stands inside of {compound}, which may run never or many times; give {compound} a dataOut with this \
             source, and read that",
            quote(source)
        );
        self.findings.error(at, Code::NotVisible, message);
        false
    }
}
