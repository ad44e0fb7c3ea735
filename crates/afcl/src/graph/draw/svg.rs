//! Writes a drawing as SVG, laid out in layers.
//!
//! Each scope is laid out by itself: what stands in it is put into rows so that data flow downwards as far as they can,
//! and the box around the rows is then one thing in the scope around. Arrows go straight from box to box.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{Drawing, Shape, Style};

const CHARACTER: f64 = 7.0;
const LINE: f64 = 16.0;
const PADDING: f64 = 10.0;
const GAP: f64 = 28.0;

/// Where something stands: its upper left corner, seen from that of the box around, and its size.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// Something in a scope: a node, or the box of a scope in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Thing {
    Node(usize),
    Area(usize),
}

struct Layout<'d> {
    drawing: &'d Drawing,
    /// What stands in each scope.
    within: Vec<Vec<Thing>>,
    /// For each scope, which of its things must stand above which.
    above: Vec<Vec<(Thing, Thing)>>,
    nodes: Vec<Place>,
    areas: Vec<Place>,
}

pub(super) fn write(drawing: &Drawing) -> String {
    let mut layout = Layout::of(drawing);
    // Inner scopes stand behind those around them.
    for area in (0..drawing.scopes.len()).rev() {
        layout.arrange(area);
    }
    layout.make_absolute();
    layout.write()
}

impl<'d> Layout<'d> {
    fn of(drawing: &'d Drawing) -> Layout<'d> {
        let within = drawing.nodes_in.iter().zip(&drawing.scopes_in).map(|(nodes, areas)| {
            let nodes = nodes.iter().map(|index| Thing::Node(*index));
            nodes.chain(areas.iter().map(|index| Thing::Area(*index))).collect()
        });
        let nodes = drawing.nodes.iter().map(|node| {
            let longest = node.lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
            let (width, height) = (longest as f64 * CHARACTER, node.lines.len() as f64 * LINE);
            let slack = if node.shape == Shape::Decision { 2.0 } else { 1.0 };
            Place { x: 0.0, y: 0.0, width: width + 2.0 * slack * PADDING, height: height + PADDING }
        });
        let mut layout = Layout {
            drawing,
            within: within.collect(),
            above: vec![Vec::new(); drawing.scopes.len()],
            nodes: nodes.collect(),
            areas: vec![Place::default(); drawing.scopes.len()],
        };
        for arrow in drawing.arrows.iter().filter(|arrow| arrow.style != Style::Next) {
            let (scope, from, to) = layout.side_by_side(arrow.from, arrow.to);
            if from != to {
                layout.above[scope].push((from, to));
            }
        }
        layout
    }

    /// The scope that two nodes have in common, and the things of it that they are or stand in.
    fn side_by_side(&self, from: usize, to: usize) -> (usize, Thing, Thing) {
        let path = |node: usize| {
            let mut path = vec![Thing::Node(node)];
            let mut area = self.drawing.nodes[node].scope;
            while let Some(parent) = self.drawing.scopes[area].parent {
                path.push(Thing::Area(area));
                area = parent;
            }
            path
        };
        let (mut from, mut to) = (path(from), path(to));
        let mut scope = 0;
        while let (Some(Thing::Area(one)), Some(Thing::Area(other))) = (from.last(), to.last()) {
            if one != other {
                break;
            }
            scope = *one;
            from.pop();
            to.pop();
        }
        (scope, *from.last().expect("a path ends in its node"), *to.last().expect("a path ends in its node"))
    }

    /// Puts what stands in a scope into rows.
    fn arrange(&mut self, area: usize) {
        let things = self.within[area].clone();
        let rows = rows(&things, &self.above[area]);
        let title = self.drawing.scopes[area].title.chars().count() as f64 * CHARACTER;
        let row_width = |row: &Vec<Thing>| {
            let widths: f64 = row.iter().map(|thing| self.place(*thing).width).sum();
            widths + GAP * (row.len().saturating_sub(1)) as f64
        };
        let widths: Vec<f64> = rows.iter().map(row_width).collect();
        let width = widths.iter().copied().fold(title, f64::max);
        let mut y = LINE + PADDING;
        for (row, row_width) in rows.iter().zip(widths) {
            let mut x = PADDING + (width - row_width) / 2.0;
            let height = row.iter().map(|thing| self.place(*thing).height).fold(0.0, f64::max);
            for thing in row {
                let place = self.place_mut(*thing);
                (place.x, place.y) = (x, y + (height - place.height) / 2.0);
                x += place.width + GAP;
            }
            y += height + GAP;
        }
        self.areas[area] = Place { x: 0.0, y: 0.0, width: width + 2.0 * PADDING, height: y - GAP + PADDING };
    }

    fn place(&self, thing: Thing) -> Place {
        match thing {
            Thing::Node(index) => self.nodes[index],
            Thing::Area(index) => self.areas[index],
        }
    }

    fn place_mut(&mut self, thing: Thing) -> &mut Place {
        match thing {
            Thing::Node(index) => &mut self.nodes[index],
            Thing::Area(index) => &mut self.areas[index],
        }
    }

    /// A scope's parent stands before it, so its place is known when its own is asked for.
    fn make_absolute(&mut self) {
        for area in 0..self.areas.len() {
            let around = self.areas[area];
            for thing in self.within[area].clone() {
                let place = self.place_mut(thing);
                place.x += around.x;
                place.y += around.y;
            }
        }
    }

    fn write(&self) -> String {
        let whole = self.areas[0];
        let mut text = String::new();
        let _ = writeln!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0}\" height=\"{1:.0}\" viewBox=\"0 0 {0:.0} {1:.0}\" \
             font-family=\"sans-serif\" font-size=\"12\">",
            whole.width, whole.height
        );
        text.push_str(
            "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto-start-reverse\"><path d=\"M0 0L8 4L0 8z\" fill=\"#555\"/></marker></defs>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        );
        for (area, place) in self.drawing.scopes.iter().zip(&self.areas) {
            let Place { x, y, width, height } = place;
            let _ = writeln!(
                text,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\" fill=\"#000\" \
                 fill-opacity=\"0.03\" stroke=\"#bbb\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"#666\">{}</text>",
                x + PADDING,
                y + LINE,
                escaped(&area.title)
            );
        }
        for arrow in &self.drawing.arrows {
            self.write_arrow(arrow, &mut text);
        }
        for (node, place) in self.drawing.nodes.iter().zip(&self.nodes) {
            write_node(node, *place, &mut text);
        }
        text.push_str("</svg>\n");
        text
    }

