// Uploads a file from a headless Chromium, and tells on stdout how it goes: one JSON value a line.
//
// argv: the installed Chromium ("" for that of @sparticuz/chromium), what to use ("tus-js-client" or "page"), the page's
// URL, the endpoint, the file, the key, and for "page" where screenshots go. Runs in a folder with playwright-core and
// tus-js-client installed.
import { createRequire } from "node:module";
import { chromium as browsers } from "playwright-core";

const [installed, client, url, endpoint, file, key, pictures] = process.argv.slice(2);
const BYTES_A_SECOND = 12 << 20; // slow enough that something can happen on the way
const TIMEOUT_MS = 240000; // shorter than the test's own, so that the error names the step
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const browser = await browsers.launch(installed ? ofTheSystem(installed) : await ofNpm());
try {
  const page = await browser.newPage({ viewport: { width: 800, height: 560 } });
  page.setDefaultTimeout(TIMEOUT_MS);
  page.on("pageerror", (error) => tell({ error: String(error) }));
  await page.exposeFunction("tell", tell);
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  await session.send("Network.emulateNetworkConditions", {
    offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: BYTES_A_SECOND,
  });
  await page.goto(url);
  await (client === "page" ? withThePage(page) : withTusJsClient(page));
} finally {
  await browser.close();
}

function ofTheSystem(executablePath) {
  return { executablePath, timeout: TIMEOUT_MS, args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] };
}

async function ofNpm() {
  const { default: chromium } = await import("@sparticuz/chromium");
  return { executablePath: await chromium.executablePath(), timeout: TIMEOUT_MS, args: chromium.args };
}

async function withTusJsClient(page) {
  await page.addScriptTag({ path: createRequire(import.meta.url).resolve("tus-js-client/dist/tus.js") });
  await page.setContent("<input type=file>");
  await page.setInputFiles("input", file);
  await page.evaluate(([endpoint, key]) => new Promise((done) => {
    const [chosen] = document.querySelector("input").files;
    const upload = new tus.Upload(chosen, {
      endpoint,
      retryDelays: [0, 200, 400, 800, 1600, 3200, 6400, 12800, 25600],
      metadata: { key, filename: chosen.name, filetype: "text/x-test" },
      onProgress: (sent, total) => tell({ sent, total }),
      onShouldRetry: () => true,
      onError: (error) => { tell({ error: String(error) }); done(); },
      onSuccess: () => { tell({ done: upload.url }); done(); },
    });
    upload.start();
  }), [endpoint, key]);
}

async function withThePage(page) {
  await page.setInputFiles("input", file);
  await page.exposeFunction("watched", (sent) => tell({ sent }));
  await page.evaluate(() => {
    const bar = document.querySelector("progress");
    setInterval(() => watched(bar.value), 50);
  });
  await page.waitForFunction(() => document.querySelector("progress").value > 0.3);
  await page.screenshot({ path: `${pictures}/under-way.png` });
  await page.waitForSelector("li.done, li.failed", { timeout: TIMEOUT_MS });
  await page.screenshot({ path: `${pictures}/done.png` });
  tell({ done: await page.textContent("li") });
}
