//! `[data]`: files, and how they become batches.

use super::Targets;
use crate::data::{
    AugmentOptions, CsvOptions, DataError, DataOptions, Dataset, FORMATS, Files, ImageOptions, LastBatch, Loading,
    Normalize, Number, Part, Selection, TextOptions, TokensOptions, class_names, is_image_folder,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Data and how they become batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// The files to train on: a path, a pattern, an array of these, or a table of a path for each column.
    pub train: Files,
    /// The files to evaluate on after each epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<Files>,
    /// The column of each model input; an array or a pattern is a vector of several columns.
    pub inputs: BTreeMap<String, Selection>,
    /// The column that the loss compares with, or for losses that name their targets a table of
    /// columns. With training information, that of the input which the algorithm alone reads; may be
    /// left out where no loss has a target or `inputs` names all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Targets>,
    /// Rows in a batch, at least 1.
    pub batch: usize,
    /// Seed of the order of rows; 0 by default.
    #[serde(default)]
    pub seed: u64,
    /// Whether each epoch has its own order; true by default.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// How rows are drawn: `"shuffle"` (default), `"sequential"`, `"weighted"` or `"balanced"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<SamplerKind>,
    /// The column that `"weighted"` draws by, or the labels of `"balanced"`, by default the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// What becomes of rows that do not fill a batch: `"keep"` (default), `"drop"` or `"pad"`.
    #[serde(default)]
    pub last_batch: LastBatch,
    /// Threads that make batches ahead; by default none where that is only copying rows, else one for two cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// The most batches that are made ahead; by default two for each thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<usize>,
    /// The format of the files; by default the one that the extension names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Where data are kept that are decoded once; by default the system's folder for temporary files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
    /// The type that the numbers of columns are converted to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, Number>,
    /// The texts of columns that are classes 0, 1, ..; of a target, by default the sorted texts of the training data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, Vec<String>>,
    /// `[data.normalize]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// `[data.csv]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvOptions>,
    /// `[data.tokens]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensOptions>,
    /// `[data.text]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextOptions>,
    /// How pictures become rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageOptions>,
    /// What is random about pictures while training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<AugmentOptions>,
}

/// How rows are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SamplerKind {
    /// Each row once, in an order of its own in each epoch.
    Shuffle,
    /// Each row once, in the order of the file.
    Sequential,
    /// With replacement, by a column of weights.
    Weighted,
    /// As many rows of each class.
    Balanced,
}

