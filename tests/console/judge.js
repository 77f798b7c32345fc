// Opens every page of the console in Chromium, as an operator does, and judges it: axe finds no
// fault, nothing is wider than the screen, the page's own policy refuses nothing, and the pages
// can be read without script and used with the keyboard. Writes a screenshot of each.
//
//   node judge.js FOLDER URL     URL is what `hallmark console` prints
"use strict";
import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// The packages are installed below target/, not beside this file.
const require = createRequire(join(process.env.NODE_DIR, "package.json"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [folder, url] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
const views = [
  { name: "light", width: 1280, height: 800, scheme: "light" },
  { name: "dark", width: 1280, height: 800, scheme: "dark" },
  { name: "phone", width: 390, height: 844, scheme: "light" },
];
const faults = [];
let judged = 0;

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const page = await browser.newPage();
let here = url;
page.on("console", (message) => {
  if (["error", "warn"].includes(message.type())) faults.push(`${here}: ${message.text()}`);
});
page.on("pageerror", (error) => faults.push(`${here}: ${error.message}`));
page.on("requestfailed", (request) => faults.push(`${here}: ${request.url()} failed`));
// axe is no part of the page, so it is not brought in through the page's policy.
const judge = async () => {
  const world = await page.createCDPSession();
  const { frameTree } = await world.send("Page.getFrameTree");
  const { executionContextId: contextId } = await world.send("Page.createIsolatedWorld", {
    frameId: frameTree.frame.id, worldName: "axe",
  });
  await world.send("Runtime.evaluate", { expression: axe, contextId });
  const expression = "axe.run(document, { resultTypes: ['violations'] })" +
    ".then((it) => JSON.stringify(it.violations.map((it) => [it.id, it.help, it.nodes.map((n) => n.html).slice(0, 3)])))";
  const { result } = await world.send("Runtime.evaluate", { expression, contextId, awaitPromise: true });
  await world.detach();
  return JSON.parse(result.value);
};

const visit = async (path) => {
  here = path;
  const answer = await page.goto(new URL(path, url).href, { waitUntil: "load" });
  if (answer.status() !== 200) faults.push(`${path}: status ${answer.status()}`);
};

await page.goto(url, { waitUntil: "load" });
const links = await page.$$eval(".pages a", (all) => all.map((it) => it.getAttribute("href")));
if (links.length < 8) faults.push(`only ${links.length} pages are linked`);
// Of each list the first row's page, too.
const paths = [...links];
for (const link of links) {
  await visit(link);
  const first = await page.$$eval("tbody th a", (all) => all.map((it) => it.getAttribute("href")));
  if (first.length > 0) paths.push(first[0]);
}
if (paths.length < links.length + 4) faults.push(`only ${paths.length - links.length} lists have a row`);
// The pages about the compromise of a device, and of a generation.
const reports = "a[href^='/console/compromise/']";
const reportPaths = [];
for (const path of ["/console/devices/press-1", "/console/hierarchy"]) {
  await visit(path);
  const all = await page.$$eval(reports, (all) => all.map((it) => it.getAttribute("href")));
  if (all.length === 0) faults.push(`${path} leads to no report of a compromise`);
  reportPaths.push(...all.filter((it) => !it.includes("generation") || it.endsWith("/line-1/1")));
}
paths.push(...reportPaths);
// Judges the page that is shown, in one view, and takes its screenshot.
const judgeShown = async (path, view) => {
  const wider = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
  if (wider > 0) faults.push(`${path}: ${wider} pixels wider than ${view.name}`);
  for (const [id, help, nodes] of await judge()) {
    faults.push(`${path} (${view.name}): ${id}: ${help}: ${nodes.join(" ")}`);
  }
  const name = decodeURIComponent(path).replace(/^\/console\/?/, "").replace(/[^a-z0-9-]+/gi, "-");
  await page.screenshot({ path: join(folder, `${name || "overview"}-${view.name}.png`), fullPage: true });
  judged += 1;
};
const look = async (view) => {
  await page.setViewport({ width: view.width, height: view.height });
  // Without motion: a colour that is still changing has no contrast of its own.
  await page.emulateMediaFeatures([
    { name: "prefers-color-scheme", value: view.scheme },
    { name: "prefers-reduced-motion", value: "reduce" },
  ]);
};
for (const path of paths) {
  for (const view of views) {
    await look(view);
    await visit(path);
    await judgeShown(path, view);
  }
}

// The keyboard alone: the first stop leads to the content, and a copy button copies.
await page.setViewport({ width: 1280, height: 800 });
await visit("/console");
await page.keyboard.press("Tab");
const skip = await page.evaluate("document.activeElement.className");
if (skip !== "skip") faults.push(`the first stop of the keyboard is ${skip}`);
await visit("/console/devices");
await browser.defaultBrowserContext().overridePermissions(new URL(url).origin, ["clipboard-read", "clipboard-write", "clipboard-sanitized-write"]);
await page.focus("button.copy");
await page.keyboard.press("Enter");
await page.waitForSelector("button.copied", { timeout: 5000 });
const copied = await page.evaluate("navigator.clipboard.readText()");
const meant = await page.$eval("button.copy", (it) => it.dataset.copy);
if (copied !== meant) faults.push(`copied ${copied}, not ${meant}`);
// htmx reads the list again while a filter is typed, and the page's policy lets it.
await visit("/console/certificates");
const rows = "document.querySelectorAll('#list tbody th a').length";
await page.type("input[name=subject]", "press-1");
await page.waitForFunction(`${rows} === 1`, { timeout: 10000 });
// A filter that has no answer leaves no rows of an earlier one.
const beforeFilter = faults.length;
await page.setOfflineMode(true);
await page.type("input[name=subject]", "7");
await page.waitForSelector("#list [role=alert]", { timeout: 10000 });
if (await page.evaluate(rows) !== 0) faults.push("the rows of an earlier filter are still there");
const ofFilter = /ERR_INTERNET_DISCONNECTED|htmx:(sendError|afterRequest)|\/console\/certificates\S* failed$/;
faults.splice(beforeFilter, faults.length - beforeFilter, ...faults.slice(beforeFilter).filter((it) => !ofFilter.test(it)));
await page.setOfflineMode(false);
await page.focus("input[name=subject]");
await page.keyboard.press("Backspace");
await page.waitForFunction(`${rows} === 1`, { timeout: 10000 });
// A page that is read again by itself says when it has no answer, and goes on when it has one.
await visit("/console");
const before = faults.length;
await page.setOfflineMode(true);
await page.evaluate("htmx.trigger(document.body, 'moved')");
await page.waitForSelector("#no-answer", { timeout: 10000 });
// Chromium, htmx and this script say themselves that requests have failed; nothing else may.
const ofCut = /ERR_INTERNET_DISCONNECTED|htmx:(sendError|afterRequest)|\/console(\/events)? failed$/;
faults.splice(before, faults.length - before, ...faults.slice(before).filter((it) => !ofCut.test(it)));
if (await page.$(".answer") !== null) faults.push("the answers are there without an answer");
await page.setOfflineMode(false);
await page.evaluate("htmx.trigger(document.body, 'moved')");
await page.waitForSelector(".answer", { timeout: 10000 });
if (await page.$("#no-answer") !== null) faults.push("it has an answer and says that it has none");
// A form that the browser sends is accepted, and leads to a page.
await visit("/console/blocks");
await Promise.all([
  page.waitForNavigation({ waitUntil: "load", timeout: 10000 }),
  page.$eval("form[action='/console/blocks']", (form) => {
    form.querySelector("[name=kind]").value = "device";
    form.querySelector("[name=name]").value = "press-2";
    form.querySelector("[name=reason]").value = "lost";
    form.submit();
  }),
]);
const sent = await page.$eval("main", (it) => it.textContent);
if (!sent.includes("press-2") || !sent.includes("lost")) faults.push(`a form was not accepted: ${sent.slice(0, 200)}`);
// A compromise by form: nothing happens for another name, and the answer to the right one is the
// receipt of every place.
for (const path of reportPaths) {
  const name = path.includes("/generation/") ? "line-1" : "press-1";
  const submit = async (typed) => {
    await page.$eval("form.action input[name=name]", (it) => { it.value = ""; });
    await page.type("form.action input[name=name]", typed);
    await Promise.all([
      page.waitForNavigation({ waitUntil: "load", timeout: 60000 }),
      page.click("form.action button.danger"),
    ]);
  };
  await look(views[0]);
  await visit(path);
  const beforeRefusal = faults.length;
  await submit("another");
  const refused = await page.$eval("[role=alert]", (it) => it.textContent).catch(() => "");
  if (!refused.includes("Nothing was excluded")) faults.push(`${path}: another name: ${refused}`);
  // Chromium says itself that the answer is a refusal.
  faults.splice(beforeRefusal, faults.length - beforeRefusal,
    ...faults.slice(beforeRefusal).filter((it) => !it.includes("status of 400")));
  await submit(name);
  const receipt = await page.$eval("main", (it) => it.textContent);
  if (!receipt.includes("Receipt") || !receipt.includes("reported as compromised")) {
    faults.push(`${path}: no receipt: ${receipt.slice(0, 300)}`);
  }
  for (const view of views) {
    await look(view);
    await judgeShown(`${path}-receipt`, view);
  }
}
await look(views[0]);
// Light and dark by the button, kept for the next page.
await page.click("#theme");
await visit("/console/tokens");
const theme = await page.evaluate("document.documentElement.dataset.theme");
if (!["light", "dark"].includes(theme)) faults.push(`the theme is ${theme}`);
// Without script every page has its content.
await page.setJavaScriptEnabled(false);
for (const path of links) {
  await visit(path);
  const words = await page.$eval("main", (it) => it.textContent.trim().length);
  if (words < 40) faults.push(`${path}: empty without script`);
}
await browser.close();
for (const fault of faults) console.error(fault);
console.log(`${judged} views judged, ${faults.length} faults`);
process.exit(faults.length === 0 ? 0 : 1);
