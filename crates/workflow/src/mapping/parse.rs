//! Reads a type mapping and says of each fault where it stands.
//!
//! What must hold: a mapping that is accepted can be scheduled as it is: every name follows its rule, every URL can be
//! called, no type or resource is there twice, nothing that Lyra can't enact is in it. All faults are told at once, up
//! to [`MAX_FAULTS`]. What a name stands for is not looked up here: that is decided when a task is called.

use std::collections::{BTreeMap, HashSet};

use lyra_types::name::Qualifier;
use lyra_types::{Code, Error, FieldError, WorkflowName};
use serde_json::{Map, Value};
use url::Url;

use super::{Mapping, Resource, ResourceKind, Transfer, TypeMapping, headers};
use crate::config::Extraction;
use crate::enact::demo;

/// Most function types of a mapping.
pub const MAX_TYPES: usize = 1_000;
/// Most resources of a function type.
pub const MAX_RESOURCES: usize = 64;
/// Longest name of a function type, in bytes.
pub const MAX_TYPE_LEN: usize = 256;
/// Longest `TimeoutInSeconds`: one day.
pub const MAX_TIMEOUT_SECONDS: f64 = 86_400.0;
/// Most faults that are told at once.
const MAX_FAULTS: usize = 50;
/// What Lyra's own function types begin with.
const OWN: &str = "lyra:";
/// What the function type of a cut begins with.
const CUT: &str = "lyra:cut/";

impl Mapping {
    /// Reads a mapping: the array itself, its JSON text as a string, or `null` for an empty one.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with a field for each fault, `mappings[2].resources[0].properties.Uri` for example.
    pub fn parse(value: &Value) -> Result<Mapping, Error> {
        Mapping::parse_odd(value).map(|(mapping, _)| mapping)
    }

    /// The same, with what is odd about it: `mappings[2].resources[0]: …`.
    ///
    /// # Errors
    /// As [`Mapping::parse`].
    pub fn parse_odd(value: &Value) -> Result<(Mapping, Vec<String>), Error> {
        match value {
            Value::Null => Ok((Mapping::default(), Vec::new())),
            Value::String(text) => text_of(text).and_then(|value| read(&value)),
            value => read(value),
        }
    }

    /// Reads a mapping from the text of a file.
    ///
    /// # Errors
    /// As [`Mapping::parse`]; where the text is no JSON, with line and column.
    pub fn parse_text(text: &str) -> Result<Mapping, Error> {
        read(&text_of(text)?).map(|(mapping, _)| mapping)
    }
}

fn text_of(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| {
        let place = |number: usize| u32::try_from(number).ok().filter(|number| *number > 0);
        let mut field = FieldError::new("mappings", format!("is not JSON: {error}"));
        (field.line, field.column) = (place(error.line()), place(error.column()));
        Error::new(Code::InvalidField, format!("mappings: {}", field.reason)).with_field(field)
    })
}

fn read(value: &Value) -> Result<(Mapping, Vec<String>), Error> {
    let mut faults = Faults::default();
    let types = types(value, &mut faults);
    let odd = std::mem::take(&mut faults.odd);
    match faults.into_error() {
        None => Ok((Mapping { types }, odd)),
        Some(error) => Err(error),
    }
}

/// Faults that were found, and how many there are.
#[derive(Default)]
pub(super) struct Faults {
    told: Vec<FieldError>,
    count: usize,
    /// What is no fault, but may surprise.
    odd: Vec<String>,
}

impl Faults {
    pub(super) fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.count += 1;
        if self.told.len() < MAX_FAULTS {
            self.told.push(FieldError::new(field, reason));
        }
    }

    /// Says what may surprise.
    pub(super) fn warn(&mut self, warning: String) {
        if self.odd.len() < MAX_FAULTS {
            self.odd.push(warning);
        }
    }

    fn into_error(self) -> Option<Error> {
        let first = self.told.first()?;
        let more = match self.count {
            1 => String::new(),
            count => format!(" ({} more)", count - 1),
        };
        let mut error = Error::new(Code::InvalidField, format!("{}: {}{more}", first.field, first.reason));
        error.errors = self.told;
        Some(error)
    }
}