impl DataSection {
    /// Returns the data of model inputs with the columns that they read, a target and a batch size; in random order. Files
    /// are missing: data in memory take their place, or they are named.
    pub fn new<'a>(inputs: impl IntoIterator<Item = (&'a str, &'a str)>, target: &str, batch: usize) -> DataSection {
        DataSection {
            train: Files::One(PathBuf::new()),
            eval: None,
            inputs: inputs.into_iter().map(|(input, column)| (input.to_string(), Selection::from(column))).collect(),
            target: Some(Targets::One(target.into())),
            batch,
            seed: 0,
            shuffle: true,
            sampler: None,
            weights: None,
            last_batch: LastBatch::Keep,
            workers: None,
            prefetch: None,
            format: None,
            cache_dir: None,
            types: BTreeMap::new(),
            classes: BTreeMap::new(),
            normalize: None,
            csv: None,
            tokens: None,
            text: None,
            image: None,
            augment: None,
        }
    }

    /// Returns how the files are read.
    pub fn options(&self) -> DataOptions {
        DataOptions {
            format: self.format.clone(),
            classes: self.classes.clone(),
            classify: false,
            types: self.types.clone(),
            normalize: self.normalize.clone(),
            csv: self.csv.clone(),
            tokens: self.tokens.clone(),
            text: self.text.clone(),
            cache_dir: self.cache_dir.clone(),
            image: self.image.clone(),
            augment: self.augment.clone(),
            part: Part::Train,
        }
    }

    /// Returns how the files to evaluate on are read.
    pub fn eval_options(&self) -> DataOptions {
        DataOptions { part: Part::Eval, ..self.options() }
    }

    /// Writes down the classes of a folder of images to train on, so that the files to evaluate on have the same.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn name_classes(&mut self) -> Result<(), DataError> {
        if let Files::One(folder) = &self.train
            && is_image_folder(folder, &self.options())
        {
            let image = self.image.get_or_insert_default();
            if image.classes.is_none() {
                image.classes = Some(class_names(folder)?);
            }
        }
        Ok(())
    }

    /// Opens the training data with all columns that are read, or takes the given ones, and completes the section with
    /// what evaluation and later use need to know of them: the classes of texts, means and deviations. Returns what was
    /// found, to be told.
    ///
    /// # Errors
    /// A file cannot be read, or a column that is normalised is not there or holds no finite numbers.
    pub fn open(&mut self, given: Option<Dataset>) -> Result<(Dataset, Vec<String>), DataError> {
        if given.is_none() {
            self.name_classes()?;
        }
        let mut options = self.options();
        let targets = self.target.iter().flat_map(Targets::columns).flat_map(Selection::patterns);
        for name in targets {
            options.classes.entry(name.clone()).or_default();
        }
        let open = || Dataset::open_files(&self.train, &options, Some(&self.columns(true)));
        let dataset = given.map_or_else(open, |given| given.pictured(&options))?;
        let notes = dataset.learn(&mut options)?;
        (self.classes, self.normalize) = (options.classes, options.normalize);
        Ok((dataset, notes))
    }

    /// Returns the names and patterns of all columns that are read, in training also the weights of rows.
    pub fn columns(&self, training: bool) -> Vec<&str> {
        let targets = self.target.iter().flat_map(Targets::columns);
        let selections = self.inputs.values().chain(targets).flat_map(Selection::patterns);
        selections.map(String::as_str).chain(self.weights.as_deref().filter(|_| training)).collect()
    }

    /// Makes the paths relative to a folder.
    pub(super) fn resolve(&mut self, base: &Path) {
        self.train.resolve(base);
        self.eval.iter_mut().for_each(|eval| eval.resolve(base));
        for path in self.text.iter_mut().map(|text| &mut text.tokenizer).chain(&mut self.cache_dir) {
            *path = base.join(&*path).components().collect();
        }
    }

    /// Returns how far ahead batches are made, where the job says it.
    pub fn loading(&self) -> Option<Loading> {
        let workers = self.workers?;
        Some(Loading { workers, prefetch: self.prefetch.unwrap_or(2 * workers) })
    }

    /// Returns how rows are drawn.
    pub fn sampler(&self) -> SamplerKind {
        let by_shuffle = if self.shuffle { SamplerKind::Shuffle } else { SamplerKind::Sequential };
        self.sampler.unwrap_or(by_shuffle)
    }

    /// Returns the key and the reason of a value out of its range.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let known = || FORMATS.iter().map(|format| format.name).collect::<Vec<_>>();
        if let Some(format) = self.format.as_deref().filter(|format| !known().contains(format)) {
            return Some(("data.format", format!("expected {}, found \"{format}\"", known().join(", "))));
        }
        let zero =
            |key, number: Option<usize>| (number == Some(0)).then(|| (key, "expected 1 or more, found 0".into()));
        let delimiter = self.csv.as_ref().and_then(|csv| csv.delimiter).filter(|delimiter| !delimiter.is_ascii());
        let found = None
            .or_else(|| zero("data.tokens.block", self.tokens.as_ref().map(|tokens| tokens.block)))
            .or_else(|| zero("data.tokens.stride", self.tokens.as_ref().and_then(|tokens| tokens.stride)))
            .or_else(|| zero("data.text.length", self.text.as_ref().map(|text| text.length)))
            .or_else(|| zero("data.text.stride", self.text.as_ref().and_then(|text| text.stride)))
            .or_else(|| Some(("data.csv.delimiter", format!("expected an ASCII character, found \"{}\"", delimiter?))));
        if found.is_some() {
            return found;
        }
        if self.prefetch.is_some() && self.workers.is_none() {
            return Some(("data.prefetch", "needs data.workers".into()));
        }
        let column = |column: &Option<String>| column.as_ref().map(|column| format!("\"{column}\""));
        if let (Some(image), Some(augment)) = (&self.image, &self.augment)
            && let (Some(image), Some(augment)) = (column(&image.column), column(&augment.column))
            && image != augment
        {
            return Some(("data.augment.column", format!("expected {image} as data.image.column, found {augment}")));
        }
        let pictures = self.image.as_ref().and_then(ImageOptions::problem);
        if let Some(problem) = pictures.or_else(|| self.augment.as_ref()?.problem()) {
            return Some(problem);
        }
        if self.weights.is_none() && self.sampler == Some(SamplerKind::Weighted) {
            return Some(("data.sampler", "\"weighted\" needs data.weights, the column to draw by".into()));
        }
        None
    }
}

fn yes() -> bool {
    true
}
