//! Event files as TensorBoard reads them: the curves of a run, its configuration and its samples.
//!
//! A file is a sequence of records (TensorFlow's TFRecord), each an `Event` in Protocol Buffers:
//!
//! ```text
//! length  u64   crc(length)  u32   data  [length]   crc(data)  u32        little-endian
//! crc(b) = (c ≫ 15 | c ≪ 17) + 0xa282ead8 mod 2³²,   c = CRC32C(b)
//! ```
//!
//! The first event of a file names its format, `brain.Event:2`. Only the few messages that are needed are declared.

mod messages;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::engine::error::Result;
use crate::engine::file::{Disk, Files};
use messages::{
    Event, EventContent, EventSummary, PluginData, SummaryImage, SummaryMetadata, SummaryValue, TextTensor,
    ValueContent,
};

/// What every file of events begins with.
const FORMAT: &str = "brain.Event:2";
/// `DT_STRING` of TensorFlow's types.
const STRING: i32 = 7;

/// Bytes of a record: its length, its data, and a check of both.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let parts = [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()];
    parts.concat()
}

/// The check of a record: CRC32C, turned and moved, because a check within checked data would be weak.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A file of events that grows.
pub struct EventFile {
    path: PathBuf,
    /// Events that are not in the file yet.
    pending: Vec<u8>,
}

impl EventFile {
    /// A new file in `folder`, named so that TensorBoard finds it and reads files of one folder in their order. `label` tells
    /// the files of two sessions apart that begin in the same second.
    pub fn new(folder: &Path, begun: SystemTime, label: &str) -> EventFile {
        let seconds = seconds(begun).as_secs();
        let mut file = EventFile {
            path: folder.join(format!("events.out.tfevents.{seconds:010}.elbo.{label}")),
            pending: Vec::new(),
        };
        file.push(begun, 0, EventContent::FileVersion(FORMAT.into()));
        file
    }

    /// Where it is, or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A number of the curve `tag`.
    pub fn scalar(&mut self, at: SystemTime, step: u32, tag: &str, value: f64) {
        let content = ValueContent::SimpleValue(value as f32);
        self.value(at, step, SummaryValue { tag: tag.into(), metadata: None, content: Some(content) });
    }

    /// Text, read as Markdown.
    pub fn text(&mut self, at: SystemTime, step: u32, tag: &str, text: &str) {
        let plugin = PluginData { plugin_name: "text".into(), content: Vec::new() };
        let tensor = TextTensor { dtype: STRING, string_val: vec![text.as_bytes().to_vec()] };
        self.value(
            at,
            step,
            SummaryValue {
                tag: tag.into(),
                metadata: Some(SummaryMetadata { plugin_data: Some(plugin) }),
                content: Some(ValueContent::Tensor(tensor)),
            },
        );
    }

    /// A picture: the bytes of a PNG file, `channels` of them a pixel.
    pub fn image(&mut self, at: SystemTime, step: u32, tag: &str, [height, width, channels]: [usize; 3], png: &[u8]) {
        let image = SummaryImage {
            height: height as i32,
            width: width as i32,
            colorspace: channels as i32,
            encoded_image_string: png.to_vec(),
        };
        let content = Some(ValueContent::Image(image));
        self.value(at, step, SummaryValue { tag: tag.into(), metadata: None, content });
    }

    /// Adds to the file what was said since the last time.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn flush(&mut self) -> Result<()> {
        Disk.extend(&self.path, &std::mem::take(&mut self.pending))
    }

    fn value(&mut self, at: SystemTime, step: u32, value: SummaryValue) {
        self.push(at, step, EventContent::Summary(EventSummary { value: vec![value] }));
    }

    fn push(&mut self, at: SystemTime, step: u32, content: EventContent) {
        let event = Event { wall_time: seconds(at).as_secs_f64(), step: i64::from(step), what: Some(content) };
        self.pending.extend(record(&event.encode_to_vec()));
    }
}

fn seconds(at: SystemTime) -> Duration {
    // A clock before 1970 is one that was never set.
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a file, every check compared.
    fn read(mut bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at(8);
            let (check, rest) = rest.split_at(4);
            assert_eq!(u32::from_le_bytes(check.try_into().unwrap()), masked(length));
            let (data, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (check, rest) = rest.split_at(4);
            assert_eq!(u32::from_le_bytes(check.try_into().unwrap()), masked(data));
            events.push(Event::decode(data).unwrap());
            bytes = rest;
        }
        events
    }

    #[test]
    fn checks_are_those_of_the_format() {
        // CRC32C of nine digits is the example of every table of checksums; of 32 zeros that of RFC 3720.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked(b"123456789"), 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8));
        assert_eq!(record(b"").len(), 16);
    }

    #[test]
    fn what_is_said_can_be_read_back_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let begun = UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        let mut file = EventFile::new(folder.path(), begun, "7");
        file.text(begun, 0, "configuration", "seed 1");
        file.flush().unwrap();
        file.scalar(begun, 3, "epoch/test", 1.5);
        file.image(begun, 4, "samples", [2, 3, 1], b"png");
        file.flush().unwrap();
        assert!(file.path().ends_with("events.out.tfevents.1700000000.elbo.7"));
        let bytes = std::fs::read(file.path()).unwrap();
        let events = read(&bytes);
        assert_eq!(events.iter().map(|e| e.step).collect::<Vec<_>>(), [0, 0, 3, 4]);
        assert!(events.iter().all(|e| e.wall_time == 1_700_000_000.5));
        assert_eq!(events[0].what, Some(EventContent::FileVersion(FORMAT.into())));
        let value = |i: usize| match &events[i].what {
            Some(EventContent::Summary(summary)) => summary.value[0].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(value(2).content, Some(ValueContent::SimpleValue(1.5)));
        assert_eq!((value(2).tag.as_str(), value(3).tag.as_str()), ("epoch/test", "samples"));
        let mut damaged = bytes;
        *damaged.last_mut().unwrap() ^= 1;
        assert!(std::panic::catch_unwind(|| read(&damaged)).is_err());
    }
}
