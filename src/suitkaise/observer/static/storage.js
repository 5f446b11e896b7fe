// The storage: one container at a time, its entries with short values, and one entry whole.

import { $, h, text } from "./dom.js";
import { bytes, clock } from "./format.js";
import { store } from "./store.js";

const EVERY = 1000, CHANGED = 1500;
let path = "", seen = null, pid = null, asked = false, timer = 0, parts = null;
const entries = new Map();
const opened = new Set();

const idOf = (name) => `${path}\n${name}`;
const visible = () => parts && !$("storage").hidden && !$("overview").hidden && !document.hidden;

// Called whenever the side is drawn; the first time it begins to ask, once a second, as long as it can be seen.
export function drawStorage() {
  if (!parts) {
    parts = { crumbs: h("nav", { class: "crumbs", "aria-label": "Container" }), list: h("ul", { class: "entries" }), note: h("p", { class: "none", role: "status" }) };
    $("storage").append(parts.crumbs, parts.list, parts.note);
    text(parts.note, "Looking …");
  }
  if (pid !== store.program?.pid) { pid = store.program?.pid; go(""); }
  else if (!asked && !timer) look();
}

function go(where) {
  path = where;
  seen = null;
  entries.clear();
  parts.list.replaceChildren();
  drawCrumbs();
  clearTimeout(timer);
  look();
}

async function look() {
  timer = 0;
  if (asked || !visible()) return;
  if (store.ended) { text(parts.note, "The program has ended, and its storage with it."); return; }
  asked = true;
  const wanted = path;
  try {
    const answer = await fetch(`/api/storage?path=${encodeURIComponent(wanted)}&seen=${seen ?? ""}`);
    const told = await answer.json();
    if (wanted === path) {
      if (!answer.ok) text(parts.note, told.error);
      else if (told.entries) { seen = told.revision; show(told); }
    }
  } catch { /* the connection is lost; the page says so */ }
  asked = false;
  if (wanted !== path) look();
  else timer = setTimeout(look, EVERY);
}

function show(told) {
  const first = !entries.size;
  const items = told.containers.map((name) => h("li", {}, h("button", { type: "button", class: "folder", onclick: () => go(path ? `${path}/${name}` : name) }, h("span", { class: "key" }, `${name}/`))));
  const gone = new Set(entries.keys());
  for (const entry of told.entries) {
    gone.delete(entry.name);
    let row = entries.get(entry.name);
    if (!row) entries.set(entry.name, (row = makeRow(entry.name)));
    if (row.revision !== entry.revision) {
      if (!first) flash(row);
      row.revision = entry.revision;
      text(row.value, entry.value ?? "•••");
      if (opened.has(idOf(entry.name))) open(row);
    }
    items.push(row.element);
  }
  for (const name of gone) entries.delete(name);
  items.forEach((element, n) => { if (parts.list.children[n] !== element) parts.list.insertBefore(element, parts.list.children[n] ?? null); });
  while (parts.list.children.length > items.length) parts.list.lastChild.remove();
  drawCrumbs(told.count);
  text(parts.note, !told.used ? "This program uses no storage. It begins with sktree.connect(), or with self.tree in a worker."
    : told.more ? `and ${told.more.toLocaleString("en")} more` : items.length ? "" : path ? "Nothing lies here any more." : "The storage is empty.");
}

function drawCrumbs(count) {
  const names = path ? path.split("/") : [];
  const key = `${path}|${count}`;
  if (parts.crumbs.dataset.key === key) return;
  parts.crumbs.dataset.key = key;
  const crumb = (name, where) => (where === path ? h("b", { "aria-current": "location" }, name) : h("button", { type: "button", onclick: () => go(where) }, name));
  parts.crumbs.replaceChildren(crumb("storage", ""), ...names.flatMap((name, n) => [h("span", { "aria-hidden": "true" }, "/"), crumb(name, names.slice(0, n + 1).join("/"))]));
  if (count != null) parts.crumbs.append(h("small", {}, `${count.toLocaleString("en")} ${count === 1 ? "entry" : "entries"} in all`));
}

function makeRow(name) {
  const row = { name, revision: null, value: h("code", { class: "value" }), whole: null };
  row.head = h("button", { type: "button", "aria-expanded": "false", onclick: () => flip(row) }, h("span", { class: "key" }, name), row.value);
  row.element = h("li", {}, row.head);
  if (opened.has(idOf(name))) row.head.setAttribute("aria-expanded", "true");
  return row;
}

function flash(row) {
  row.element.classList.add("fresh");
  setTimeout(() => row.element.classList.remove("fresh"), CHANGED);
}

function flip(row) {
  const id = idOf(row.name);
  if (opened.delete(id)) {
    row.whole?.remove();
    row.whole = null;
    row.head.setAttribute("aria-expanded", "false");
    return;
  }
  opened.add(id);
  row.head.setAttribute("aria-expanded", "true");
  open(row);
}

async function open(row) {
  const id = idOf(row.name);
  try {
    const answer = await fetch(`/api/storage?path=${encodeURIComponent(path)}&name=${encodeURIComponent(row.name)}`);
    const entry = await answer.json();
    if (!opened.has(id) || entries.get(row.name) !== row) return;
    const whole = h("div", { class: "whole" });
    if (!answer.ok) whole.append(h("p", { class: "where" }, entry.error));
    else {
      const facts = { Written: clock(entry.time), Size: entry.size < 1024 ? `${entry.size} bytes` : bytes(entry.size), Revision: entry.revision.toLocaleString("en"), Owner: entry.owner?.replace(/#.*/, "") };
      for (const [key, value] of Object.entries(entry.metadata)) facts[key] = String(value);
      whole.append(h("dl", { class: "facts" }, Object.entries(facts).filter(([, value]) => value != null).map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, value)))));
      whole.append(entry.value == null ? h("p", { class: "where" }, "Values are hidden.") : h("pre", { class: "box", tabindex: "0" }, entry.value));
    }
    if (row.whole) row.whole.replaceWith(whole); else row.element.append(whole);
    row.whole = whole;
  } catch { /* the connection is lost; the page says so */ }
}
