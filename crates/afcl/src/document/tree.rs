//! A document as a tree of values with their places, before it means anything.
//!
//! YAML 1.2, of which JSON is a part. Aliases are copied in, within limits; merge keys and tags of one's own are not
//! taken. The tree is built from parser events without recursion, and is never deeper than
//! [`MAX_VALUE_DEPTH`](crate::limits::MAX_VALUE_DEPTH), so that those who walk it may recurse.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;

use crate::diagnostic::{DiagnosticCode as Kind, Findings, Located, Position};
use crate::limits::{MAX_ALIAS_BYTES, MAX_DOCUMENT_BYTES, MAX_VALUE_DEPTH, MAX_VALUES};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    pub(crate) at: Position,
    pub(crate) content: Content<'a>,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Content<'a> {
    /// A text; `plain` where it was not quoted, so that it may be a number or a truth value.
    Scalar { text: Cow<'a, str>, plain: bool },
    /// A list.
    List(Vec<Node<'a>>),
    /// Fields in their order; names may repeat.
    Map(Vec<(Located<Cow<'a, str>>, Node<'a>)>),
}

impl Node<'_> {
    /// What it is, for a message.
    pub(crate) fn shape(&self) -> &'static str {
        match &self.content {
            Content::Scalar { .. } if self.is_null() => "nothing",
            Content::Scalar { .. } => "a text",
            Content::List(_) => "a list",
            Content::Map(_) => "an object",
        }
    }

    /// Whether it is empty or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if matches!(text.as_ref(), "" | "~" | "null"))
    }

    /// The value as JSON; `None` where a field stands twice.
    pub(crate) fn to_json(&self) -> Option<Value> {
        Some(match &self.content {
            Content::Scalar { text, plain: false } => Value::String(text.to_string()),
            Content::Scalar { .. } if self.is_null() => Value::Null,
            Content::Scalar { text, plain: true } => match serde_json::from_str::<Value>(text) {
                Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
                _ => Value::String(text.to_string()),
            },
            Content::List(items) => Value::Array(items.iter().map(Node::to_json).collect::<Option<_>>()?),
            Content::Map(fields) => {
                let mut object = serde_json::Map::with_capacity(fields.len());
                for (name, value) in fields {
                    if object.insert(name.value.to_string(), value.to_json()?).is_some() {
                        return None;
                    }
                }
                Value::Object(object)
            }
        })
    }
}

/// A list or object that is not closed yet.
struct Open<'a> {
    node: Node<'a>,
    key: Option<Located<Cow<'a, str>>>,
    anchor: usize,
    size: Size,
}

/// How much a value holds.
#[derive(Clone, Copy, Default)]
struct Size {
    values: usize,
    bytes: usize,
    height: usize,
}

/// Why there is no tree.
struct Refusal {
    at: Position,
    code: Kind,
    message: String,
}

/// A constant as JSON, or as YAML writes it in one line: `{a: 1}`; none where it is neither.
pub(crate) fn lenient(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    read(text, &mut Findings::default())?.to_json()
}

/// Reads the text of a document.
pub(crate) fn read<'a>(text: &'a str, findings: &mut Findings) -> Option<Node<'a>> {
    let start = Position { line: 1, column: 1 };
    if text.len() > MAX_DOCUMENT_BYTES {
        let message = format!("the document has {} bytes; {MAX_DOCUMENT_BYTES} are the most", text.len());
        findings.fatal(start, Kind::TooLarge, message);
        return None;
    }
    match Builder::default().build(text) {
        Ok(Some(node)) => Some(node),
        Ok(None) => {
            findings.fatal(start, Kind::Syntax, "the document is empty");
            None
        }
        Err(refusal) => {
            findings.fatal(refusal.at, refusal.code, refusal.message);
            None
        }
    }
}

#[derive(Default)]
struct Builder<'a> {
    open: Vec<Open<'a>>,
    root: Option<Node<'a>>,
    anchors: HashMap<usize, (Node<'a>, Size)>,
    values: usize,
    alias_bytes: usize,
}

