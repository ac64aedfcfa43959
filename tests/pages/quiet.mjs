// Opening a page from disk, and what it must not do: ask a network, report an error, be hard to use.
import AxeBuilder from "@axe-core/playwright";
import { expect } from "@playwright/test";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

/** Opens the file and returns what the page did that it must not do. Pictures of its own, in `pictures` beside it, are allowed
    to those pages that are chapters of a book. */
export async function open(page, path) {
  const address = pathToFileURL(resolve(path)).href;
  const pictures = new URL("pictures/", address).href;
  const wrong = [];
  page.on("request", (request) => {
    const url = request.url();
    if (url.split("#")[0] !== address && !/^(data|blob):/.test(url) && !url.startsWith(pictures)) wrong.push(`asked for ${url}`);
  });
  page.on("console", (message) => {
    if (message.type() === "error") wrong.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  await page.goto(address);
  return wrong;
}

/** Opens a page of `elbo explore` and waits until its first posterior is there. */
export async function explorer(page, path) {
  const wrong = await open(page, path);
  await page.waitForFunction(() => window.elboExplore?.digit.bounds.points || !document.getElementById("error").hidden, null,
    { timeout: 60_000 });
  await expect(page.locator("#error")).toBeHidden();
  return wrong;
}

/** All golden numbers agree. */
export async function golden(page) {
  const { count, agree, worst } = await page.evaluate(() => window.elboExplore.golden);
  console.log(`golden numbers: ${agree} of ${count}, the farthest ${worst} away`);
  expect(count).toBeGreaterThan(40);
  expect(agree).toBe(count);
  await expect(page.locator("#golden")).toHaveText(new RegExp(`^${count} of ${count} golden numbers agree`));
}

/** A number as a page writes it. */
export const number = (text) => Number(text.replaceAll("−", "-").replace(/[^-0-9.e]/g, ""));

/** log N(z; 0, I). */
export const logPrior = (z) => z.reduce((sum, v) => sum - 0.5 * (v * v + Math.log(2 * Math.PI)), 0);

/** No rule of WCAG 2.2 A and AA, or of best practice, is broken. */
export async function accessible(page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  const told = violations.map((v) => `${v.id}: ${v.help}\n  ${v.nodes.slice(0, 5).map((n) => n.html).join("\n  ")}`);
  expect(told).toEqual([]);
}

/** Nothing is wider than the window. */
export async function fits(page) {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  expect(content).toBeLessThanOrEqual(window);
}
