// The page of `elbo explore RUN -o FILE`: PAGE_EXPLORE names the file. PAGE_EXPLORE_DECODE, if there, names what
// `elbo decode RUN --z 0.1,0.5 --json` printed.
import { expect, test } from "@playwright/test";
import { readFileSync } from "node:fs";
import { accessible, explorer as opened, fits, golden, logPrior, number } from "./quiet.mjs";

const path = process.env.PAGE_EXPLORE;
test.skip(!path, "PAGE_EXPLORE names no page");

const explorer = (page) => opened(page, path);

test("it opens from disk: no request, no error, golden numbers agree", async ({ page }) => {
  const wrong = await explorer(page);
  await golden(page);
  expect(wrong).toEqual([]);
});

test("a golden number that is wrong is seen", async ({ page }) => {
  await explorer(page);
  await page.evaluate(() => {
    const { model } = window.elboExplore;
    model.info.golden.mean[3] += 0.01;
    window.elboExplore.checkGolden(model);
  });
  await expect(page.locator("#error")).toContainText("golden numbers are wrong");
});

for (const colorScheme of ["light", "dark"]) {
  for (const width of [320, 1280]) {
    test(`it is accessible and fits: ${colorScheme}, ${width} px`, async ({ page }) => {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      const wrong = await explorer(page);
      await page.locator("#train").scrollIntoViewIfNeeded();
      await expect(page.locator("#train-now")).toContainText("Untrained");
      await accessible(page);
      await fits(page);
      expect(wrong).toEqual([]);
    });
  }
}

test("0.1, 0.5 in the box shows what elbo decode prints", async ({ page }) => {
  await explorer(page);
  const latent = await page.evaluate(() => window.elboExplore.model.info.latent);
  const z = Array.from({ length: latent }, (_, k) => [0.1, 0.5][k] ?? 0);
  await page.fill("#z", z.join(", "));
  await page.press("#z", "Enter");
  expect(number(await page.locator("#log-prior").textContent())).toBeCloseTo(logPrior(z), 3);
  const { mean, golden } = await page.evaluate(() => ({
    mean: Array.from(window.elboExplore.point.now.mean), golden: window.elboExplore.model.info.golden }));
  golden.pixels.forEach((pixel, i) => expect(Math.abs(mean[pixel] - golden.mean[i])).toBeLessThan(1e-5));
  if (!process.env.PAGE_EXPLORE_DECODE) return;
  const [decoded] = JSON.parse(readFileSync(process.env.PAGE_EXPLORE_DECODE, "utf8")).points;
  expect(number(await page.locator("#log-prior").textContent())).toBeCloseTo(decoded.log_p, 3);
  // The page's weights have 11 significant bits, the run's have 24.
  const farthest = Math.max(...decoded.f_mu.map((v, i) => Math.abs(v - mean[i])));
  console.log(`f_μ(z): the farthest pixel is ${farthest} from that of elbo decode`);
  expect(farthest).toBeLessThan(5e-3);
  const nearest = await page.evaluate(() => window.elboExplore.point.now.nearest);
  expect(nearest.images.map(([i]) => i)).toEqual(decoded.nearest.map(({ image }) => image));
  nearest.images.forEach(([, distance], i) => expect(distance).toBeCloseTo(decoded.nearest[i].distance, 5));
  for (const { class: digit, share } of decoded.shares) expect(nearest.shares[digit]).toBeCloseTo(share, 9);
});

test("what is no point is refused, and said", async ({ page }) => {
  await explorer(page);
  const before = await page.evaluate(() => Array.from(window.elboExplore.point.z));
  for (const [text, told] of [["0.1, cat", "“cat” is not a number"], ["0.1", "the box has 1"], ["0.1, 1e39", "too large"]]) {
    await page.fill("#z", text);
    await page.press("#z", "Enter");
    await expect(page.locator("#z-problem")).toContainText(told);
    await expect(page.locator("#z")).toHaveAttribute("aria-invalid", "true");
  }
  expect(await page.evaluate(() => Array.from(window.elboExplore.point.z))).toEqual(before);
});

