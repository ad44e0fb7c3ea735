//! Conditions: comparisons, folded from the left without precedence; every one of them is evaluated.

use std::ops::Deref;

use lyra_afcl::graph::{Combine, Condition, DataType, Operator, Term};
use serde_json::Value;

use super::shown;

/// Numbers that differ by less are equal.
const EPSILON: f64 = 1e-9;

/// Evaluates a condition on the values of its task's inputs: the n-th term compares number 2n with number 2n + 1.
///
/// # Errors
/// When a value is not of the term's type, or there are too few.
pub fn condition<V: Deref<Target = Value>>(condition: &Condition, values: &[V]) -> Result<bool, String> {
    let mut result: Option<bool> = None;
    let mut combine = Combine::And;
    for (index, term) in condition.terms.iter().enumerate() {
        let [Some(left), Some(right)] = [values.get(2 * index), values.get(2 * index + 1)] else {
            return Err("a comparison has no values".to_owned());
        };
        let holds = compare(term, left, right)? != term.negated;
        result = Some(match (result, combine) {
            (None, _) => holds,
            (Some(so_far), Combine::And) => so_far && holds,
            (Some(so_far), Combine::Or) => so_far || holds,
        });
        combine = term.combined_with;
    }
    result.ok_or_else(|| "the condition is empty".to_owned())
}

fn compare(term: &Term, left: &Value, right: &Value) -> Result<bool, String> {
    match term.data_type {
        DataType::Number => {
            let (left, right) = (number(left)?, number(right)?);
            Ok(match term.operator {
                Operator::Equal => (left - right).abs() < EPSILON,
                Operator::NotEqual => (left - right).abs() >= EPSILON,
                Operator::Less => left < right,
                Operator::Greater => left > right,
                Operator::LessOrEqual => left <= right,
                Operator::GreaterOrEqual => left >= right,
                other => return Err(unfit(other, "numbers")),
            })
        }
        DataType::String => {
            let (left, right) = (text(left)?, text(right)?);
            Ok(match term.operator {
                Operator::Equal => left == right,
                Operator::NotEqual => left != right,
                Operator::Contains => left.contains(right),
                Operator::StartsWith => left.starts_with(right),
                Operator::EndsWith => left.ends_with(right),
                other => return Err(unfit(other, "strings")),
            })
        }
        DataType::Boolean => {
            let (left, right) = (boolean(left)?, boolean(right)?);
            equality(term.operator, left == right, "booleans")
        }
        DataType::Object => equality(term.operator, left == right, "objects"),
        DataType::Collection | DataType::Array => Err("collections and arrays can't be compared".to_owned()),
    }
}

fn equality(operator: Operator, equal: bool, kind: &str) -> Result<bool, String> {
    match operator {
        Operator::Equal => Ok(equal),
        Operator::NotEqual => Ok(!equal),
        other => Err(unfit(other, kind)),
    }
}

fn unfit(operator: Operator, kind: &str) -> String {
    format!("{operator:?} does not compare {kind}")
}

/// An array that is used as a number is its length less one, as in the original.
fn number(value: &Value) -> Result<f64, String> {
    if let Value::Array(array) = value {
        #[expect(clippy::cast_precision_loss, reason = "no array has 2^52 elements")]
        return Ok(array.len() as f64 - 1.0);
    }
    value.as_f64().ok_or_else(|| format!("{} is no number", shown(value)))
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{} is no string", shown(value)))
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{} is no boolean", shown(value)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use serde_json::json;

    fn term(data_type: DataType, operator: Operator) -> Term {
        Term { data_type, operator, negated: false, combined_with: Combine::And }
    }

    fn one(data_type: DataType, operator: Operator, left: Value, right: Value) -> Result<bool, String> {
        let terms = vec![term(data_type, operator)];
        condition(&Condition { terms }, &[Arc::new(left), Arc::new(right)])
    }

    #[test]
    fn each_type_has_its_operators() {
        use DataType::{Array, Boolean, Number, Object, String};
        use Operator::{Contains, EndsWith, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual, StartsWith};
        assert_eq!(one(Number, Equal, json!(1), json!(1.000_000_000_1)), Ok(true));
        assert_eq!(one(Number, NotEqual, json!(1), json!(1.1)), Ok(true));
        assert_eq!(one(Number, Less, json!(1), json!(2)), Ok(true));
        assert_eq!(one(Number, Greater, json!(1), json!(2)), Ok(false));
        assert_eq!(one(Number, LessOrEqual, json!(2), json!(2)), Ok(true));
        assert_eq!(one(Number, GreaterOrEqual, json!(1), json!(2)), Ok(false));
        assert_eq!(one(Number, Equal, json!([1, 2, 3]), json!(2)), Ok(true), "an array is its length less one");
        assert_eq!(one(String, Contains, json!("abc"), json!("b")), Ok(true));
        assert_eq!(one(String, StartsWith, json!("abc"), json!("ab")), Ok(true));
        assert_eq!(one(String, EndsWith, json!("abc"), json!("ab")), Ok(false));
        assert_eq!(one(Boolean, Equal, json!(true), json!(true)), Ok(true));
        assert_eq!(one(Object, Equal, json!({"a": {"b": [1]}}), json!({"a": {"b": [1]}})), Ok(true));
        assert!(one(String, Less, json!("a"), json!("b")).is_err());
        assert!(one(Number, Equal, json!("a"), json!(1)).is_err());
        assert!(one(Array, Equal, json!([]), json!([])).is_err());
    }

    #[test]
    fn terms_are_folded_from_the_left_without_precedence() {
        let equal = |combined_with, negated| Term {
            data_type: DataType::Number,
            operator: Operator::Equal,
            negated,
            combined_with,
        };
        // true or false and false: from the left this is false.
        let terms = vec![equal(Combine::Or, false), equal(Combine::And, false), equal(Combine::And, false)];
        let values: Vec<Arc<Value>> = [1, 1, 1, 2, 1, 2].into_iter().map(|n| Arc::new(json!(n))).collect();
        assert_eq!(condition(&Condition { terms }, &values), Ok(false));
        // not (1 == 2)
        let terms = vec![equal(Combine::Or, true)];
        assert_eq!(condition(&Condition { terms }, &values[2..]), Ok(true));
    }
}
