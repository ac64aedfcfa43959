//! The IDX file format of MNIST: a reader that believes nothing, and a writer.
//!
//! ```text
//! 0 0            two zero bytes
//! t              element type: 08 u8, 09 i8, 0B i16, 0C i32, 0D f32, 0E f64
//! d              number of dimensions
//! n₁ … n_d       sizes, 32-bit big-endian, slowest first
//! elements       big-endian, row-major, n₁·…·n_d of them and nothing behind
//! ```
//!
//! A file may be gzip-compressed; that is recognised by its first bytes, not by its name. No memory is allocated from
//! what a header says: data are read as they arrive and reading stops one byte behind the size the header declares, so
//! neither a lying header nor a gzip bomb costs more than its declared size in memory that really was in the file.

use crate::engine::error::{Error, Result};
use crate::engine::file;
use byteorder::{BigEndian, ReadBytesExt, WriteBytesExt};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

/// What an IDX file's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 0x08: bytes, the only type this crate computes with.
    U8,
    /// 0x09: signed bytes.
    I8,
    /// 0x0B: 16-bit integers.
    I16,
    /// 0x0C: 32-bit integers.
    I32,
    /// 0x0D: single precision.
    F32,
    /// 0x0E: double precision.
    F64,
}

impl Element {
    /// The type of a code in the third byte of a file; `None` if the format has no such type.
    pub fn from_code(code: u8) -> Option<Element> {
        Some(match code {
            0x08 => Element::U8,
            0x09 => Element::I8,
            0x0B => Element::I16,
            0x0C => Element::I32,
            0x0D => Element::F32,
            0x0E => Element::F64,
            _ => return None,
        })
    }

    /// The name in messages, with the code.
    fn describe(self) -> &'static str {
        match self {
            Element::U8 => "unsigned bytes (0x08)",
            Element::I8 => "signed bytes (0x09)",
            Element::I16 => "16-bit integers (0x0B)",
            Element::I32 => "32-bit integers (0x0C)",
            Element::F32 => "32-bit floats (0x0D)",
            Element::F64 => "64-bit floats (0x0E)",
        }
    }

    /// Why this type is not read as `content`, and how to convert it; `None` for bytes.
    fn remedy(self, content: Content) -> Option<&'static str> {
        let images = content == Content::Images;
        Some(match self {
            Element::U8 => return None,
            Element::I8 if images => {
                "a pixel is a grey value 0…255: add 128 if -128 is black, and store unsigned bytes"
            }
            Element::I16 if images => "a pixel is a grey value 0…255: scale the 16-bit range to it and store bytes",
            Element::I32 if images => "a pixel is a grey value 0…255: scale the values to it and store bytes",
            Element::F32 | Element::F64 if images => {
                "a pixel is a grey value 0…255: store round(255·x) as bytes if x is in [0, 1]"
            }
            Element::I8 => "a label is a class 0…255: store unsigned bytes, after checking that none is negative",
            Element::I16 | Element::I32 => "a label is a class 0…255: store one unsigned byte per image",
            Element::F32 | Element::F64 => "a label is a class 0…255, not a measurement: store one byte per image",
        })
    }
}

/// What a file is read as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Images,
    Labels,
}

impl Content {
    fn dimensions(self) -> usize {
        match self {
            Content::Images => 3,
            Content::Labels => 1,
        }
    }
}

/// The images of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// How many.
    pub count: usize,
    /// Rows of pixels of each.
    pub height: usize,
    /// Pixels per row.
    pub width: usize,
    /// count · height · width grey values, row-major.
    pub pixels: Vec<u8>,
}

/// Reads the images of an IDX file, plain or gzip.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::File`] naming the field if it is not a well-formed IDX file of
/// unsigned bytes with three dimensions, none of them zero.
pub fn read_images(path: &Path) -> Result<Images> {
    images_from(open(path)?, path)
}

