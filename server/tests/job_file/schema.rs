//! The published schema against the reader: what one takes the other takes, and no key is in one of them only.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use regex::Regex;
use serde_json::{Map, Value, json};
use server::job_file::{JobFile, schema};

use crate::{EXAMPLES, GOOD, any_file};

/// What is wrong with a value by that schema. Knows the words that our schema uses and no others.
fn faults(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (word, said) in schema.as_object().unwrap() {
        let holds = match word.as_str() {
            "$schema" | "title" | "description" | "properties" => true,
            "type" => match said.as_str().unwrap() {
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                other => panic!("type {other}"),
            },
            "enum" => said.as_array().unwrap().contains(value),
            // The one look-ahead says that a digit comes first, which the reader of patterns here cannot.
            "pattern" => value.as_str().is_some_and(|text| {
                let pattern = said.as_str().unwrap().replace("(?=[0-9])", "");
                Regex::new(&pattern).unwrap().is_match(text)
                    && text.trim_start().starts_with(|c: char| c.is_ascii_digit())
            }),
            "minimum" => value.as_i64() >= said.as_i64(),
            "maximum" => value.as_i64() <= said.as_i64(),
            "minItems" => value.as_array().is_some_and(|list| list.len() as u64 >= said.as_u64().unwrap()),
            "maxItems" => value.as_array().is_some_and(|list| list.len() as u64 <= said.as_u64().unwrap()),
            "maxProperties" => value.as_object().is_some_and(|map| map.len() as u64 <= said.as_u64().unwrap()),
            "required" => said.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
            "items" => {
                for (nth, item) in value.as_array().into_iter().flatten().enumerate() {
                    faults(said, item, &format!("{at}[{nth}]"), found);
                }
                true
            }
            "additionalProperties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    match (&schema["properties"][key], said) {
                        (Value::Null, Value::Bool(false)) => found.push(format!("{at}.{key}: unknown")),
                        (Value::Null, other) => faults(other, value, &format!("{at}.{key}"), found),
                        (known, _) => faults(known, value, &format!("{at}.{key}"), found),
                    }
                }
                true
            }
            "anyOf" => said.as_array().unwrap().iter().any(|one| {
                let mut of_one = Vec::new();
                faults(one, value, at, &mut of_one);
                of_one.is_empty()
            }),
            other => panic!("the schema says `{other}`, which this test does not know"),
        };
        if !holds {
            found.push(format!("{at}: {word}"));
        }
    }
}

fn against_schema(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    faults(&schema(), &toml::from_str(text).unwrap(), "", &mut found);
    found
}

#[test]
fn every_example_is_a_job_file_by_the_schema_too() {
    for text in EXAMPLES.iter().chain([&GOOD]) {
        JobFile::parse(text).unwrap();
        assert_eq!(against_schema(text), Vec::<String>::new(), "{text}");
    }
}

proptest! {
    #[test]
    fn the_schema_takes_whatever_the_reader_takes(text in any_file::file()) {
        if JobFile::parse(&text).is_ok() {
            prop_assert_eq!(against_schema(&text), Vec::<String>::new());
        }
    }
}

#[test]
fn the_schema_refuses_what_is_misspelt_missing_or_of_another_kind() {
    for (lines, fault) in [
        ("rnu = 'x'", ".step[0].rnu: unknown"),
        ("effect = 'twice'", ".step[0].effect: enum"),
        ("timeout = '5 min'", ".step[0].timeout: pattern"),
        ("timeout = ''", ".step[0].timeout: pattern"),
        ("limits = { memory = '5' }", ".step[0].limits.memory: pattern"),
        ("retry = {}", ".step[0].retry: required"),
        ("retry = { limit = 0 }", ".step[0].retry.limit: minimum"),
        ("outputs = []", ".step[0].outputs: anyOf"),
    ] {
        let text = format!("name = 'x'\ntarget = {{ all = true }}\n[[step]]\nid = 's'\n{lines}\n");
        assert_eq!(against_schema(&text), [fault], "{lines}");
    }
}

/// Every table of keys in the schema, with what a file needs around it.
fn tables() -> Vec<(Value, fn(Value) -> Value)> {
    let schema = schema();
    let step = &schema["properties"]["step"]["items"];
    let at = |value: &Value| value["properties"].clone();
    vec![
        (at(&schema), |extra| merged(json!({"target": {"all": true}}), extra)),
        (at(&schema["properties"]["target"]), |extra| json!({"target": extra})),
        (at(&schema["properties"]["concurrency"]), |extra| json!({"concurrency": extra})),
        (at(&schema["properties"]["params"]["additionalProperties"]), |extra| json!({"params": {"a": extra}})),
        (at(step), |extra| json!({"step": [merged(json!({"id": "s"}), extra)]})),
        (at(&step["properties"]["retry"]), |extra| json!({"step": [{"id": "s", "run": "x", "retry": extra}]})),
        (at(&step["properties"]["limits"]), |extra| json!({"step": [{"id": "s", "run": "x", "limits": extra}]})),
    ]
}

fn merged(mut base: Value, extra: Value) -> Value {
    base.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    base
}

#[test]
fn every_key_of_the_schema_is_read() {
    let mut keys = 0;
    for (properties, around) in tables() {
        for key in properties.as_object().unwrap().keys() {
            // A fraction is nothing that any key can be.
            let extra: Map<String, Value> = [(key.clone(), json!(1.5))].into_iter().collect();
            let base = json!({"name": "x", "target": {"all": true}, "step": [{"id": "s", "run": "x"}]});
            let text = toml::to_string(&merged(base, around(Value::Object(extra)))).unwrap();
            let problems = JobFile::parse(&text).expect_err("a fraction is nothing that any key can be");
            let named = |what: &str| what.starts_with(&format!("`{key}` must be "));
            assert!(problems.iter().any(|problem| named(&problem.what)), "{key}: {problems:?}\n{text}");
            keys += 1;
        }
    }
    assert!(keys > 35, "{keys}");
}

#[test]
fn the_reference_has_every_key_and_its_examples_are_job_files() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/job-file.md");
    let reference = fs::read_to_string(path).unwrap();
    for (properties, _) in tables() {
        for key in properties.as_object().unwrap().keys() {
            assert!(reference.contains(&format!("| `{key}`")), "docs/job-file.md says nothing of `{key}`");
        }
    }
    let examples: Vec<&str> =
        reference.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let file = JobFile::parse(example).unwrap_or_else(|problems| panic!("{example}\n{problems:?}"));
        assert_eq!((file.warnings(), against_schema(example)), (&[][..], Vec::new()), "{example}");
    }
}
