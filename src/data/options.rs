//! How files are read, as a job file says it.

use super::{AugmentOptions, ImageOptions};
use crate::graph::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How the files of a dataset are read. They are keys of `[data]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataOptions {
    /// The format; by default the one that the extension names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The texts of a column that are classes 0, 1, ..; an empty list stands for the sorted distinct texts of the file,
    /// if the column holds text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, Vec<String>>,
    /// Whether every column of text is of classes, whatever `classes` names.
    #[serde(skip)]
    pub classify: bool,
    /// What columns are converted to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, Number>,
    /// Which columns are normalised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// How `.csv` files are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvOptions>,
    /// How token ids become rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensOptions>,
    /// How text becomes token ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextOptions>,
    /// Where decoded data are kept during a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
    /// How pictures become rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageOptions>,
    /// What is random about pictures while training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<AugmentOptions>,
    /// Which files of a folder that holds both are meant.
    #[serde(skip)]
    pub part: Part,
}

impl DataOptions {
    /// Returns the texts that are classes of a column, none where they are to be found; `None` where text is refused.
    pub fn classes_of(&self, name: &str) -> Option<&[String]> {
        self.classes.get(name).map(Vec::as_slice).or(self.classify.then_some(&[]))
    }
}

/// A type that numbers are converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Number {
    Float32,
    Float64,
    Int32,
    Int64,
}

impl Number {
    /// Returns the dtype.
    pub fn dtype(self) -> DType {
        match self {
            Number::Float32 => DType::F32,
            Number::Float64 => DType::F64,
            Number::Int32 => DType::I32,
            Number::Int64 => DType::I64,
        }
    }
}

/// `[data.normalize]`: `(x - mean) / std` of numeric columns, in f64, rounded to float32.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Normalize {
    /// Names or patterns of columns of numbers or vectors.
    pub columns: Vec<String>,
    /// Mean and standard deviation of each column; by default those of the training data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub statistics: BTreeMap<String, Statistics>,
}

/// Mean and standard deviation of each element of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Means.
    pub mean: Vec<f64>,
    /// Standard deviations of the population; elements that do not vary have 1.
    pub std: Vec<f64>,
}

/// `[data.csv]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CsvOptions {
    /// What separates fields; by default a comma, in `.tsv` files a tab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
}

/// `[data.tokens]`: blocks of a long sequence of token ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokensOptions {
    /// How the ids of a file without a header are stored, little-endian: `"u16"` (default), `"u32"` or `"i64"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<TokenType>,
    /// Tokens in a row.
    pub block: usize,
    /// Tokens from the start of a row to that of the next; `block` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
}

/// How token ids are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum TokenType {
    #[default]
    U16,
    U32,
    I64,
}

impl TokenType {
    /// Returns the dtype.
    pub fn dtype(self) -> DType {
        match self {
            TokenType::U16 => DType::U16,
            TokenType::U32 => DType::U32,
            TokenType::I64 => DType::I64,
        }
    }
}

/// A side of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Side {
    Left,
    Right,
}

/// `[data.text]`: texts of JSON lines through a Hugging Face tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    /// The file `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// The key of the text; `"text"` by default.
    #[serde(default = "text")]
    pub column: String,
    /// The key of the second text of a pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    /// Tokens in a row.
    pub length: usize,
    /// Whether longer texts are cut, or are an error; true by default.
    #[serde(default = "yes")]
    pub truncation: bool,
    /// Where rows are padded; by default as the tokenizer does, or right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_side: Option<Side>,
    /// The token that pads; by default the tokenizer's, else the first of `[PAD]`, `<pad>`, `<|pad|>` it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<String>,
    /// Whether the tokenizer adds its special tokens, as `[CLS]` and `[SEP]`; true by default. Not used by packing.
    #[serde(default = "yes")]
    pub special_tokens: bool,
    /// Whether documents are joined, each with `eos` after it, and cut into rows without padding; false by default.
    #[serde(default)]
    pub packing: bool,
    /// The token after a document; by default the first of `<|endoftext|>`, `</s>`, `<eos>`, `<|end_of_text|>`,
    /// `[SEP]` the tokenizer knows. Used by packing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos: Option<String>,
    /// Tokens from the start of a row to that of the next; `length` by default. Used by packing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Whether `labels` hold the token after each; true by default. Otherwise they hold the tokens themselves, for
    /// models that shift.
    #[serde(default = "yes")]
    pub shift: bool,
    /// What `labels` hold where there is no token; -100 by default, as the losses ignore.
    #[serde(default = "ignored")]
    pub ignore_index: i64,
}

fn text() -> String {
    "text".into()
}

fn yes() -> bool {
    true
}

fn ignored() -> i64 {
    -100
}

/// What data are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// To train on.
    #[default]
    Train,
    /// To evaluate on.
    Eval,
}
