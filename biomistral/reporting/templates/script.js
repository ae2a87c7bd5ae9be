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
