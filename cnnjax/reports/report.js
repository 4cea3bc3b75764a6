"use strict";

function read(cell) {
  const text = cell.textContent.trim();
  const number = cell.dataset.number ?? (text.match(/^\[?([+-]?\d+(\.\d+)?(e[+-]?\d+)?)/i) ?? [])[1];
  return { text, number: number === undefined ? NaN : Number(number) };
}

function sort(table, column, descending) {
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, ...read(row.cells[column]) }));
  const filled = rows.filter((entry) => entry.text !== "");
  const numeric = filled.every((entry) => !Number.isNaN(entry.number));
  const compare = (a, b) =>
    numeric ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true });
  filled.sort((a, b) => (descending ? compare(b, a) : compare(a, b)));
  const empty = rows.filter((entry) => entry.text === "");
  table.tBodies[0].append(...[...filled, ...empty].map((entry) => entry.row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(table, column, descending);
    });
  });
}

function markCut() {
  for (const box of document.querySelectorAll(".box")) {
    box.toggleAttribute("data-cut", box.scrollWidth > box.clientWidth + 4);
  }
}

markCut();
addEventListener("resize", markCut);

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});
