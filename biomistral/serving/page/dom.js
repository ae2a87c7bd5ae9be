// Small helpers. All text goes in as text: nothing a model or a file says is ever read as HTML.

export const byId = (id) => document.getElementById(id);

// An element with properties, attributes (by names with a dash, and role) and children.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function showTrouble(message) {
  const place = byId("trouble");
  place.textContent = message;
  place.hidden = !message;
}

export const percent = (fraction) => {
  const shown = (100 * fraction).toFixed(fraction > 0.9995 && fraction < 1 ? 2 : 1);
  return `${shown} %`;
};