impl<'a> Builder<'a> {
    fn build(mut self, text: &'a str) -> Result<Option<Node<'a>>, Refusal> {
        let mut options = granit_parser::options! {
            flow_nesting_limit: MAX_VALUE_DEPTH,
            block_nesting_limit: MAX_VALUE_DEPTH,
        };
        options.set_emit_comments(false);
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| Refusal {
                at: place(*error.marker()),
                code: Kind::Syntax,
                message: format!("not YAML or JSON: {}", error.info()),
            })?;
            let at = place(span.start);
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(syntax(at, "there is a second document; a workflow is one"));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let plain = style == ScalarStyle::Plain && !is_text(tag.as_deref(), &span)?;
                    let size = Size { values: 1, bytes: text.len(), height: 0 };
                    self.count(at, 1)?;
                    let node = Node { at, content: Content::Scalar { text, plain } };
                    self.keep(anchor, &node, size)?;
                    self.attach(node, size)?;
                }
                Event::SequenceStart(_, anchor, tag) => {
                    is_text(tag.as_deref(), &span)?;
                    self.open(at, Content::List(Vec::new()), anchor)?;
                }
                Event::MappingStart(_, anchor, tag) => {
                    is_text(tag.as_deref(), &span)?;
                    self.open(at, Content::Map(Vec::new()), anchor)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                Event::Alias(anchor) => self.alias(at, anchor)?,
                _ => {}
            }
        }
        Ok(self.root)
    }

    /// Counts values against the limit.
    fn count(&mut self, at: Position, values: usize) -> Result<(), Refusal> {
        self.values = self.values.saturating_add(values);
        if self.values > MAX_VALUES {
            let message = format!("the document has more than {MAX_VALUES} values");
            return Err(Refusal { at, code: Kind::TooLarge, message });
        }
        Ok(())
    }

    fn open(&mut self, at: Position, content: Content<'a>, anchor: usize) -> Result<(), Refusal> {
        self.count(at, 1)?;
        self.check_depth(at, 0)?;
        let size = Size { values: 1, bytes: 0, height: 0 };
        self.open.push(Open { node: Node { at, content }, key: None, anchor, size });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refusal> {
        if let Some(open) = self.open.pop() {
            self.keep(open.anchor, &open.node, open.size)?;
            self.attach(open.node, open.size)?;
        }
        Ok(())
    }

    /// Keeps a value for its aliases.
    fn keep(&mut self, anchor: usize, node: &Node<'a>, size: Size) -> Result<(), Refusal> {
        if anchor > 0 {
            self.charge(node.at, size)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(())
    }

    /// Counts a copy against the limits before it is made.
    fn charge(&mut self, at: Position, size: Size) -> Result<(), Refusal> {
        self.count(at, size.values)?;
        self.alias_bytes = self.alias_bytes.saturating_add(size.bytes);
        if self.alias_bytes > MAX_ALIAS_BYTES {
            let message = "the document's aliases unfold to more than 10 MiB".to_owned();
            return Err(Refusal { at, code: Kind::TooLarge, message });
        }
        Ok(())
    }

    fn alias(&mut self, at: Position, anchor: usize) -> Result<(), Refusal> {
        let Some(size) = self.anchors.get(&anchor).map(|(_, size)| *size) else {
            return Err(syntax(at, "this alias stands inside of what it refers to"));
        };
        self.charge(at, size)?;
        self.check_depth(at, size.height)?;
        let node = self.anchors[&anchor].0.clone();
        self.attach(node, size)
    }

    fn check_depth(&self, at: Position, height: usize) -> Result<(), Refusal> {
        if self.open.len() + height >= MAX_VALUE_DEPTH {
            let message = format!("the document is nested deeper than {MAX_VALUE_DEPTH} levels");
            return Err(Refusal { at, code: Kind::TooLarge, message });
        }
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn attach(&mut self, node: Node<'a>, size: Size) -> Result<(), Refusal> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.size.values += size.values;
        open.size.bytes += size.bytes;
        open.size.height = open.size.height.max(size.height + 1);
        match (&mut open.node.content, open.key.take()) {
            (Content::List(items), _) => items.push(node),
            (Content::Map(fields), Some(key)) => fields.push((key, node)),
            (Content::Map(_), None) => match node.content {
                Content::Scalar { text, .. } => open.key = Some(Located { at: node.at, value: text }),
                _ => return Err(syntax(node.at, "the name of a field must be a text")),
            },
            (Content::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

fn syntax(at: Position, message: &str) -> Refusal {
    Refusal { at, code: Kind::Syntax, message: message.to_owned() }
}

fn place(mark: granit_parser::Marker) -> Position {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Position { line: number(mark.line()).max(1), column: number(mark.col()).saturating_add(1) }
}

/// Whether a tag says that the value is a text whatever it looks like.
fn is_text(tag: Option<&Tag>, span: &Span) -> Result<bool, Refusal> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix() == "str"),
        Some(tag) if tag.handle().is_empty() && tag.suffix() == "!" => Ok(true),
        Some(_) => Err(syntax(place(span.start), "tags of one's own are not taken")),
    }
}
