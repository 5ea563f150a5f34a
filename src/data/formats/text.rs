//! Text through a Hugging Face `tokenizer.json`.
//!
//! A text, or a pair, is a row of `length` tokens: cut and padded as the tokenizer says. With packing, documents are
//! tokenised once when the data are opened, joined with the end token after each, and kept in a file that is mapped; rows
//! are blocks of it, as of a file of token ids.

use super::cache;
use super::lines::Lines;
use super::tokens::Blocks;
use crate::data::source::LabelRange;
use crate::data::{DataError, DataOptions, Dataset, Side, TextOptions, map_open};
use crate::graph::{DType, Tensor};
use serde_json::{Map, Value};
use std::io::{BufWriter, Write};
use tokenizers::{
    EncodeInput, PaddingDirection, PaddingParams, PaddingStrategy, PostProcessor, Tokenizer, TruncationParams,
};

/// What is made of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Ids,
    Mask,
    Types,
    Positions,
    Labels,
}

impl Part {
    pub const ALL: [Part; 5] = [Part::Ids, Part::Mask, Part::Types, Part::Positions, Part::Labels];

    /// Returns the name of the column.
    pub fn name(self) -> &'static str {
        match self {
            Part::Ids => "input_ids",
            Part::Mask => "attention_mask",
            Part::Types => "token_type_ids",
            Part::Positions => "position_ids",
            Part::Labels => "labels",
        }
    }
}

/// A tokenizer and how it is used.
#[derive(Debug)]
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    options: TextOptions,
    largest: i64,
}

/// A row of tokens.
pub(super) struct Encoded {
    ids: Vec<i64>,
    mask: Vec<i64>,
    types: Vec<i64>,
    labels: Vec<i64>,
}

const PADS: [&str; 3] = ["[PAD]", "<pad>", "<|pad|>"];
const ENDS: [&str; 5] = ["<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "[SEP]"];

impl Encoder {
    /// Reads the tokenizer.
    pub fn new(options: &TextOptions) -> Result<Encoder, DataError> {
        let path = &options.tokenizer;
        let fail = |reason: String| DataError::Format { path: path.clone(), format: "tokenizer", reason };
        let bytes = std::fs::read(path).map_err(|source| DataError::Read { path: path.clone(), source })?;
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| fail(error.to_string()))?;
        let largest = tokenizer.get_vocab(true).into_values().max().map_or(0, i64::from);
        if options.packing {
            tokenizer.with_padding(None).with_truncation(None).map_err(|error| fail(error.to_string()))?;
            return Ok(Encoder { tokenizer, options: options.clone(), largest });
        }
        let known = tokenizer.get_padding().cloned();
        let pad = match (&options.pad, &known) {
            (Some(token), _) => token.clone(),
            (None, Some(known)) => known.pad_token.clone(),
            (None, None) => first(&tokenizer, &PADS)
                .ok_or_else(|| fail("it says no token that pads: data.text.pad names one".into()))?
                .to_string(),
        };
        let pad_id = tokenizer.token_to_id(&pad);
        let pad_id = pad_id.or_else(|| known.as_ref().filter(|known| known.pad_token == pad).map(|known| known.pad_id));
        let pad_id = pad_id.ok_or_else(|| fail(format!("it knows no token \"{pad}\", which data.text.pad names")))?;
        let direction = match options.padding_side {
            Some(Side::Left) => PaddingDirection::Left,
            Some(Side::Right) => PaddingDirection::Right,
            None => known.as_ref().map_or(PaddingDirection::Right, |known| known.direction),
        };
        tokenizer.with_padding(Some(PaddingParams {
            strategy: PaddingStrategy::Fixed(options.length),
            direction,
            pad_to_multiple_of: None,
            pad_id,
            pad_type_id: known.map_or(0, |known| known.pad_type_id),
            pad_token: pad,
        }));
        let added = tokenizer.get_post_processor().map_or(0, |post| post.added_tokens(options.pair.is_some()));
        if options.length <= added {
            let text = format!("it adds {added} tokens to a text, and data.text.length is {}", options.length);
            return Err(fail(text));
        }
        let truncation = options.truncation.then(|| {
            let known = tokenizer.get_truncation().cloned().unwrap_or_default();
            TruncationParams { max_length: options.length, stride: 0, ..known }
        });
        tokenizer.with_truncation(truncation).map_err(|error| fail(error.to_string()))?;
        Ok(Encoder { tokenizer, options: options.clone(), largest })
    }

    /// Returns the keys of the texts.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.options.column.as_str()).chain(self.options.pair.as_deref())
    }

    /// Returns the number of tokens in a row.
    pub fn length(&self) -> usize {
        self.options.length
    }

    /// Returns what labels there can be.
    pub fn label_range(&self) -> LabelRange {
        LabelRange { largest: self.largest, none: (!self.options.packing).then_some(self.options.ignore_index) }
    }

    /// Returns the tokens of the texts of a row.
    pub fn row(&self, lines: &Lines, row: usize, object: &Map<String, Value>) -> Result<Encoded, DataError> {
        let column = &self.options.column;
        let text = text(lines, row, object, column)?;
        let input: EncodeInput<'_> = match &self.options.pair {
            None => text.into(),
            Some(pair) => (text, self::text(lines, row, object, pair)?).into(),
        };
        let encoding = self.tokenizer.encode_fast(input, self.options.special_tokens);
        let encoding = encoding.map_err(|error| lines.wrong(row, column, format!("cannot be tokenised: {error}")))?;
        if encoding.len() != self.options.length {
            let reason = format!("is {} tokens, expected {} at most", encoding.len(), self.options.length);
            return Err(lines.wrong(row, column, reason));
        }
        let wide = |values: &[u32]| values.iter().map(|value| i64::from(*value)).collect::<Vec<i64>>();
        let (ids, mask) = (wide(encoding.get_ids()), wide(encoding.get_attention_mask()));
        let ignored = self.options.ignore_index;
        let mut labels: Vec<i64> =
            ids.iter().zip(&mask).map(|(id, mask)| if *mask == 1 { *id } else { ignored }).collect();
        if self.options.shift {
            labels.remove(0);
            labels.push(ignored);
        }
        Ok(Encoded { ids, mask, types: wide(encoding.get_type_ids()), labels })
    }
}

