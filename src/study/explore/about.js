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
  const hidden = [].concat(info.hidden).join("-");
  const sizes = Array.isArray(info.hidden) ? `${info.pixels}-${hidden}-${info.latent}-${info.hidden.slice().reverse().join("-")}-${info.pixels}` : `${info.pixels}-${hidden}-${info.latent}-${hidden}-${info.pixels}`;
  row("model", `${sizes}, ${info.likelihood} likelihood`);
  row("run", info.title || "–");
  row("data", `${info.data || "–"}; ${info.images} test images of ${info.width} × ${info.height}${info.binary ? ", binary" : ""}`);
  row("made by", made("code", "", info.command || "–"));
  const size = (id) => (el(id) ? `${shown((el(id).textContent.length * 0.75) / 1024, 3)} KiB` : "–");
  row("in it", `${size("bundle")} of weights (16 bits each) and images; ${size("wasm")} of the engine, compiled to WebAssembly; ${shown(document.documentElement.outerHTML.length / 1048576, 3)} MiB in all`);
  row("asks the network for", "nothing: its policy forbids it. It stores nothing either.");
  table.append(made("caption", "hidden-text", "Facts about this file"), body);
}

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
  const gaussian = info.sigma || /gauss/.test(info.likelihood);
  el("likelihood-formula").innerHTML = gaussian
    ? "<i>p</i>(<i>x</i> | <i>z</i>) = N(<i>f</i><sub>μ</sub>(<i>z</i>), <i>f</i><sub>σ</sub>(<i>z</i>)²)"
    : "<i>p</i>(<i>x</i> | <i>z</i>) = Bernoulli(<i>f</i><sub>μ</sub>(<i>z</i>))";
  el("shares-note").textContent = info.labels
    ? `Of the ${Math.min(NEIGHBOURS, space.count)} test images whose mean of q is nearest, among the ${space.count} in this file. Press a digit to go where it lives.`
    : "";
}
