"use strict";
/* What this file holds and where it came from. */

function showFacts(model) {
  const { info } = model, table = el("facts"), body = made("tbody");
  const row = (name, ...content) => {
    const tr = made("tr"), th = made("th", "", name), td = made("td");
    th.scope = "row";
    td.append(...content);
    tr.append(th, td);
    body.append(tr);
  };
  row("model", info.architecture);
  row("run", info.title ? `${info.title}, after ${info.updates} updates` : "–");
  row("data", `${info.data || "–"}; ${info.images} test images of ${info.width} × ${info.height}${info.binary ? ", binary" : ""}`);
  row("made by", made("code", "", info.command || "–"));
  const size = (id) => (el(id) ? `${shown((el(id).textContent.length * 0.75) / 1024, 3)} KiB` : "–");
  row("in it", `${size("bundle")} of weights (16 bits each) and images; ${size("wasm")} of the engine, compiled to WebAssembly; ${shown(document.documentElement.outerHTML.length / 1048576, 3)} MiB in all`);
  row("asks the network for", "nothing: its policy forbids it. It stores nothing either.");
  table.append(made("caption", "hidden-text", "Facts about this file"), body);
}

const of = (name) => `<i>f</i><sub>${name}</sub>(<i>z</i>)`;
const MEAN = of("μ");

/* p(x | z) of each likelihood, and what its picture of a spread shows. */
const LIKELIHOODS = {
  bernoulli: { formula: `Bernoulli(${MEAN})` },
  continuous_bernoulli: { formula: `CB(λ(<i>z</i>)), the continuous Bernoulli with the mean ${MEAN}` },
  gaussian: { formula: `N(${MEAN}, ${of("σ")}²)`, spread: `${of("σ")}, the deviation` },
  gaussian_shared: { formula: `N(${MEAN}, σ²)`, spread: "σ, one deviation for all pixels and all <i>z</i>" },
  gaussian_optimal: { formula: `N(${MEAN}, σ²)`, spread: "σ, one deviation for all pixels and all <i>z</i>" },
  discretised_logistic: { formula: `Logistic(<i>m</i>(<i>z</i>), ${of("s")}), in 256 cells, with the mean ${MEAN}`, spread: `${of("s")}, the scale` },
};

/* What the model is, in the texts above. */
function showIntroduction(info, space) {
  document.title = document.title || "elbo explore";
  el("title").textContent = info.title ? `· ${info.title}` : "";
  if (info.latent !== 2) {
    el("headline").textContent = "A space in which regions become digits";
    el("lead").textContent = el("lead").textContent.replace("two numbers z in", `${info.latent} numbers z in`).replace("where in the plane it may", "which z it may").replace("Touch the plane.", "Touch a plane through it.");
    el("plane-name").lastChild.textContent = " A plane through z";
    el("posterior-how").textContent = `: with ${info.latent} numbers in z no grid can hold it, so draws of q are weighted.`;
    el("heat-key").textContent = "no posterior on a grid: z is more than a plane";
  }
  const { formula, spread = "" } = LIKELIHOODS[info.likelihood];
  el("likelihood-formula").innerHTML = `<i>p</i>(<i>x</i> | <i>z</i>) = ${formula}`;
  el("mean-caption").innerHTML = `${MEAN}, the mean`;
  el("sigma-caption").innerHTML = spread;
  el("shares-note").textContent = info.labels
    ? `Of the ${Math.min(NEIGHBOURS, space.around.count)} test images whose mean of q is nearest, among ${space.around.count}${space.around.count === space.count ? " in this file" : ""}. Press a digit to go where it lives.`
    : "";
}
