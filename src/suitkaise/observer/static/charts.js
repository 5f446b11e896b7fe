// Lines on canvases. Colours come from the style sheet, so that both themes fit.

const colours = new Map();

export function forgetColours() { colours.clear(); }

const probe = document.createElement("i");

function colour(name) {
  if (!colours.has(name)) {  // `light-dark()` is resolved where it is used, so it is read from an element
    if (!probe.isConnected) { probe.hidden = true; document.body.append(probe); }
    probe.style.color = `var(--${name})`;
    colours.set(name, getComputedStyle(probe).color);
  }
  return colours.get(name);
}

function prepare(canvas) {
  return sized(canvas, canvas.getBoundingClientRect());
}

function sized(canvas, box) {
  if (!box.width || !box.height) return null;
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(box.width * scale), height = Math.round(box.height * scale);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, box.width, box.height);
  return { pen, width: box.width, height: box.height };
}

const SPARK = { width: 60, height: 18 };

export function spark(canvas, history) {
  const points = history.slice(-60).map((point) => point[3]);
  const most = Math.max(...points.map((value) => value ?? 0), 0);
  const key = points.length && most > 0 ? `${history.at(-1)[0]}` : "";
  if (canvas.dataset.key === key) return;
  canvas.dataset.key = key;
  const area = sized(canvas, SPARK);  // not measured: that would lay the page out for every row
  if (most <= 0) return;
  const { pen, width, height } = area, step = width / 59, first = 60 - points.length;
  pen.strokeStyle = colour("accent");
  pen.lineWidth = 1.25;
  pen.lineJoin = "round";
  line(pen, points.map((value, n) => [(first + n) * step, value == null ? null : height - 2 - (value / most) * (height - 4)]));
}

function line(pen, points) {
  pen.beginPath();
  let down = false;
  for (const [x, y] of points) {
    if (y == null) { down = false; continue; }
    if (down) pen.lineTo(x, y); else pen.moveTo(x, y);
    down = true;
  }
  pen.stroke();
}

// One figure of the last five minutes, filled to the ground; gaps stay gaps.
export function chart(canvas, points, now, floor, format) {
  const area = prepare(canvas);
  if (!area) return;
  const { pen, width, height } = area, span = 300;
  const inside = points.filter(([at]) => at >= now - span);
  const most = Math.max(floor, ...inside.map(([, value]) => value ?? 0)) * 1.1;
  pen.strokeStyle = colour("line");
  pen.lineWidth = 1;
  for (const part of [0.5, 1]) { pen.beginPath(); pen.moveTo(0, height * part - 0.5); pen.lineTo(width, height * part - 0.5); pen.stroke(); }
  const drawn = [];
  let before = null;
  for (const [at, value] of inside) {
    if (before != null && at - before > 15) drawn.push([0, null]);
    before = at;
    drawn.push([width - ((now - at) / span) * width, value == null ? null : height - 1 - (value / most) * (height - 3)]);
  }
  pen.strokeStyle = pen.fillStyle = colour("accent");
  pen.globalAlpha = 0.12;
  for (let n = 1; n < drawn.length; n++) {
    const [x0, y0] = drawn[n - 1], [x1, y1] = drawn[n];
    if (y0 == null || y1 == null) continue;
    pen.beginPath(); pen.moveTo(x0, height); pen.lineTo(x0, y0); pen.lineTo(x1, y1); pen.lineTo(x1, height); pen.fill();
  }
  pen.globalAlpha = 1;
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  line(pen, drawn);
  pen.fillStyle = colour("faint");
  pen.font = "10px system-ui, sans-serif";
  pen.fillText(format(most / 1.1), 0, 9);
}

// Failures above the line, starts below it.
export function timeline(canvas, marks, now) {
  const area = prepare(canvas);
  if (!area) return;
  const { pen, width, height } = area, span = 300, middle = 20;
  pen.fillStyle = colour("line");
  pen.fillRect(0, middle, width, 1);
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = colour("faint");
  for (let minute = 0; minute <= 5; minute++) {
    const x = width - (minute / 5) * width;
    const words = minute ? `−${minute} min` : "now";
    pen.textAlign = minute === 0 ? "right" : minute === 5 ? "left" : "center";
    pen.fillRect(Math.min(width - 1, x), middle - 2, 1, 5);
    // The one beside the first would run into it where there is little room.
    if (minute !== 4 || width / 5 > 1.7 * pen.measureText(words).width) pen.fillText(words, x, height - 3);
  }
  for (const { at, failed } of marks) {
    const x = width - ((now - at) / span) * width;
    if (x < 0) continue;
    if (failed) { pen.fillStyle = colour("bad"); diamond(pen, x, middle - 10, 5); }
    else { pen.fillStyle = colour("good"); pen.beginPath(); pen.arc(x, middle + 7, 2.5, 0, 7); pen.fill(); }
  }
}

function diamond(pen, x, y, size) {
  pen.beginPath();
  pen.moveTo(x, y - size); pen.lineTo(x + size, y); pen.lineTo(x, y + size); pen.lineTo(x - size, y);
  pen.fill();
}
