// Rows that hold all words of the field above a table stay: words that they show, or others that are known of them. A
// button puts its word there in place of another of its kind (place, data set, detector, pair); once more takes it out.
for (const table of document.querySelectorAll("table.sortable")) {
  const rows = [...table.tBodies[0].rows];
  const buttons = [...(table.closest("section")?.querySelectorAll("button[data-fill]") ?? [])];
  if (rows.length < 6 && !buttons.length) continue;
  const field = Object.assign(document.createElement("input"), { type: "search", className: "filter" });
  field.placeholder = field.ariaLabel = "Filter these rows";
  const text = new Map(rows.map((row) => {
    const shown = [...row.cells].map((cell) => cell.textContent);
    return [row, ["", ...shown, row.dataset.words ?? "", ""].join(" ").toLowerCase()];
  }));
  const filter = () => {
    const words = field.value.toLowerCase().split(/\s+/);
    // a button's word is whole, as a pair's name may begin with another's
    const sought = words.map((word) => (word.includes(":") ? ` ${word} ` : word));
    for (const row of rows) row.hidden = !sought.every((word) => text.get(row).includes(word));
    for (const button of buttons) button.ariaPressed = words.includes(button.dataset.fill);
  };
  field.addEventListener("input", filter);
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const [own, words] = [button.dataset.fill, field.value.split(/\s+/).filter(Boolean)];
      const others = words.filter((word) => !word.startsWith(own.replace(/:.*/, ":")));
      field.value = [...others, ...(words.includes(own) ? [] : [own])].join(" ");
      filter();
    });
  }
  table.parentElement.before(field);
}
// A click on a heading sorts its table: numbers from the highest, words from A; a second click turns the order round.
const value = (row, column) => row.cells[column].innerText.trim();
const figure = (text) => parseFloat(text.replace(/\u2212/g, "-").replace(/[,[<]/g, ""));
for (const table of document.querySelectorAll("table.sortable")) {
  const [heads, body] = [[...table.tHead.rows[0].cells], table.tBodies[0]];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const words = head.classList.contains("text");
    button.addEventListener("click", () => {
      const up = head.ariaSort ? head.ariaSort === "descending" : words;
      heads.forEach((other) => (other.ariaSort = null));
      head.ariaSort = up ? "ascending" : "descending";
      const order = (a, b) => {
        if (words) return a.localeCompare(b, "en", { numeric: true }) * (up ? 1 : -1);
        const [x, y] = [figure(a), figure(b)];
        // what has no figure stays below
        if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
        return (x - y) * (up ? 1 : -1);
      };
      body.append(...[...body.rows].sort((a, b) => order(value(a, column), value(b, column))));
    });
  });
}