test("a click, a drag and the arrow keys move z", async ({ page }) => {
  await explorer(page);
  const plane = page.locator("#plane"), at = () => page.evaluate(() => window.elboExplore.plane.at);
  const place = (a, b) => page.evaluate(([x, y]) => [window.elboExplore.plane.shown.X(x), window.elboExplore.plane.shown.Y(y)], [a, b]);
  const [x, y] = await place(0.1, 0.5);
  await plane.click({ position: { x, y } });
  const [a, b] = await at();
  const pixel = await page.evaluate(() => 2 * window.elboExplore.space.reach / window.elboExplore.plane.shown.innerWidth);
  console.log(`a click on (0.1, 0.5) is at (${a}, ${b}); a pixel is ${pixel} wide`);
  expect(Math.abs(a - 0.1)).toBeLessThan(pixel);
  expect(Math.abs(b - 0.5)).toBeLessThan(pixel);
  // What is shown is that of the place, and close to what the program says of (0.1, 0.5).
  const seen = await page.evaluate(() => {
    const { model, point } = window.elboExplore, { golden, latent } = model.info, z = Array.from(point.z);
    const exact = model.decode(Float32Array.from(z)).mean, typed = model.decode(golden.z.slice(0, latent)).mean;
    const far = (other) => Math.max(...other.map((v, i) => Math.abs(v - point.now.mean[i])));
    return { z, box: document.getElementById("z").value, exact: far(exact), typed: far(typed) };
  });
  expect(number(await page.locator("#log-prior").textContent())).toBeCloseTo(logPrior(seen.z), 3);
  seen.box.split(",").forEach((text, k) => expect(Number(text)).toBeCloseTo(seen.z[k], 4));
  expect(seen.exact).toBe(0);
  expect(seen.typed).toBeLessThan(0.1);
  const first = await page.locator("#z").inputValue();
  await page.keyboard.press("ArrowRight");
  expect((await at())[0]).toBeGreaterThan(a + 0.03);
  expect(await page.locator("#z").inputValue()).not.toBe(first);
  const box = await plane.boundingBox(), [toX, toY] = await place(-1, 1);
  await page.mouse.move(box.x + x, box.y + y);
  await page.mouse.down();
  await page.mouse.move(box.x + toX, box.y + toY, { steps: 4 });
  await page.mouse.up();
  const [c, d] = await at();
  expect(Math.abs(c + 1) + Math.abs(d - 1)).toBeLessThan(0.05);
  await expect(page.locator("#z-said")).toContainText("log p(z)");
});

test("every layer and both axes are drawn", async ({ page }) => {
  const wrong = await explorer(page);
  for (const name of ["regions", "test set", "quantiles", "images", "even in z"]) {
    await page.getByRole("button", { name, exact: true }).click();
    await expect(page.getByRole("button", { name, exact: true })).toHaveAttribute("aria-pressed", "true");
    await page.waitForTimeout(200);
  }
  await page.getByLabel("images per side").fill("12");
  await expect(page.locator("#plane-caption")).toContainText("12 × 12");
  await page.locator("#t").fill("50");
  await expect(page.locator("#t-value")).toHaveText("t = 0.50");
  expect(wrong).toEqual([]);
});

test("ELBO + gap = log p(x)", async ({ page }) => {
  await explorer(page);
  for (const image of [0, 1, 2, 3]) {
    await page.evaluate((i) => window.elboExplore.chooser.choose(i), image);
    await page.waitForFunction(() => window.elboExplore.digit.answer, null, { timeout: 60_000 });
    const { elbo, gap, evidence } = await page.evaluate(() => window.elboExplore.digit.answer);
    expect(gap).toBeGreaterThan(-0.01);
    expect(Math.abs(elbo + gap - evidence)).toBeLessThan(0.05);
    const [a, b, c] = (await page.locator("#sum b").allTextContents()).map(number);
    expect(Math.abs(a + b - c)).toBeLessThan(0.011);
  }
});

