"use strict";
// Sorts a table by the column whose heading is clicked: largest first, smallest first, as it was.
// Nothing is asked of anybody; without this script the tables stay in the order of the file.
for (const table of document.querySelectorAll("table.sorts")) {
  const apart = table.classList.contains("apart");
  const body = table.tBodies[0], before = [...body.rows];
  const heads = [...table.querySelectorAll("thead tr:last-child th")];
  const value = (row, column) => {
    const cell = row.cells[column], own = cell.cloneNode(true);
    for (const small of own.querySelectorAll("small")) small.remove();
    const text = own.textContent.trim().replaceAll(",", "").replace("\u2212", "-");
    const number = parseFloat(text);
    return Number.isFinite(number) ? number : column ? null : text;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const turn = { none: "descending", descending: "ascending", ascending: "none" };
      const next = turn[head.getAttribute("aria-sort") || "none"];
      for (const each of heads) each.removeAttribute("aria-sort");
      if (next !== "none") head.setAttribute("aria-sort", next);
      table.classList.toggle("sorted", next !== "none");
      const sign = next === "ascending" ? 1 : -1;
      const order = (rows) => rows.map((row) => [value(row, column), row]).sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
      }).map((pair) => pair[1]);
      const groups = [];  // a heading and its rows; without headings where all are sorted together
      for (const row of before) {
        const heads_group = row.classList.contains("kind");
        if (!groups.length || (heads_group && apart)) groups.push([[], []]);
        if (!heads_group || apart) groups.at(-1)[heads_group ? 0 : 1].push(row);
      }
      const sorted = groups.flatMap(([heading, rows]) => [...heading, ...order(rows)]);
      body.replaceChildren(...(next === "none" ? before : sorted));
    });
  });
}
