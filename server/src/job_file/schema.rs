//! The JSON Schema of a job file, for editors: made from the keys that the reader knows, so that it cannot fall behind them. Says
//! less than the reader does, and never refuses what the reader takes.

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Shape};
use super::{amount, duration};

/// The schema, in the dialect of 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut schema = table(keys::FILE);
    let head = [
        ("$schema", json!("https://json-schema.org/draft/2020-12/schema")),
        ("title", json!("Longshore job file")),
        ("description", json!("What agents are to do. `longshore job lint` says everything that is wrong with one.")),
    ];
    schema.extend(head.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(schema)
}

fn table(keys: &[Key]) -> Map<String, Value> {
    let properties: Map<String, Value> = keys
        .iter()
        .map(|key| {
            let mut value = shape(&key.shape);
            value.insert("description".to_owned(), json!(key.about));
            (key.name.to_owned(), Value::Object(value))
        })
        .collect();
    let required: Vec<&str> = keys.iter().filter(|key| key.needed).map(|key| key.name).collect();
    let mut table = object([("type", json!("object")), ("properties", Value::Object(properties))]);
    if !required.is_empty() {
        table.insert("required".to_owned(), json!(required));
    }
    table.insert("additionalProperties".to_owned(), json!(false));
    table
}

fn shape(of: &Shape) -> Map<String, Value> {
    let text = |pattern: String| object([("type", json!("string")), ("pattern", json!(pattern))]);
    match of {
        Shape::Text => object([("type", json!("string"))]),
        Shape::Boolean => object([("type", json!("boolean"))]),
        Shape::Words(words) => object([("type", json!("string")), ("enum", json!(words))]),
        Shape::Span => text(format!("^{}$", duration::pattern())),
        Shape::Spans => text(format!("^{0}(\\.\\.{0})?$", duration::pattern())),
        Shape::Bytes => text(amount::bytes_pattern()),
        Shape::Percent => text("^[0-9]+%$".to_owned()),
        Shape::Integer(from, to) => {
            object([("type", json!("integer")), ("minimum", json!(from)), ("maximum", json!(to))])
        }
        Shape::List(of, most) => object([
            ("type", json!("array")),
            ("items", Value::Object(shape(of))),
            ("minItems", json!(1)),
            ("maxItems", json!(most)),
        ]),
        Shape::Map(of, most) => object([
            ("type", json!("object")),
            ("additionalProperties", Value::Object(shape(of))),
            ("maxProperties", json!(most)),
        ]),
        Shape::Table(keys) => table(keys),
        Shape::Either(shapes) => object([("anyOf", shapes.iter().map(|of| Value::Object(shape(of))).collect())]),
    }
}

fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
