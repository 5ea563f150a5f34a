//! Rows of bytes, one for each sample that is kept: in memory, in a file that is mapped, or where the engine has its
//! buffers.
//!
//! The file is the header (magic, key, number of rows, bytes of a row, each number 8 bytes little-endian), a word for each
//! row, and the rows from the next page on. A word is 0 for a row that is not there, else 2^32 and the CRC-32C of the row. It
//! is written after its row, and a row of a file that was opened again is there when its checksum is right: so what a
//! process that was killed left half-written is not taken for a row.

use super::device::DeviceRows;
use crate::runner::engine::Engine;
use memmap2::MmapMut;
use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"fzcache1";
const HEADER: usize = 64;
const PAGE: usize = 4096;

/// Rows that are kept.
pub(super) enum Store {
    Memory(Vec<Option<Box<[u8]>>>),
    Mapped(Mapped),
    Device(DeviceRows),
}

/// Rows in a file.
pub(super) struct Mapped {
    path: PathBuf,
    file: File,
    map: MmapMut,
    rows: usize,
    row: usize,
    start: usize,
    /// Rows that this process wrote or has checked.
    sure: HashSet<usize>,
}

impl Store {
    pub(super) fn in_memory(rows: usize) -> Store {
        Store::Memory(vec![None; rows])
    }

    /// Opens the file of a key, with what it holds, or makes it. Its space is reserved before anything is written.
    pub(super) fn in_file(path: &Path, key: &[u8; 32], rows: usize, row: usize) -> io::Result<Store> {
        let start = (HEADER + 8 * rows).next_multiple_of(PAGE);
        let length = rows.checked_mul(row).and_then(|data| data.checked_add(start));
        let length = length.ok_or_else(|| io::Error::other("it would be too large"))? as u64;
        let header = header(key, rows, row);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        // A file system without locks has no lock to respect.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(io::Error::other("another process has it"));
        }
        if file.metadata()?.len() != length || !starts_with(&file, &header)? {
            file.set_len(0)?;
            let reserved = fs4::FileExt::allocate(&file, length).and_then(|()| file.set_len(length));
            if let Err(error) = reserved {
                drop(file);
                let _ = std::fs::remove_file(path);
                return Err(error);
            }
        }
        // SAFETY: the file is held by the lock, its space is reserved, and no other program changes a file of this name.
        let mut map = unsafe { MmapMut::map_mut(&file)? };
        map[..HEADER].copy_from_slice(&header);
        Ok(Store::Mapped(Mapped { path: path.to_path_buf(), file, map, rows, row, start, sure: HashSet::new() }))
    }

    /// Returns the rows that seem to be there.
    pub(super) fn found(&self) -> Vec<usize> {
        match self {
            Store::Memory(rows) => (0..rows.len()).filter(|row| rows[*row].is_some()).collect(),
            Store::Mapped(mapped) => (0..mapped.rows).filter(|row| mapped.word(*row) != 0).collect(),
            Store::Device(device) => device.found(),
        }
    }

    /// Returns true for a row that is there.
    pub(super) fn has(&mut self, row: usize) -> bool {
        match self {
            Store::Device(device) => device.has(row),
            _ => self.get(row).is_some(),
        }
    }

    /// Returns the rows that there is room for.
    pub(super) fn rows(&self) -> usize {
        match self {
            Store::Memory(rows) => rows.len(),
            Store::Mapped(mapped) => mapped.rows,
            Store::Device(device) => device.rows(),
        }
    }

    /// Returns where rows are.
    pub(super) fn place(&self) -> &'static str {
        match self {
            Store::Memory(_) => "memory",
            Store::Mapped(_) => "disk",
            Store::Device(_) => "device",
        }
    }

    /// Returns a row; `None` where it is not there or not where the host can read it.
    pub(super) fn get(&mut self, row: usize) -> Option<&[u8]> {
        match self {
            Store::Memory(rows) => rows.get(row)?.as_deref(),
            Store::Mapped(mapped) => mapped.get(row),
            Store::Device(_) => None,
        }
    }

    /// Keeps a row, of which `fill` writes the bytes.
    pub(super) fn put(&mut self, row: usize, bytes: usize, fill: impl FnOnce(&mut [u8])) {
        match self {
            Store::Memory(rows) => {
                if let Some(place) = rows.get_mut(row) {
                    let mut data = vec![0; bytes].into_boxed_slice();
                    fill(&mut data);
                    *place = Some(data);
                }
            }
            Store::Mapped(mapped) => mapped.put(row, fill),
            Store::Device(_) => unreachable!("invariant: rows of a device are entered there"),
        }
    }

    /// Gives a row up. The space of a file is not given back before the file is removed.
    pub(super) fn forget(&mut self, row: usize) {
        match self {
            Store::Memory(rows) => rows.get_mut(row).into_iter().for_each(|place| *place = None),
            Store::Mapped(_) => {}
            Store::Device(device) => device.forget(row),
        }
    }

    /// Returns the file.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Store::Memory(_) | Store::Device(_) => None,
            Store::Mapped(mapped) => Some(&mapped.path),
        }
    }

    /// Drops everything, also the file.
    pub(super) fn remove(self, engine: &mut dyn Engine) {
        match self {
            Store::Memory(_) => {}
            Store::Mapped(mapped) => mapped.remove(),
            Store::Device(device) => device.remove(engine),
        }
    }
}

