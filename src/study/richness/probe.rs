//! The linear probe: what of the class a linear map can read from μ(x) (Alain & Bengio 2017, arXiv 1610.01644).

use crate::engine::device::{Call, Device, Key, Schedule};
use crate::engine::error::Result;
use crate::engine::graph::Graph;
use crate::engine::nn::Linear;
use crate::engine::optim::{LrSchedule, Optimizer};
use crate::engine::params::Params;

/// Updates, and the learning rate, which falls to a hundredth of itself along a cosine. The loss is convex; with these a
/// longer training changes the accuracy by less than its standard error.
const UPDATES: u64 = 500;
const RATE: f64 = 0.1;

/// A linear classifier: softmax(W·(x − mean)/deviation + b).
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    mean: Vec<f64>,
    deviation: Vec<f64>,
    /// `[dimensions, classes]`
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Probe {
    /// Multinomial logistic regression of the `labels` on `points`, `[n, dimensions]`, standardised in every dimension:
    ///
    /// ```text
    /// loss = (1/n) Σ ( ln Σ_c e^(s_c) − s_y ),     s = W·x + b
    /// ```
    ///
    /// from W = 0 and b = 0, by Adam on the whole set at every step. There is no chance in it.
    ///
    /// # Errors
    /// From the executor.
    pub fn train(points: &[f32], labels: &[u8], dimensions: usize, classes: usize, device: Device) -> Result<Probe> {
        let rows = labels.len();
        let (mean, deviation) = moments(points, dimensions);
        let mut probe = Probe { mean, deviation, weights: Vec::new(), bias: Vec::new() };
        let layer = Linear::new("probe", dimensions, classes);
        let mut params = Params::new();
        params.declare(&layer.weight_name(), &[dimensions, classes], move |_| vec![0.0; dimensions * classes]);
        params.declare(&layer.bias_name(), &[classes], move |_| vec![0.0; classes]);
        let g = Graph::new();
        let (x, y) = (g.input(&[rows, dimensions]), g.input(&[rows, classes]));
        let scores = layer.apply(x);
        let loss = (scores.log_sum_exp(&[1]).sum_all() - (scores * y).sum_all()) * (1.0 / rows as f64);
        g.minimise(loss, &params, Optimizer::adam(), g.schedule("learning rate"), None);
        let executor = device.open()?;
        let mut state = executor.state(&params, 0)?;
        let mut step = executor.compile(&g, [])?;
        step.write(0, &probe.standardised(points))?;
        let mut one_hot = vec![0.0; rows * classes];
        labels.iter().enumerate().for_each(|(i, &label)| one_hot[i * classes + label as usize] = 1.0);
        step.write(1, &one_hot)?;
        let rate = LrSchedule::Cosine { lr: RATE, lr_end: RATE / 100.0, steps: UPDATES };
        let schedules: &[(&str, Schedule<'_>)] = &[("learning rate", &|done| rate.at(done))];
        step.run(&mut state, &Call { steps: UPDATES as usize, schedules, ..Call::once(Key::new(0)) })?;
        (probe.weights, probe.bias) = (state.read(&layer.weight_name())?, state.read(&layer.bias_name())?);
        Ok(probe)
    }

    fn standardised(&self, points: &[f32]) -> Vec<f32> {
        let dimension = self.mean.iter().zip(&self.deviation).cycle();
        points.iter().zip(dimension).map(|(&p, (mean, deviation))| ((f64::from(p) - mean) / deviation) as f32).collect()
    }

    /// The class with the highest score for each of `points`; of several, the one with the smallest label.
    pub fn classify(&self, points: &[f32]) -> Vec<u8> {
        let classes = self.bias.len();
        let best = |x: &[f32]| {
            let mut scores = self.bias.clone();
            for (x, weights) in x.iter().zip(self.weights.chunks_exact(classes)) {
                scores.iter_mut().zip(weights).for_each(|(s, w)| *s += x * w);
            }
            (1..classes).fold(0, |best, c| if scores[c] > scores[best] { c } else { best }) as u8
        };
        self.standardised(points).chunks_exact(self.mean.len()).map(best).collect()
    }
}

/// Mean and standard deviation of each dimension; 1 for a dimension that never varies.
fn moments(points: &[f32], dimensions: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = (points.len() / dimensions).max(1) as f64;
    let column = |d: usize| points.iter().skip(d).step_by(dimensions).map(|&v| f64::from(v));
    let mean: Vec<f64> = (0..dimensions).map(|d| column(d).sum::<f64>() / rows).collect();
    let spread = |d: usize| (column(d).map(|v| (v - mean[d]).powi(2)).sum::<f64>() / rows).sqrt();
    let deviation = (0..dimensions).map(spread).map(|s| if s > 0.0 { s } else { 1.0 });
    (mean.clone(), deviation.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Draw;

    /// Three Gaussian clouds far from 0 and of different size in each dimension; the third dimension is constant.
    fn clouds(count: usize, from: u64) -> (Vec<f32>, Vec<u8>) {
        let draw = Draw { seed: 5, step: 0, stream: 0 };
        let labels: Vec<u8> = (0..count).map(|i| (i % 3) as u8).collect();
        let centre = [[100.0, 0.0], [103.0, 0.0], [100.0, 0.03]];
        let point = |(i, &y): (usize, &u8)| {
            let noise = [0, 1].map(|d| draw.normal(from + (2 * i + d) as u64));
            let [a, b] = centre[y as usize];
            [a + 0.5 * noise[0], b + 0.005 * noise[1], 7.0]
        };
        (labels.iter().enumerate().flat_map(point).collect(), labels)
    }

    #[test]
    fn linearly_separable_clouds_are_separated() {
        let ((points, labels), (tests, truth)) = (clouds(600, 0), clouds(300, 10_000));
        let probe = Probe::train(&points, &labels, 3, 3, Device::Cpu { threads: 2 }).unwrap();
        let right = probe.classify(&tests).iter().zip(&truth).filter(|(a, b)| a == b).count();
        assert!(right >= 294, "{right} of 300");
        assert_eq!(probe, Probe::train(&points, &labels, 3, 3, Device::Cpu { threads: 1 }).unwrap());
    }

    #[test]
    fn a_linear_map_cannot_read_a_parity() {
        let draw = Draw { seed: 6, step: 0, stream: 0 };
        let points: Vec<f32> = (0..2000).map(|i| draw.normal(i)).collect();
        let labels: Vec<u8> = points.chunks_exact(2).map(|p| u8::from(p[0] * p[1] > 0.0)).collect();
        let probe = Probe::train(&points, &labels, 2, 2, Device::Cpu { threads: 1 }).unwrap();
        let right = probe.classify(&points).iter().zip(&labels).filter(|(a, b)| a == b).count();
        assert!((400..650).contains(&right), "{right} of 1000");
    }
}
