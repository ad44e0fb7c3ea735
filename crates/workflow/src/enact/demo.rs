//! Apollo's demo operations, computed in this process: `Addition`, `Subtraction`, `SumCollection`, `SplitArray`.
//!
//! What must hold: [`compute`] is pure and takes microseconds, so that the engine may run it inline where [`wait`] is
//! zero; every fault of the input is a [`Failure`] that names the member. Arithmetic is that of whole numbers of 64
//! bits; where a sum does not fit there is a failure, not a wrong sum.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Failure;

/// The function types that there are.
pub const TYPES: [&str; 4] = ["Addition", "Subtraction", "SumCollection", "SplitArray"];

/// Longest `waitTimeIn`: one day.
pub const MAX_WAIT: Duration = Duration::from_secs(86_400);

/// Whether `function_type` is one of them.
pub fn is_known(function_type: &str) -> bool {
    TYPES.contains(&function_type)
}

/// How long the operation waits before it answers: member `waitTimeIn` in milliseconds, at most [`MAX_WAIT`]; not at all
/// where there is none, or none that is a number (which [`compute`] says).
pub fn wait(input: &Map<String, Value>) -> Duration {
    let millis = input.get("waitTimeIn").and_then(whole).and_then(|millis| u64::try_from(millis).ok());
    Duration::from_millis(millis.unwrap_or(0)).min(MAX_WAIT)
}

/// The operation's output, without the wait.
///
/// # Errors
/// `invalid_input` where a member is missing, of another type or too large; `no_such_function` where there is no such
/// operation. None is retryable.
pub fn compute(function_type: &str, input: &Map<String, Value>) -> Result<Map<String, Value>, Failure> {
    let input = Input { function_type, members: input };
    let output = match function_type {
        "Addition" => {
            let (first, second) = (input.number("firstSummand")?, input.number("secondSummand")?);
            input.check_wait()?;
            ("sum", input.fits(first.checked_add(second))?)
        }
        "Subtraction" => {
            let (minuend, subtrahend) = (input.number("minuend")?, input.number("subtrahend")?);
            input.check_wait()?;
            ("difference", input.fits(minuend.checked_sub(subtrahend))?)
        }
        "SumCollection" => {
            let sum = sum(&input)?;
            input.check_wait()?;
            ("collectionSum", sum)
        }
        "SplitArray" => ("subArrays", split(&input)?),
        other => return Err(Failure::lasting("no_such_function", format!("there is no demo operation \"{other}\""))),
    };
    Ok(Map::from_iter([(output.0.to_owned(), output.1)]))
}

/// Waits as the input says, then computes.
///
/// # Errors
/// As [`compute`], without the wait.
pub async fn enact(function_type: &str, input: &[u8]) -> Result<Bytes, Failure> {
    let input: Map<String, Value> = serde_json::from_slice(input)
        .map_err(|error| Failure::lasting("invalid_input", format!("the input is no JSON object: {error}")))?;
    let output = compute(function_type, &input)?;
    let wait = wait(&input);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let output = serde_json::to_vec(&output).expect("a map of values is JSON");
    Ok(Bytes::from(output))
}

struct Input<'a> {
    function_type: &'a str,
    members: &'a Map<String, Value>,
}

impl Input<'_> {
    fn invalid(&self, name: &str, what: &str) -> Failure {
        Failure::lasting("invalid_input", format!("{}: the member \"{name}\" {what}", self.function_type))
    }

    fn member(&self, name: &str) -> Result<&Value, Failure> {
        self.members.get(name).ok_or_else(|| self.invalid(name, "is missing"))
    }

    fn number(&self, name: &str) -> Result<i64, Failure> {
        whole(self.member(name)?).ok_or_else(|| self.invalid(name, "must be a whole number of 64 bits"))
    }

    fn array(&self, name: &str) -> Result<&Vec<Value>, Failure> {
        self.member(name)?.as_array().ok_or_else(|| self.invalid(name, "must be an array"))
    }

    fn check_wait(&self) -> Result<(), Failure> {
        match self.number("waitTimeIn")? {
            millis if millis >= 0 && millis.unsigned_abs() <= MAX_WAIT.as_millis() as u64 => Ok(()),
            _ => Err(self.invalid("waitTimeIn", "must be 0 to 86400000 milliseconds")),
        }
    }

    fn fits(&self, number: Option<i64>) -> Result<Value, Failure> {
        let lost =
            || Failure::lasting("invalid_input", format!("{}: the result has more than 64 bits", self.function_type));
        number.map(Value::from).ok_or_else(lost)
    }
}

/// A whole number, also where it is written as `5.0`.
fn whole(value: &Value) -> Option<i64> {
    // Up to here each whole number is an f64 of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value.as_i64() {
        Some(number) => Some(number),
        None => value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT).map(|float| float as i64),
    }
}

fn sum(input: &Input<'_>) -> Result<Value, Failure> {
    const NAME: &str = "collectionToSum";
    let mut sum = Some(0_i64);
    for element in input.array(NAME)? {
        let number = whole(element).ok_or_else(|| input.invalid(NAME, "must hold whole numbers of 64 bits only"))?;
        sum = sum.and_then(|sum| sum.checked_add(number));
    }
    input.fits(sum)
}

