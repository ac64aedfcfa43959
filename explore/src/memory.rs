//! Memory that JavaScript writes into.

use std::alloc::{Layout, alloc, dealloc};

/// Of all that is handed over: enough for every type of number.
const ALIGNMENT: usize = 8;

fn layout(count: usize) -> Layout {
    Layout::from_size_align(count.max(1), ALIGNMENT).expect("fewer bytes than the memory has")
}

/// The address of `count` bytes of the caller's own. Often the first function that is called.
#[unsafe(no_mangle)]
pub extern "C" fn reserve(count: usize) -> *mut u8 {
    crate::world::listen();
    // SAFETY: the layout is not empty.
    let at = unsafe { alloc(layout(count)) };
    assert!(!at.is_null(), "there is no room for {count} bytes");
    at
}

/// Gives them back.
///
/// # Safety
/// `at` is what [`reserve`] returned for `count`, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn release(at: *mut u8, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { dealloc(at, layout(count)) }
}

/// # Safety
/// `at` is the address of `count` bytes that nobody writes meanwhile.
pub(crate) unsafe fn bytes<'a>(at: *const u8, count: usize) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(at, count) }
}

/// # Safety
/// `at` is the address of `count` floats that nobody writes meanwhile.
pub(crate) unsafe fn floats<'a>(at: *const f32, count: usize) -> &'a [f32] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(at, count) }
}
