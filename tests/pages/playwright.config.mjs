import { defineConfig } from "@playwright/test";

// The browser is the system's: CHROMIUM names another.
export default defineConfig({
  testDir: ".",
  testMatch: "*.spec.mjs",
  timeout: 120_000,
  workers: 2,
  fullyParallel: true,
  reporter: "list",
  use: {
    launchOptions: { executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox"] },
    viewport: { width: 1280, height: 900 },
  },
});
