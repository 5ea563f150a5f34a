//! `[cache]`: what the frozen prefix makes of the samples, kept.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;

/// The folder of files in the folder of a run.
pub const CACHE: &str = "cache";

/// The outputs of the frozen prefix, computed once for each sample and read back afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CacheSection {
    /// `"off"` (default), `"memory"`, `"disk"`, `"device"` (where the graphs run), or `"auto"`: where it pays, on a device
    /// with a memory of its own where that has room beside the phase, in memory where it fits into half of what is free.
    #[serde(default)]
    pub mode: CacheMode,
    /// The most bytes that are kept, as a number or `"4GB"`; 4 GB by default.
    #[serde(default)]
    pub limit: Limit,
    /// The folder of its files; `cache` in the folder of the run by default, where they are removed when the run is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
}

/// Where the outputs of the frozen prefix are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Nowhere.
    #[default]
    Off,
    /// In memory.
    Memory,
    /// In a file that is mapped.
    Disk,
    /// In buffers of the engine, where the graphs run.
    Device,
    /// In any of them, where it pays.
    Auto,
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit(pub u64);

/// Units of bytes, the longer names first.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Default for CacheSection {
    fn default() -> CacheSection {
        CacheSection { mode: CacheMode::Off, limit: Limit::default(), dir: None }
    }
}

impl Default for Limit {
    fn default() -> Limit {
        Limit(4_000_000_000)
    }
}

impl Limit {
    fn parse(text: &str) -> Option<Limit> {
        let unit = |(name, size): &(&str, u64)| {
            let front = text.get(..text.len().checked_sub(name.len())?)?;
            let same = text.get(front.len()..)?.eq_ignore_ascii_case(name);
            Some((front.trim(), *size)).filter(|_| same)
        };
        let (number, size) = UNITS.iter().find_map(unit)?;
        let number: f64 = number.parse().ok()?;
        let bytes = number * size as f64;
        (number >= 0.0 && bytes < 9e18).then_some(Limit(bytes as u64))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().filter(|(name, _)| !name.contains('i'));
        let unit = whole.into_iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        let (name, size) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / size)
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes or one with its unit, such as \"4GB\"")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Limit, E> {
                Ok(Limit(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Limit, E> {
                let bytes = u64::try_from(number);
                bytes.map(Limit).map_err(|_| E::custom(format!("expected 0 or more, found {number}")))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Limit, E> {
                let bad = || E::custom(format!("expected a number with its unit, such as \"4GB\", found \"{text}\""));
                Limit::parse(text).ok_or_else(bad)
            }
        }

        deserializer.deserialize_any(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        let cases = [("4GB", 4_000_000_000), ("1.5 kB", 1500), ("2GiB", 2 << 30), ("12B", 12), ("3mb", 3_000_000)];
        for (text, bytes) in cases {
            let limit = Limit::parse(text).unwrap();
            assert_eq!(limit, Limit(bytes), "{text}");
            assert_eq!(Limit::parse(&limit.to_string()), Some(limit), "{text}");
        }
        for text in ["", "GB", "-1GB", "4", "4 GX", "1e40TB", "inf GB", "é"] {
            assert_eq!(Limit::parse(text), None, "{text}");
        }
        assert_eq!(Limit::default().to_string(), "4GB");
        assert_eq!(Limit(1 << 20).to_string(), "1048576B");
    }
}
