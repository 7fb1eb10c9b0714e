//! Label expressions: what they mean, how they are written, and what is no expression.

use std::collections::BTreeMap;

use proptest::prelude::*;
use server::job_file::{SELECTOR_BYTES_MAX, Selector};

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace()
        .map(|label| label.split_once('=').unwrap_or((label, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn an_expression_holds_as_it_reads() {
    let agent = labels("env=prod os=linux gpu=yes zone=a");
    for (text, holds) in [
        ("env=prod", true),
        ("env==prod", true),
        ("env=test", false),
        ("env!=test", true),
        ("rack!=1", true),
        ("rack=1", false),
        ("gpu", true),
        ("!gpu", false),
        ("!!gpu", true),
        ("rack", false),
        ("zone in (a, b)", true),
        ("zone in(b)", false),
        ("rack in (a)", false),
        ("!zone in (b)", true),
        ("env=prod && os=windows", false),
        ("env=test || os=linux", true),
        ("env=test || os=linux && gpu", true),
        ("(env=test || os=linux) && rack", false),
        ("!(env=test || rack)", true),
    ] {
        assert_eq!(Selector::parse(text).unwrap().matches(&agent), holds, "{text}");
    }
}

#[test]
fn all_expressions_of_a_list_must_hold() {
    let list = Selector::all_of(["env=prod", "os!=windows", "gpu || fpga"]).unwrap();
    assert!(list.matches(&labels("env=prod os=linux gpu")));
    assert!(!list.matches(&labels("env=prod os=linux")));
    assert!(!list.matches(&labels("env=prod os=windows gpu")));
    assert_eq!(list.to_string(), "env=prod && os!=windows && (gpu || fpga)");
    assert!(Selector::default().matches(&labels("")));
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    let long = format!("a={}", "x".repeat(64));
    let deep = format!("{}a{}", "(".repeat(17), ")".repeat(17));
    let endless = "a||".repeat(SELECTOR_BYTES_MAX);
    for (text, place, what) in [
        ("", "", "the label expression is empty"),
        ("  ", "", "the label expression is empty"),
        ("env=", "", "a value is missing here"),
        ("env= && a", "&&", "a value is missing here"),
        ("=prod", "=", "a label is missing here"),
        ("a &&", "", "a label is missing here"),
        ("a && && b", "&&", "a label is missing here"),
        ("a b", "b", "two conditions need"),
        ("a=b=c", "=", "two conditions need"),
        ("(a || b", "(", "this parenthesis is not closed"),
        ("a)", ")", "this parenthesis was never opened"),
        ("zone in a", "a", "`in` needs values in parentheses"),
        ("zone in ()", ")", "a value is missing here"),
        ("zone in (a, b", "(", "these values are not closed"),
        ("zone not in (a)", "not", "`not` is not known here"),
        ("env=${{ params.x }}", "$", "`$` means nothing"),
        ("a & b", "&", "`&` means nothing"),
        ("a=\"b\"", "\"", "`\"` means nothing"),
        ("größe", "ö", "`ö` means nothing"),
        (&long, &long[2..], "a label and its value have at most 63"),
        (&deep, "(", "the label expression is nested too deeply"),
        (&endless, &endless, "the labels are too long"),
    ] {
        let error = match Selector::parse(text) {
            Err(error) => error,
            // A word ends where a character begins that no word holds.
            Ok(selector) => panic!("{text} is {selector}"),
        };
        assert_eq!(&text[error.at.clone()], place, "{text}: {error:?}");
        assert!(error.what.starts_with(what), "{text}: {error:?}");
    }
    assert_eq!(Selector::all_of(["a", "b", "c d"]).unwrap_err().item, 2);
}

/// Expressions as people write them, with and without spaces and superfluous parentheses.
fn expression() -> impl Strategy<Value = String> {
    let term = prop_oneof!["[a-c]", "[a-c]!?=[x-z]", "[a-c] +in *\\([x-z](, ?[x-z])?\\)",];
    term.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("!({a})")),
            inner.clone().prop_map(|a| format!("({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}&&{b}")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("{a} || {b}")),
        ]
    })
}

proptest! {
    #[test]
    fn an_expression_comes_back_from_its_own_writing(
        list in prop::collection::vec(expression(), 1..4),
        labels in prop::collection::btree_map("[a-c]", "[x-z]", 0..3),
    ) {
        let selector = Selector::all_of(list.iter().map(String::as_str)).unwrap();
        let text = serde_json::to_string(&selector).unwrap();
        let again: Selector = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&again, &selector);
        prop_assert_eq!(again.to_string(), selector.to_string());
        prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
        // The list means that each of its expressions holds.
        let each = list.iter().all(|text| Selector::parse(text).unwrap().matches(&labels));
        prop_assert_eq!(selector.matches(&labels), each);
    }

    #[test]
    fn no_text_panics_and_every_place_is_within_it(text in "[a-c=!&|(), nié$-]{0,40}") {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(text.get(error.at.clone()).is_some(), "{:?}", error);
        }
    }
}