impl Encoded {
    /// Appends a column's row.
    pub fn put(&self, part: Part, out: &mut Vec<u8>) {
        let mut seen = 0;
        let position = |mask: &i64| {
            seen += mask;
            (seen - 1).max(0)
        };
        let positions: Vec<i64>;
        let values = match part {
            Part::Ids => &self.ids,
            Part::Mask => &self.mask,
            Part::Types => &self.types,
            Part::Labels => &self.labels,
            Part::Positions => {
                positions = self.mask.iter().map(position).collect();
                &positions
            }
        };
        values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
}

fn first<'a>(tokenizer: &Tokenizer, tokens: &[&'a str]) -> Option<&'a str> {
    tokens.iter().copied().find(|token| tokenizer.token_to_id(token).is_some())
}

fn text<'a>(lines: &Lines, row: usize, object: &'a Map<String, Value>, column: &str) -> Result<&'a str, DataError> {
    let value = object.get(column).ok_or_else(|| lines.wrong(row, column, "is missing".into()))?;
    value.as_str().ok_or_else(|| lines.wrong(row, column, format!("holds {value}, expected a text")))
}

/// Documents that are tokenised at once.
const DOCUMENTS: usize = 1024;

/// Returns rows of joined documents.
pub(super) fn packed(
    lines: &Lines,
    encoder: &Encoder,
    options: &DataOptions,
    wanted: Option<&[&str]>,
) -> Result<Dataset, DataError> {
    let Encoder { tokenizer, options: text, .. } = encoder;
    let fail = |reason: String| DataError::Format { path: text.tokenizer.clone(), format: "tokenizer", reason };
    let end = match text.eos.as_deref().or_else(|| first(tokenizer, &ENDS)) {
        Some(token) => tokenizer
            .token_to_id(token)
            .ok_or_else(|| fail(format!("it knows no token \"{token}\", which data.text.eos names")))?,
        None => return Err(fail("it says no token that ends a document: data.text.eos names one".into())),
    };
    let folder = cache::folder(options);
    let failed = |source: std::io::Error| DataError::Cache { path: folder.clone(), source };
    let file = cache::file(&folder)?;
    let mut writer = BufWriter::new(&file);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for start in (0..lines.len()).step_by(DOCUMENTS * threads) {
        let tokenise = |thread: usize| {
            let from = (start + thread * DOCUMENTS).min(lines.len());
            documents(lines, encoder, from..(from + DOCUMENTS).min(lines.len()), end)
        };
        let made: Vec<Result<Vec<u8>, DataError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || tokenise(thread))).collect();
            workers.into_iter().map(|worker| worker.join().expect("invariant: no panic")).collect()
        });
        for bytes in made {
            writer.write_all(&bytes?).map_err(failed)?;
        }
    }
    writer.flush().map_err(failed)?;
    drop(writer);
    let data = map_open(&file).map_err(failed)?;
    let ids = Tensor::new(DType::U32, vec![data.len() / 4], data).expect("invariant: whole tokens");
    let stride = text.stride.unwrap_or(text.length);
    let blocks = Blocks::new(lines.path(), ids, text.length, stride, text.shift, Some(encoder.label_range()))?;
    blocks.dataset(wanted)
}

/// Returns the tokens of documents.
fn documents(lines: &Lines, encoder: &Encoder, rows: std::ops::Range<usize>, end: u32) -> Result<Vec<u8>, DataError> {
    let mut out = Vec::new();
    for row in rows {
        let object = lines.object(row)?;
        let column = &encoder.options.column;
        let encoding = encoder.tokenizer.encode_fast(text(lines, row, &object, column)?, false);
        let encoding = encoding.map_err(|error| lines.wrong(row, column, format!("cannot be tokenised: {error}")))?;
        encoding.get_ids().iter().chain([&end]).for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    }
    Ok(out)
}
