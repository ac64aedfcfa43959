//! Where the nodes of a tape stand when it is drawn: in layers from the leaves down to y, edges as lines from layer to layer.
//!
//! After Sugiyama, Tagawa & Toda 1981, "Methods for visual understanding of hierarchical system structures": an edge that
//! passes a layer has a place of its own there, and each layer is ordered by the means of what its items are joined to.

use serde::{Deserialize, Serialize};

use super::record::TapeNode;

/// Places in pixels of a picture, boxes of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drawing {
    /// Of the picture.
    pub width: f64,
    /// Of the picture.
    pub height: f64,
    /// Width and height of a box.
    #[serde(rename = "box")]
    pub size: [f64; 2],
    /// The upper left corner of each node's box, by its place in the tape.
    pub corners: Vec<[f64; 2]>,
    /// What joins the nodes.
    pub wires: Vec<Wire>,
}

/// An edge of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wire {
    /// The input.
    pub from: usize,
    /// The node that uses it.
    pub to: usize,
    /// The points that it passes, from the lower edge of the one to the upper edge of the other.
    pub points: Vec<[f64; 2]>,
}

const BOX: [f64; 2] = [190.0, 66.0];
/// Between boxes side by side, and between layers.
const GAP: [f64; 2] = [18.0, 34.0];
/// The room of an edge that passes a layer.
const LANE: f64 = 14.0;
const MARGIN: f64 = 12.0;
/// How often the order of the layers is improved, down and up.
const SWEEPS: usize = 12;

/// A node, or an edge that passes a layer.
struct Item {
    node: Option<usize>,
    layer: usize,
    above: Vec<usize>,
    below: Vec<usize>,
    /// Its middle.
    x: f64,
}

impl Item {
    fn width(&self) -> f64 {
        if self.node.is_some() { BOX[0] } else { LANE }
    }
}

impl Drawing {
    pub(super) fn of(nodes: &[TapeNode]) -> Drawing {
        let layers = layers(nodes);
        let mut items: Vec<Item> = Vec::new();
        for (node, &layer) in layers.iter().enumerate() {
            items.push(Item { node: Some(node), layer, above: Vec::new(), below: Vec::new(), x: 0.0 });
        }
        let mut ways: Vec<(usize, usize, Vec<usize>)> = Vec::new();
        for node in nodes {
            let mut inputs = node.inputs.clone();
            inputs.dedup();
            for from in inputs {
                let way = way(&mut items, from, node.id, &layers);
                ways.push((from, node.id, way));
            }
        }
        let mut rows: Vec<Vec<usize>> = vec![Vec::new(); layers.iter().max().map_or(0, |last| last + 1)];
        (0..items.len()).for_each(|i| rows[items[i].layer].push(i));
        arrange(&mut items, &mut rows);
        picture(&items, &ways, rows.len(), nodes.len())
    }
}