test("draws of the encoder come nearer to log p(x), and more of them tighten the bound", async ({ page }) => {
  await explorer(page);
  const { points, evidence } = await page.evaluate(() => ({
    points: window.elboExplore.digit.bounds.points, evidence: window.elboExplore.digit.answer.evidence }));
  const [first, last] = [points[0].mean, points[points.length - 1].mean];
  expect(last).toBeGreaterThanOrEqual(first);
  expect(last).toBeLessThan(evidence + 1);
  await page.locator("#k").fill("0");
  await expect(page.locator("#k-value")).toHaveText("k = 1");
  await page.locator("#race").click();
  await expect(page.locator("#race-now")).toContainText("after 300", { timeout: 20_000 });
});

test("a drawn digit is asked about, laid out as the data are", async ({ page }) => {
  await explorer(page);
  await page.locator("#pad").scrollIntoViewIfNeeded();
  const box = await page.locator("#pad").boundingBox();
  await page.mouse.move(box.x + 60, box.y + 50);
  await page.mouse.down();
  await page.mouse.move(box.x + 120, box.y + 50, { steps: 5 });
  await page.mouse.move(box.x + 80, box.y + 150, { steps: 8 });
  await page.mouse.up();
  await expect(page.locator("#now-name")).toHaveText("Your drawing");
  const { width, height, x } = await page.evaluate(() => ({ ...window.elboExplore.model.info, x: Array.from(window.elboExplore.digit.x) }));
  const sum = x.reduce((s, v) => s + v, 0), middle = [0, 0];
  x.forEach((v, i) => { middle[0] += (v / sum) * ((i % width) + 0.5); middle[1] += (v / sum) * (Math.floor(i / width) + 0.5); });
  expect(Math.abs(middle[0] - width / 2) + Math.abs(middle[1] - height / 2)).toBeLessThan(1);
});

test("the keyboard chooses a test image", async ({ page }) => {
  await explorer(page);
  await page.evaluate(() => window.elboExplore.chooser.choose(0));
  await page.locator("#thumbs").focus();
  await page.keyboard.press("ArrowRight");
  await expect(page.locator("#thumb-1")).toHaveAttribute("aria-selected", "true");
  await expect(page.locator("#now-name")).toContainText("Test image 1");
});

test("100 updates in the page lower the loss", async ({ page }) => {
  const wrong = await explorer(page);
  await page.locator("#train-go").scrollIntoViewIfNeeded();
  await expect(page.locator("#train-now")).toContainText("Untrained");
  const before = await page.evaluate(() => window.elboExplore.training.test.negElbo);
  await page.locator("#train-step").click();
  await expect(page.locator("#train-now")).toContainText("Update 1,");
  await page.locator("#train-go").click();
  await page.waitForFunction(() => window.elboExplore.training.last.updates >= 100, null, { timeout: 90_000 });
  await page.locator("#train-go").click();
  const updates = await page.evaluate(() => window.elboExplore.training.last.updates);
  await page.locator("#train-step").click();
  await expect(page.locator("#train-now")).toContainText(`Update ${updates + 1},`);
  await expect(page.locator("#train-command")).toContainText("elbo train");
  const after = await page.evaluate(() => window.elboExplore.training.test.negElbo);
  console.log(`test −ELBO: ${before.toFixed(2)} before, ${after.toFixed(2)} after ${updates + 1} updates`);
  expect(after).toBeLessThan(before - 200);
  expect(wrong).toEqual([]);
});

test("the tape of an update opens and is walked", async ({ page }) => {
  const wrong = await explorer(page);
  await page.locator("#tape summary").scrollIntoViewIfNeeded();
  await page.locator("#tape summary").click();
  await expect(page.locator("#tape-body")).toContainText("1 of", { timeout: 30_000 });
  await page.locator("#tape-body").getByRole("button", { name: "Next" }).click();
  await expect(page.locator("#tape-body")).toContainText("2 of");
  await accessible(page);
  expect(wrong).toEqual([]);
});

