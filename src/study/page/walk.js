"use strict";

/* Steps through a derivation (the record that `elbo derive --json` prints) inside `container`: forward along the tape, then
   back, one contribution at a time. Needs page.js and walk.css. With `keys: document` the arrow keys work everywhere on the
   page, otherwise where the focus is inside; in a region that scrolls they scroll it. Returns { show(i), frames }. */
function walk(container, derivation, { keys = container } = {}) {
  const all = [derivation, ...(derivation.second || [])];
  container.classList.add("walk");
  container.textContent = "";
  const add = (parent, tag, attributes = {}, text = "") => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    parent.append(element);
    return element;
  };

  const controls = add(container, "div", { class: "walk-controls row screen-only" });
  if (all.length > 1) {
    const label = add(controls, "label", {}, "Derivation of ");
    const choice = add(label, "select");
    all.forEach((d, i) => add(choice, "option", { value: i }, i === 0 ? "y = " + d.title : d.title));
    choice.addEventListener("change", () => open(all[choice.value]));
  }
  const button = (text, name, act) => {
    const made = add(controls, "button", { type: "button", "aria-label": name }, text);
    made.addEventListener("click", act);
    return made;
  };
  const back = button("◀ Back", "Back", () => show(at - 1));
  const next = button("Next ▶", "Next", () => show(at + 1));
  button("Start", "To the start", () => show(0));
  button("Walk back", "To the first step of the walk back", () => show(frames.findIndex((f) => f.back)));
  button("End", "To the end", () => show(frames.length - 1));
  const slider = add(controls, "input", { type: "range", min: 0, step: 1, "aria-label": "Step" });
  slider.addEventListener("input", () => show(Number(slider.value)));
  const count = add(controls, "span", { class: "faint" });

  const say = add(container, "p", { class: "walk-say", role: "status", "aria-live": "polite" });
  const columns = add(container, "div", { class: "walk-columns" });
  const graph = add(columns, "div", { class: "walk-graph", tabindex: 0, role: "region", "aria-label": "The graph" });
  const facts = add(columns, "div", { class: "walk-facts", tabindex: 0, role: "region", "aria-label": "The node" });
  const check = add(container, "div", { class: "walk-check", tabindex: 0, role: "region", "aria-label": "Gradients" });

  let d, frames, at, boxes, wires;

  function open(chosen) {
    d = chosen;
    frames = [
      ...d.nodes.map((node) => ({ node })),
      ...d.steps.flatMap((step) => [
        { back: true, step, node: d.nodes[step.node], given: 0 },
        ...step.contributions.map((_, i) => ({ back: true, step, node: d.nodes[step.node], given: i + 1 })),
      ]),
    ];
    slider.max = frames.length - 1;
    drawGraph();
    drawCheck();
    show(0);
  }

  function drawGraph() {
    const svg = (parent, tag, attributes, text = "") => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      element.textContent = text;
      parent.append(element);
      return element;
    };
    const { width, height, box: [w, h], corners, wires: lines } = d.drawing;
    graph.textContent = "";
    const picture = svg(graph, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    wires = lines.map(({ from, to, points }) => ({
      from, to, path: svg(picture, "path", { class: "walk-wire", d: curve(points) }),
    }));
    boxes = d.nodes.map((node, i) => {
      const [x, y] = corners[i];
      const group = svg(picture, "g", {});
      svg(group, "rect", { x, y, width: w, height: h, rx: 7 });
      const line = (name, row) => svg(group, "text", { class: name, x: x + 9, y: y + 18 + 19 * row });
      const [name, value, slope] = [line("name", 0), line("value", 1), line("slope", 2)];
      name.textContent = clip(definition(node), 24);
      value.textContent = clip("= " + numbers(node), 24);
      svg(group, "title", {}, `${definition(node)}\n= ${numbers(node)}`);
      return { group, slope, middle: [x + w / 2, y + h / 2] };
    });
  }

  function show(index) {
    at = Math.max(0, Math.min(frames.length - 1, index));
    const frame = frames[at];
    const { sums, complete } = state();
    const given = frame.back && frame.given > 0 ? frame.step.contributions[frame.given - 1] : null;
    boxes.forEach(({ group, slope }, i) => {
      const later = !frame.back && i > frame.node.id;
      const kind = i === frame.node.id ? " now" : given && given.input === i ? " to" : later ? " later" : "";
      group.setAttribute("class", `walk-box${d.nodes[i].leaf ? " leaf" : ""}${kind}`);
      slope.textContent = sums.has(i) ? clip(`d${complete.has(i) ? "" : " so far"} ${numbers(sums.get(i))}`, 24) : "";
    });
    for (const { from, to, path } of wires) {
      const used = frame.back ? given && to === frame.node.id && from === given.input : to === frame.node.id;
      path.setAttribute("class", used ? "walk-wire now" : "walk-wire");
    }
    follow(boxes[frame.node.id].middle);
    say.textContent = sentence(frame, given);
    count.textContent = `${at + 1} of ${frames.length}`;
    slider.value = at;
    slider.setAttribute("aria-valuetext", say.textContent);
    back.disabled = at === 0;
    next.disabled = at === frames.length - 1;
    drawFacts(frame);
  }

  /* What has arrived at each node by now, and where nothing more will. */
  function state() {
    const sums = new Map(), complete = new Set();
    const seen = frames.slice(0, at + 1).filter((f) => f.back);
    for (const { step, given } of seen) {
      if (given === 0) {
        sums.set(step.node, step.cotangent);
        complete.add(step.node);
      } else {
        sums.set(step.contributions[given - 1].input, step.contributions[given - 1].sum);
      }
    }
    return { sums, complete };
  }

  function sentence({ back: backwards, node, step }, given) {
    if (!backwards) return `Forward: ${definition(node)} = ${numbers(node)}`;
    if (!given) {
      const why = step === d.steps[0] ? "the walk starts with ∂y/∂y" : "all that use it have been visited";
      const end = node.leaf ? " It is a leaf: this is its gradient." : "";
      return `Back at ${node.name}: ${why}, so ${slopeOf(node)} = ${numbers(step.cotangent)} is complete.${end}`;
    }
    const input = d.nodes[given.input];
    const first = d.steps.flatMap((s) => s.contributions).find((c) => c.input === given.input) === given;
    return `Back at ${node.name} = ${node.text}: it gives ${input.name} the contribution ${given.text} = `
      + `${numbers(given.value)}. ` + (first ? "It is the first." : `The sum there is now ${numbers(given.sum)}.`);
  }

  function drawFacts(frame) {
    facts.textContent = "";
    const { node, step } = frame;
    add(facts, "p", { class: "walk-node mono" }, definition(node));
    const list = add(facts, "table");
    const row = (name, value, kind = "") => {
      const line = add(list, "tr");
      add(line, "th", { scope: "row" }, name);
      add(line, "td", { class: "mono " + kind }, value);
    };
    row("value", numbers(node));
    if (node.shape.length) row("shape", `[${node.shape.join(", ")}]`);
    if (node.stats) row("all of it", stats(node.stats));
    if (!node.leaf) row("rule", node.rule.join(";  "));
    if (!step) return;
    row("arriving " + slopeOf(node), numbers(step.cotangent), "cotangent");
    if (frame.given === 0) return;
    const table = add(facts, "table");
    add(table, "caption", {}, "What it hands on");
    const head = add(table, "tr");
    for (const name of ["to", "by the rule", "contribution", "sum so far"]) add(head, "th", { scope: "col" }, name);
    step.contributions.slice(0, frame.given).forEach((c, i) => {
      const line = add(table, "tr", i + 1 === frame.given ? { class: "now" } : {});
      const cells = [d.nodes[c.input].name, c.text, numbers(c.value), numbers(c.sum)];
      for (const cell of cells) add(line, "td", { class: "mono" }, cell);
    });
  }

  function drawCheck() {
    check.textContent = "";
    if (d.leaves.length === 0) return;
    const table = add(check, "table");
    add(table, "caption", {}, "Gradients, and what central differences [y(e + h) − y(e − h)]/2h say");
    const head = add(table, "tr");
    for (const name of ["leaf", "by the walk", "by differences", "h", "error"]) add(head, "th", { scope: "col" }, name);
    for (const leaf of d.leaves) {
      const line = add(table, "tr");
      const part = leaf.gradient.stats ? ` (${leaf.checked.length} of its elements)` : "";
      const difference = { shape: part ? [leaf.difference.length] : leaf.gradient.shape, values: leaf.difference };
      const cells = [leaf.name, numbers(leaf.gradient), numbers(difference) + part, shown(leaf.step, 1), shown(leaf.error, 2)];
      for (const cell of cells) add(line, "td", { class: "mono" }, cell);
    }
  }

  function follow([x, y]) {
    const smooth = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    graph.scrollTo({
      left: x - graph.clientWidth / 2, top: y - graph.clientHeight / 2, behavior: smooth ? "smooth" : "auto",
    });
  }

  keys.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (scrolls(event.target.closest('[role="region"]'))) return;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: frames.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });

  open(derivation);
  return { show, get frames() { return frames.length; } };

  /* Whether keys move what is seen of a region. */
  function scrolls(region) {
    return region !== null && (region.scrollWidth > region.clientWidth || region.scrollHeight > region.clientHeight);
  }

  function definition(node) {
    return node.leaf ? node.name : `${node.name} = ${node.text}`;
  }

  function slopeOf(node) {
    return node.name.length <= 4 ? "d" + node.name : "d " + node.name;
  }

  function stats({ min, max, mean, norm }) {
    return `${shown(min)} … ${shown(max)}, mean ${shown(mean)}, norm ${shown(norm)}`;
  }

  function clip(text, most) {
    const letters = [...text];
    return letters.length <= most ? text : letters.slice(0, most - 1).join("") + "…";
  }

  /* [1 2; 3 4] for a matrix, as in `--at`. */
  function numbers({ shape, values, stats: more }) {
    if (shape.length === 0) return shown(values[0], 5);
    const columns = shape[shape.length - 1];
    const text = values.map((v, i) => (i === 0 ? "" : i % columns ? " " : "; ") + shown(v, 4)).join("");
    return `[${text}${more ? " …" : ""}]`;
  }

  /* A line through points that leaves and arrives upright. */
  function curve(points) {
    let path = `M${points[0].join(" ")}`;
    for (let i = 1; i < points.length; i++) {
      const [[x0, y0], [x1, y1]] = [points[i - 1], points[i]];
      const half = (y0 + y1) / 2;
      path += x0 === x1 ? `L${x1} ${y1}` : `C${x0} ${half} ${x1} ${half} ${x1} ${y1}`;
    }
    return path;
  }
}
