// Values as text, and states as words, shapes and tones.

export const STATES = {
  running: "good", starting: "soon", restarting: "soon", stopping: "soon", created: "idle", suspended: "held",
  finished: "done", stopped: "idle", ignored: "idle",
  lost: "bad", crashed: "bad", killed: "bad", hung: "bad", failed: "bad", abandoned: "bad",
};

export const toneOf = (status) => STATES[status] ?? "idle";

export function duration(seconds) {
  if (seconds == null) return "";
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours} h ${minutes % 60}` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function uptime(seconds) {
  if (seconds == null) return "";
  const whole = Math.max(0, Math.floor(seconds));
  return whole < 60 ? `${whole} s` : whole < 600 ? `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}` : duration(whole);
}

export function bytes(count) {
  if (count == null) return "";
  if (count < 2 ** 20) return `${Math.round(count / 1024)} kB`;
  return count < 2 ** 30 ? `${(count / 2 ** 20).toFixed(count < 100 * 2 ** 20 ? 1 : 0)} MB` : `${(count / 2 ** 30).toFixed(2)} GB`;
}

export const percent = (share) => (share == null ? "" : `${share < 0.0995 ? (share * 100).toFixed(1) : Math.round(share * 100)}%`);

export function number(value) {
  if (value == null) return "";
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 1e4) return `${Math.round(value / 1e3)} k`;
  return Number.isInteger(value) || value >= 100 ? String(Math.round(value)) : value.toFixed(1);
}

const CLOCK = new Intl.DateTimeFormat([], { hour: "numeric", minute: "numeric", second: "numeric", hourCycle: "h23" });

export const clock = (wall) => CLOCK.format(wall * 1000);

export const last = (path) => path.slice(path.lastIndexOf("/") + 1);
