// Makes the pages of the console comfortable: copy buttons, times that count, light and dark.
// Each page is complete without this script.
"use strict";

const units = [[86400, "days"], [3600, "hours"], [60, "minutes"]];

// Says how far a moment is, as the daemon does in console/components.rs.
function relative(seconds) {
  const amount = Math.abs(seconds);
  const [unit, name] = units.find(([unit]) => amount >= 2 * unit) ?? [1, "seconds"];
  const count = Math.floor(amount / unit);
  return seconds < 0 ? `${count} ${name} ago` : `in ${count} ${name}`;
}

// The time of the daemon at which the page was made, or last read again.
const madeAt = () => document.querySelector(".made time")?.dateTime ?? "the page was opened";

// The clock of this machine may differ from the daemon's.
const made = Date.parse(madeAt());
const ahead = Number.isNaN(made) ? 0 : Date.now() - made;

function countTimes() {
  const now = Math.floor((Date.now() - ahead) / 1000);
  for (const small of document.querySelectorAll("small[data-seconds]")) {
    small.textContent = relative(Number(small.dataset.seconds) - now);
  }
}

async function copy(button) {
  const text = button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without the permission, or over plain HTTP to another machine: by a selection.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.classList.add("copied");
  setTimeout(() => button.classList.remove("copied"), 1500);
}

function changeTheme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const shown = root.dataset.theme ?? (dark ? "dark" : "light");
  const next = shown === "dark" ? "light" : "dark";
  root.dataset.theme = next;
  localStorage.setItem("theme", next);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.copy !== undefined) copy(button);
  if (button?.id === "theme") changeTheme();
});

// Hears of each change of the state while the page is visible, and has htmx read the page again.
let events = null;
function follow() {
  const wanted = !document.hidden && document.querySelector("[data-follows]") !== null;
  if (wanted && events === null) {
    events = new EventSource("/console/events");
    events.addEventListener("moved", () => htmx.trigger(document.body, "moved"));
  } else if (!wanted && events !== null) {
    events.close();
    events = null;
  }
}

// A page that is read again by itself says so when it has no answer: a screen on the wall must not
// go on saying that all is well.
const silenceMax = 90000;
let answered = Date.now();
let lastMade = madeAt();
function replaceBy(text, goesOn) {
  const main = document.querySelector("main[hx-get]");
  if (main === null || document.querySelector("#no-answer") !== null) return;
  const note = document.createElement("p");
  note.id = "no-answer";
  note.className = "note critical";
  note.setAttribute("role", "alert");
  note.textContent = text;
  const title = main.querySelector("h1");
  main.replaceChildren(...(title === null ? [] : [title]), note);
  if (goesOn) return;
  // htmx asks no more for an element that is not in the page.
  const still = document.createElement("main");
  still.id = main.id;
  still.tabIndex = -1;
  still.append(...main.childNodes);
  main.replaceWith(still);
  follow();
}
function hasNoAnswer() {
  replaceBy(`No answer since ${lastMade}: what this page said may have changed. It asks again by itself.`, true);
}
// A list whose filter has no answer must not go on showing the rows of an earlier filter.
function listHasNoAnswer(event, text) {
  const list = event.detail.target;
  if (list?.id !== "list") return;
  const note = document.createElement("p");
  note.className = "note critical";
  note.setAttribute("role", "alert");
  note.textContent = text;
  list.replaceChildren(note);
}
function wasNotSent(event) {
  hasNoAnswer();
  listHasNoAnswer(event, "No answer to this filter. Change it, or press Show, to ask again.");
}
document.addEventListener("htmx:sendError", wasNotSent);
document.addEventListener("htmx:timeout", wasNotSent);
document.addEventListener("htmx:responseError", (event) => {
  const { status } = event.detail.xhr;
  listHasNoAnswer(event, `This filter was refused (status ${status}). Press Show to see why.`);
  if (status !== 401 && status !== 403) return hasNoAnswer();
  replaceBy(`Refused since ${lastMade} (status ${status}): this browser may not read the page any more. ` +
    "Load it again to see why.", false);
});
document.addEventListener("htmx:afterSwap", () => {
  answered = Date.now();
  lastMade = madeAt();
  // The browser opens no stream again that was refused.
  if (events?.readyState === EventSource.CLOSED) events = null;
  follow();
});
setInterval(() => { if (Date.now() - answered > silenceMax) hasNoAnswer(); }, 15000);
document.addEventListener("visibilitychange", follow);
addEventListener("pagehide", () => events?.close());
follow();

// On a narrow screen the navigation scrolls.
document.querySelector(".pages a[aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

const theme = localStorage.getItem("theme");
if (theme !== null) document.documentElement.dataset.theme = theme;
setInterval(countTimes, 15000);
