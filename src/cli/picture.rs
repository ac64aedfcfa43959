//! Pictures for people: sheets of images, decoded manifolds, and the scatter of a two-dimensional latent space.
//!
//! A [`Picture`] is a plain buffer of bytes that knows how to become a PNG file. The few words and numbers in a scatter
//! plot are set in a font of 5×7 pixels that lives at the end of this file.

use crate::engine::error::Result;
use crate::engine::file::{Disk, Files};
use crate::study::plot::PALETTE;
use std::path::Path;

/// Grey value between the images of a sheet.
const GAP_GREY: u8 = 46;
/// Pixels between the images of a sheet, before enlargement.
const GAP: usize = 2;

/// A raster image in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes per pixel: 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// `[height, width, channels]`
    pub pixels: Vec<u8>,
    /// What it shows, which the file says too; nothing where that is empty.
    pub shows: String,
}

impl Picture {
    fn new(width: usize, height: usize, colour: &[u8]) -> Picture {
        Picture { width, height, channels: colour.len(), pixels: colour.repeat(width * height), shows: String::new() }
    }

    /// The picture with a line that says what it shows.
    #[must_use]
    pub fn showing(self, shows: impl Into<String>) -> Picture {
        Picture { shows: shows.into(), ..self }
    }

    /// The bytes of a PNG file. What it shows is its text `Description` (tEXt, of which the letters are Latin-1: others are
    /// spelled out).
    pub fn png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(if self.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
        encoder.set_depth(png::BitDepth::Eight);
        if !self.shows.is_empty() {
            let said = encoder.add_text_chunk("Description".into(), spelled_out(&self.shows));
            said.expect("no name of a Greek letter is too long");
        }
        let written = encoder.write_header().and_then(|mut writer| {
            writer.write_image_data(&self.pixels)?;
            writer.finish()
        });
        written.expect("a picture has the pixels of its size, and memory takes all");
        bytes
    }

    /// Writes a PNG file; folders are created, and an older file stays whole until the new one is complete.
    ///
    /// # Errors
    /// [`Error::Io`](crate::engine::error::Error::Io) if the file cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<()> {
        Disk.replace(path, &self.png())
    }

    /// Every pixel `factor` × `factor` times as large.
    fn enlarged(&self, factor: usize) -> Picture {
        let (width, height) = (self.width * factor, self.height * factor);
        let mut pixels = Vec::with_capacity(width * height * self.channels);
        for row in self.pixels.chunks_exact(self.width * self.channels) {
            let wide: Vec<u8> = row.chunks_exact(self.channels).flat_map(|pixel| pixel.repeat(factor)).collect();
            pixels.extend(wide.repeat(factor));
        }
        Picture { width, height, pixels, ..self.clone() }
    }
}

/// Greek letters by their names, and what else is not in Latin-1 as a question mark.
fn spelled_out(text: &str) -> String {
    let spell = |letter: char| match letter {
        'μ' => "mu".to_string(),
        'σ' => "sigma".into(),
        '−' => "-".into(),
        letter if u32::from(letter) < 256 => letter.into(),
        _ => "?".into(),
    };
    text.chars().map(spell).collect()
}

/// Grey images side by side, `columns` in a row, gaps between them, every pixel enlarged `zoom` times.
///
/// `images` is `[n, height, width]`, row-major grey values.
///
/// # Panics
/// If `images` is no whole number of images, or a size is zero.
pub fn montage(images: &[u8], width: usize, height: usize, columns: usize, zoom: usize) -> Picture {
    sheet(images, width, height, columns, GAP).enlarged(zoom)
}

/// Originals and, below each, its reconstruction: rows of originals and rows of reconstructions alternate.
///
/// Both are `[n, height, width]`; an incomplete last row is filled with black.
///
/// # Panics
/// If the two differ in length, and as [`montage`].
pub fn pairs(originals: &[u8], copies: &[u8], width: usize, height: usize, columns: usize, zoom: usize) -> Picture {
    assert_eq!(originals.len(), copies.len(), "every original needs its reconstruction");
    let row = width * height * columns;
    let mut alternate = Vec::with_capacity(2 * originals.len());
    for (above, below) in originals.chunks(row).zip(copies.chunks(row)) {
        for half in [above, below] {
            alternate.extend_from_slice(half);
            alternate.resize(alternate.len().next_multiple_of(row), 0);
        }
    }
    montage(&alternate, width, height, columns, zoom)
}