impl Mapped {
    fn remove(self) {
        drop((self.map, self.file));
        let _ = std::fs::remove_file(self.path);
    }

    fn word(&self, row: usize) -> u64 {
        let place = HEADER + 8 * row;
        self.map.get(place..place + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    fn data(&self, row: usize) -> std::ops::Range<usize> {
        let from = self.start + row * self.row;
        from..from + self.row
    }

    fn get(&mut self, row: usize) -> Option<&[u8]> {
        if row >= self.rows {
            return None;
        }
        let place = self.data(row);
        if !self.sure.contains(&row) {
            if self.word(row) != checksum(&self.map[place.clone()]) {
                return None;
            }
            self.sure.insert(row);
        }
        Some(&self.map[place])
    }

    fn put(&mut self, row: usize, fill: impl FnOnce(&mut [u8])) {
        if row >= self.rows {
            return;
        }
        let place = self.data(row);
        let word = HEADER + 8 * row;
        self.map[word..word + 8].fill(0);
        fill(&mut self.map[place.clone()]);
        let sum = checksum(&self.map[place]);
        self.map[word..word + 8].copy_from_slice(&sum.to_le_bytes());
        self.sure.insert(row);
    }
}

fn header(key: &[u8; 32], rows: usize, row: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..40].copy_from_slice(key);
    header[40..48].copy_from_slice(&(rows as u64).to_le_bytes());
    header[48..56].copy_from_slice(&(row as u64).to_le_bytes());
    header
}

fn starts_with(mut file: &File, header: &[u8; HEADER]) -> io::Result<bool> {
    let mut found = [0; HEADER];
    io::Seek::seek(&mut file, io::SeekFrom::Start(0))?;
    match io::Read::read_exact(&mut file, &mut found) {
        Ok(()) => Ok(found == *header),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn checksum(row: &[u8]) -> u64 {
    1 << 32 | u64::from(crc32c::crc32c(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn put(store: &mut Store, row: usize, value: u8) {
        store.put(row, 12, |bytes| bytes.fill(value));
    }

    #[test]
    fn rows_are_what_was_put() {
        let folder = tempfile::tempdir().unwrap();
        let file = Store::in_file(&folder.path().join("a"), &KEY, 5, 12).unwrap();
        for mut store in [Store::in_memory(5), file] {
            put(&mut store, 3, 9);
            put(&mut store, 0, 1);
            put(&mut store, 3, 4);
            put(&mut store, 5, 4);
            assert_eq!(store.get(3), Some([4; 12].as_slice()));
            assert!(store.get(1).is_none() && store.get(5).is_none());
            assert_eq!(store.found(), [0, 3]);
        }
    }

    #[test]
    fn a_file_is_gone_on_with_and_only_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let open = |key: &[u8; 32], rows, row| Store::in_file(&path, key, rows, row).unwrap();
        let mut store = open(&KEY, 5, 12);
        put(&mut store, 2, 8);
        assert!(Store::in_file(&path, &KEY, 5, 12).is_err(), "one process has it");
        drop(store);
        let mut store = open(&KEY, 5, 12);
        assert_eq!(store.found(), [2]);
        assert_eq!(store.get(2), Some([8; 12].as_slice()));
        drop(store);
        // Another key, and other rows of the same length.
        for (key, rows, row) in [([1; 32], 5, 12), (KEY, 10, 6), (KEY, 5, 12)] {
            assert_eq!(open(&key, rows, row).found(), Vec::<usize>::new());
        }
    }

    #[test]
    fn a_row_that_was_not_written_as_a_whole_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut store = Store::in_file(&path, &KEY, 3, 12).unwrap();
        (0..3).for_each(|row| put(&mut store, row, 5));
        drop(store);
        let mut bytes = std::fs::read(&path).unwrap();
        let start = PAGE + 12;
        bytes[start + 7] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let mut store = Store::in_file(&path, &KEY, 3, 12).unwrap();
        assert_eq!([0, 1, 2].map(|row| store.get(row).is_some()), [true, false, true]);
        put(&mut store, 1, 6);
        assert_eq!(store.get(1), Some([6; 12].as_slice()));
        let Store::Mapped(mapped) = store else { panic!("it is in a file") };
        mapped.remove();
        assert!(!path.exists());
        // A header that was cut.
        std::fs::write(&path, &bytes[..20]).unwrap();
        assert_eq!(Store::in_file(&path, &KEY, 3, 12).unwrap().found(), Vec::<usize>::new());
    }
}
