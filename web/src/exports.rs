//! What the page calls. It makes [`room`], writes there, and says what that is with [`keep`] or [`ask`].
//!
//! After a panic the instance is of no more use but for [`failure`].

use crate::Session;
use std::cell::{Cell, RefCell};

thread_local! {
    static SESSION: RefCell<Session> = RefCell::default();
    static ROOM: RefCell<Vec<u8>> = RefCell::default();
    static REPLY: RefCell<String> = RefCell::default();
    static FAILURE: RefCell<String> = RefCell::default();
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Makes a buffer of zeros and returns where it lies; 0 where there is no memory for it.
#[unsafe(no_mangle)]
pub extern "C" fn room(size: usize) -> *mut u8 {
    if !WATCHED.replace(true) {
        std::panic::set_hook(Box::new(|info| FAILURE.with_borrow_mut(|failure| *failure = info.to_string())));
    }
    ROOM.with_borrow_mut(|room| {
        *room = Vec::new();
        if room.try_reserve_exact(size).is_err() {
            return std::ptr::null_mut();
        }
        room.resize(size, 0);
        room.as_mut_ptr()
    })
}

/// Takes the buffer as the bytes of the model that is opened next.
#[unsafe(no_mangle)]
pub extern "C" fn keep() {
    SESSION.with_borrow_mut(|session| session.keep(ROOM.take()));
}

/// Takes the buffer as a question and returns the size of the reply in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn ask() -> usize {
    let question = ROOM.take();
    let reply = SESSION.with_borrow_mut(|session| session.answer(&question));
    let size = reply.len();
    REPLY.set(reply);
    size
}

/// Returns where the reply lies.
#[unsafe(no_mangle)]
pub extern "C" fn reply() -> *const u8 {
    REPLY.with_borrow(|reply| reply.as_ptr())
}

/// Returns where the message of a panic lies.
#[unsafe(no_mangle)]
pub extern "C" fn failure() -> *const u8 {
    FAILURE.with_borrow(|failure| failure.as_ptr())
}

/// Returns the size of the message of a panic in bytes; 0 without one.
#[unsafe(no_mangle)]
pub extern "C" fn failure_size() -> usize {
    FAILURE.with_borrow(|failure| failure.len())
}