    fn write_arrow(&self, arrow: &super::Arrow, text: &mut String) {
        let (from, to) = (self.nodes[arrow.from], self.nodes[arrow.to]);
        let downwards = from.y < to.y;
        let (x1, x2) = (from.x + from.width / 2.0, to.x + to.width / 2.0);
        let (y1, y2) = match downwards {
            true => (from.y + from.height, to.y),
            false => (from.y, to.y + to.height),
        };
        let dashes = match arrow.style {
            Style::Data => "",
            Style::Next => " stroke-dasharray=\"6 3\"",
            Style::Order => " stroke-dasharray=\"2 3\"",
        };
        let bend = (y2 - y1) / 2.0;
        let _ = writeln!(
            text,
            "<path d=\"M{x1:.1} {y1:.1}C{x1:.1} {:.1} {x2:.1} {:.1} {x2:.1} {y2:.1}\" fill=\"none\" stroke=\"#555\"{dashes} \
             marker-end=\"url(#tip)\"><title>{}</title></path>",
            y1 + bend,
            y2 - bend,
            escaped(&arrow.label)
        );
    }
}

/// Rows so that each thing stands below those that must be above it; where they are in a circle, the first goes first.
fn rows(things: &[Thing], above: &[(Thing, Thing)]) -> Vec<Vec<Thing>> {
    let numbers: HashMap<Thing, usize> = things.iter().enumerate().map(|(index, thing)| (*thing, index)).collect();
    let mut waits = vec![0_usize; things.len()];
    let mut below = vec![Vec::new(); things.len()];
    for (from, to) in above {
        let (from, to) = (numbers[from], numbers[to]);
        waits[to] += 1;
        below[from].push(to);
    }
    let mut rows: Vec<Vec<Thing>> = Vec::new();
    let mut done = vec![false; things.len()];
    let mut first_open = 0;
    let mut ready: Vec<usize> = (0..things.len()).filter(|index| waits[*index] == 0).collect();
    loop {
        if ready.is_empty() {
            while first_open < done.len() && done[first_open] {
                first_open += 1;
            }
            if first_open == done.len() {
                return rows;
            }
            ready.push(first_open);
        }
        let mut next = Vec::new();
        for index in &ready {
            done[*index] = true;
        }
        for index in &ready {
            for to in &below[*index] {
                waits[*to] -= 1;
                if waits[*to] == 0 && !done[*to] {
                    next.push(*to);
                }
            }
        }
        rows.push(ready.iter().map(|index| things[*index]).collect());
        ready = next;
    }
}

fn write_node(node: &super::Node, place: Place, text: &mut String) {
    let Place { x, y, width, height } = place;
    let (middle, radius) = (x + width / 2.0, height / 2.0);
    let _ = match node.shape {
        Shape::Decision => writeln!(
            text,
            "<path d=\"M{x:.1} {0:.1}L{1:.1} {y:.1}H{2:.1}L{3:.1} {0:.1}L{2:.1} {4:.1}H{1:.1}z\" fill=\"#fdf3d8\" stroke=\"#a80\"/>",
            y + radius,
            x + PADDING,
            x + width - PADDING,
            x + width,
            y + height
        ),
        shape => {
            let (rounded, fill, stroke) = match shape {
                Shape::Data => (radius, "#fff", "#555"),
                Shape::Function => (2.0, "#dce9f7", "#247"),
                _ => (8.0, "#f4f4f4", "#888"),
            };
            writeln!(
                text,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{rounded:.1}\" fill=\"{fill}\" \
                 stroke=\"{stroke}\"/>"
            )
        }
    };
    for (index, line) in node.lines.iter().enumerate() {
        let weight = if index == 0 { "" } else { " fill=\"#666\"" };
        let _ = writeln!(
            text,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\"{weight}>{}</text>",
            y + LINE * (index as f64 + 1.0),
            escaped(line)
        );
    }
}

fn escaped(label: &str) -> String {
    let allowed = label.chars().map(|c| if c.is_control() { ' ' } else { c });
    let text: String = allowed.collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