/// Reads the labels of an IDX file, plain or gzip.
///
/// # Errors
/// As [`read_images`], with one dimension.
pub fn read_labels(path: &Path) -> Result<Vec<u8>> {
    labels_from(open(path)?, path)
}

/// [`read_images`] from any source; `path` is only named in errors.
pub fn images_from(source: impl Read, path: &Path) -> Result<Images> {
    let (sizes, pixels) = parse(source, path, Content::Images)?;
    Ok(Images { count: sizes[0], height: sizes[1], width: sizes[2], pixels })
}

/// [`read_labels`] from any source; `path` is only named in errors.
pub fn labels_from(source: impl Read, path: &Path) -> Result<Vec<u8>> {
    Ok(parse(source, path, Content::Labels)?.1)
}

/// Writes unsigned bytes as an IDX file of the given sizes; gzip if the name ends in `.gz`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written. An older file of that name stays whole until the new one is complete.
///
/// # Panics
/// If `data` has another length than the product of `sizes`, or a size does not fit the format.
pub fn write_idx(path: &Path, sizes: &[usize], data: &[u8]) -> Result<()> {
    assert_eq!(sizes.iter().product::<usize>(), data.len(), "sizes {sizes:?} do not fit the data");
    let compress = path.extension().is_some_and(|extension| extension == "gz");
    file::replace(path, |out| {
        if compress {
            let mut gzip = GzEncoder::new(out, Compression::default());
            write_plain(&mut gzip, sizes, data)?;
            gzip.finish().map(|_| ())
        } else {
            write_plain(out, sizes, data)
        }
    })
}

fn write_plain(out: &mut impl Write, sizes: &[usize], data: &[u8]) -> io::Result<()> {
    out.write_all(&[0, 0, 0x08, u8::try_from(sizes.len()).expect("at most 255 dimensions")])?;
    for &size in sizes {
        out.write_u32::<BigEndian>(u32::try_from(size).expect("a size of at most 32 bits"))?;
    }
    out.write_all(data)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(Error::io("read", path))
}

/// Sizes and elements of a whole file.
fn parse(source: impl Read, path: &Path, content: Content) -> Result<(Vec<usize>, Vec<u8>)> {
    let mut buffered = BufReader::new(source);
    let start = buffered.fill_buf().map_err(Error::io("read", path))?;
    if start.starts_with(&[0x1F, 0x8B]) {
        Parser { source: MultiGzDecoder::new(buffered), path, content, gzip: true }.file()
    } else {
        Parser { source: buffered, path, content, gzip: false }.file()
    }
}

struct Parser<'a, R> {
    source: R,
    path: &'a Path,
    content: Content,
    gzip: bool,
}

