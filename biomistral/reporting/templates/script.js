"use strict";
// Sort by a click on a column's head (each body of rows on its own: baselines stay below),
// copy a table in three formats. Without this script the page shows all the same.
const valueOf = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
};

const compare = (a, b, column, sign) => {
  const [x, y] = [valueOf(a, column), valueOf(b, column)];
  if (x !== null && y !== null) return sign * (x - y);
  if (x !== null || y !== null) return x === null ? 1 : -1; // what is absent stays last
  return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
};

const sortBy = (head) => {
  const table = head.closest("table");
  const first = head.classList.contains("number") ? "descending" : "ascending";
  const other = first === "descending" ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  table.querySelectorAll("[aria-sort]").forEach((h) => h.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  for (const body of table.tBodies) {
    body.append(...[...body.rows].sort((a, b) => compare(a, b, head.cellIndex, sign)));
  }
};

const copy = async (button) => {
  const figure = button.closest("figure");
  const area = figure.querySelector(`textarea[data-format="${button.dataset.copy}"]`);
  try {
    await navigator.clipboard.writeText(area.value);
  } catch { // pages opened from a disk may lack the clipboard
    area.hidden = false;
    area.select();
    document.execCommand("copy");
    area.hidden = true;
    button.focus();
  }
  figure.querySelector("[role=status]").textContent = " Copied.";
};

for (const head of document.querySelectorAll("figure.table thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.addEventListener("click", () => sortBy(head));
  head.append(button);
}
for (const bar of document.querySelectorAll(".copy")) {
  bar.hidden = false;
  bar.addEventListener("click", ({ target }) => target.dataset.copy && copy(target));
}

// ---- where a number is from ------------------------------------------------------------------------
// Shown for the cell that is pointed at; one that is clicked or reached by keys holds it, so that its
// links can be followed. Arrow keys go from cell to cell, Enter goes to the links, Escape back.
const panel = document.getElementById("origin");
const made = (anchor) => document.getElementById(anchor);
let held = null;

const link = (address, text) => {
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.append(text);
  return anchor;
};

const joined = (parts) => parts.flatMap((part, i) => (i ? [", ", part] : [part]));

const questionsOf = (cell, model) => {
  const [task, language, scoring, shots] = cell.dataset.asked.split("|");
  const asked = { model, language, setting: `${scoring} scoring, ${shots}-shot`, ...(task ? { task } : {}) };
  return `questions.html#${new URLSearchParams(asked)}`;
};

const show = (cell) => {
  const row = cell.parentElement, table = cell.closest("table");
  const model = row.cells[0].textContent.trim();
  const column = table.tHead.rows[0].cells[cell.cellIndex].textContent.trim();
  const from = (row.dataset.from ?? "").split(" ").filter(Boolean);
  const value = document.createElement("b");
  value.append(cell.textContent.trim());
  const parts = [value, ` ${column}, ${model}`];
  if (cell.title) parts.push(`: ${cell.title}`);
  if (from.length) parts.push(". From ", ...joined(from.map((id) => link(`#${id}`, made(id).querySelector("h4").textContent))));
  else parts.push(`. ${cell.closest("figure").querySelector(".note")?.textContent ?? ""}`);
  if (cell.dataset.asked !== undefined) parts.push(". ", link(questionsOf(cell, model), "See the questions"));
  panel.firstElementChild.replaceChildren(...parts);
  panel.hidden = false;
};

const hold = (cell) => {
  held?.classList.remove("held");
  held = cell;
  if (!cell) { panel.hidden = true; return; }
  cell.classList.add("held");
  show(cell);
};

const numberAt = (target) => target.closest?.("figure.table tbody td.number");

const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const nextCell = (cell, [down, right]) => {
  const rows = [...cell.closest("table").querySelectorAll("tbody tr")];
  let [y, x] = [rows.indexOf(cell.parentElement), cell.cellIndex];
  do { y += down; x += right; } while (rows[y]?.cells[x] && !rows[y].cells[x].matches("td.number"));
  return rows[y]?.cells[x];
};

const goTo = (cell) => {
  cell.closest("table").querySelectorAll("td[tabindex='0']").forEach((each) => { each.tabIndex = -1; });
  cell.tabIndex = 0;
  cell.focus();
};

for (const table of document.querySelectorAll("figure.table table")) {
  table.querySelector("tbody td.number")?.setAttribute("tabindex", "0");
}
document.querySelector(".hint").hidden = !document.querySelector("[data-from]");
document.addEventListener("mouseover", ({ target }) => {
  const cell = numberAt(target);
  if (held) return;
  if (cell) show(cell);
  else if (!panel.contains(target)) panel.hidden = true;
});
document.addEventListener("click", ({ target }) => {
  const cell = numberAt(target);
  if (cell) goTo(cell);
  else if (!panel.contains(target)) hold(null);
});
document.addEventListener("focusin", ({ target }) => {
  if (target.matches("td.number")) hold(target);
  else if (!panel.contains(target)) hold(null);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && held) {
    const cell = held;
    if (panel.contains(event.target)) cell.focus();
    else hold(null);
  } else if (event.target.matches?.("td.number")) {
    const step = steps[event.key];
    const next = step && nextCell(event.target, step);
    if (next) goTo(next);
    if (event.key === "Enter") panel.querySelector("a")?.focus();
    if (step || event.key === "Enter") event.preventDefault();
  }
});
panel.querySelector("button").addEventListener("click", () => hold(null));

// A link into something that is folded unfolds it.
const unfold = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let each = target; each; each = each.parentElement) if (each.matches("details")) each.open = true;
  target.scrollIntoView();
};
window.addEventListener("hashchange", unfold);
unfold();
