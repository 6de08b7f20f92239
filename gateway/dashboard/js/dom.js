// Building nodes. Data only ever enters the page here, as text nodes and attribute values: nothing in this dashboard parses markup.

/**
 * Return a new element. A property that is a function becomes a listener (`onclick`), `true` an empty attribute; null, undefined and false
 * are left out. Children: nodes and texts, nested as one likes; null and false are skipped.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Return an icon of icons.svg. With a label it is an image to assistive technology and carries a tooltip; without one it is decoration. */
export function icon(name, label = null) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon icon-${name}`);
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/static/icons.svg#${name}`);
  if (label === null) {
    svg.setAttribute("aria-hidden", "true");
  } else {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    const title = document.createElementNS(SVG, "title");
    title.textContent = label;
    svg.append(title);
  }
  svg.append(use);
  return svg;
}

/** Return a button that shows an icon; `label` is its name and tooltip. */
export function iconButton(name, label, onclick, properties = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...properties }, icon(name));
}

/** Write `text` only where it differs: an unchanged text node costs no layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Return a round mark with a contact's initials; its colour follows from `id`, so it is the same everywhere. */
export function avatar(id, name) {
  const element = h("span", { class: "avatar", "aria-hidden": "true" });
  paintAvatar(element, id, name);
  return element;
}

/** Make `element`, an avatar, that of another contact. */
export function paintAvatar(element, id, name) {
  let hash = 0;
  for (const sign of id) hash = Math.imul(hash ^ sign.codePointAt(0), 0x9e3779b1) >>> 0; // golden ratio: neighbouring ids lie far apart
  element.style.setProperty("--hue", String((hash >>> 8) % 360));
  const words = name.split(/[\s@]+/u).filter((word) => /^[\p{L}\p{N}]/u.test(word));
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words;
  setText(element, letters.map((word) => [...word][0].toLocaleUpperCase()).join("") || "#");
}
