// The side: the timeline, incidents as stories, and events.

import { $, attribute, glyph, h, setGlyph, text } from "./dom.js";
import { timeline } from "./charts.js";
import { bytes, clock, duration, last, toneOf } from "./format.js";
import { drawStorage } from "./storage.js";
import { now, store } from "./store.js";

const TONES = { open: "soon", recovered: "good", down: "bad", "gave up": "bad", stopped: "idle" };
const LEVELS = { error: "bad", warning: "soon" };
const cards = new Map();
const opened = new Set();
const reports = new Map();
let shownEvents = 0;
let openWorker = () => {};

export function beginSide(show) {
  openWorker = show;
  const tabs = [$("tab-incidents"), $("tab-events"), $("tab-storage")];
  const choose = (tab) => {
    for (const one of tabs) {
      const on = one === tab;
      one.setAttribute("aria-selected", String(on));
      one.tabIndex = on ? 0 : -1;
      $(one.getAttribute("aria-controls")).hidden = !on;
    }
    shownEvents = 0;
    drawSide();
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tabs[(tabs.indexOf(tab) + (event.key === "ArrowRight" ? 1 : tabs.length - 1)) % tabs.length];
      choose(other);
      other.focus();
    });
  }
}

export function drawTimeline() {
  if (!$("overview").hidden) timeline($("timeline"), store.marks.values(), now());
}

export function drawSide() {
  if ($("overview").hidden) return;
  drawTimeline();
  drawNodes();
  text($("count"), counted([...store.incidents.keys()]));
  if (!$("incidents").hidden) drawIncidents($("incidents"), [...store.incidents.values()].reverse());
  else if (!$("events").hidden) drawEvents();
  else drawStorage();
}

// They are numbered from 1, and the older ones are not kept.
function counted(ids) {
  const all = Math.max(...ids);
  return !ids.length ? "" : all > ids.length ? `${ids.length} of ${all.toLocaleString("en")}` : String(all);
}

// The machines of the cluster, if there is one: a lost one first.
function drawNodes() {
  const box = $("nodes"), nodes = [...store.nodes].sort((one, other) => (other.status === "lost") - (one.status === "lost"));
  box.hidden = !nodes.length;
  box.lastElementChild.replaceChildren(...nodes.map((node) => {
    const tone = toneOf(node.status);
    const used = [`${node.workers} worker${node.workers === 1 ? "" : "s"}`];
    if (node.cpu != null) used.push(`${node.cpu.toFixed(1)} of ${node.cpus} CPUs`);
    if (node.memory != null) used.push(`${bytes(node.memory)} of ${bytes(node.memory_total)}`);
    return h("li", { "data-tone": tone, title: node.why || null }, glyph(tone), h("b", {}, node.name), h("span", {}, node.status === "lost" ? `lost: ${node.why}` : used.join(" · ")));
  }));
}

function drawEvents() {
  const newest = store.events.at(-1)?.number ?? -1;
  if (newest === shownEvents) return;
  shownEvents = newest;
  const items = store.events.slice(-150).reverse().map((event) => {
    const tone = LEVELS[event.level] ?? (event.event === "child_started" ? "good" : "idle");
    return h("li", { "data-tone": tone }, h("time", {}, clock(event.at)), glyph(tone), h("p", {}, h("b", {}, event.path), ` ${event.text.replace(/; see `suitkaise.*`$/, "")}`));
  });
  $("events").replaceChildren(...(items.length ? items : [h("li", { class: "none" }, "Nothing has happened yet.")]));
}

// Incidents, newest first, as a list of cards that are kept between two draws. Used for one worker's incidents, too.
export function drawIncidents(list, incidents, key = "") {
  for (const [id, card] of cards) if (!store.incidents.has(card.number)) { cards.delete(id); opened.delete(id); }
  const wanted = incidents.map((incident) => {
    const id = `${key}#${incident.id}`;
    let card = cards.get(id);
    if (!card || card.pid !== store.program?.pid) cards.set(id, (card = makeCard(incident.id, id)));
    drawCard(card, incident);
    return card.element;
  });
  if (!wanted.length) {
    if (!list.querySelector(".none")) list.replaceChildren(h("li", { class: "none" }, "No incidents."));
    return;
  }
  list.querySelector(".none")?.remove();
  wanted.forEach((element, n) => { if (list.children[n] !== element) list.insertBefore(element, list.children[n] ?? null); });
  while (list.children.length > wanted.length) list.lastChild.remove();
}