impl<R: Read> Parser<'_, R> {
    fn file(&mut self) -> Result<(Vec<usize>, Vec<u8>)> {
        let dimensions = self.magic()?;
        let (sizes, expected) = self.sizes(dimensions)?;
        let data = self.data(expected)?;
        Ok((sizes, data))
    }

    /// The first four bytes; returns the number of dimensions.
    fn magic(&mut self) -> Result<usize> {
        let mut magic = [0; 4];
        self.header(&mut magic, "magic number")?;
        let [zero, zero_too, code, dimensions] = magic;
        let found = format!("0x{:08x}", u32::from_be_bytes(magic));
        if (zero, zero_too) != (0, 0) {
            return Err(self.wrong(
                "magic number",
                found,
                "two zero bytes first",
                "this is no IDX file; check the path",
            ));
        }
        let Some(element) = Element::from_code(code) else {
            let expected = "an IDX element type (08, 09, 0B, 0C, 0D or 0E) in the third byte";
            return Err(self.wrong("element type", found, expected, "this is no IDX file, or a damaged one"));
        };
        if let Some(remedy) = element.remedy(self.content) {
            return Err(self.wrong("element type", element.describe(), Element::U8.describe(), remedy));
        }
        if dimensions as usize != self.content.dimensions() {
            return Err(self.wrong_dimensions(dimensions));
        }
        Ok(dimensions as usize)
    }

    fn wrong_dimensions(&self, found: u8) -> Error {
        let (expected, remedy) = match (self.content, found) {
            (Content::Images, 1) => ("3: count, height, width", "this looks like a file of labels; give the images"),
            (Content::Images, 4) => ("3: count, height, width", "convert colour images to one grey channel"),
            (Content::Images, _) => ("3: count, height, width", "store grey images as count × height × width"),
            (Content::Labels, 3) => ("1: count", "this looks like a file of images; give the labels"),
            (Content::Labels, _) => ("1: count", "store one byte per image"),
        };
        self.wrong("number of dimensions", found, expected, remedy)
    }

    /// The sizes and their product.
    fn sizes(&mut self, dimensions: usize) -> Result<(Vec<usize>, usize)> {
        let mut sizes = Vec::with_capacity(dimensions);
        let mut product = Some(1usize);
        for i in 0..dimensions {
            let mut bytes = [0; 4];
            let name = ["count", "height", "width"][i];
            self.header(&mut bytes, name)?;
            let size = (&bytes[..]).read_u32::<BigEndian>().expect("four bytes") as usize;
            if size == 0 {
                return Err(self.wrong(name, 0, "at least 1", "the file holds no data; make or fetch it again"));
            }
            product = product.and_then(|product| product.checked_mul(size));
            sizes.push(size);
        }
        // One byte more is asked for than declared, and a Vec holds isize::MAX bytes at most.
        match product.filter(|&product| product < isize::MAX as usize) {
            Some(product) => Ok((sizes, product)),
            None => {
                let found = sizes.iter().map(|size| size.to_string()).collect::<Vec<_>>().join(" × ");
                Err(self.wrong(
                    "sizes",
                    found,
                    "a product that fits memory",
                    "the header is damaged; fetch the file again",
                ))
            }
        }
    }

    /// Fills `bytes` of the header.
    fn header(&mut self, bytes: &mut [u8], field: &str) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.source.read(&mut bytes[filled..]) {
                Ok(0) => {
                    let found = format!("the end of the file after {filled} of its {} bytes", bytes.len());
                    let remedy = "the file is empty or was cut off; fetch it again";
                    return Err(self.wrong(field, found, "a complete header", remedy));
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error, field)),
            }
        }
        Ok(())
    }

    /// Exactly `expected` elements, which grow in memory only as they arrive.
    fn data(&mut self, expected: usize) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        let limit = expected as u64 + 1;
        let outcome = (&mut self.source).take(limit).read_to_end(&mut data);
        if let Err(error) = outcome {
            return Err(self.unreadable(error, &format!("data after {} bytes", data.len())));
        }
        let wanted = format!("{expected} bytes, the product of the sizes");
        if data.len() < expected {
            let remedy = "the file was cut off; fetch it again";
            return Err(self.wrong("data", format!("{} bytes", data.len()), wanted, remedy));
        }
        if data.len() > expected {
            let remedy = "the header does not belong to these data, or something was appended; fetch the file again";
            return Err(self.wrong("data", format!("more than {expected} bytes"), wanted, remedy));
        }
        data.shrink_to_fit();
        Ok(data)
    }

    /// A read error: of the compressed stream if there is one, else of the operating system.
    fn unreadable(&self, error: io::Error, field: &str) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        if self.gzip && matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) {
            let found = match error.kind() {
                UnexpectedEof => "the end of the file inside the compressed stream".to_string(),
                _ => format!("a damaged stream ({error})"),
            };
            let field = format!("gzip stream, {field}");
            return self.wrong(
                &field,
                found,
                "a complete gzip file",
                "the file was cut off or damaged; fetch it again",
            );
        }
        Error::io("read", self.path)(error)
    }

    fn wrong(&self, field: &str, found: impl ToString, expected: impl ToString, remedy: &str) -> Error {
        Error::File {
            path: self.path.to_path_buf(),
            field: field.into(),
            found: found.to_string(),
            expected: expected.to_string(),
            remedy: remedy.into(),
        }
    }
}
