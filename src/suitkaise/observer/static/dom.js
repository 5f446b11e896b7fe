// Elements. Text is always set as text, never as markup: paths and exceptions come from the program.

export const $ = (id) => document.getElementById(id);

export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
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
  if (element.textContent !== value) element.textContent = value;
}

export function flag(element, name, on) {
  if (element.classList.contains(name) !== on) element.classList.toggle(name, on);
}

export function attribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}
