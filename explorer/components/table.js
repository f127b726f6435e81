// A table sorted by a click on a heading: once for the largest first (names: A first), again for the other way round.
// data: {caption, columns: [{name, help, digits, whole}], rows: [[name, value, ...]]}; null was not measured.

const MISSING = "not measured";

function element(tag, text, parent, className = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  parent.appendChild(made);
  return made;
}

function text(value, column) {
  if (value === null) return MISSING;
  if (column.digits < 0) return String(value);
  return value.toLocaleString("en", { minimumFractionDigits: column.digits, maximumFractionDigits: column.digits }).replace("-", "\u2212");
}

function sorted(rows, by, down) {
  const order = (one, other) => {
    const [a, b] = [one[by], other[by]];
    if (a === null || b === null) return (a === null) - (b === null);  // last, whichever way
    const sign = typeof a === "string" ? a.localeCompare(b) : a - b;
    return down ? -sign : sign;
  };
  return [...rows].sort(order);
}

class Table {
  constructor(root) {
    this.root = root;
    this.by = -1;
    this.down = true;
  }

  show(data) {
    this.data = data;
    if (this.by >= data.columns.length) this.by = -1;
    this.root.replaceChildren();
    const frame = element("div", "", this.root, "chip-table-frame");
    frame.tabIndex = 0;  // or the keyboard could not scroll it
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", data.caption);
    const table = element("table", "", frame);
    element("caption", data.caption, table);
    const line = element("tr", "", element("thead", "", table));
    this.heads = data.columns.map((column, place) => {
      const head = element("th", "", line, column.digits < 0 ? "" : "number");
      head.scope = "col";
      const button = element("button", column.name, head);
      button.type = "button";
      button.title = [column.help, "Click to sort."].filter(Boolean).join(" ");
      button.onclick = () => this.sort(place);
      return head;
    });
    this.body = element("tbody", "", table);
    this.fill();
  }

  sort(place) {
    const first = this.data.columns[place].digits >= 0;
    this.down = this.by === place ? !this.down : first;
    this.by = place;
    this.fill();
  }

  fill() {
    const { columns, rows } = this.data;
    this.heads.forEach((head, place) => {
      if (place === this.by) head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const lines = document.createDocumentFragment();
    for (const row of this.by < 0 ? rows : sorted(rows, this.by, this.down)) {
      const line = element("tr", "", lines);
      columns.forEach((column, place) => {
        const cell = element(place ? "td" : "th", "", line, column.digits < 0 ? "" : "number");
        if (!place) cell.scope = "row";
        const value = row[place];
        element("span", text(value, column), cell, value === null ? "missing" : "");
        if (column.whole > 0 && value !== null) element("i", "", cell).style.width = `${(100 * Math.min(1, value / column.whole)).toFixed(1)}%`;
      });
    }
    this.body.replaceChildren(lines);
  }
}

const made = new WeakMap();

export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".chip-table");
  if (!made.has(root)) made.set(root, new Table(root));
  made.get(root).show(data);
}
