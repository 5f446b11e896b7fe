// Elements. Text is always set as text, never as markup: paths and exceptions come from the program. Its control
// characters and the marks that change the direction of text are shown as escapes, as on the terminal.

export const $ = (id) => document.getElementById(id);

const CONTROL = /(?![\t\n])[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

function escaped(value) {
  return typeof value === "string" ? value.replace(CONTROL, asEscape) : value;
}

function asEscape(mark) {
  const code = mark.charCodeAt(0).toString(16);
  return mark === "\r" ? "\\r" : code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
}

export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false).map(escaped));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function glyph(tone) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "glyph");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "use"));
  setGlyph(svg, tone);
  return svg;
}

export function setGlyph(svg, tone) {
  const use = svg.firstChild, href = `#g-${tone}`;
  if (use.getAttribute("href") !== href) use.setAttribute("href", href);
}

// Writes only what has changed, so that nothing flickers and a selection of text stays.
export function text(element, value) {
  const shown = escaped(value);
  if (element.textContent !== shown) element.textContent = shown;
}

export function flag(element, name, on) {
  if (element.classList.contains(name) !== on) element.classList.toggle(name, on);
}

export function attribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}
