//! A curve over epochs in one line of text.

/// The eight heights.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The bar of a share from 0, the lowest, to 1, the highest.
pub fn bar(share: f64) -> char {
    BARS[(share.clamp(0.0, 1.0) * (BARS.len() - 1) as f64).round() as usize]
}

/// More bars than this are not looked at: every bar then stands for several values, of which it shows the last.
const MOST: usize = 60;

/// `▇▅▃▂▁ from 105.4 to 131.2`: the lowest bar is the smallest of the values that are shown, the highest the largest, and both
/// are printed, because the bars alone would make any two curves look alike. None for fewer than two values.
pub fn sparkline(values: &[f64]) -> Option<String> {
    let every = values.len().div_ceil(MOST).max(1);
    // From the end, so that the last value is shown.
    let mut shown: Vec<f64> = values.iter().rev().step_by(every).copied().collect();
    shown.reverse();
    if shown.len() < 2 {
        return None;
    }
    let low = shown.iter().copied().fold(f64::INFINITY, f64::min);
    let high = shown.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let share = |value: &f64| if high > low { (value - low) / (high - low) } else { 0.0 };
    let bars: String = shown.iter().map(|value| bar(share(value))).collect();
    let which = if every > 1 { format!(" (one bar for {every} epochs)") } else { String::new() };
    Some(format!("{bars}{which} ▁ = {low:.2}, █ = {high:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_values() {
        assert_eq!(sparkline(&[10.0, 3.0, 6.5]).unwrap(), "█▁▅ ▁ = 3.00, █ = 10.00");
        assert_eq!(sparkline(&[2.0, 2.0]).unwrap(), "▁▁ ▁ = 2.00, █ = 2.00");
        assert!(sparkline(&[1.0]).is_none() && sparkline(&[]).is_none());
        let many: Vec<f64> = (0..1000).map(f64::from).collect();
        let text = sparkline(&many).unwrap();
        assert!(
            text.contains(" (one bar for 17 epochs) ") && text.ends_with("█ = 999.00"),
            "the last is shown: {text}"
        );
        assert_eq!(text.split(' ').next().unwrap().chars().count(), 59);
    }
}