/// A grid of images decoded from a grid of latent points: a montage without gaps, so that neighbours flow together.
///
/// `images` is `[n, height, width]`, row by row of the grid from its top.
///
/// # Panics
/// As [`montage`].
pub fn manifold(images: &[u8], width: usize, height: usize, columns: usize, zoom: usize) -> Picture {
    sheet(images, width, height, columns, 0).enlarged(zoom)
}

fn sheet(images: &[u8], width: usize, height: usize, columns: usize, gap: usize) -> Picture {
    assert!(width > 0 && height > 0 && columns > 0 && !images.is_empty(), "a sheet of nothing");
    assert_eq!(images.len() % (width * height), 0, "no whole number of {width}×{height} images");
    let count = images.len() / (width * height);
    let columns = columns.min(count);
    let rows = count.div_ceil(columns);
    let (sheet_width, sheet_height) = (columns * (width + gap) + gap, rows * (height + gap) + gap);
    let mut sheet = Picture::new(sheet_width, sheet_height, &[GAP_GREY]);
    for (i, image) in images.chunks_exact(width * height).enumerate() {
        let (left, top) = (gap + i % columns * (width + gap), gap + i / columns * (height + gap));
        for (y, line) in image.chunks_exact(width).enumerate() {
            sheet.pixels[(top + y) * sheet.width + left..][..width].copy_from_slice(line);
        }
    }
    sheet
}

// ---------------------------------------------------------------------------------------------- the scatter plot

const PAPER: [u8; 3] = [250, 250, 247];
const PLOT: [u8; 3] = [255, 255, 255];
const RULE: [u8; 3] = [228, 228, 224];
const TEXT: [u8; 3] = [60, 60, 60];

/// Side of the plotting area in pixels, and the margins around it.
const SIDE: usize = 800;
const LEFT: usize = 78;
const TOP: usize = 28;
const RIGHT: usize = 92;
const BOTTOM: usize = 74;
/// Enlargement of the 5×7 font for numbers and names.
const FONT: usize = 2;

/// Points of the latent plane: axes with numbers, and dots in the colours of their classes with a legend, or in one colour
/// where no classes are known. Up to ten classes have the diagrams' own colours; of more, each has one of its own.
///
/// Both axes have the same scale and show all points but the farthest 0.1 % in each direction, symmetric about 0. The
/// dots are drawn in the order of `points`, so that no class lies on top of the others as a whole. Points outside
/// the square, or not finite, are left out.
///
/// # Panics
/// If `labels` and `points` differ in length.
pub fn scatter(points: &[[f32; 2]], labels: Option<&[u8]>) -> Picture {
    assert!(labels.is_none_or(|labels| labels.len() == points.len()), "every point needs its label");
    let classes = labels.map_or(Vec::new(), classes);
    let columns = classes.len().div_ceil(LEGEND_ROWS).max(1);
    let right = RIGHT + (columns - 1) * LEGEND_COLUMN;
    let mut picture = Picture::new(LEFT + SIDE + right, TOP + SIDE + BOTTOM, &PAPER);
    // [class]
    let mut colours = [PALETTE[0]; 256];
    classes.iter().enumerate().for_each(|(i, &class)| colours[usize::from(class)] = colour(i, classes.len()));
    let reach = reach(points);
    let pixel = |value: f32| (value / reach + 1.0) * 0.5 * SIDE as f32;
    picture.rectangle(LEFT, TOP, SIDE, SIDE, PLOT);
    axes(&mut picture, reach, pixel);
    let (radius, alpha) = match points.len() {
        0..=2_000 => (4.0, 0.75),
        2_001..=20_000 => (2.6, 0.6),
        _ => (1.7, 0.45),
    };
    for (i, &[x, y]) in points.iter().enumerate() {
        let colour = labels.map_or(PALETTE[0], |labels| colours[usize::from(labels[i])]);
        let (x, y) = (pixel(x), SIDE as f32 - pixel(y));
        let inside = |v: f32| v > radius && v < SIDE as f32 - radius;
        if inside(x) && inside(y) {
            picture.dot(LEFT as f32 + x, TOP as f32 + y, radius, colour, alpha);
        }
    }
    picture.frame(LEFT, TOP, SIDE, SIDE, [170, 170, 166]);
    legend(&mut picture, &classes);
    picture
}

/// Half the side of the square shown: covers 99.9 % of the coordinates, and a little more. Never below 0.05, so that a
/// collapsed encoder is seen as a point and not enlarged to a cloud.
fn reach(points: &[[f32; 2]]) -> f32 {
    let mut sizes: Vec<f32> = points.as_flattened().iter().map(|value| value.abs()).filter(|v| v.is_finite()).collect();
    sizes.sort_unstable_by(f32::total_cmp);
    let quantile = sizes.get(sizes.len().saturating_sub(1) - sizes.len() / 1000).copied().unwrap_or(1.0);
    (quantile * 1.06).clamp(0.05, f32::MAX)
}