/// The layer of each node: one below its lowest input, and then, from y back, as far down as its users let it where that
/// makes no edge longer in sum: leaves stand just above their first user.
fn layers(nodes: &[TapeNode]) -> Vec<usize> {
    let mut layers = vec![0; nodes.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for node in nodes {
        layers[node.id] = node.inputs.iter().map(|&i| layers[i] + 1).max().unwrap_or(0);
        node.inputs.iter().for_each(|&i| users[i].push(node.id));
    }
    for node in nodes.iter().rev().filter(|node| node.inputs.len() <= users[node.id].len()) {
        let lowest = users[node.id].iter().map(|&user| layers[user] - 1).min();
        layers[node.id] = lowest.unwrap_or(layers[node.id]);
    }
    layers
}

/// The items from one node to another, with one for each layer between.
fn way(items: &mut Vec<Item>, from: usize, to: usize, layers: &[usize]) -> Vec<usize> {
    let mut way = vec![from];
    for layer in layers[from] + 1..layers[to] {
        way.push(items.len());
        items.push(Item { node: None, layer, above: Vec::new(), below: Vec::new(), x: 0.0 });
    }
    way.push(to);
    for pair in way.windows(2) {
        items[pair[0]].below.push(pair[1]);
        items[pair[1]].above.push(pair[0]);
    }
    way
}

/// Orders the layers and gives every item a place in its own.
fn arrange(items: &mut [Item], rows: &mut [Vec<usize>]) {
    for row in rows.iter() {
        spread(items, row);
    }
    for sweep in 0..2 * SWEEPS {
        let down = sweep % 2 == 0;
        let order: Vec<usize> = if down { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for r in order {
            let wish = |item: &Item| {
                let joined = if down { &item.above } else { &item.below };
                let sum: f64 = joined.iter().map(|&i| items[i].x).sum();
                if joined.is_empty() { item.x } else { sum / joined.len() as f64 }
            };
            let wishes: Vec<f64> = rows[r].iter().map(|&i| wish(&items[i])).collect();
            let mut order: Vec<usize> = (0..wishes.len()).collect();
            order.sort_by(|&a, &b| wishes[a].total_cmp(&wishes[b]));
            rows[r] = order.iter().map(|&k| rows[r][k]).collect();
            let wishes: Vec<f64> = order.iter().map(|&k| wishes[k]).collect();
            settle(items, &rows[r], &wishes);
        }
    }
}

/// Puts the items of a row side by side around 0.
fn spread(items: &mut [Item], row: &[usize]) {
    settle(items, row, &vec![0.0; row.len()]);
}

/// Puts the items of a row, in their order, as near to their wishes as their widths allow: pushed to the right where they
/// would touch, and the whole then moved back by the mean of what they were pushed.
fn settle(items: &mut [Item], row: &[usize], wishes: &[f64]) {
    let mut blocks: Vec<(f64, Vec<(usize, f64)>)> = Vec::new();
    for (&i, &wish) in row.iter().zip(wishes) {
        blocks.push((wish, vec![(i, 0.0)]));
        // A block that reaches into the one before becomes one with it, at the mean of what both wish.
        while let [.., (left, before), (right, after)] = blocks.as_slice() {
            let (last, offset) = before[before.len() - 1];
            let room = (items[last].width() + items[after[0].0].width()) / 2.0 + GAP[0];
            if right - (left + offset) >= room {
                break;
            }
            let shift = offset + room;
            let (n, m) = (before.len() as f64, after.len() as f64);
            let at = (left * n + (right - shift) * m) / (n + m);
            let joined: Vec<(usize, f64)> =
                before.iter().copied().chain(after.iter().map(|&(i, o)| (i, o + shift))).collect();
            blocks.truncate(blocks.len() - 2);
            blocks.push((at, joined));
        }
    }
    for (at, block) in blocks {
        block.into_iter().for_each(|(i, offset)| items[i].x = at + offset);
    }
}

fn picture(items: &[Item], ways: &[(usize, usize, Vec<usize>)], rows: usize, nodes: usize) -> Drawing {
    let left = items.iter().map(|item| item.x - item.width() / 2.0).fold(f64::INFINITY, f64::min);
    let right = items.iter().map(|item| item.x + item.width() / 2.0).fold(f64::NEG_INFINITY, f64::max);
    let x = |item: &Item| (item.x - left + MARGIN).round();
    let top = |layer: usize| MARGIN + layer as f64 * (BOX[1] + GAP[1]);
    let corners = items[..nodes].iter().map(|item| [x(item) - BOX[0] / 2.0, top(item.layer)]).collect();
    let wire = |(from, to, way): &(usize, usize, Vec<usize>)| {
        let mut points = Vec::new();
        for (k, &i) in way.iter().enumerate() {
            let (x, top) = (x(&items[i]), top(items[i].layer));
            if k > 0 {
                points.push([x, top]);
            }
            if k + 1 < way.len() {
                points.push([x, top + BOX[1]]);
            }
        }
        Wire { from: *from, to: *to, points }
    };
    Drawing {
        width: right - left + 2.0 * MARGIN,
        height: top(rows) - GAP[1] + MARGIN,
        size: BOX,
        corners,
        wires: ways.iter().map(wire).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Subject;

    #[test]
    fn boxes_do_not_touch_and_wires_join_them() {
        for name in ["bce", "logsumexp", "vae"] {
            let d = Subject::find(name, "").unwrap().derivation(1);
            let drawing = &d.drawing;
            let [w, h] = drawing.size;
            for (i, a) in drawing.corners.iter().enumerate() {
                assert!(a[0] >= 0.0 && a[0] + w <= drawing.width && a[1] >= 0.0 && a[1] + h <= drawing.height);
                for b in &drawing.corners[..i] {
                    assert!((a[0] - b[0]).abs() >= w || (a[1] - b[1]).abs() >= h, "{name}: {a:?} and {b:?}");
                }
            }
            for node in &d.nodes {
                assert!(node.inputs.iter().all(|&i| drawing.wires.iter().any(|w| (w.from, w.to) == (i, node.id))));
            }
            assert!(drawing.wires.iter().all(|w| w.points.windows(2).all(|p| p[0][1] < p[1][1])), "{name}: downwards");
        }
    }
}
