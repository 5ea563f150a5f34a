//! What comes in through pointers and what goes out.

use crate::status::{Failure, guard};
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::path::PathBuf;

fn null(what: &str) -> Failure {
    Failure::usage(format!("{what} is NULL"))
}

/// Returns what a pointer that must not be NULL leads to.
pub(crate) fn some<T>(pointer: Option<T>, what: &str) -> Result<T, Failure> {
    pointer.ok_or_else(|| null(what))
}

/// Returns the entry at an index, from 0.
pub(crate) fn at<'a, T>(list: &'a [T], index: usize, what: &str) -> Result<&'a T, Failure> {
    list.get(index).ok_or_else(|| {
        let count = list.len();
        let failure = Failure::usage(format!("there is no {what} {index}, there are {count}"));
        failure.hint(match count {
            0 => format!("ask for the number of {what}s first"),
            _ => format!("indices go from 0 to {}", count - 1),
        })
    })
}

/// Returns a text that a caller gives.
///
/// # Safety
/// The pointer is NULL or leads to a C string that lives as long as the result.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: as for this function.
    let bytes = unsafe { bytes_of(pointer, what)? };
    std::str::from_utf8(bytes).map_err(|error| Failure::usage(format!("{what} is not UTF-8: {error}")))
}

/// Returns a path that a caller gives: any bytes where paths are bytes, else UTF-8.
///
/// # Safety
/// As for [`text`].
pub(crate) unsafe fn path(pointer: *const c_char, what: &str) -> Result<PathBuf, Failure> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        // SAFETY: as for this function.
        let bytes = unsafe { bytes_of(pointer, what)? };
        Ok(std::ffi::OsStr::from_bytes(bytes).into())
    }
    #[cfg(not(unix))]
    {
        // SAFETY: as for this function.
        Ok(unsafe { text(pointer, what)? }.into())
    }
}

/// # Safety
/// As for [`text`].
unsafe fn bytes_of<'a>(pointer: *const c_char, what: &str) -> Result<&'a [u8], Failure> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: it is not NULL, and so a C string that lives long enough.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// A struct that may grow at its end from version to version.
pub(crate) trait Grows: Copy {
    /// Its size in the first version.
    const FIRST: usize = size_of::<Self>();
}

/// Writes a struct whose size the caller knows from its header. An older, smaller one gets its front, a newer,
/// larger one zeros beyond what this version knows.
///
/// # Safety
/// The pointer is NULL or leads to `size` bytes that may be written.
pub(crate) unsafe fn give<T: Grows>(out: *mut T, size: usize, what: &str, value: T) -> Result<(), Failure> {
    if out.is_null() {
        return Err(null(what));
    }
    if size < T::FIRST {
        let failure = Failure::usage(format!("the size of {what} is {size}, expected {} or more", T::FIRST));
        return Err(failure.hint(format!("pass sizeof *{what}")));
    }
    let known = size.min(size_of::<T>());
    // SAFETY: there is room for `size` bytes, of which `known` come from the value, which has as many.
    unsafe {
        std::ptr::from_ref(&value).cast::<MaybeUninit<u8>>().copy_to_nonoverlapping(out.cast(), known);
        out.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    Ok(())
}

/// Returns a text that the caller frees.
pub(crate) fn owned(text: String) -> Result<*mut c_char, Failure> {
    let text = CString::new(text);
    Ok(text.map_err(|_| Failure::unsupported("the text holds a NUL character, which ends a C string"))?.into_raw())
}

/// Frees a text that a function of this library gave to the caller to free. NULL is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_string_free(text: *mut c_char) {
    guard(|| {
        if !text.is_null() {
            // SAFETY: the header asks for a text that `owned` made and that was not freed.
            drop(unsafe { CString::from_raw(text) });
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Grown([u32; 2]);

    impl Grows for Grown {
        const FIRST: usize = 4;
    }

    #[test]
    fn a_struct_grows_at_its_end() {
        let cases: [(usize, Option<[u32; 4]>); 5] = [
            (3, None),
            (4, Some([1, 7, 7, 7])),
            (8, Some([1, 2, 7, 7])),
            (12, Some([1, 2, 0, 7])),
            (16, Some([1, 2, 0, 0])),
        ];
        for (size, expected) in cases {
            let mut room = [7u32; 4];
            // SAFETY: there is room for as many bytes as are named.
            let given = unsafe { give(room.as_mut_ptr().cast::<Grown>(), size, "room", Grown([1, 2])) };
            assert_eq!(given.is_ok(), expected.is_some(), "{size}");
            assert_eq!(room, expected.unwrap_or([7; 4]), "{size}");
        }
        // SAFETY: NULL is allowed.
        assert!(unsafe { give(std::ptr::null_mut::<Grown>(), 8, "room", Grown([1, 2])) }.is_err());
    }

    #[test]
    fn an_index_out_of_range_says_the_range() {
        assert_eq!(at(&[1, 2], 1, "unit").unwrap(), &2);
        let failure = format!("{:?}", at(&[1, 2], 2, "unit").unwrap_err());
        assert!(failure.contains("there is no unit 2, there are 2") && failure.contains("from 0 to 1"), "{failure}");
    }
}
