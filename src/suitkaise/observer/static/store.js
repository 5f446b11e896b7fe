// What the page knows: filled by the first message, changed by those that follow.

export const store = {
  program: null, rows: new Map(), order: [], figures: {}, incidents: new Map(), nodes: [], events: [], history: new Map(),
  hits: new Map(), marks: new Map(), csrf: "", actions: false, ended: false, idle: false, skew: 0,
};

const KEPT = 300, EVENTS = 300;
const SPAN = 300; // seconds of the timeline
const HIT = 2400;
const FAILURES = { child_exited: "crashed", child_start_failure: "failed", child_abandoned: "abandoned" };

export const now = () => Date.now() / 1000 + store.skew;

export function take(message) {
  if (message.time) store.skew = message.time - Date.now() / 1000;
  if (message.type === "state") {
    Object.assign(store, { csrf: message.csrf, actions: message.actions, ended: message.ended, events: [] });
    store.rows = new Map();
    store.incidents = new Map();
    store.hits.clear();
  }
  if (message.idle !== undefined) store.idle = message.idle;
  if (message.program) store.program = message.program;
  for (const [path, facts] of Object.entries(message.rows ?? {})) store.rows.set(path, { ...store.rows.get(path), ...facts });
  for (const path of message.removed ?? []) { store.rows.delete(path); store.history.delete(path); }
  if (message.order) store.order = message.order;
  if (message.nodes) store.nodes = message.nodes;
  if (message.figures) {
    store.figures = message.figures;
    for (const [path, figures] of Object.entries(message.figures)) remember(path, figures);
  }
  for (const incident of message.incidents ?? []) store.incidents.set(incident.id, incident);
  for (const id of message.dropped ?? []) store.incidents.delete(id);
  const fresh = (message.events ?? []).filter((event) => !event.path.startsWith("sktree") || event.level !== "info");
  store.events = store.events.concat(fresh).slice(-EVENTS);
  fresh.forEach(mark);
  for (const [key, { at }] of store.marks) if (at < now() - SPAN) store.marks.delete(key);
  if (message.type === "changes") {
    for (const event of fresh) {
      const word = event.level === "error" && FAILURES[event.event];
      if (word) store.hits.set(event.path, { word: /^killed|SIGKILL/.test(event.reason) ? "killed" : word, until: Date.now() + HIT });
    }
  }
}

// The timeline needs one failure and one start of each second, however many events there are.
function mark({ event, level, at }) {
  if (level === "error" || event === "child_started") store.marks.set(`${level} ${Math.floor(at)}`, { at, failed: level === "error" });
}

function remember(path, figures) {
  const known = store.history.get(path) ?? [];
  known.push([now(), figures.cpu, figures.memory, figures.rate ?? null, figures.queued ?? null]);
  if (known.length > KEPT) known.shift();
  store.history.set(path, known);
}

// Takes what the observer remembers from before this page was open.
export function prepend(path, earlier) {
  const known = store.history.get(path) ?? [];
  const first = known.length ? known[0][0] - 0.5 : Infinity;
  store.history.set(path, earlier.filter((point) => point[0] < first).concat(known).slice(-KEPT));
}

// The status that a row shows: a crash is shown for a moment, however quick the restart was.
export function shown(path) {
  const row = store.rows.get(path);
  if (store.ended || store.idle) return { status: "ended", hit: false, back: false };
  const hit = store.hits.get(path);
  if (hit && hit.until > Date.now()) return { status: hit.word, hit: true, back: false };
  const back = Boolean(hit) && hit.until + HIT > Date.now() && row?.status === "running";
  if (hit && !back && hit.until + HIT < Date.now()) store.hits.delete(path);
  return { status: row?.status ?? "", hit: false, back };
}