/// Distance of the axis numbers, and the decimals they need: 1, 2 or 5 times a power of ten, giving at most five
/// numbers on either side of 0.
fn tick_distance(reach: f32) -> (f32, usize) {
    let mut power = -2;
    loop {
        for digit in [1.0, 2.0, 5.0] {
            let step = digit * 10f32.powi(power);
            if reach / step <= 5.0 {
                return (step, (-power).max(0) as usize);
            }
        }
        power += 1;
    }
}

fn axes(picture: &mut Picture, reach: f32, pixel: impl Fn(f32) -> f32) {
    let (step, decimals) = tick_distance(reach);
    let count = (reach / step) as i32;
    for i in -count..=count {
        let value = i as f32 * step;
        let (place, rule) = (pixel(value) as usize, if i == 0 { [178, 178, 174] } else { RULE });
        picture.rectangle(LEFT + place, TOP, 1, SIDE, rule);
        picture.rectangle(LEFT, TOP + SIDE - place, SIDE, 1, rule);
        let number = if step < 1e3 { format!("{value:.decimals$}") } else { format!("{value:.0e}") };
        let width = text_width(&number);
        picture.text(LEFT + place - width / 2, TOP + SIDE + 9, &number);
        picture.text((LEFT - 9).saturating_sub(width), TOP + SIDE - place - 7 * FONT / 2, &number);
    }
    picture.text(LEFT + (SIDE - text_width("mean of z1")) / 2, TOP + SIDE + 42, "mean of z1");
    picture.text_upwards(14, TOP + (SIDE + text_width("mean of z2")) / 2, "mean of z2");
}

/// The classes of the legend, in increasing order: the ten digits where nothing else occurs, else those that do.
fn classes(labels: &[u8]) -> Vec<u8> {
    let mut seen = [false; 256];
    labels.iter().for_each(|&label| seen[usize::from(label)] = true);
    match seen[10..].contains(&true) {
        false => (0..10).collect(),
        true => (0..=255).filter(|&class: &u8| seen[usize::from(class)]).collect(),
    }
}

/// The colour of class number `i` of `count`: beyond the palette, hues around the circle in three shades in turn, so that
/// neighbours in hue differ in lightness.
fn colour(i: usize, count: usize) -> [u8; 3] {
    if count <= PALETTE.len() {
        return PALETTE[i];
    }
    let hue = 6.0 * i as f32 / count as f32;
    let (light, strength) = [(0.45, 0.45), (0.62, 0.32), (0.3, 0.28)][i % 3];
    // A wave for each of red, green and blue, a third of the circle apart (HSL).
    [0.0, 4.0, 2.0].map(|phase: f32| {
        let distance = ((hue + phase) % 6.0 - 3.0).abs();
        ((light + strength * (2.0 * (distance - 1.0).clamp(0.0, 1.0) - 1.0)) * 255.0).round().clamp(0.0, 255.0) as u8
    })
}

/// Rows of the legend that are as high as the plot, at the smallest distance; more classes take further columns.
const LEGEND_ROWS: usize = 42;
/// Width of such a column, in pixels.
const LEGEND_COLUMN: usize = 72;

fn legend(picture: &mut Picture, classes: &[u8]) {
    let Some(last) = classes.last() else { return };
    let left = LEFT + SIDE + 26;
    picture.text(left - 6, TOP + 4, if *last < 10 { "digit" } else { "class" });
    let rows = classes.len().min(LEGEND_ROWS);
    let (distance, radius) = if rows <= 25 { (30, 7.0) } else { (18, 6.0) };
    for (i, class) in classes.iter().enumerate() {
        let (x, y) = (left + i / LEGEND_ROWS * LEGEND_COLUMN, TOP + 44 + i % LEGEND_ROWS * distance);
        picture.dot(x as f32 + 4.0, y as f32 + 7.0, radius, colour(i, classes.len()), 1.0);
        picture.text(x + 24, y, &class.to_string());
    }
}

impl Picture {
    fn rectangle(&mut self, left: usize, top: usize, width: usize, height: usize, colour: [u8; 3]) {
        for y in top..(top + height).min(self.height) {
            for x in left..(left + width).min(self.width) {
                self.pixels[(y * self.width + x) * 3..][..3].copy_from_slice(&colour);
            }
        }
    }

    /// The four sides of a rectangle, one pixel wide.
    fn frame(&mut self, left: usize, top: usize, width: usize, height: usize, colour: [u8; 3]) {
        self.rectangle(left, top, width, 1, colour);
        self.rectangle(left, top + height, width + 1, 1, colour);
        self.rectangle(left, top, 1, height, colour);
        self.rectangle(left + width, top, 1, height, colour);
    }

