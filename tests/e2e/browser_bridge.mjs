// Runs a headless browser for browser.py: one command a line on stdin, one reply or message of a page a line on stdout.
//
// argv: the browser ("chrome" or "firefox"), its executable, and a folder for its profile. Runs in a folder with
// puppeteer-core installed.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [browserName, executablePath, userDataDir, packages] = process.argv.slice(2);
const { default: puppeteer } = await import(
  pathToFileURL(createRequire(`${packages}/package.json`).resolve("puppeteer-core")).href
);

const ARGS = {
  chrome: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP rebound.example 127.0.0.1", // a name whose owner lets it lead to this machine
  ],
  firefox: [],
};
const write = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const browser = await puppeteer.launch({
  browser: browserName, executablePath, userDataDir, args: ARGS[browserName], headless: true,
  protocolTimeout: 0, // browser.py has the deadlines
  extraPrefsFirefox: { "media.autoplay.default": 0, "media.block-autoplay-until-in-foreground": false },
});
const pages = new Map();

const calls = {
  async open({ page: number, url }) {
    const context = await browser.createBrowserContext(); // own cache, own storage
    const page = await context.newPage();
    page.setDefaultTimeout(0);
    pages.set(number, page);
    const report = (kind, text) => write({ page: number, kind, text });
    page.on("console", (message) => report(message.type(), message.text()));
    page.on("pageerror", (error) => report("error", String(error)));
    page.on("response", (response) => {
      if (response.status() >= 400) report("status", `${response.status()} ${response.url()}`);
    });
    await page.goto(url);
  },
  async evaluate({ page, script, argument }) {
    return pages.get(page).evaluate(`(${script})(${JSON.stringify(argument)})`);
  },
  async choose({ page, selector, file }) {
    const input = await pages.get(page).$(selector);
    await input.uploadFile(file);
  },
  async view({ page, width, height, dark }) {
    await pages.get(page).setViewport({ width, height });
    await pages.get(page).emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
  },
  async screenshot({ page, file }) {
    await pages.get(page).screenshot({ path: file });
  },
  async press({ page, keys }) {
    for (const key of keys) await pages.get(page).keyboard.press(key);
  },
  async reload({ page }) {
    await pages.get(page).reload();
  },
  async close({ page }) {
    await pages.get(page).browserContext().close();
    pages.delete(page);
  },
};


for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  calls[command.call](command).then(
    (result) => write({ reply: command.number, result: result ?? null }),
    (error) => write({ reply: command.number, failure: String(error) }),
  );
}
await browser.close();
