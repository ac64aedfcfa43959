//! IDX files: what is well formed is read back, what is not is refused by name, and nothing costs memory it should not.

use elbo::data::{Dataset, Split, Splits, idx, load};
use elbo::engine::error::Error;
use elbo::vae::Likelihood;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Counts what each thread holds, so that tests that run side by side do not disturb each other.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // The thread's counters may be gone while the thread ends.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The result of `f`, and how many bytes this thread held at most meanwhile, above what it held before.
fn peak<R>(f: impl FnOnce() -> R) -> (R, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, (PEAK.get() - before) as usize)
}

/// What reading may hold besides the data: file buffer, decompressor, messages.
const OVERHEAD: usize = 256 << 10;

fn header(code: u8, sizes: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0, 0, code, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes
}

fn file(code: u8, sizes: &[u32], data: &[u8]) -> Vec<u8> {
    [header(code, sizes), data.to_vec()].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn images(bytes: &[u8]) -> Result<idx::Images, Error> {
    idx::images_from(bytes, Path::new("digits.idx"))
}

/// Asserts that `error` is an [`Error::File`] of `digits.idx` about `field`, and that its parts hold what is named.
#[track_caller]
fn assert_names<T: std::fmt::Debug>(result: Result<T, Error>, field: &str, found: &str, expected: &str, remedy: &str) {
    let error = result.unwrap_err();
    let text = error.to_string();
    let Error::File { path, field: f, found: fo, expected: e, remedy: r } = error else { panic!("{text}") };
    assert_eq!(path, Path::new("digits.idx"));
    assert!(f.contains(field), "field {field:?} in: {text}");
    assert!(fo.contains(found), "found {found:?} in: {text}");
    assert!(e.contains(expected), "expected {expected:?} in: {text}");
    assert!(r.contains(remedy), "remedy {remedy:?} in: {text}");
}

#[test]
fn a_good_file_is_read_plain_and_compressed() {
    let pixels: Vec<u8> = (0..24).collect();
    let good = file(8, &[2, 3, 4], &pixels);
    let wanted = idx::Images { count: 2, height: 3, width: 4, pixels };
    assert_eq!(images(&good).unwrap(), wanted);
    assert_eq!(images(&gzip(&good)).unwrap(), wanted);
    // Several members in a row are one gzip file.
    assert_eq!(images(&[gzip(&good[..9]), gzip(&good[9..])].concat()).unwrap(), wanted);
}

#[test]
fn magic_numbers() {
    assert_names(images(b"\x89PNG\r\n\x1a\n"), "magic number", "0x89504e47", "two zero bytes", "no IDX file");
    assert_names(images(&[0, 0, 0x0A, 3]), "element type", "0x00000a03", "08, 09, 0B, 0C, 0D or 0E", "no IDX file");
    assert_names(images(b""), "magic number", "after 0 of its 4 bytes", "complete header", "fetch it again");
    assert_names(images(&[0, 0, 8]), "magic number", "after 3 of its 4 bytes", "complete header", "fetch it again");
}

#[test]
fn every_element_type_is_refused_for_its_own_reason_or_read() {
    let labels = |code| idx::labels_from(&file(code, &[1], &[7])[..], Path::new("digits.idx"));
    let pixels = |code| images(&file(code, &[1, 1, 1], &[7]));
    assert_eq!((pixels(0x08).unwrap().pixels, labels(0x08).unwrap()), (vec![7], vec![7]));
    for (code, found, for_images, for_labels) in [
        (0x09, "signed bytes (0x09)", "add 128", "none is negative"),
        (0x0B, "16-bit integers (0x0B)", "scale the 16-bit range", "one unsigned byte per image"),
        (0x0C, "32-bit integers (0x0C)", "scale the values", "one unsigned byte per image"),
        (0x0D, "32-bit floats (0x0D)", "round(255·x)", "not a measurement"),
        (0x0E, "64-bit floats (0x0E)", "round(255·x)", "not a measurement"),
    ] {
        assert_names(pixels(code), "element type", found, "unsigned bytes (0x08)", for_images);
        assert_names(labels(code), "element type", found, "unsigned bytes (0x08)", for_labels);
    }
}

#[test]
fn dimensions() {
    let field = "number of dimensions";
    let labels = |sizes: &[u32]| idx::labels_from(&file(8, sizes, &[0; 24])[..], Path::new("digits.idx"));
    assert_names(images(&file(8, &[24], &[0; 24])), field, "1", "3: count, height, width", "labels");
    assert_names(images(&file(8, &[6, 4], &[0; 24])), field, "2", "3: count, height, width", "count × height × width");
    assert_names(images(&file(8, &[2, 2, 2, 3], &[0; 24])), field, "4", "3: count, height, width", "grey channel");
    assert_names(images(&file(8, &[], &[])), field, "0", "3: count, height, width", "count × height × width");
    assert_names(labels(&[2, 3, 4]), field, "3", "1: count", "images");
    assert_names(labels(&[3, 8]), field, "2", "1: count", "one byte per image");
}

#[test]
fn sizes() {
    for (i, name) in ["count", "height", "width"].into_iter().enumerate() {
        let mut sizes = [2, 3, 4];
        sizes[i] = 0;
        assert_names(images(&file(8, &sizes, &[])), name, "0", "at least 1", "no data");
        let cut = &header(8, &[2, 3, 4])[..4 + 4 * i + 1];
        assert_names(images(cut), name, "after 1 of its 4 bytes", "complete header", "cut off");
    }
    let huge = file(8, &[u32::MAX, u32::MAX, u32::MAX], &[1, 2, 3]);
    assert_names(images(&huge), "sizes", "4294967295 × 4294967295 × 4294967295", "fits memory", "damaged");
}

#[test]
fn data_of_another_length() {
    let good = file(8, &[2, 3, 4], &[9; 24]);
    for bytes in [good[..39].to_vec(), gzip(&good[..39])] {
        assert_names(images(&bytes), "data", "23 bytes", "24 bytes, the product", "cut off");
    }
    let long = [&good[..], &[0]].concat();
    for bytes in [long.clone(), gzip(&long)] {
        assert_names(images(&bytes), "data", "more than 24 bytes", "24 bytes, the product", "appended");
    }
}

#[test]
fn damaged_compression() {
    let noise: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let good = gzip(&file(8, &[4, 32, 32], &noise));
    let expected = "a complete gzip file";
    assert_names(
        images(&good[..good.len() / 2]),
        "gzip stream, data after",
        "the end of the file",
        expected,
        "cut off",
    );
    assert_names(
        images(&good[..good.len() - 3]),
        "gzip stream, data after",
        "the end of the file",
        expected,
        "cut off",
    );
    assert_names(images(&good[..6]), "gzip stream, magic", "the end of the file", expected, "fetch it again");
    let mut wrong_sum = good.clone();
    let place = wrong_sum.len() - 6;
    wrong_sum[place] ^= 1;
    assert_names(images(&wrong_sum), "gzip stream, data after 4096", "damaged stream", expected, "fetch it again");
    let followed = [&good[..], b"something else"].concat();
    assert_names(images(&followed), "gzip stream, data after 4096", "damaged stream", expected, "fetch it again");
}

#[test]
fn a_header_alone_allocates_nothing() {
    let lying = file(8, &[60_000, 1 << 15, 1 << 15], &[0; 100]);
    for bytes in [lying.clone(), gzip(&lying)] {
        let (result, held) = peak(|| images(&bytes));
        assert_names(result, "data", "100 bytes", "64424509440000 bytes", "cut off");
        assert!(held < OVERHEAD, "{held} bytes held for a file of {}", bytes.len());
    }
}

#[test]
fn a_gzip_bomb_is_cut_at_the_declared_size() {
    let bomb = gzip(&file(8, &[10, 28, 28], &vec![0; 200 << 20]));
    let (result, held) = peak(|| images(&bomb));
    assert_names(result, "data", "more than 7840 bytes", "7840 bytes", "header");
    assert!(held < OVERHEAD, "{held} bytes held");
}

#[test]
fn files_that_cannot_be_opened_say_so() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("absent"), folder.path().to_path_buf()] {
        let error = idx::read_images(&path).unwrap_err();
        assert!(matches!(&error, Error::Io { action: "read", path: p, .. } if *p == path), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_panic_nor_take_memory(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        check_bounded(&bytes)?;
    }

    /// Bytes that begin like an IDX file reach the code behind the magic number; compressed ones the decompressor.
    #[test]
    fn almost_idx_files_never_panic_nor_take_memory(
        code in prop_oneof![Just(8u8), any::<u8>()],
        sizes in proptest::collection::vec(prop_oneof![0u32..40, any::<u32>()], 0..5),
        data in proptest::collection::vec(any::<u8>(), 0..2000),
        cut in 0usize..2100,
        flip in proptest::option::of((0usize..2100, any::<u8>())),
    ) {
        let mut plain = file(code, &sizes, &data);
        check_bounded(&plain)?;
        let mut packed = gzip(&plain);
        for bytes in [&mut plain, &mut packed] {
            bytes.truncate(cut.max(2));
            if let Some((place, mask)) = flip && place < bytes.len() {
                bytes[place] ^= mask;
            }
            check_bounded(bytes)?;
        }
    }

    #[test]
    fn what_is_written_is_read(
        (count, height, width) in (1usize..6, 1usize..9, 1usize..9),
        seed in any::<u8>(),
        compress in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if compress { "a/b/x.idx.gz" } else { "a/b/x.idx" });
        let pixels: Vec<u8> = (0..count * height * width).map(|i| (i as u8).wrapping_mul(37) ^ seed).collect();
        idx::write_idx(&path, &[count, height, width], &pixels).unwrap();
        prop_assert_eq!(std::fs::read(&path).unwrap().starts_with(&[0x1f, 0x8b]), compress);
        prop_assert_eq!(idx::read_images(&path).unwrap(), idx::Images { count, height, width, pixels: pixels.clone() });
        idx::write_idx(&path, &[pixels.len()], &pixels).unwrap();
        prop_assert_eq!(idx::read_labels(&path).unwrap(), pixels);
        prop_assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file was left");
    }
}

