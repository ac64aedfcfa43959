"use strict";
/* Opens what is in the page and starts its parts: the plane first, so that there is something to see at once. */

function wirePlane(space, plane, point) {
  const rings = space.K === 2 ? "Dotted: 50, 90 and 99 % of the prior." : "";
  const captions = () => {
    const n = plane.tilesPerSide(plane.shown);
    if (!plane.perSide) el("density").value = String(n);
    el("plane-caption").textContent = {
      images: `${n} × ${n} images fμ(z)` + (space.info.labels ? ", coloured by digit." : "."),
      regions: `Where each digit prevails: the ellipses of q over the test images, widened by ${WIDER}, summed per digit. ${rings}`,
      points: `${space.count} test images, each at the mean of its q. ${rings}`,
    }[plane.layer];
    el("density-label").hidden = plane.layer !== "images";
  };
  choices(el("layers"), (value) => { plane.layer = value; plane.refresh(); });
  choices(el("scales"), (value) => { plane.scale = value === "quantile" ? QUANTILE : EVEN; plane.refresh(); });
  el("density").addEventListener("input", () => { plane.perSide = Number(el("density").value); plane.refresh(); });
  if (space.ways.length > 1) {
    el("ways-label").hidden = false;
    for (const [value, name] of space.ways) el("ways").append(new Option(name, value));
    el("ways").addEventListener("change", () => {
      space.choose(el("ways").value);
      space.through(point.z);
      plane.refresh();
      point.show();
    });
  }
  plane.drawn = captions;
  captions();
}

async function start() {
  const engine = await Engine.load(bytes("wasm")), model = engine.open(bytes("bundle"));
  const space = new Space(model, bytes("surroundings")), hooks = { engine, model, space };
  showIntroduction(model.info, space);
  let point = null;
  const plane = new PlaneView(el("plane"), space, (place) => point && point.goTo(place));
  point = new PointView(space, plane);
  hooks.plane = plane;
  hooks.point = point;
  await plane.refresh();
  wirePlane(space, plane, point);
  hooks.firstPicture = plane.firstSeen;
  hooks.checkGolden = checkGolden;
  try { hooks.golden = checkGolden(model); } catch (error) { fail(error); }
  hooks.path = new PathView(space, plane, point);
  showFacts(model);
  hooks.digit = new DigitView(space, plane);
  hooks.chooser = new Chooser(space, (x, name) => hooks.digit.ask(x, name));
  el("nearest-image").addEventListener("click", () => {
    hooks.chooser.choose(point.nearestImage);
    el("one-digit").scrollIntoView({ block: "start" });
  });
  hooks.training = new Training(engine);
  window.elboExplore = hooks;
  if (space.count) {
    const seven = space.labels.indexOf(7);
    hooks.chooser.choose(seven < 0 ? 0 : seven);
  }
}

start().catch(fail);
