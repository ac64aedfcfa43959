// Further pages of `elbo explore`, of models of other kinds: PAGE_EXPLORE_OTHERS holds paths, with a colon between two.
import { expect, test } from "@playwright/test";
import { accessible, explorer, golden, logPrior, number } from "./quiet.mjs";

const pages = (process.env.PAGE_EXPLORE_OTHERS || "").split(/[:\n]/).map((path) => path.trim()).filter(Boolean);

test.skip(pages.length === 0, "PAGE_EXPLORE_OTHERS names no page");

for (const path of pages) {
  for (const colorScheme of ["light", "dark"]) {
    test(`${path}, ${colorScheme}: golden numbers agree, no error, accessible, a typed z is decoded`, async ({ page }) => {
      await page.emulateMedia({ colorScheme });
      const wrong = await explorer(page, path);
      await golden(page);
      await accessible(page);
      const latent = await page.evaluate(() => window.elboExplore.model.info.latent);
      const z = Array.from({ length: latent }, (_, k) => [0.1, 0.5, -0.25][k] ?? 0);
      await page.fill("#z", z.join(", "));
      await page.press("#z", "Enter");
      expect(number(await page.locator("#log-prior").textContent())).toBeCloseTo(logPrior(z), 3);
      const mean = await page.evaluate(() => Array.from(window.elboExplore.point.now.mean));
      expect(mean.every(Number.isFinite)).toBe(true);
      expect(Math.max(...mean)).toBeGreaterThan(Math.min(...mean));
      await expect(page.locator("#nearest-distance")).toHaveText(/^\d+\.\d{4}$/);
      await expect(page.locator("#error")).toBeHidden();
      expect(wrong).toEqual([]);
    });
  }
}