fn types(value: &Value, faults: &mut Faults) -> Vec<TypeMapping> {
    let Some(items) = value.as_array() else {
        faults.add("mappings", format!("must be an array of {{functionType, resources}}, not {}", kind_of(value)));
        return Vec::new();
    };
    if items.len() > MAX_TYPES {
        faults.add("mappings", format!("has {} function types; at most {MAX_TYPES} may be there", items.len()));
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut types = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let path = format!("mappings[{index}]");
        let Some(mapping) = type_mapping(&path, item, faults) else { continue };
        if seen.insert(mapping.function_type.clone()) {
            types.push(mapping);
        } else {
            faults.add(format!("{path}.functionType"), format!("\"{}\" is mapped already", mapping.function_type));
        }
    }
    types
}

fn type_mapping(path: &str, value: &Value, faults: &mut Faults) -> Option<TypeMapping> {
    let mut fields = Fields::of(path, value, faults)?;
    let function_type = fields.text("functionType", faults);
    let resources = fields.required("resources", faults);
    fields.finish(faults);
    let function_type = function_type?;
    check_type(&format!("{path}.functionType"), &function_type, faults);
    let path = format!("{path}.resources");
    let items = match resources? {
        Value::Array(items) if items.is_empty() => {
            faults.add(path, "must name at least one resource");
            return None;
        }
        Value::Array(items) if items.len() > MAX_RESOURCES => {
            faults.add(path, format!("has {} resources; at most {MAX_RESOURCES} may be there", items.len()));
            return None;
        }
        Value::Array(items) => items,
        other => {
            faults.add(path, format!("must be an array, not {}", kind_of(other)));
            return None;
        }
    };
    let others = items.iter().any(|item| !is_local(item));
    let mut resources: Vec<Resource> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if others && is_local(item) {
            // Mappings of Apollo have them beside resources that are there everywhere.
            faults.warn(format!("{path}: {LOCAL}; it is left out, since \"{function_type}\" has others"));
            continue;
        }
        let Some(resource) = resource(&path, &function_type, item, faults) else { continue };
        match resources.iter().position(|known| known.id() == resource.id()) {
            Some(known) => faults.add(path, format!("is the same resource as number {known} of this type")),
            None => resources.push(resource),
        }
    }
    Some(TypeMapping { function_type, resources })
}

/// Whether it is a resource that nothing here can run.
fn is_local(item: &Value) -> bool {
    item.get("type").and_then(Value::as_str) == Some("Local")
}

fn check_type(path: &str, name: &str, faults: &mut Faults) {
    if name.is_empty() {
        faults.add(path, "is empty");
    } else if name.len() > MAX_TYPE_LEN {
        faults.add(path, format!("is longer than {MAX_TYPE_LEN} bytes"));
    } else if name.starts_with(OWN) && name.strip_prefix(CUT).is_none_or(str::is_empty) {
        faults
            .add(path, format!("\"{name}\" is one of Lyra's own types, which need no mapping; only {CUT}NAME has one"));
    }
}