/// Whatever the bytes: a result, and memory bounded by what they hold. Deflate packs at most about 1032 : 1.
fn check_bounded(bytes: &[u8]) -> Result<(), TestCaseError> {
    let unpacked = if bytes.starts_with(&[0x1f, 0x8b]) { 1032 * bytes.len() } else { bytes.len() };
    for read in [|b: &[u8]| images(b).map(drop), |b: &[u8]| idx::labels_from(b, Path::new("x")).map(drop)] {
        let (_, held) = peak(|| read(bytes));
        prop_assert!(held < OVERHEAD + 4 * unpacked, "{held} bytes held for {} bytes", bytes.len());
    }
    Ok(())
}

/// Writes a small data set under the given names.
fn folder_with(names: [&str; 4], digits: &Splits) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (set, names) in [(&digits.train, &names[..2]), (&digits.test, &names[2..])] {
        write_images(&folder.path().join(names[0]), set);
        let labels = set.labels.as_ref().unwrap();
        idx::write_idx(&folder.path().join(names[1]), &[set.rows], labels).unwrap();
    }
    folder
}

fn write_images(path: &Path, set: &Dataset) {
    idx::write_idx(path, &[set.rows, set.height, set.width], &set.images).unwrap();
}

#[test]
fn a_folder_is_searched_for_the_usual_names() {
    let digits = Splits::digits(1, 30, 20);
    for names in [
        ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
        ["train-images.idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "test-images.idx.gz", "test-labels.idx1-ubyte"],
        ["raw/train-images.idx", "raw/train-labels.idx", "MNIST/raw/t10k-images.idx3-ubyte", "t10k-labels.idx"],
    ] {
        let folder = folder_with(names, &digits);
        let read = load(folder.path()).unwrap();
        for (read, made, split) in [(&read.train, &digits.train, Split::Train), (&read.test, &digits.test, Split::Test)]
        {
            assert_eq!(read.split, split);
            assert_eq!((&read.images, &read.labels), (&made.images, &made.labels));
            assert_eq!((read.rows, read.cols, read.width, read.height), (made.rows, 784, 28, 28));
            assert_eq!(read.name, folder.path().file_name().unwrap().to_string_lossy());
        }
    }
}

#[test]
fn a_folder_with_something_missing_or_mixed_says_what() {
    const NAMES: [&str; 4] = ["train-images.idx", "train-labels.idx", "t10k-images.idx", "t10k-labels.idx"];
    let digits = Splits::digits(1, 30, 20);
    let folder = folder_with(NAMES, &digits);
    let at = |name: &str| folder.path().join(name);

    // Labels may be missing, but not too few.
    std::fs::remove_file(at(NAMES[3])).unwrap();
    assert_eq!(load(folder.path()).unwrap().test.labels, None);
    idx::write_idx(&at(NAMES[3]), &[19], &[0; 19]).unwrap();
    let text = load(folder.path()).unwrap_err().to_string();
    assert!(text.starts_with(&format!("{}: count: found 19 labels, expected 20", at(NAMES[3]).display())), "{text}");
    std::fs::remove_file(at(NAMES[3])).unwrap();

    // Sets of two image sizes.
    idx::write_idx(&at(NAMES[2]), &[20, 14, 56], &digits.test.images).unwrap();
    let text = load(folder.path()).unwrap_err().to_string();
    assert!(text.contains("t10k-images.idx: width × height: found 56 × 14, expected 28 × 28"), "{text}");

    // No test images, then no training images: the names searched are listed.
    std::fs::remove_file(at(NAMES[2])).unwrap();
    let text = load(folder.path()).unwrap_err().to_string();
    assert!(text.contains("test images: found none") && text.contains("t10k-images-idx3-ubyte.gz"), "{text}");
    std::fs::remove_file(at(NAMES[0])).unwrap();
    let text = load(folder.path()).unwrap_err().to_string();
    assert!(text.contains("training images: found none") && text.contains("train-images.idx3-ubyte"), "{text}");

    // A file where a folder belongs, and nothing at all.
    let text = load(&at(NAMES[1])).unwrap_err().to_string();
    assert!(text.contains("found a file, expected a folder"), "{text}");
    assert!(matches!(load(&at("absent")), Err(Error::Io { .. })));
}

#[test]
fn binarisation_is_what_its_name_says() {
    let set = Splits::digits(1, 2000, 2000);
    let threshold = set.test.binarise_threshold();
    assert!(set.test.images.iter().zip(&threshold.images).all(|(&grey, &bit)| bit == if grey > 127 { 255 } else { 0 }));

    let fixed = set.test.binarise_fixed(3);
    assert_eq!(fixed, set.test.binarise_fixed(3));
    assert_ne!(fixed.images, set.test.binarise_fixed(4).images);
    assert!(fixed.images.iter().zip(&set.test.images).all(|(&bit, &grey)| match grey {
        0 => bit == 0,
        255 => bit == 255,
        _ => bit == 0 || bit == 255,
    }));
    // The mean is kept: 1.6 million pixels of variance at most ¼ give it a deviation below 0.0004.
    assert!((fixed.histograms().mean() - set.test.histograms().mean()).abs() < 0.0016);
    // A prefix of the set is binarised to a prefix.
    let mut prefix = set.test.clone();
    (prefix.rows, prefix.labels) = (5, None);
    prefix.images.truncate(5 * 784);
    assert_eq!(prefix.binarise_fixed(3).images, fixed.images[..5 * 784]);
    assert_eq!(Likelihood::bernoulli().baselines(&fixed.histograms())[3].nats, 0.0);
}

/// MNIST, if it is there: `ELBO_MNIST`, else the folder `shared/data/mnist` beside the project.
fn mnist() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mnist");
    let folder = std::env::var_os("ELBO_MNIST").map_or_else(beside, PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: no MNIST at {}; set ELBO_MNIST to a folder with its four files", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn mnist_is_read_and_put_on_its_known_scale() {
    let Some(folder) = mnist() else { return };
    let set = load(&folder).unwrap();
    assert_eq!((set.train.rows, set.test.rows, set.test.cols), (60_000, 10_000, 784));
    assert_eq!(set.train.labels.as_ref().unwrap()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(set.test.labels.as_ref().unwrap()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    let scale = Likelihood::bernoulli().baselines(&set.test.histograms());
    // A coin, one rate, a rate per pixel, and the entropy of the grey values.
    for (baseline, expected) in scale.iter().zip([543.43, 306.65, 205.65, 45.53]) {
        approx::assert_abs_diff_eq!(baseline.nats, expected, epsilon = 0.005);
    }
    approx::assert_abs_diff_eq!(set.test.histograms().mean(), 0.1325, epsilon = 0.00005);
    approx::assert_abs_diff_eq!(set.test.histograms().variance(), 52.85, epsilon = 0.005);
}
