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

// The clock of this machine may differ from the daemon's, by which the page was made.
const made = document.querySelector(".foot time");
const ahead = made === null ? 0 : Date.now() - Date.parse(made.dateTime);

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
document.addEventListener("visibilitychange", follow);
addEventListener("pagehide", () => events?.close());
follow();

// On a narrow screen the navigation scrolls.
document.querySelector(".pages a[aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

const theme = localStorage.getItem("theme");
if (theme !== null) document.documentElement.dataset.theme = theme;
setInterval(countTimes, 15000);