function makeCard(number, id) {
  const card = { id, number, pid: store.program?.pid, mark: glyph("soon"), who: h("span", { class: "who" }), at: h("time"), why: h("span", { class: "why" }), end: h("span", { class: "end" }), story: null, drawn: "" };
  card.head = h("button", { type: "button", "aria-expanded": "false", onclick: () => flip(card) }, card.mark, card.who, card.at, card.why, card.end);
  card.element = h("li", { class: "incident" }, card.head);
  return card;
}

function flip(card) {
  if (opened.has(card.id)) opened.delete(card.id); else opened.add(card.id);
  drawCard(card, store.incidents.get(card.number));
}

function drawCard(card, incident) {
  if (!incident) return;
  const tone = TONES[incident.state] ?? "idle";
  attribute(card.element, "data-tone", tone);
  attribute(card.element, "data-state", incident.state);
  setGlyph(card.mark, tone === "idle" ? "idle" : tone);
  text(card.who, incident.path);
  text(card.at, clock(incident.began));
  text(card.why, incident.reason + (incident.where ? ` (${incident.where})` : ""));
  text(card.end, ending(incident));
  const open = opened.has(card.id);
  attribute(card.head, "aria-expanded", String(open));
  if (!open) { card.story?.remove(); card.story = null; card.drawn = ""; return; }
  const key = `${incident.steps.length}|${incident.state}|${incident.reports.length}`;
  if (card.drawn === key) return;
  card.drawn = key;
  const story = tell(incident);
  if (card.story) card.story.replaceWith(story); else card.element.append(story);
  card.story = story;
}

function ending(incident) {
  const took = incident.ended == null ? "" : duration(incident.ended - incident.began);
  const others = incident.affected.filter((path) => path !== incident.path).length;
  const also = others ? `, with ${others} other${others > 1 ? "s" : ""}` : "";
  switch (incident.state) {
    case "recovered": return `back after ${took}${also}`;
    case "down": return "stays down";
    case "gave up": return `the tree gave up after ${took}`;
    case "stopped": return "stopped meanwhile";
    default: return `going on${also}`;
  }
}

function tell(incident) {
  const steps = incident.steps.map((step) => {
    const tone = LEVELS[step.level] ?? (/_started$/.test(step.event) ? "good" : "idle");
    const words = step.text.replace(/; see `suitkaise.*`$/, "");
    return h("li", { "data-tone": tone }, h("span", { class: "after" }, step === incident.steps[0] ? clock(step.at) : `+${duration(step.at - incident.began)}`),
      h("i", { class: "dot" }), h("span", { class: "what" }, h("b", {}, last(step.path)), ` ${words}`));
  });
  const story = h("div", { class: "story" }, h("ol", { class: "steps" }, steps));
  if (incident.more) story.append(h("p", { class: "none" }, `and ${incident.more} more steps`));
  for (const id of incident.reports.slice(0, 3)) story.append(crash(id));
  story.append(h("p", {}, h("a", { href: "#", onclick: (event) => { event.preventDefault(); openWorker(incident.path); } }, `Show ${last(incident.path)}`)));
  return story;
}

// The crash report: where it happened, the traceback, the last lines, and the file to keep.
export function crash(id) {
  const box = h("div", { class: "crash" });
  const fill = (report) => {
    box.append(h("div", { class: "cap" }, h("h2", {}, "Crash report"), h("a", { href: `/api/crashes/${id}.txt`, download: "" }, "Download")));
    box.append(h("p", { class: "where" }, `${report.path}, incarnation ${report.incarnation}, in ${report.phase} after ${duration(report.uptime)}; it ${report.verdict}`));
    if (report.traceback) box.append(h("pre", { class: "box error", tabindex: "0" }, report.traceback.trimEnd()));
    if (report.lines.length) box.append(h("div", { class: "cap" }, h("h2", {}, "Last lines")), h("pre", { class: "box", tabindex: "0" }, report.lines.join("\n")));
  };
  if (reports.has(id)) fill(reports.get(id));
  else {
    fetch(`/api/crashes/${id}`).then((answer) => (answer.ok ? answer.json() : Promise.reject())).then((report) => {
      reports.set(id, report);
      if (reports.size > 100) reports.delete(reports.keys().next().value);
      fill(report);
    }).catch(() => box.append(h("p", { class: "where" }, `The crash report ${id} is no longer in memory; \`suitkaise crashes ${id}\` shows it.`)));
  }
  return box;
}
