// The tree: one row for each worker and supervisor, kept and changed in place.

import { $, attribute, flag, glyph, h, setGlyph, text } from "./dom.js";
import { spark } from "./charts.js";
import { bytes, number, percent, toneOf, uptime } from "./format.js";
import { now, shown, store } from "./store.js";

const rows = new Map();
const closed = new Set();
export const view = { filter: "", tone: "", selected: "", current: "" };
let onSelect = () => {};

// Rows on the screen alone get their figures: so a large tree costs no more than a small one.
const onScreen = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) { onScreen.delete(target.dataset.path); continue; }
    onScreen.add(target.dataset.path);
    if (store.rows.has(target.dataset.path)) draw(target.dataset.path);
  }
}, { rootMargin: "200px" });

export function begin(select) {
  onSelect = select;
  const box = $("rows");
  box.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    if (event.target.closest(".twist")) toggle(row.dataset.path);
    else { focus(row.dataset.path); onSelect(row.dataset.path); }
  });
  box.addEventListener("keydown", onKey);
}

function make(path) {
  const facts = store.rows.get(path);
  const cells = {
    name: h("b"), small: h("small"), state: h("span", { class: "word" }), glyph: glyph("idle"),
    cpu: h("span", { class: "n", role: "gridcell" }), memory: h("span", { class: "n", role: "gridcell" }),
    rate: h("span", { class: "n", role: "gridcell" }), spark: h("canvas", { "aria-hidden": "true" }),
    queued: h("span", { class: "n", role: "gridcell" }), restarts: h("span", { class: "n", role: "gridcell" }),
    up: h("span", { class: "n", role: "gridcell" }), doing: h("span", { class: "doing", role: "gridcell" }),
  };
  const element = h("div", { class: "row", role: "row", tabindex: "-1", "data-path": path, "data-kind": facts.kind },
    h("span", { class: "name", role: "rowheader" }, h("button", { class: "twist", tabindex: "-1", "aria-hidden": "true" }), cells.name, cells.small),
    h("span", { class: "state", role: "gridcell" }, cells.glyph, cells.state),
    cells.cpu, cells.memory, cells.rate, h("span", { class: "spark", role: "gridcell" }, cells.spark),
    cells.queued, cells.restarts, cells.up, cells.doing);
  element.style.setProperty("--depth", facts.depth);
  element.setAttribute("aria-level", facts.depth + 1);
  const row = { element, cells, budget: "" };
  rows.set(path, row);
  watcher.observe(element);
  return row;
}

// Which rows are to be seen: those that fit the filter and what is above them, less what is below closed ones.
function visible() {
  const words = view.filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length && !view.tone) {
    return store.order.filter((path) => store.rows.has(path) && ![...closed].some((above) => path.startsWith(`${above}/`)));
  }
  const wanted = new Set();
  for (const path of store.order) {
    const row = store.rows.get(path);
    if (!row || (view.tone && (row.kind === "supervisor" || toneOf(shown(path).status) !== view.tone))) continue;
    if (!words.every((word) => path.toLowerCase().includes(word))) continue;
    for (let part = path; part; part = part.slice(0, Math.max(0, part.lastIndexOf("/")))) wanted.add(part);
  }
  return store.order.filter((path) => wanted.has(path));
}

export function drawRows() {
  const box = $("rows"), paths = visible(), kept = new Set(paths);
  for (const [path, row] of rows) {
    if (!store.rows.has(path)) { watcher.unobserve(row.element); onScreen.delete(path); row.element.remove(); rows.delete(path); }
    else if (!kept.has(path)) row.element.remove();
  }
  // The steps of a deep tree are smaller, so that room for the names is left.
  box.style.setProperty("--deepest", paths.reduce((most, path) => Math.max(most, store.rows.get(path)?.depth ?? 0), 1));
  let before = null;
  for (const path of paths) {
    const { element } = rows.get(path) ?? make(path);
    const place = before ? before.nextSibling : box.firstChild;
    if (place !== element) box.insertBefore(element, place);
    before = element;
  }
  if (!kept.has(view.current)) view.current = paths[0] ?? "";
  for (const path of paths) if (onScreen.has(path)) draw(path); else drawTime(path, rows.get(path));
  const nothing = $("empty");
  nothing.hidden = paths.length > 0;
  if (!paths.length) text(nothing, !store.program ? "" : store.order.length ? "No worker fits this filter." : "No tree runs in this program yet.");
}

export function drawTimes() {
  for (const [path, row] of rows) if (row.element.isConnected) drawTime(path, row);
}

