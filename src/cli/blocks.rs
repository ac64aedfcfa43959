//! Grey images in a terminal: two pixels in a letter, the upper half of which has one colour and its ground the other; or, where
//! there are no colours, shades in the letters themselves.

use std::io::IsTerminal;

/// An image, `[height, width]` grey values row-major, as lines of text that fit this terminal, or a file.
pub fn draw(pixels: &[u8], width: usize) -> String {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colours { half_blocks(pixels, width) } else { shades(pixels, width) }
}

/// The 24 greys of the 256 colours of terminals, black and white beside them.
fn colour(grey: u8) -> usize {
    match (usize::from(grey) * 25 + 127) / 255 {
        0 => 16,
        25 => 231,
        step => 231 + step,
    }
}

fn half_blocks(pixels: &[u8], width: usize) -> String {
    let mut text = String::new();
    for rows in pixels.chunks(2 * width) {
        let (upper, lower) = rows.split_at(width);
        for (x, &above) in upper.iter().enumerate() {
            let below = lower.get(x).copied().unwrap_or(0);
            text += &format!("\x1b[38;5;{};48;5;{}m▀", colour(above), colour(below));
        }
        text += "\x1b[0m\n";
    }
    text
}

/// From black to white; a letter is about twice as high as wide, so that it stands for two rows, of which it has the mean.
fn shades(pixels: &[u8], width: usize) -> String {
    const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
    let mut text = String::new();
    for rows in pixels.chunks(2 * width) {
        let (upper, lower) = rows.split_at(width);
        let mean = |x: usize| (usize::from(upper[x]) + usize::from(*lower.get(x).unwrap_or(&upper[x]))) / 2;
        let line: String = (0..width).map(|x| SHADES[(mean(x) * 4 + 127) / 255]).collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_are_a_line() {
        let image = [0, 255, 0, 255, 128, 128];
        assert_eq!(shades(&image, 2), " █\n▒▒\n");
        let text = half_blocks(&image, 2);
        assert!(text.starts_with("\x1b[38;5;16;48;5;16m▀\x1b[38;5;231;48;5;231m▀\x1b[0m\n"), "{text:?}");
        assert_eq!(text.lines().count(), 2, "the last of an odd number of rows has a line too");
        assert_eq!(text.matches('▀').count(), 4);
    }
}
