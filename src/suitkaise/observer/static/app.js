// The page: connects, takes messages, and draws what has changed, once a frame at most.

import { $, attribute, glyph, h, text } from "./dom.js";
import { forgetColours } from "./charts.js";
import { detailed, drawDetail, hide, show } from "./detail.js";
import { clock, toneOf, uptime } from "./format.js";
import { followAgain, page, takeLog } from "./log.js";
import { beginSide, drawSide, drawTimeline } from "./side.js";
import { now, shown, store, take } from "./store.js";
import { begin, drawRows, drawTimes, focus, focusTree, view } from "./tree.js";

let drawing = false, silent = false, lost = false;

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawHead();
    drawRows();
    drawSide();
    drawDetail();
  });
}

// ---- connection
function connect() {
  const stream = new EventSource(`/events?page=${page}`);
  stream.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    lost = false;
    if (message.type === "silent") silent = message.silent;
    else if (message.type === "log") return takeLog(message);
    else if (message.type === "ended") store.ended = true;
    else {
      take(message);
      if (message.type === "state") {
        silent = message.silent;
        followAgain();
      }
    }
    if (store.ended) stream.close();
    drawConnection();
    draw();
  };
  stream.onerror = () => {
    if (store.ended) return;
    lost = true;
    drawConnection(stream.readyState === EventSource.CLOSED);
  };
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

function drawConnection(refused = false) {
  const [tone, word, banner] = store.ended
    ? ["idle", "ended", `The program has ended${store.program ? ` (pid ${store.program.pid})` : ""}. This is what the observer saw last, at ${clock(now())}.`]
    : refused ? ["bad", "refused", "The observer no longer knows this page. Open the URL that it has printed, or start another: suitkaise observe"]
    : lost ? ["soon", "connecting", "The connection to the observer is lost. Trying again …"]
    : silent ? ["soon", "no answer", "The program does not answer. It may be stopped, or very busy; workers run on."]
    : store.idle ? ["idle", "idle", "No tree runs in this program any more. This is what was seen last."]
    : ["good", "live", ""];
  attribute($("live"), "data-tone", tone);
  text($("live").lastElementChild, word);
  const box = $("banner");
  box.hidden = !banner;
  box.dataset.tone = tone;
  text(box, banner);
  document.body.classList.toggle("stale", tone !== "good");
}

// ---- header
const chips = new Map();
const WORDS = { good: "running", soon: "on the way", bad: "down", held: "suspended", done: "finished", idle: "not running" };

function drawHead() {
  const roots = store.order.filter((path) => !path.includes("/"));
  const name = roots.join(", ") || "no tree";
  text($("name"), name);
  const counts = {};
  for (const [path, row] of store.rows) if (row.kind !== "supervisor") { const tone = toneOf(shown(path).status); counts[tone] = (counts[tone] ?? 0) + 1; }
  document.title = `${counts.bad ? `(${counts.bad} down) ` : ""}${name} · suitkaise`;
  for (const tone of Object.keys(WORDS)) {
    let chip = chips.get(tone);
    if (!chip) {
      chip = h("button", { type: "button", "data-tone": tone, "aria-pressed": "false", onclick: () => { view.tone = view.tone === tone ? "" : tone; draw(); } }, glyph(tone), h("span"));
      chips.set(tone, chip);
      $("summary").append(chip);
    }
    chip.hidden = !counts[tone] && view.tone !== tone;
    text(chip.lastChild, `${counts[tone] ?? 0} ${WORDS[tone]}`);
    attribute(chip, "aria-pressed", String(view.tone === tone));
  }
  drawAbout();
}

function drawAbout() {
  const program = store.program;
  if (!program) return;
  const command = program.command.map((word, n) => (n ? word : word.slice(word.lastIndexOf("/") + 1))).join(" ");
  text($("about"), `pid ${program.pid}${store.ended ? "" : ` · up ${uptime(now() - program.started)}`} · ${command}`);
  $("about").title = `${program.folder}: ${program.command.join(" ")}`;
}

// ---- selection
function select(path) {
  if (!show(path, back)) return;
  view.selected = path;
  draw();
}

function back() {
  const from = view.selected;
  view.selected = "";
  hide();
  draw();
  if (from) focus(from);
}

// ---- theme
const dark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  forgetColours();
  for (const canvas of document.querySelectorAll("canvas")) delete canvas.dataset.key;
  draw();
}

function switchTheme() {
  const isDark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : dark.matches;
  const theme = isDark ? "light" : "dark";
  localStorage.setItem("theme", theme);
  setTheme(theme);
}

// ---- begin
begin(select);
beginSide((path) => { focus(path); select(path); });
dark.addEventListener("change", () => setTheme(localStorage.getItem("theme")));
setTheme(localStorage.getItem("theme"));
$("theme").addEventListener("click", switchTheme);
$("help").addEventListener("click", () => $("keys").showModal());
$("filter").addEventListener("input", () => { view.filter = $("filter").value; draw(); });
$("filter").addEventListener("keydown", (event) => { if (event.key === "ArrowDown" || event.key === "Enter") { focusTree(); event.preventDefault(); } });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "Escape") {
    if (typing) { $("filter").value = view.filter = ""; focusTree(); draw(); }
    else if (detailed()) back();
    return;
  }
  if (typing) return;
  if (event.key === "/") $("filter").focus();
  else if (event.key === "t") switchTheme();
  else if (event.key === "?") $("keys").showModal();
  else return;
  event.preventDefault();
});
addEventListener("resize", () => { for (const canvas of document.querySelectorAll("canvas")) delete canvas.dataset.key; draw(); });
setInterval(() => {
  if (document.hidden) return;
  drawTimes();
  drawTimeline();
  drawHead();
  if (detailed()) drawDetail();
}, 500);
connect();