function drawTime(path, { element, cells }) {
  const facts = store.rows.get(path);
  if (!facts) return;
  text(cells.up, facts.started == null || store.ended ? "" : uptime(now() - facts.started));
  const { status, hit, back } = shown(path), tone = toneOf(status);
  attribute(element, "data-tone", tone);
  attribute(element, "data-state", status);
  setGlyph(cells.glyph, tone);
  text(cells.state, status);
  flag(element, "hit", hit);
  flag(element, "back", back);
}

function draw(path) {
  const row = rows.get(path), { element, cells } = row;
  const facts = store.rows.get(path), figures = store.figures[path] ?? {};
  const inner = facts.kind === "supervisor";
  text(cells.name, facts.id);
  text(cells.small, facts.kind === "thread" || facts.kind === "command" ? facts.kind : "");
  flag(element, "leaf", !inner);
  if (inner) attribute(element, "aria-expanded", String(!closed.has(path)));
  attribute(element, "aria-selected", String(path === view.selected));
  attribute(element, "tabindex", path === view.current ? "0" : "-1");
  const alive = facts.pid != null;
  figure(cells.cpu, alive ? percent(figures.cpu) : "", figures.cpu < 0.0005, figures.cpu > 0.9);
  figure(cells.memory, alive ? bytes(figures.memory) : "");
  figure(cells.rate, alive && figures.rate != null ? number(figures.rate) : "", !figures.rate);
  figure(cells.queued, alive && figures.queued != null ? number(figures.queued) : "", !figures.queued, figures.queued > 100);
  figure(cells.restarts, inner && !facts.restarts ? "" : number(facts.restarts), !facts.restarts);
  if (!inner) spark(cells.spark, store.history.get(path) ?? []);
  drawTime(path, row);
  if (inner) drawBudget(row, facts);
  else {
    const exit = facts.last_exit ?? "";
    text(cells.doing, alive && figures.in_phase && figures.phase !== "waiting" ? `in ${figures.phase} for ${uptime(figures.in_phase)}${exit ? `; ${exit}` : ""}` : exit);
    flag(cells.doing, "bad", facts.last_exit_clean === false && !alive);
    attribute(cells.doing, "title", exit);
  }
}

function figure(cell, value, zero = false, hot = false) {
  text(cell, value);
  flag(cell, "zero", Boolean(zero));
  flag(cell, "hot", Boolean(hot));
}

function drawBudget({ cells }, facts) {
  const { doing } = cells, most = facts.max_restarts, used = facts.restarts_used ?? 0;
  const words = facts.strategy == null ? "" : facts.dynamic ? "dynamic" : facts.strategy;
  const left = most == null ? "" : `${Math.max(0, most - used)} of ${most} left`;
  const key = `${words}|${left}`;
  if (doing.dataset.key === key) return;
  doing.dataset.key = key;
  doing.replaceChildren();
  if (most != null && most > 0 && most <= 10) {
    const pips = h("span", { class: used / most >= 0.6 ? "pips low" : "pips", "aria-hidden": "true" });
    for (let n = 0; n < most; n++) pips.append(h("i", { class: n < most - used ? null : "used" }));
    doing.append(pips);
  }
  doing.append(most == null || most <= 10 ? words : `${words}, ${left}`);
  doing.title = most == null ? words : `${words}; ${used} of ${most} restarts used in ${facts.max_seconds} s`;
}

export function toggle(path, open = closed.has(path)) {
  if (store.rows.get(path)?.kind !== "supervisor") return;
  if (open) closed.delete(path); else closed.add(path);
  drawRows();
}

export function focus(path) {
  const before = rows.get(view.current);
  view.current = path = rows.has(path) ? path : store.order[0];
  if (before) before.element.tabIndex = -1;
  const row = rows.get(path);
  if (row) { row.element.tabIndex = 0; row.element.focus({ preventScroll: false }); }
}

export function focusTree() { focus(view.current); }

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const path = event.target.closest(".row")?.dataset.path;
  if (!path) return;
  const paths = [...$("rows").children].map((element) => element.dataset.path), at = paths.indexOf(path);
  const go = (to) => focus(paths[Math.min(paths.length - 1, Math.max(0, to))]);
  const page = 15, inner = store.rows.get(path)?.kind === "supervisor";
  switch (event.key) {
    case "ArrowDown": go(at + 1); break;
    case "ArrowUp": go(at - 1); break;
    case "PageDown": go(at + page); break;
    case "PageUp": go(at - page); break;
    case "Home": go(0); break;
    case "End": go(paths.length - 1); break;
    case "ArrowRight": if (inner && closed.has(path)) toggle(path, true); else go(at + 1); break;
    case "ArrowLeft":
      if (inner && !closed.has(path)) toggle(path, false);
      else if (path.includes("/")) focus(path.slice(0, path.lastIndexOf("/")));
      break;
    case "Enter": case " ": onSelect(path); break;
    default: return;
  }
  event.preventDefault();
}
