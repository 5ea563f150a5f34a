//! What BatchNormalization does in frozen units: the option `batch_norm`.

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// What BatchNormalization does in frozen units: with its scale and bias, and with its statistics.
///
/// In a job `"train"`, `"frozen"`, or a table `{ affine = .., statistics = .. }` of these two words; on
/// the command line also `affine=..,statistics=..`. What a table leaves out is as in `"train"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchNorm {
    /// Scale and bias freeze; it normalizes by the batch and its running statistics move: `"train"`, as in
    /// Composer.
    #[default]
    Train,
    /// Scale and bias freeze; it normalizes by its running statistics, which stay: `"frozen"`, as in
    /// FreezeOut, Keras and timm.
    Frozen,
    /// Nothing of it freezes: affine and statistics `"train"`, as `train_bn` of fastai and Lightning.
    AllTrain,
    /// Scale and bias train by running statistics that stay: affine `"train"`, statistics `"frozen"`.
    AffineTrains,
}

/// The two words for a part of it.
const WORDS: [&str; 2] = ["train", "frozen"];
const KEYS: [&str; 2] = ["affine", "statistics"];

impl BatchNorm {
    /// Returns what belongs to the two parts.
    pub fn of(affine_trains: bool, statistics_stay: bool) -> BatchNorm {
        match (affine_trains, statistics_stay) {
            (false, false) => BatchNorm::Train,
            (false, true) => BatchNorm::Frozen,
            (true, false) => BatchNorm::AllTrain,
            (true, true) => BatchNorm::AffineTrains,
        }
    }

    /// Returns true when scale and bias train on in a frozen unit.
    pub fn affine_trains(self) -> bool {
        matches!(self, BatchNorm::AllTrain | BatchNorm::AffineTrains)
    }

    /// Returns true when the running statistics of a frozen unit stay as they are, and are normalized by.
    pub fn statistics_stay(self) -> bool {
        matches!(self, BatchNorm::Frozen | BatchNorm::AffineTrains)
    }

    fn words(self) -> [&'static str; 2] {
        [!self.affine_trains(), self.statistics_stay()].map(|frozen| WORDS[usize::from(frozen)])
    }
}

impl fmt::Display for BatchNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchNorm::Train => f.write_str(WORDS[0]),
            BatchNorm::Frozen => f.write_str(WORDS[1]),
            BatchNorm::AllTrain | BatchNorm::AffineTrains => {
                let [affine, statistics] = self.words();
                write!(f, "affine={affine},statistics={statistics}")
            }
        }
    }
}

impl FromStr for BatchNorm {
    type Err = String;

    fn from_str(text: &str) -> Result<BatchNorm, String> {
        let wrong = || {
            let forms = "\"train\", \"frozen\" or \"affine=train|frozen,statistics=train|frozen\"";
            format!("expected {forms}, found \"{text}\"")
        };
        match text {
            "train" => return Ok(BatchNorm::Train),
            "frozen" => return Ok(BatchNorm::Frozen),
            _ => {}
        }
        let mut parts = [None, None];
        for part in text.split(',') {
            let (key, word) = part.split_once('=').ok_or_else(wrong)?;
            let place = KEYS.iter().position(|known| *known == key.trim()).ok_or_else(wrong)?;
            let frozen = WORDS.iter().position(|known| *known == word.trim()).ok_or_else(wrong)? == 1;
            if parts[place].replace(frozen).is_some() {
                return Err(wrong());
            }
        }
        Ok(from_parts(parts))
    }
}

/// Returns what belongs to whether affine and statistics are frozen.
fn from_parts([affine, statistics]: [Option<bool>; 2]) -> BatchNorm {
    BatchNorm::of(!affine.unwrap_or(true), statistics.unwrap_or(false))
}

impl Serialize for BatchNorm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            BatchNorm::Train | BatchNorm::Frozen => serializer.collect_str(self),
            BatchNorm::AllTrain | BatchNorm::AffineTrains => {
                let mut map = serializer.serialize_map(Some(KEYS.len()))?;
                for (key, word) in KEYS.iter().zip(self.words()) {
                    map.serialize_entry(key, word)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for BatchNorm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BatchNorm, D::Error> {
        deserializer.deserialize_any(Forms)
    }
}

struct Forms;

impl<'de> Visitor<'de> for Forms {
    type Value = BatchNorm;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"train\", \"frozen\" or a table of affine and statistics")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<BatchNorm, E> {
        match text {
            "train" => Ok(BatchNorm::Train),
            "frozen" => Ok(BatchNorm::Frozen),
            _ => Err(E::unknown_variant(text, &WORDS)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BatchNorm, A::Error> {
        let mut parts = [None, None];
        while let Some(key) = map.next_key::<String>()? {
            let place = KEYS.iter().position(|known| *known == key);
            let place = place.ok_or_else(|| A::Error::unknown_field(&key, &KEYS))?;
            let frozen = map.next_value::<Word>()? == Word::Frozen;
            if parts[place].replace(frozen).is_some() {
                return Err(A::Error::duplicate_field(KEYS[place]));
            }
        }
        Ok(from_parts(parts))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Train,
    Frozen,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_back_the_same() {
        struct Case {
            text: &'static str,
            json: &'static str,
            parts: (bool, bool),
            shown: &'static str,
        }
        let cases = [
            Case { text: "train", json: r#""train""#, parts: (false, false), shown: r#""train""# },
            Case { text: "frozen", json: r#""frozen""#, parts: (false, true), shown: r#""frozen""# },
            Case {
                text: "affine=train",
                json: r#"{"affine": "train"}"#,
                parts: (true, false),
                shown: r#"{"affine":"train","statistics":"train"}"#,
            },
            Case {
                text: "statistics=frozen, affine=train",
                json: r#"{"statistics": "frozen", "affine": "train"}"#,
                parts: (true, true),
                shown: r#"{"affine":"train","statistics":"frozen"}"#,
            },
            Case {
                text: "statistics=frozen",
                json: r#"{"statistics": "frozen"}"#,
                parts: (false, true),
                shown: r#""frozen""#,
            },
            Case { text: "affine=frozen", json: "{}", parts: (false, false), shown: r#""train""# },
        ];
        for Case { text, json, parts, shown } in cases {
            let found: BatchNorm = text.parse().unwrap();
            assert_eq!((found.affine_trains(), found.statistics_stay()), parts, "{text}");
            assert_eq!(serde_json::from_str::<BatchNorm>(json).unwrap(), found, "{json}");
            assert_eq!(serde_json::to_string(&found).unwrap(), shown, "{text}");
            assert_eq!(found.to_string().parse::<BatchNorm>(), Ok(found), "{text}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for text in ["", "eval", "affine", "affine=on", "scale=train", "affine=train,affine=train", "affine=train,"] {
            let error = text.parse::<BatchNorm>().unwrap_err();
            assert!(error.ends_with(&format!("found \"{text}\"")), "{error}");
        }
        let cases = [
            (r#""eval""#, "unknown variant `eval`, expected `train` or `frozen`"),
            (r#"{"afine": "train"}"#, "unknown field `afine`, expected `affine` or `statistics`"),
            (r#"{"affine": "on"}"#, "unknown variant `on`, expected `train` or `frozen`"),
            (r#"{"affine": "train", "affine": "train"}"#, "duplicate field `affine`"),
            ("true", "expected \"train\", \"frozen\" or a table of affine and statistics"),
        ];
        for (json, expected) in cases {
            let error = serde_json::from_str::<BatchNorm>(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
