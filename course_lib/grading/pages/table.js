// Sorts the table of students by a column, and hides the rows that do not hold what is searched for.
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    if (!button) return;
    const key = (row) => row.cells[column].dataset.key;
    const numeric = heading.classList.contains("number");
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== (numeric ? "descending" : "ascending");
      const first = numeric ? -1 : 1; // numbers begin with the largest
      const sign = up ? first : -first;
      const rows = [...body.rows].sort((a, b) =>
        sign * (numeric ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true })));
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}
for (const search of document.querySelectorAll("input.search")) {
  const body = document.getElementById(search.getAttribute("aria-controls")).tBodies[0];
  const count = document.getElementById(search.getAttribute("aria-describedby"));
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLocaleLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      row.hidden = !row.textContent.toLocaleLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    count.textContent = wanted ? `${shown} of ${body.rows.length} students` : "";
  });
}