    /// A filled circle with a smooth edge, mixed into what is there with weight `alpha`.
    fn dot(&mut self, x: f32, y: f32, radius: f32, colour: [u8; 3], alpha: f32) {
        let range = |centre: f32, end: usize| {
            let low = (centre - radius - 1.0).max(0.0) as usize;
            low..((centre + radius + 2.0) as usize).min(end)
        };
        for row in range(y, self.height) {
            for column in range(x, self.width) {
                let (dx, dy) = (column as f32 + 0.5 - x, row as f32 + 0.5 - y);
                let weight = alpha * (radius + 0.5 - (dx * dx + dy * dy).sqrt()).clamp(0.0, 1.0);
                for (old, new) in self.pixels[(row * self.width + column) * 3..][..3].iter_mut().zip(colour) {
                    *old = (*old as f32 + weight * (new as f32 - *old as f32) + 0.5) as u8;
                }
            }
        }
    }

    /// Text whose upper left corner is at (left, top).
    fn text(&mut self, left: usize, top: usize, text: &str) {
        for (x, y) in text_dots(text) {
            self.rectangle(left + x * FONT, top + y * FONT, FONT, FONT, TEXT);
        }
    }

    /// Text that reads from bottom to top; its lower left corner is at (left, bottom).
    fn text_upwards(&mut self, left: usize, bottom: usize, text: &str) {
        for (x, y) in text_dots(text) {
            self.rectangle(left + y * FONT, bottom - (x + 1) * FONT, FONT, FONT, TEXT);
        }
    }
}

fn text_width(text: &str) -> usize {
    (text.chars().count() * 6).saturating_sub(1) * FONT
}

/// The set dots of a line of text, in units of the font.
fn text_dots(text: &str) -> impl Iterator<Item = (usize, usize)> {
    text.chars().enumerate().flat_map(|(place, letter)| {
        let (rows, descent) = (glyph(letter), if letter == 'g' { 2 } else { 0 });
        (0..7).flat_map(move |y| {
            (0..5).filter(move |x| rows[y] >> (4 - x) & 1 == 1).map(move |x| (place * 6 + x, y + descent))
        })
    })
}

