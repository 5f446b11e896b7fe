// The log of a worker, or of all workers below a supervisor: its last lines, and those that follow, over the page's stream.

import { h } from "./dom.js";
import { clock } from "./format.js";
import { store } from "./store.js";

const LINES = 400;
const TONES = { error: "bad", critical: "bad", warning: "soon" };
const AGAIN = 1000; // milliseconds
let path = "", asked = "", streams = 0, asking = Promise.resolve(), box = null, field = null;

export const page = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("");

export function makeLog() {
  field = h("input", { type: "search", id: "log-filter", placeholder: "Filter lines", "aria-label": "Filter the log", oninput: filter, onkeydown: leave });
  box = h("div", { class: "box", id: "log", role: "region", tabindex: "0", "aria-label": "Log", "data-empty": "Nothing printed or logged yet." });
  return [h("div", { class: "cap" }, h("h2", {}, "Log"), field), box];
}

// The lines come as messages, over this page's stream.
export function follow(wanted) {
  path = wanted;
  asking = asking.then(ask);
}

async function ask() {
  if (path === asked) return;
  const wanted = path, stream = streams;
  try {
    const answer = await fetch(`/api/follow?page=${page}&path=${encodeURIComponent(wanted)}`);
    if (!answer.ok) throw new Error(answer.statusText);
    if (stream === streams) asked = wanted;
  } catch {
    setTimeout(() => { if (path === wanted && !store.ended) follow(wanted); }, AGAIN);
  }
}

// A new stream knows of no log.
export function followAgain() {
  streams += 1;
  asked = "";
  follow(path);
}

export function forget() {
  follow("");
  box = field = null;
}

export function takeLog(message) {
  if (message.path !== path || !box) return;
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
  if (message.first) box.replaceChildren();
  const lines = message.lines.map(makeLine);
  if (message.skipped) lines.unshift(h("p", { class: "skipped" }, `${message.skipped.toLocaleString("en")} lines were skipped`));
  for (const line of lines) line.hidden = !fits(line);
  box.append(...lines);
  while (box.childElementCount > LINES) box.firstChild.remove();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function makeLine([worker, , stream, at, said]) {
  const tag = stream === "stdout" || stream === "stderr" ? "" : `${stream} `;
  const who = worker === path ? "" : `${worker.slice(path.length + 1)} `;
  return h("p", { "data-stream": stream, "data-tone": TONES[stream] }, h("time", {}, clock(at)), " ", who && h("b", {}, who), tag && h("i", {}, tag), said);
}

function filter() {
  for (const line of box.children) line.hidden = !fits(line);
  box.scrollTop = box.scrollHeight;
}

function leave(event) {
  if (event.key !== "Escape" || !field.value) return;
  event.stopPropagation();
  field.value = "";
  filter();
}

function fits(line) {
  const wanted = field.value.trim().toLowerCase();
  return !wanted || line.textContent.toLowerCase().includes(wanted);
}
