// Any page that elbo writes: PAGE_LIST holds paths of files, with a colon or a new line between two.
import { expect, test } from "@playwright/test";
import { accessible, fits, open } from "./quiet.mjs";

const pages = (process.env.PAGE_LIST || "").split(/[:\n]/).map((path) => path.trim()).filter(Boolean);

test.skip(pages.length === 0, "PAGE_LIST names no page");

for (const path of pages) {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [320, 1280]) {
      test(`${path}, ${colorScheme}, ${width} px: asks no network, reports no error, is accessible`, async ({ page }) => {
        await page.emulateMedia({ colorScheme });
        await page.setViewportSize({ width, height: 900 });
        const wrong = await open(page, path);
        await page.waitForTimeout(500);
        await accessible(page);
        await fits(page);
        expect(wrong).toEqual([]);
      });
    }
  }
}