fn resource(path: &str, function_type: &str, value: &Value, faults: &mut Faults) -> Option<Resource> {
    let before = faults.count;
    let mut fields = Fields::of(path, value, faults)?;
    let kind = fields.text("type", faults);
    // Apollo's files carry it and Apollo never reads it: accepted, of no account.
    fields.optional("implementationId");
    let transmission = fields.optional("transmission");
    let empty = Value::Object(Map::new());
    let properties = fields.optional("properties").unwrap_or(&empty);
    fields.finish(faults);
    let kind = kind?;
    let path_of_type = format!("{path}.type");
    let mut properties = Fields::of(&format!("{path}.properties"), properties, faults)?;
    let kind = match kind.as_str() {
        "Function" => function(&mut properties, faults),
        "Serverless" => serverless(&mut properties, faults),
        "Demo" if demo::is_known(function_type) => Some(ResourceKind::Demo {}),
        "Demo" => {
            let known = demo::TYPES.join(", ");
            faults.add(path_of_type.clone(), format!("Demo is there for the types {known}, not \"{function_type}\""));
            None
        }
        "Local" => {
            let instead = "deploy the image's code as a function and map it as Function, or serve it and map its URL as \
                           Serverless";
            faults.add(path_of_type.clone(), format!("{LOCAL}: {instead}"));
            return None;
        }
        "Workflow" => workflow(&mut properties, faults),
        "Cut" => cut(&mut properties, faults),
        other => {
            faults.add(path_of_type, format!("\"{other}\" is none of {}", KINDS.join(", ")));
            return None;
        }
    };
    properties.finish(faults);
    let path_of_transmission = format!("{path}.transmission");
    let transmission = match (transmission, &kind) {
        (Some(value), Some(kind)) => transfer(&path_of_transmission, value, kind, faults)?,
        _ => Transfer::default(),
    };
    let kind = kind.filter(|_| faults.count == before)?;
    match (function_type.starts_with(CUT), matches!(kind, ResourceKind::Cut { .. })) {
        (true, false) => faults.add(path_of_type, format!("\"{function_type}\" takes resources of type Cut only")),
        (false, true) => faults.add(path_of_type, format!("Cut is there for the types {CUT}NAME only")),
        _ => return Some(Resource { kind, transmission }),
    }
    None
}

/// How values get to a resource and back.
fn transfer(path: &str, value: &Value, kind: &ResourceKind, faults: &mut Faults) -> Option<Transfer> {
    let mut fields = Fields::of(path, value, faults)?;
    let by_url = matches!(kind, ResourceKind::Function { .. } | ResourceKind::Serverless { .. });
    let references_above = match fields.optional("referencesAbove") {
        None | Some(Value::Null) => None,
        Some(_) if !by_url => {
            faults.add(fields.path_of("referencesAbove"), "is for Function and Serverless");
            None
        }
        Some(value) => {
            let bytes = value.as_u64();
            if bytes.is_none() {
                faults.add(fields.path_of("referencesAbove"), "must be a number of bytes, 0 or more");
            }
            bytes
        }
    };
    let outputs = match fields.optional("outputs") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text == "home" => Some(Extraction::Home),
        Some(Value::String(text)) if text == "in_place" => Some(Extraction::InPlace),
        Some(_) => {
            faults.add(fields.path_of("outputs"), "must be home or in_place");
            None
        }
    };
    fields.finish(faults);
    Some(Transfer { references_above, outputs })
}

/// The types of resources that a mapping may name.
pub(super) const KINDS: [&str; 5] = ["Function", "Serverless", "Demo", "Workflow", "Cut"];

const LOCAL: &str = "Local names a container image, and this Lyra has no container back end to run it";

fn function(properties: &mut Fields<'_>, faults: &mut Faults) -> Option<ResourceKind> {
    let job = properties.flag("job", faults);
    let name = properties.text("name", faults)?;
    properties.check("name", Qualifier::split(&name).map(drop), faults);
    Some(ResourceKind::Function { name, job: job? })
}

fn serverless(properties: &mut Fields<'_>, faults: &mut Faults) -> Option<ResourceKind> {
    let timeout_seconds = match properties.optional("TimeoutInSeconds") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let fits = |seconds: &f64| *seconds > 0.0 && *seconds <= MAX_TIMEOUT_SECONDS;
            let seconds = value.as_f64().filter(fits);
            if seconds.is_none() {
                let reason = format!("must be a number above 0 and up to {MAX_TIMEOUT_SECONDS}");
                faults.add(properties.path_of("TimeoutInSeconds"), reason);
            }
            seconds
        }
    };
    let uri = properties.text("Uri", faults)?;
    properties.check_url("Uri", &uri, false, faults);
    let path = properties.path_of("headers");
    let headers = match properties.optional("headers") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(value) => headers::read(&path, value, &uri, faults),
    };
    Some(ResourceKind::Serverless { uri, timeout_seconds, headers })
}

