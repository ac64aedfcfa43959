//! What is open, and what was answered last. A module of WebAssembly has one thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Once;

use elbo::Error;
use elbo::study::explore::{Exhibit, PointWeights};
use serde::Serialize;

/// The results of a call.
#[derive(Default)]
pub(crate) struct Answer(Vec<Part>);

enum Part {
    Floats(Vec<f32>),
    Text(String),
}

impl Answer {
    /// One part: a value as JSON.
    pub fn text(value: &impl Serialize) -> Answer {
        Answer(vec![Part::Text(serde_json::to_string(value).expect("plain data"))])
    }

    /// A further part.
    pub fn floats(mut self, numbers: Vec<f32>) -> Answer {
        self.0.push(Part::Floats(numbers));
        self
    }

    /// Three parts.
    pub fn points(w: PointWeights) -> Answer {
        Answer::default().floats(w.likelihood).floats(w.prior).floats(w.posterior)
    }
}

#[derive(Default)]
struct World {
    open: HashMap<u32, Exhibit>,
    last: u32,
    answer: Answer,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
    static MESSAGE: RefCell<String> = RefCell::default();
}

fn say(text: String) {
    MESSAGE.with_borrow_mut(|message| *message = text);
}

/// Leaves the message of a panic where JavaScript looks for it: what it sees otherwise is that `unreachable` was reached.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| say(format!("the engine stopped: {panic}")))));
}

/// Opens something. Its number, or 0 when it failed.
pub(crate) fn enter(open: impl FnOnce() -> Result<Exhibit, Error>) -> u32 {
    listen();
    match open() {
        Ok(exhibit) => WORLD.with_borrow_mut(|world| {
            world.last += 1;
            world.open.insert(world.last, exhibit);
            world.last
        }),
        Err(error) => {
            say(error.to_string());
            0
        }
    }
}

/// Closes something.
pub(crate) fn leave(number: u32) {
    WORLD.with_borrow_mut(|world| world.open.remove(&number));
}

/// Asks something that is open. 1, or 0 when it failed.
pub(crate) fn ask(number: u32, question: impl FnOnce(&mut Exhibit) -> Result<Answer, Error>) -> u32 {
    WORLD.with_borrow_mut(|world| {
        world.answer = Answer::default();
        let known = world.open.get_mut(&number);
        let known = known.ok_or_else(|| Error::argument("model", number, "the number of one that is open"));
        match known.and_then(question) {
            Ok(answer) => {
                world.answer = answer;
                1
            }
            Err(error) => {
                say(error.to_string());
                0
            }
        }
    })
}

fn part<R>(index: usize, of: impl FnOnce(*const u8, usize) -> R) -> R {
    WORLD.with_borrow(|world| match world.answer.0.get(index) {
        Some(Part::Floats(numbers)) => of(numbers.as_ptr().cast(), size_of_val(&numbers[..])),
        Some(Part::Text(text)) => of(text.as_ptr(), text.len()),
        None => of(std::ptr::null(), 0),
    })
}

/// The address of a part of the answer, until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn answer(index: usize) -> *const u8 {
    part(index, |at, _| at)
}

/// Its size.
#[unsafe(no_mangle)]
pub extern "C" fn answer_bytes(index: usize) -> usize {
    part(index, |_, bytes| bytes)
}

/// The address of the last message: UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn message() -> *const u8 {
    MESSAGE.with_borrow(|text| text.as_ptr())
}

/// Its size.
#[unsafe(no_mangle)]
pub extern "C" fn message_bytes() -> usize {
    MESSAGE.with_borrow(String::len)
}
