//! Amounts of memory and processor time as Kubernetes writes them: `500m`, `1.5`, `64Mi`, `50M`, `1e3`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// An amount, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Quantity(String);

impl Quantity {
    /// From its text; [`Quantity::is_valid`] says whether it is one.
    pub fn new(text: impl Into<String>) -> Quantity {
        Quantity(text.into())
    }

    /// Whether the text is a quantity.
    pub fn is_valid(&self) -> bool {
        self.thousandths().is_some()
    }

    /// The amount in whole units (bytes, for memory), rounded up; `None` where it is no quantity, or is negative.
    pub fn bytes(&self) -> Option<u64> {
        u64::try_from(self.thousandths()?.div_ceil(1_000)).ok()
    }

    /// The amount in thousandths (of a core, for processor time), rounded up; `None` where it is no quantity, or is negative.
    pub fn millis(&self) -> Option<u64> {
        u64::try_from(self.thousandths()?).ok()
    }

    /// Thousandths of a unit, rounded up.
    fn thousandths(&self) -> Option<u128> {
        let text = self.0.strip_prefix('+').unwrap_or(&self.0);
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 24 {
            return None;
        }
        // As billionths: enough for every suffix that divides.
        let mut nanos: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos = nanos.checked_mul(1_000_000_000)?;
        let mut place = 100_000_000;
        for digit in fraction.bytes().take(9) {
            nanos += u128::from(digit - b'0') * place;
            place /= 10;
        }
        let scaled = match suffix {
            "" => nanos,
            "n" => nanos.div_ceil(1_000_000_000),
            "u" => nanos.div_ceil(1_000_000),
            "m" => nanos.div_ceil(1_000),
            "k" => nanos.checked_mul(1_000)?,
            "M" => nanos.checked_mul(1_000_000)?,
            "G" => nanos.checked_mul(1_000_000_000)?,
            "T" => nanos.checked_mul(1_000_000_000_000)?,
            "P" => nanos.checked_mul(1_000_000_000_000_000)?,
            "E" => nanos.checked_mul(1_000_000_000_000_000_000)?,
            "Ki" => nanos.checked_mul(1 << 10)?,
            "Mi" => nanos.checked_mul(1 << 20)?,
            "Gi" => nanos.checked_mul(1 << 30)?,
            "Ti" => nanos.checked_mul(1 << 40)?,
            "Pi" => nanos.checked_mul(1 << 50)?,
            "Ei" => nanos.checked_mul(1 << 60)?,
            exponent => {
                let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
                match power {
                    0..=18 => nanos.checked_mul(10u128.pow(power.unsigned_abs()))?,
                    -18..0 => nanos.div_ceil(10u128.pow(power.unsigned_abs())),
                    _ => return None,
                }
            }
        };
        Some(scaled.div_ceil(1_000_000))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Quantity(text)),
            serde_json::Value::Number(number) => Ok(Quantity(number.to_string())),
            _ => Err(serde::de::Error::custom("a quantity is a number or a string such as \"500m\" or \"64Mi\"")),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, millis, whole) in [
            ("10m", 10, 1),
            ("0.1", 100, 1),
            ("1", 1_000, 1),
            ("1.5", 1_500, 2),
            ("64Mi", 64 << 20, 64 << 20),
            ("50M", 50_000_000, 50_000_000),
            ("1e3", 1_000_000, 1_000),
            ("1500e-3", 1_500, 2),
            ("5n", 1, 1),
        ] {
            let quantity = Quantity::new(text);
            assert_eq!(quantity.bytes(), Some(whole), "{text}");
            if !text.contains("M") {
                assert_eq!(quantity.millis(), Some(millis), "{text}");
            }
        }
        for bad in ["", "m", "-1", "1.2.3", "1 Mi", "1mi", "e3", "1e99", "0x10", &"9".repeat(40)] {
            assert!(!Quantity::new(bad).is_valid(), "{bad}");
        }
    }
}