/// A letter of the 5×7 font: seven rows from the top, the leftmost dot in bit 4. Letters without a row are blank.
#[rustfmt::skip]
fn glyph(letter: char) -> [u8; 7] {
    match letter {
        '0' => [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110],
        '1' => [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
        '2' => [0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111],
        '3' => [0b01110, 0b10001, 0b00001, 0b00110, 0b00001, 0b10001, 0b01110],
        '4' => [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
        '5' => [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
        '6' => [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
        '7' => [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000],
        '8' => [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
        '9' => [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
        '-' => [0, 0, 0, 0b11111, 0, 0, 0],
        '.' => [0, 0, 0, 0, 0, 0b01100, 0b01100],
        'a' => [0, 0, 0b01110, 0b00001, 0b01111, 0b10001, 0b01111],
        'c' => [0, 0, 0b01110, 0b10001, 0b10000, 0b10001, 0b01110],
        'd' => [0b00001, 0b00001, 0b01101, 0b10011, 0b10001, 0b10001, 0b01111],
        'e' => [0, 0, 0b01110, 0b10001, 0b11111, 0b10000, 0b01110],
        'f' => [0b00110, 0b01001, 0b01000, 0b11100, 0b01000, 0b01000, 0b01000],
        'g' => [0b01111, 0b10001, 0b10001, 0b01111, 0b00001, 0b10001, 0b01110],
        'i' => [0b00100, 0, 0b01100, 0b00100, 0b00100, 0b00100, 0b01110],
        'l' => [0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
        'm' => [0, 0, 0b11010, 0b10101, 0b10101, 0b10101, 0b10101],
        'n' => [0, 0, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001],
        'o' => [0, 0, 0b01110, 0b10001, 0b10001, 0b10001, 0b01110],
        's' => [0, 0, 0b01111, 0b10000, 0b01110, 0b00001, 0b11110],
        't' => [0b01000, 0b01000, 0b11100, 0b01000, 0b01000, 0b01001, 0b00110],
        'z' => [0, 0, 0b11111, 0b00010, 0b00100, 0b01000, 0b11111],
        _ => [0; 7],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_has_gaps_and_keeps_its_pixels() {
        // Three images of 2×1 in two columns: gaps of 2 around them.
        let sheet = montage(&[10, 11, 20, 21, 30, 31], 2, 1, 2, 1);
        assert_eq!((sheet.width, sheet.height, sheet.channels), (10, 8, 1));
        let at = |x: usize, y: usize| sheet.pixels[y * 10 + x];
        assert_eq!([at(2, 2), at(3, 2), at(6, 2), at(7, 2), at(2, 5), at(3, 5)], [10, 11, 20, 21, 30, 31]);
        assert_eq!(sheet.pixels.iter().filter(|&&pixel| pixel == GAP_GREY).count(), 80 - 6);

        let grid = manifold(&[1, 2, 3, 4], 1, 1, 2, 3);
        assert_eq!((grid.width, grid.height), (6, 6));
        assert_eq!(grid.pixels[..12], [1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2]);
        assert_eq!(grid.pixels[30..], [3, 3, 3, 4, 4, 4]);
    }

    #[test]
    fn pairs_alternate_rows() {
        let sheet = pairs(&[1, 2, 3], &[4, 5, 6], 1, 1, 2, 1);
        let shown: Vec<u8> = sheet.pixels.iter().copied().filter(|&pixel| pixel != GAP_GREY).collect();
        assert_eq!(shown, [1, 2, 4, 5, 3, 0, 6, 0]);
    }

    #[test]
    fn a_scatter_survives_any_points() {
        let empty = scatter(&[], Some(&[]));
        assert_eq!(empty.pixels.len(), empty.width * empty.height * 3);
        for scale in [0.0, 1e-12, 1e-3, 1.0, 1e4, 1e20, f32::MAX, f32::INFINITY, f32::NAN] {
            let points = [[scale, -scale], [0.5 * scale, 0.0], [f32::NAN, 1.0]];
            assert_eq!(scatter(&points, Some(&[0, 9, 255])).pixels.len(), empty.pixels.len(), "{scale}");
        }
    }

    #[test]
    fn every_class_has_a_colour_of_its_own_and_is_in_the_legend() {
        for count in [10, 11, 26, 47, 62, 256] {
            let mut colours: Vec<[u8; 3]> = (0..count).map(|i| colour(i, count)).collect();
            colours.sort_unstable();
            colours.dedup();
            assert_eq!(colours.len(), count);
        }
        assert_eq!(classes(&[3, 7, 3]), (0..10).collect::<Vec<u8>>());
        assert_eq!(classes(&[1, 26, 3, 26]), [1, 3, 26]);
        // Points in the middle; right of the plot, above its last number, is nothing but the legend.
        let coloured = |picture: &Picture| {
            let rows = picture.pixels.chunks_exact(picture.width * 3).take(TOP + SIDE - 2 * FONT * 7);
            rows.flat_map(|row| row[(LEFT + SIDE + 2) * 3..].chunks_exact(3)).filter(|p| p[..] != PAPER[..]).count()
        };
        let plain = scatter(&[[0.0; 2]; 3], None);
        assert_eq!(coloured(&plain), 0, "no labels, no legend");
        let labels: Vec<u8> = (0..=255).collect();
        let all = scatter(&[[0.0; 2]; 256], Some(&labels));
        let ten = scatter(&[[0.0; 2]; 256], Some(&[9; 256]));
        assert!(coloured(&all) > 15 * coloured(&ten) && all.width > ten.width && ten.width == plain.width);
    }

    #[test]
    fn axes_have_two_to_five_round_numbers_on_either_side() {
        for (reach, wanted) in [(0.05, (0.01, 2)), (0.9, (0.2, 1)), (3.2, (1.0, 0)), (4.2, (1.0, 0)), (70.0, (20.0, 0))]
        {
            assert_eq!(tick_distance(reach), wanted, "{reach}");
        }
    }

    #[test]
    fn a_png_holds_what_was_drawn() {
        let folder = tempfile::tempdir().unwrap();
        for picture in [montage(&[7; 12], 3, 4, 1, 2).showing("means f_μ(z) ≈ ½"), scatter(&[[0.0, 1.0]], Some(&[3]))]
        {
            let path = folder.path().join("new/folder/picture.png");
            picture.write_png(&path).unwrap();
            let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
            let mut reader = png::Decoder::new(file).read_info().unwrap();
            let said: Vec<String> = reader.info().uncompressed_latin1_text.iter().map(|t| t.text.clone()).collect();
            assert_eq!(said, if picture.shows.is_empty() { vec![] } else { vec!["means f_mu(z) ? ½".to_string()] });
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut pixels).unwrap();
            assert_eq!((info.width as usize, info.height as usize), (picture.width, picture.height));
            assert_eq!(pixels, picture.pixels);
        }
    }
}