fn workflow(properties: &mut Fields<'_>, faults: &mut Faults) -> Option<ResourceKind> {
    let name = properties.text("name", faults)?;
    let checked = match name.split_once('@') {
        None => WorkflowName::new(&name).map(drop),
        Some((name, version)) => WorkflowName::new(name).and_then(|_| match Qualifier::parse(version)? {
            Qualifier::Version(_) => Ok(()),
            _ => {
                Err(Error::new(Code::InvalidName, format!("\"{version}\" is not a version: workflows have no aliases")))
            }
        }),
    };
    properties.check("name", checked, faults);
    Some(ResourceKind::Workflow { name })
}

fn cut(properties: &mut Fields<'_>, faults: &mut Faults) -> Option<ResourceKind> {
    let url = properties.text("url", faults)?;
    properties.check_url("url", &url, true, faults);
    let token = match properties.optional("token") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.clone()),
        Some(other) => {
            let reason = format!("must be the name of a token that the operator has set, not {}", kind_of(other));
            faults.add(properties.path_of("token"), reason);
            None
        }
    };
    Some(ResourceKind::Cut { url, token })
}

/// The members of an object, of which each must be asked for.
struct Fields<'a> {
    path: String,
    object: &'a Map<String, Value>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    fn of(path: &str, value: &'a Value, faults: &mut Faults) -> Option<Fields<'a>> {
        match value {
            Value::Object(object) => Some(Fields { path: path.to_owned(), object, asked: Vec::new() }),
            other => {
                faults.add(path, format!("must be an object, not {}", kind_of(other)));
                None
            }
        }
    }

    fn path_of(&self, field: &str) -> String {
        format!("{}.{field}", self.path)
    }

    fn optional(&mut self, field: &'static str) -> Option<&'a Value> {
        self.asked.push(field);
        self.object.get(field)
    }

    fn required(&mut self, field: &'static str, faults: &mut Faults) -> Option<&'a Value> {
        let value = self.optional(field);
        if value.is_none() {
            faults.add(self.path_of(field), "is missing");
        }
        value
    }

    fn text(&mut self, field: &'static str, faults: &mut Faults) -> Option<String> {
        match self.required(field, faults)? {
            Value::String(text) => Some(text.clone()),
            other => {
                faults.add(self.path_of(field), format!("must be a string, not {}", kind_of(other)));
                None
            }
        }
    }

    /// A boolean that is false where it is left out.
    fn flag(&mut self, field: &'static str, faults: &mut Faults) -> Option<bool> {
        match self.optional(field) {
            None => Some(false),
            Some(Value::Bool(flag)) => Some(*flag),
            Some(other) => {
                faults.add(self.path_of(field), format!("must be true or false, not {}", kind_of(other)));
                None
            }
        }
    }

    fn check(&self, field: &str, checked: Result<(), Error>, faults: &mut Faults) {
        if let Err(error) = checked {
            let reason = error.errors.into_iter().next().map_or(error.detail, |field| field.reason);
            faults.add(self.path_of(field), reason);
        }
    }

    fn check_url(&self, field: &str, text: &str, only_origin: bool, faults: &mut Faults) {
        let fault = match Url::parse(text) {
            Err(error) => format!("is not an absolute URL: {error}"),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => "must begin with http:// or https://".to_owned(),
            Ok(url) if url.host_str().is_none_or(str::is_empty) => "names no host".to_owned(),
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                "must hold no user name and password: it is shown in traces".to_owned()
            }
            Ok(url) if only_origin && (url.path() != "/" || url.query().is_some() || url.fragment().is_some()) => {
                "must be the address of a Lyra, http://HOST:PORT, without a path".to_owned()
            }
            Ok(_) => return,
        };
        faults.add(self.path_of(field), fault);
    }

    fn finish(self, faults: &mut Faults) {
        for unknown in self.object.keys().filter(|key| !self.asked.contains(&key.as_str())) {
            let shown: String = unknown.chars().take(80).collect();
            let known = match self.asked.as_slice() {
                [] => "nothing".to_owned(),
                asked => asked.join(", "),
            };
            faults.add(format!("{}.{shown}", self.path), format!("is unknown; {known} may stand here"));
        }
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(value: Value) -> Vec<(String, String)> {
        let error = Mapping::parse(&value).expect_err(&value.to_string());
        assert_eq!(error.code, Code::InvalidField);
        error.errors.into_iter().map(|field| (field.field, field.reason)).collect()
    }

    fn one(function_type: &str, kind: &str, properties: Value) -> Value {
        json!([{"functionType": function_type, "resources": [{"type": kind, "properties": properties}]}])
    }

    #[test]
    fn every_kind_is_read_and_written_as_it_was() {
        let value = json!([
            {"functionType": "Addition", "resources": [
                {"type": "Demo", "properties": {}, "implementationId": "demo"},
                {"type": "Function", "properties": {"name": "add@live"}},
                {"type": "Function", "properties": {"name": "add@3", "job": true}},
                {"type": "Serverless", "properties": {"Uri": "https://x.example/p?q=1", "TimeoutInSeconds": 2.5}},
            ]},
            {"functionType": "sub", "resources": [{"type": "Workflow", "properties": {"name": "w@2"}}]},
            {"functionType": "lyra:cut/edge", "resources": [{"type": "Cut", "properties": {"url": "http://10.0.0.1:8080"}}]},
        ]);
        let mapping = Mapping::parse(&value).expect("a good mapping");
        assert_eq!(mapping.types.len(), 3);
        assert_eq!(mapping.resources("Addition").len(), 4);
        assert!(mapping.resources("unknown").is_empty());
        let written = serde_json::to_value(&mapping).expect("a mapping is JSON");
        assert_eq!(Mapping::parse(&written).as_ref(), Ok(&mapping));
        assert_eq!(serde_json::from_value::<Mapping>(written).expect("serde reads it too"), mapping);
        assert_eq!(Mapping::parse(&Value::String(value.to_string())), Ok(mapping));
        assert_eq!(Mapping::parse(&Value::Null), Ok(Mapping::default()));
    }

    #[test]
    fn a_demo_needs_no_properties() {
        let value = json!([{"functionType": "Addition", "resources": [{"type": "Demo"}]}]);
        assert_eq!(Mapping::parse(&value).expect("no properties").types[0].resources[0].id(), "Demo");
    }

    #[test]
    fn each_fault_names_its_field() {
        let uri = "mappings[0].resources[0].properties.Uri";
        let kind = "mappings[0].resources[0].type";
        let resource_name = "mappings[0].resources[0].properties.name";
        for (value, field) in [
            (json!({}), "mappings"),
            (json!([1]), "mappings[0]"),
            (json!([{"resources": [{"type": "Demo"}]}]), "mappings[0].functionType"),
            (json!([{"functionType": "f"}]), "mappings[0].resources"),
            (json!([{"functionType": "f", "resources": []}]), "mappings[0].resources"),
            (json!([{"functionType": "f", "resources": {}}]), "mappings[0].resources"),
            (json!([{"functionType": "f", "resources": [{}]}]), kind),
            (one("f", "Serverless", json!({})), uri),
            (one("f", "Serverless", json!({"Uri": 3})), uri),
            (one("f", "Serverless", json!({"Uri": "/relative"})), uri),
            (one("f", "Serverless", json!({"Uri": "ftp://x/y"})), uri),
            (one("f", "Serverless", json!({"Uri": "http://"})), uri),
            (one("f", "Serverless", json!({"Uri": "http://me:secret@x/"})), uri),
            (
                one("f", "Serverless", json!({"Uri": "http://x/", "TimeoutInSeconds": 0})),
                "mappings[0].resources[0].properties.TimeoutInSeconds",
            ),
            (one("f", "Serverless", json!({"Uri": "http://x/", "uri": 1})), "mappings[0].resources[0].properties.uri"),
            (one("f", "Local", json!({"Image": "x"})), kind),
            (one("f", "Lambda", json!({})), kind),
            (one("f", "Demo", json!({})), kind),
            (one("Addition", "Demo", json!({"x": 1})), "mappings[0].resources[0].properties.x"),
            (one("f", "Function", json!({"name": "Bad Name"})), resource_name),
            (one("f", "Function", json!({"name": "f@"})), resource_name),
            (one("f", "Function", json!({"name": "f", "job": "yes"})), "mappings[0].resources[0].properties.job"),
            (one("f", "Workflow", json!({"name": "w@live"})), resource_name),
            (one("f", "Cut", json!({"url": "http://x:1"})), kind),
            (one("lyra:cut/a", "Demo", json!({})), kind),
            (one("lyra:cut/a", "Cut", json!({"url": "http://x:1/path"})), "mappings[0].resources[0].properties.url"),
            (one("lyra:delay", "Function", json!({"name": "f"})), "mappings[0].functionType"),
            (one("", "Function", json!({"name": "f"})), "mappings[0].functionType"),
        ] {
            let told = faults(value.clone());
            assert_eq!(told.first().map(|(field, _)| field.as_str()), Some(field), "{value}: {told:?}");
        }
    }

    #[test]
    fn an_image_beside_other_resources_is_left_out_and_said_so() {
        let image = json!({"type": "Local", "properties": {"Image": "apollo/add:1", "Port": 8080}});
        let function = json!({"type": "Function", "properties": {"name": "add"}});
        let both = json!([{"functionType": "Addition", "resources": [image, function]}]);
        let (mapping, odd) = Mapping::parse_odd(&both).expect("a good mapping");
        let ids: Vec<String> = mapping.resources("Addition").iter().map(Resource::id).collect();
        assert_eq!((ids, odd.len()), (vec!["function:add".to_owned()], 1));
        assert!(odd[0].starts_with("mappings[0].resources[0]: Local names a container image"), "{odd:?}");
        let text = Value::String(both.to_string());
        assert_eq!(Mapping::parse_odd(&text).expect("a good mapping").1, odd);
        // Alone, nothing could ever run it.
        let told = faults(json!([{"functionType": "Addition", "resources": [image, image]}]));
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].0, "mappings[0].resources[0].type");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let told = faults(json!([
            {"functionType": "a", "resources": [{"type": "Serverless", "properties": {"Uri": "x"}}], "extra": 1},
            {"functionType": "b", "resources": [{"type": "Function", "properties": {"name": "f"}}]},
            {"functionType": "b", "resources": [{"type": "Function", "properties": {"name": "g"}}]},
        ]));
        let fields: Vec<&str> = told.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            ["mappings[0].extra", "mappings[0].resources[0].properties.Uri", "mappings[2].functionType"]
        );
    }

    #[test]
    fn a_resource_is_in_a_type_once() {
        let resource = json!({"type": "Function", "properties": {"name": "f"}});
        let told = faults(json!([{"functionType": "t", "resources": [resource, resource]}]));
        assert_eq!(told[0].0, "mappings[0].resources[1]");
    }

    #[test]
    fn text_that_is_no_json_is_told_with_its_place() {
        let error = Mapping::parse_text("[\n  {]").expect_err("no JSON");
        assert_eq!((error.errors[0].line, error.errors[0].column), (Some(2), Some(4)));
    }
}
