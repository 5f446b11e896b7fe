// One worker or supervisor: its facts, charts, log, incidents, and what can be done with it.

import { $, attribute, glyph, h, setGlyph, text } from "./dom.js";
import { chart } from "./charts.js";
import { ask, change } from "./actions.js";
import { forget, follow, makeLog } from "./log.js";
import { bytes, clock, duration, number, percent, toneOf, uptime } from "./format.js";
import { drawIncidents } from "./side.js";
import { now, prepend, shown, store } from "./store.js";

let path = "", parts = null;

export const detailed = () => path;

export function show(wanted, back) {
  hide();
  const facts = store.rows.get(wanted);
  if (!facts) return false;
  path = wanted;
  const box = $("detail");
  parts = { glyph: glyph("idle"), state: h("span", { class: "word" }), facts: h("dl", { class: "facts" }), values: new Map(), charts: [], actions: null, incidents: h("ol"), known: facts };
  const head = h("div", { class: "who-line" }, h("span", { class: "state" }, parts.glyph), h("h3", { tabindex: "-1" }, facts.id),
    h("button", { class: "plain", type: "button", "aria-label": "Back to the incidents", title: "Back (Esc)", onclick: back }, "✕"));
  box.replaceChildren(head, h("p", { class: "where" }, parts.state, ` ${facts.kind} at ${path}`), parts.facts);
  if (store.actions && path.includes("/")) box.insertBefore((parts.actions = h("div", { class: "actions" })), parts.facts);
  if (facts.kind !== "supervisor") {
    const own = facts.kind !== "thread";
    const row = h("div", { class: "charts" });
    if (own) addChart(row, "CPU", 1, percent, 0.05);
    if (own) addChart(row, "Memory", 2, bytes, 2 ** 20);
    if (facts.kind !== "command") { addChart(row, "Loops/s", 3, number, 1); addChart(row, "Queue", 4, number, 1); }
    box.append(row);
    fetch(`/api/history?path=${encodeURIComponent(path)}`).then((answer) => answer.json())
      .then((earlier) => { if (path === wanted) { prepend(wanted, earlier); drawCharts(); } }).catch(() => {});
  }
  box.append(...makeLog(), h("div", { class: "cap" }, h("h2", {}, "Incidents")), parts.incidents);
  $("overview").hidden = true;
  box.hidden = false;
  document.body.classList.add("detailed");
  $("side").scrollTop = 0;
  follow(path);
  drawDetail();
  return true;
}

export function hide() {
  if (path) forget();
  path = "";
  parts = null;
  $("detail").hidden = true;
  $("detail").replaceChildren();
  $("overview").hidden = false;
  document.body.classList.remove("detailed");
}

function addChart(row, name, column, format, floor) {
  const value = h("b"), canvas = h("canvas", { role: "img", "aria-label": `${name} of the last five minutes` });
  row.append(h("div", { class: "chart" }, h("p", {}, name, value), canvas));
  parts.charts.push({ value, canvas, column, format, floor });
}

function drawCharts() {
  if (!parts) return;
  const history = store.history.get(path) ?? [];
  for (const one of parts.charts) {
    chart(one.canvas, history.map((point) => [point[0], point[one.column]]), now(), one.floor, one.format);
    text(one.value, store.rows.get(path)?.pid == null ? "–" : one.format(history.at(-1)?.[one.column]));
  }
}

function fact(name, value) {
  let known = parts.values.get(name);
  if (!known) {
    parts.values.set(name, (known = h("dd")));
    parts.facts.append(h("div", { class: name === "Last exit" ? "wide" : null }, h("dt", {}, name), known));
  }
  known.parentNode.hidden = value === "" || value == null;
  text(known, value == null ? "" : String(value));
}

export function drawDetail() {
  if (!parts) return;
  // One that is gone, as a temporary worker that has ended, is shown as it was.
  const facts = parts.known = store.rows.get(path) ?? { ...parts.known, status: "gone", pid: null };
  const gone = facts.status === "gone", figures = store.figures[path] ?? {};
  const status = gone ? "gone" : shown(path).status, tone = toneOf(status), alive = facts.pid != null && !store.ended;
  attribute($("detail"), "data-tone", tone);
  setGlyph(parts.glyph, tone);
  text(parts.state, status);
  fact("Up", alive && facts.started != null ? uptime(now() - facts.started) : "");
  fact("Started", facts.started != null ? clock(facts.started) : "");
  fact("Pid", facts.pid);
  fact("Node", facts.node);
  fact("Incarnation", facts.incarnation || "");
  fact("Restarts", facts.restarts);
  fact("Restart", facts.restart);
  if (facts.kind === "supervisor") {
    fact("Strategy", facts.dynamic ? "dynamic" : facts.strategy);
    fact("Restart budget", facts.strategy == null ? "" : facts.max_restarts == null ? "any number" : `${Math.max(0, facts.max_restarts - facts.restarts_used)} of ${facts.max_restarts} left in ${facts.max_seconds} s`);
  } else {
    fact("Loops", figures.loops == null ? "" : figures.loops.toLocaleString("en"));
    fact("Last loop", figures.loops ? duration(figures.last) : "");
    fact("Messages", figures.messages == null ? "" : figures.messages.toLocaleString("en"));
    fact("Oldest message", alive && figures.oldest >= 1 ? `waits ${uptime(figures.oldest)}` : "");
    fact("Waiting senders", alive && figures.blocked ? String(figures.blocked) : "");
    fact("In phase", alive && figures.phase ? figures.phase + (figures.in_phase ? ` for ${uptime(figures.in_phase)}` : "") : "");
  }
  fact("Abandoned threads", facts.abandoned || "");
  fact("Last exit", facts.last_exit);
  drawCharts();
  drawActions(facts, gone);
  const incidents = [...store.incidents.values()].reverse().filter(concerns);
  drawIncidents(parts.incidents, incidents, path);
}

// Those of a supervisor are its own, and those of all below it.
function concerns(incident) {
  return [incident.path, ...incident.affected].some((one) => one === path || one.startsWith(`${path}/`));
}

function drawActions(facts, gone) {
  if (!parts.actions) return;
  const alive = facts.pid != null || ["starting", "restarting", "running"].includes(facts.status);
  const wanted = gone ? [] : alive ? ["restart", facts.status === "suspended" ? "resume" : "suspend", "stop"] : ["start"];
  const key = wanted.join() + store.ended;
  if (parts.actions.dataset.key === key) return;
  parts.actions.dataset.key = key;
  const mine = path;
  parts.actions.replaceChildren(...wanted.map((action) => h("button", {
    type: "button", "data-action": action, disabled: store.ended,
    onclick: async () => { if (action === "start" || action === "resume" || await ask(action, mine)) change(action, mine); },
  }, action[0].toUpperCase() + action.slice(1))));
}
