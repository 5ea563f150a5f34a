//! Folders of images: a subfolder for each class, and files of it anywhere below.
//!
//! Columns: `images`, and `labels` (int64): the places of the classes among their sorted names. Files are JPEG or PNG;
//! other images are refused, other files and names that start with a dot are passed over.

use crate::data::image::{Transform, decode, size_of, tensor_of};
use crate::data::{Column, DataError, DataOptions, Dataset, Draw, Sample, Source, list, select};
use crate::error::nearest;
use crate::graph::{DType, Tensor};
use std::path::{Path, PathBuf};

const READ: [&str; 3] = ["jpg", "jpeg", "png"];
const REFUSED: [&str; 12] = ["avif", "bmp", "gif", "heic", "jp2", "jxl", "pgm", "ppm", "tga", "tif", "tiff", "webp"];

/// Returns the names of the subfolders of a folder, sorted.
///
/// # Errors
/// The folder cannot be read, holds no folder, or has a name that is no Unicode.
pub fn class_names(folder: &Path) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for (path, is_folder) in entries(folder)? {
        if is_folder {
            let name = path.file_name().and_then(|name| name.to_str());
            names.push(name.ok_or_else(|| not(&path, "is no Unicode, expected the name of a class"))?.to_string());
        }
    }
    if names.is_empty() {
        return Err(not(folder, "holds no folders, expected one for each class"));
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a folder.
pub(super) fn open(folder: &Path, options: &DataOptions, wanted: Option<&[&str]>) -> Result<Dataset, DataError> {
    let image = options.image.clone().unwrap_or_default();
    let found = class_names(folder)?;
    let classes = image.classes.as_ref().unwrap_or(&found);
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for name in &found {
        let Some(label) = classes.iter().position(|class| class == name) else {
            let near = nearest(name, classes.iter().map(String::as_str));
            let near = near.map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
            let reason = format!("is no class{near}; the {} classes are {}", classes.len(), list(classes));
            return Err(not(&folder.join(name), &reason));
        };
        let before = files.len();
        below(&folder.join(name), &mut files)?;
        if files.len() == before {
            return Err(not(&folder.join(name), "holds no image, expected .jpg, .jpeg or .png"));
        }
        files[before..].sort_unstable();
        labels.resize(files.len(), label as i64);
    }
    let names = select(folder, vec!["images".into(), "labels".into()], wanted)?;
    let first = &files[0];
    let (channels, size) = (image.channels.unwrap_or(3), size_of(&read(first)?).map_err(|reason| not(first, &reason))?);
    let transform = Transform::new(&image, &options.augment.clone().unwrap_or_default(), channels, size)
        .map_err(|(key, reason)| DataError::Setting { key, reason })?;
    let column = |name: String| match name.as_str() {
        "images" => Column { dtype: transform.row().0, shape: transform.row().1, name },
        _ => Column { dtype: DType::I64, shape: Vec::new(), name },
    };
    let columns = names.into_iter().map(column).collect();
    let labels = Tensor::from_vec(&[labels.len()], labels);
    Ok(Dataset::of(Images { folder: folder.to_path_buf(), files, labels, columns, channels, transform }))
}

#[derive(Debug)]
struct Images {
    folder: PathBuf,
    files: Vec<PathBuf>,
    labels: Tensor,
    columns: Vec<Column>,
    channels: usize,
    transform: Transform,
}

impl Source for Images {
    fn path(&self) -> &Path {
        &self.folder
    }

    fn rows(&self) -> usize {
        self.files.len()
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn read(&self, columns: &[usize], samples: &[Sample], draw: Draw) -> Result<Vec<Tensor>, DataError> {
        let one = |column: &usize| {
            if self.columns[*column].name == "labels" {
                let all = self.labels.to_ints().expect("invariant: labels are int64");
                return Ok(Tensor::ints(&samples.iter().map(|sample| all[sample.row]).collect::<Vec<_>>()));
            }
            let mut out = self.transform.empty(samples.len());
            for sample in samples {
                let file = &self.files[sample.row];
                let picture = decode(&read(file)?, self.channels)
                    .map_err(|reason| not(file, &format!("is no image that can be decoded: {reason}")))?;
                let row = self.transform.apply(picture, *sample, draw, &mut out);
                row.map_err(|reason| not(file, &format!("does not fit: {reason}")))?;
            }
            Ok(tensor_of(&self.transform, samples.len(), out))
        };
        columns.iter().map(one).collect()
    }

    fn is_random(&self, column: usize) -> bool {
        self.columns.get(column).is_some_and(|column| column.name != "labels") && self.transform.is_random()
    }

    fn whole(&self, column: usize) -> Option<&Tensor> {
        (self.columns.get(column)?.name == "labels").then_some(&self.labels)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(file).map_err(|source| DataError::Read { path: file.to_path_buf(), source })
}

fn not(path: &Path, reason: &str) -> DataError {
    DataError::Image { path: path.to_path_buf(), reason: reason.to_string() }
}

/// Returns what lies in a folder, and whether each is a folder itself; not what starts with a dot.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, bool)>, DataError> {
    let fail = |source| DataError::Read { path: folder.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let mut kind = entry.file_type().map_err(fail)?;
        if kind.is_symlink() {
            kind = std::fs::metadata(entry.path()).map_err(fail)?.file_type();
        }
        found.push((entry.path(), kind.is_dir()));
    }
    Ok(found)
}

/// Appends the images in a folder and below.
fn below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    for (path, is_folder) in entries(folder)? {
        if is_folder {
            below(&path, files)?;
            continue;
        }
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        let is = |of: &[&str]| extension.as_deref().is_some_and(|extension| of.contains(&extension));
        if is(&REFUSED) {
            return Err(not(&path, "is an image of another kind, expected JPEG or PNG"));
        }
        if is(&READ) {
            files.push(path);
        }
    }
    Ok(())
}

/// Returns true for a folder that holds folders.
pub(super) fn is_one(path: &Path) -> bool {
    path.is_dir() && entries(path).is_ok_and(|entries| entries.iter().any(|entry| entry.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::testing::{fixture, golden};
    use crate::data::{Extent, ImageOptions, Layout, PixelType};

    /// Copies fixtures to `CLASS/NAME` in a folder.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, from) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::copy(fixture(from), path).unwrap();
        }
        folder
    }

    fn options(image: ImageOptions) -> DataOptions {
        DataOptions { image: Some(image), ..DataOptions::default() }
    }

    fn error(folder: &Path, options: &DataOptions) -> String {
        let opened = Dataset::open(folder, options, None).and_then(|data| data.values("images"));
        opened.unwrap_err().to_string().replace(&folder.display().to_string(), "F")
    }

    #[test]
    fn classes_are_sorted_folders_and_rows_their_files() {
        let folder = folder(&[
            ("dog/b.PNG", "colours.png"),
            ("dog/deep/a.png", "palette.png"),
            ("cat/z.png", "colours.png"),
            ("cat/.hidden/x.png", "grey.png"),
            ("cat/notes.txt", "make.py"),
            ("README.md", "make.py"),
        ]);
        let image = ImageOptions { dtype: PixelType::Uint8, layout: Layout::Nhwc, ..ImageOptions::default() };
        let data = Dataset::open(folder.path(), &options(image.clone()), None).unwrap();
        let columns: Vec<(&str, DType, &[usize])> =
            data.columns().iter().map(|column| (column.name.as_str(), column.dtype, column.shape.as_slice())).collect();
        assert_eq!(columns, [("images", DType::U8, &[9, 13, 3][..]), ("labels", DType::I64, &[])]);
        assert_eq!(data.values("labels").unwrap().to_ints().unwrap(), [0, 1, 1]);
        assert_eq!(class_names(folder.path()).unwrap(), ["cat", "dog"]);
        let pixels = data.values("images").unwrap().to_vec::<u8>().unwrap();
        let golden = |name: &str| golden(name).to_vec::<u8>().unwrap();
        assert_eq!(pixels, [golden("rgb.colours.png"), golden("rgb.colours.png"), golden("rgb.palette.png")].concat());
        let labels = Dataset::open(folder.path(), &options(image.clone()), Some(&["labels"])).unwrap();
        assert_eq!((labels.columns().len(), labels.rows()), (1, 3));

        let classes = Some(["ant", "cat", "cow", "dog"].map(String::from).to_vec());
        let named = Dataset::open(folder.path(), &options(ImageOptions { classes, ..image }), None).unwrap();
        assert_eq!(named.values("labels").unwrap().to_ints().unwrap(), [1, 3, 3]);
    }

    #[test]
    fn what_is_wrong_names_the_file() {
        let plain = DataOptions::default();
        let two = folder(&[("a/1.png", "colours.png"), ("a/2.png", "grey.png")]);
        let size = "F/a/2.png does not fit: expected 9 x 13 pixels (height x width), found 5 x 6";
        assert_eq!(error(two.path(), &plain), size);
        let crop = ImageOptions { crop: Some(Extent::Side(4)), ..ImageOptions::default() };
        let found = Dataset::open(two.path(), &options(crop), None).unwrap().values("images").unwrap();
        assert_eq!(found.shape(), [2, 3, 4, 4]);

        let broken = folder(&[("a/1.png", "colours.png"), ("a/2.jpg", "photo.jpg")]);
        let file = broken.path().join("a/2.jpg");
        let data = std::fs::read(&file).unwrap();
        std::fs::write(&file, &data[..data.len() / 2]).unwrap();
        let half = "F/a/2.jpg is no image that can be decoded: it ends before its picture does";
        assert_eq!(error(broken.path(), &plain), half);
        std::fs::write(&file, "text").unwrap();
        assert_eq!(error(broken.path(), &plain), "F/a/2.jpg is no image that can be decoded: expected JPEG or PNG");
        std::fs::remove_file(&file).unwrap();
        let opened = Dataset::open(broken.path(), &plain, None).unwrap();
        assert_eq!(opened.rows(), 1);
        std::fs::remove_file(broken.path().join("a/1.png")).unwrap();
        let gone = opened.values("images").unwrap_err().to_string();
        assert!(gone.starts_with("cannot read ") && gone.ends_with("1.png"), "{gone}");
        assert_eq!(error(broken.path(), &plain), "F/a holds no image, expected .jpg, .jpeg or .png");

        let other = folder(&[("a/1.png", "colours.png"), ("a/x.webp", "colours.png")]);
        assert_eq!(error(other.path(), &plain), "F/a/x.webp is an image of another kind, expected JPEG or PNG");
        let classes = Some(vec!["garden".to_string(), "house".to_string()]);
        let named = options(ImageOptions { classes, ..ImageOptions::default() });
        assert_eq!(error(two.path(), &named), "F/a is no class; the 2 classes are \"garden\", \"house\"");
        let format = DataOptions { format: Some("images".into()), ..DataOptions::default() };
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(error(empty.path(), &format), "F holds no folders, expected one for each class");
    }
}