test("training in the page is the program's training", async ({ page }) => {
  await explorer(page);
  const { ours, golden } = await page.evaluate(() => {
    const { engine, model } = window.elboExplore, golden = model.info.golden, trainer = engine.trainer({});
    return { golden, ours: golden.losses.map(() => trainer.step(golden.updates).loss) };
  });
  console.log(`losses of the program: ${golden.losses}; of the page: ${ours}`);
  golden.losses.forEach((loss, i) => expect(Math.abs(ours[i] - loss)).toBeLessThan(1));
});

test("the rule of quadrature is exact for polynomials, of even and odd order", async ({ page }) => {
  await explorer(page);
  const moments = await page.evaluate(() => [1, 2, 3, 5, 16].map((n) => {
    const { points, weights } = hermiteRule(n), of = (p) => points.reduce((sum, t, i) => sum + weights[i] * t ** p, 0);
    return { n, count: points.length, found: Array.from({ length: Math.min(2 * n, 8) }, (_, p) => of(p)) };
  }));
  const exact = [1, 0, 1, 0, 3, 0, 15, 0];
  for (const { n, count, found } of moments) {
    expect(count).toBe(n);
    found.forEach((v, p) => expect(v).toBeCloseTo(exact[p], 8));
  }
});

test("pause and go within one breath leaves one loop", async ({ page }) => {
  const wrong = await explorer(page);
  await page.locator("#train").scrollIntoViewIfNeeded();
  await expect(page.locator("#train-now")).toContainText("Untrained");
  const ended = await page.evaluate(async () => {
    const { training } = window.elboExplore, first = training.go();
    training.pause();
    const second = training.go();
    await first; // ends by itself, though a loop runs
    const running = training.running !== null;
    training.pause();
    await second;
    return running;
  });
  expect(ended).toBe(true);
  expect(wrong).toEqual([]);
});

test("the tape listens to its keys once, however often it is opened", async ({ page }) => {
  test.slow();
  await explorer(page);
  const summary = page.locator("#tape summary"), body = page.locator("#tape-body");
  await summary.scrollIntoViewIfNeeded();
  for (const open of [true, false, true]) {
    await summary.click();
    if (open) await expect(body).toContainText("1 of", { timeout: 60_000 });
  }
  await body.getByRole("button", { name: "Next" }).click();
  await page.keyboard.press("ArrowRight");
  await expect(body).toContainText("3 of");
  // In a region that scrolls the keys scroll.
  await body.getByRole("region", { name: "The graph" }).focus();
  await page.keyboard.press("ArrowRight");
  await expect(body).toContainText("3 of");
});

// The targets are 1 s, 1 s and 2 s on two free cores; five times as much says that something is wrong.
test("the first picture, 60 × 60 images and a posterior are there soon", async ({ page }) => {
  await explorer(page);
  const { first, posterior, decode } = await page.evaluate(() => {
    const { model, plane, digit } = window.elboExplore, K = model.info.latent, z = new Float32Array(3600 * K);
    for (let i = 0; i < 3600; i++) [z[i * K], z[i * K + 1]] = [(i % 60) / 10 - 3, Math.floor(i / 60) / 10 - 3];
    const began = performance.now();
    model.decode(z);
    return { first: plane.firstSeen, posterior: digit.answer.ms ?? 0, decode: performance.now() - began };
  });
  const [a, b, c] = [first, decode, posterior].map(Math.round);
  console.log(`first picture after ${a} ms, 60 × 60 images in ${b} ms, a posterior in ${c} ms`);
  expect(first).toBeLessThan(5000);
  expect(decode).toBeLessThan(5000);
  expect(posterior).toBeLessThan(10_000);
});