/// As the constraint `split` does: the smaller of `n` and the length, chunks of the length divided by `n`, rounded up.
fn split(input: &Input<'_>) -> Result<Value, Failure> {
    let array = input.array("arrayToSplit")?;
    let parts = input.number("splitNumber")?;
    let parts = match usize::try_from(parts) {
        Ok(parts) if parts > 0 => parts,
        _ => return Err(input.invalid("splitNumber", "must be from 1")),
    };
    let size = array.len().div_ceil(parts).max(1);
    let mut chunks: Vec<Value> = array.chunks(size).map(|chunk| Value::from(chunk.to_vec())).collect();
    chunks.resize(parts.min(array.len()), Value::Array(Vec::new()));
    Ok(Value::Array(chunks))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(function_type: &str, input: &Value) -> Result<Value, String> {
        let input = input.as_object().expect("an object");
        compute(function_type, input).map(Value::Object).map_err(|failure| {
            assert!(!failure.retryable);
            failure.cause.message
        })
    }

    #[test]
    fn each_operation_computes_what_it_is_named_for() {
        for (function_type, input, output) in [
            ("Addition", json!({"firstSummand": 2, "secondSummand": 40, "waitTimeIn": 5}), json!({"sum": 42})),
            ("Addition", json!({"firstSummand": 2.0, "secondSummand": -1, "waitTimeIn": 0}), json!({"sum": 1})),
            ("Subtraction", json!({"minuend": 1, "subtrahend": 3, "waitTimeIn": 0}), json!({"difference": -2})),
            ("SumCollection", json!({"collectionToSum": [1, 2, 3], "waitTimeIn": 0}), json!({"collectionSum": 6})),
            ("SumCollection", json!({"collectionToSum": [], "waitTimeIn": 0}), json!({"collectionSum": 0})),
            (
                "SplitArray",
                json!({"arrayToSplit": [1, 2, 3, 4, 5], "splitNumber": 2}),
                json!({"subArrays": [[1, 2, 3], [4, 5]]}),
            ),
            (
                "SplitArray",
                json!({"arrayToSplit": [1, 2, 3, 4, 5], "splitNumber": 4}),
                json!({"subArrays": [[1, 2], [3, 4], [5], []]}),
            ),
            ("SplitArray", json!({"arrayToSplit": ["a"], "splitNumber": 9}), json!({"subArrays": [["a"]]})),
            ("SplitArray", json!({"arrayToSplit": [], "splitNumber": 2}), json!({"subArrays": []})),
        ] {
            assert_eq!(ask(function_type, &input), Ok(output), "{function_type} {input}");
        }
    }

    #[test]
    fn a_missing_or_wrong_member_is_named() {
        for (function_type, input, member) in [
            ("Addition", json!({"secondSummand": 1, "waitTimeIn": 0}), "firstSummand"),
            ("Addition", json!({"firstSummand": 1, "secondSummand": 1}), "waitTimeIn"),
            ("Addition", json!({"firstSummand": 1, "secondSummand": 1, "waitTimeIn": -1}), "waitTimeIn"),
            ("Addition", json!({"firstSummand": "1", "secondSummand": 1, "waitTimeIn": 0}), "firstSummand"),
            ("Addition", json!({"firstSummand": 1.5, "secondSummand": 1, "waitTimeIn": 0}), "firstSummand"),
            ("Addition", json!({"firstSummand": i64::MAX, "secondSummand": 1, "waitTimeIn": 0}), "64 bits"),
            ("Subtraction", json!({"minuend": 1, "waitTimeIn": 0}), "subtrahend"),
            ("SumCollection", json!({"collectionToSum": 3, "waitTimeIn": 0}), "collectionToSum"),
            ("SumCollection", json!({"collectionToSum": [null], "waitTimeIn": 0}), "collectionToSum"),
            ("SplitArray", json!({"arrayToSplit": [1], "splitNumber": 0}), "splitNumber"),
            ("SplitArray", json!({"splitNumber": 1}), "arrayToSplit"),
            ("Multiplication", json!({}), "Multiplication"),
        ] {
            let message = ask(function_type, &input).expect_err(member);
            assert!(message.contains(member), "{message}");
        }
    }

    #[test]
    fn a_hostile_number_of_parts_costs_nothing() {
        let input = json!({"arrayToSplit": [1, 2], "splitNumber": i64::MAX});
        assert_eq!(ask("SplitArray", &input), Ok(json!({"subArrays": [[1], [2]]})));
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_waits_as_long_as_it_is_told() {
        let clock = lyra_kit::Clock::system();
        let begun = clock.instant();
        let input = json!({"firstSummand": 1, "secondSummand": 1, "waitTimeIn": 1_500});
        let output = enact("Addition", input.to_string().as_bytes()).await.expect("it adds");
        assert_eq!(
            (&*output, clock.instant().duration_since(begun)),
            (br#"{"sum":2}"#.as_slice(), Duration::from_millis(1_500))
        );
    }
}
