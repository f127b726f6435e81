// The heat map of W (Fig. 10): classes in rows, channels in columns, on one canvas.
//
// data: bytes. Four bytes (little endian) give the length of a JSON header, then come the header, spaces up to a
// multiple of four, and rows x columns float32 weights, row by row, columns in the order shown.
// The canvas is as large as the view and drawn anew on scrolling: a canvas of 900 x 1,280 cells would take gigabytes.
// data-painted="true" on the canvas says that the first picture is there.
// At first all channels are in sight: where there are more of them than pixels, each pixel takes the weight of the largest
// magnitude of its channels. Larger cells scroll, and a small map of all of them above says where; it can be dragged.

const AXIS = 30, ROW = { least: 17, most: 44, together: 300 }, TALLEST = 560, WIDEST = 28, STEP = 1.5, OVERVIEW = 34;

function read(data) {
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const start = 4 + Math.ceil(length / 4) * 4;
  // A copy, since a typed array must begin at a multiple of four bytes.
  const values = new Float32Array(bytes.slice(start).buffer);
  return { ...header, values };
}

function rgb(color) {
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = color;
  probe.fillRect(0, 0, 1, 1);
  return probe.getImageData(0, 0, 1, 1).data;
}

function number(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size < 1e-4 || size >= 1e5 ? value.toExponential(1) : value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
  return text.replace("-", "\u2212");
}

function element(tag, className, parent) {
  const made = document.createElement(tag);
  made.className = className;
  parent.appendChild(made);
  return made;
}

class HeatMap {
  constructor(root) {
    this.root = root;
    const bar = element("div", "chip-heatmap-bar", root);
    this.legend = element("div", "chip-heatmap-legend", bar);
    const zoom = element("div", "chip-heatmap-zoom", bar);
    for (const [text, name, factor] of [["\u2212", "Smaller cells", 1 / STEP], ["+", "Larger cells", STEP], ["fit", "All channels at once", 0]]) {
      const button = element("button", "", zoom);
      button.type = "button";
      button.textContent = text;
      button.title = name;
      button.setAttribute("aria-label", name);
      button.onclick = () => this.zoom(factor);
    }
    this.overview = element("canvas", "chip-heatmap-overview", root);  // the whole map again, for who scrolls; no tab stop of its own
    this.overview.setAttribute("aria-hidden", "true");
    const go = (event) => { if (event.buttons & 1) this.travel(event); };
    this.overview.onpointerdown = (event) => { this.overview.setPointerCapture(event.pointerId); go(event); };
    this.overview.onpointermove = go;
    this.frame = element("div", "chip-heatmap-frame", root);
    this.canvas = element("canvas", "", this.frame);
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.spacer = element("div", "chip-heatmap-spacer", this.frame);
    this.tip = element("div", "chip-heatmap-tip", root);
    this.said = element("div", "chip-heatmap-said", root);
    this.said.setAttribute("role", "status");
    this.cell = null;
    this.frame.onscroll = () => this.later();
    this.canvas.onmousemove = (event) => this.point(event);
    this.canvas.onmouseleave = () => { this.cell = null; this.tip.style.display = "none"; this.later(); };
    this.canvas.onclick = (event) => { this.point(event); this.open(); };
    this.canvas.onkeydown = (event) => this.key(event);
    this.canvas.onblur = () => { this.tip.style.display = "none"; };
    this.observer = new ResizeObserver(() => { if (this.root.clientWidth !== this.measured) this.layout(); });
    this.observer.observe(root);
  }

  show(data, choose) {
    this.choose = choose;
    const known = this.data;
    this.data = read(data);
    const { rows, columns, labels } = this.data;
    if (!known || known.columns.length !== columns.length || known.rows.length !== rows.length) this.width = 0;
    this.cell = null;
    this.tip.style.display = "none";
    this.canvas.setAttribute("aria-label", this.data.description);
    this.colors();
    this.layout();
  }

  colors() {
    // One pixel a cell; drawn enlarged. Between the page's own background and two strong colors that color-blind
    // people can tell apart.
    const style = getComputedStyle(this.root);
    const paper = rgb(style.getPropertyValue("--st-background-color") || "white");
    this.dark = paper[0] + paper[1] + paper[2] < 384;
    this.ink = style.getPropertyValue("--st-text-color") || "black";
    this.face = style.fontFamily || "sans-serif";
    this.strong = style.getPropertyValue("--st-primary-color") || "#c2410c";
    const ends = this.dark ? { up: [255, 149, 64], down: [77, 166, 255] } : { up: [190, 54, 6], down: [16, 88, 168] };
    const base = [0, 1, 2].map((i) => paper[i] + (this.dark ? 14 : -7));
    const { rows, columns, values, tops, signed } = this.data;
    const mix = (share, i) => base[i] + (share >= 0 ? ends.up : ends.down)[i] * Math.abs(share) - base[i] * Math.abs(share);
    const picture = new ImageData(columns.length, rows.length);
    for (let row = 0, at = 0; row < rows.length; row++) {
      for (let column = 0; column < columns.length; column++, at++) {
        let share = tops[row] > 0 ? Math.max(-1, Math.min(1, values[at] / tops[row])) : 0;
        if (!signed && share < 0) share = 0;
        // The square root lets weights of a hundredth of the largest be seen; the legend is drawn the same way.
        share = Math.sign(share) * Math.sqrt(Math.abs(share));
        for (let i = 0; i < 3; i++) picture.data[4 * at + i] = mix(share, i);
        picture.data[4 * at + 3] = 255;
      }
    }
    this.picture = picture;
    this.cells = document.createElement("canvas");
    [this.cells.width, this.cells.height] = [columns.length, rows.length];
    this.cells.getContext("2d").putImageData(picture, 0, 0);
    this.fewer = null;
    const stops = [];
    for (let i = signed ? -8 : 0; i <= 8; i++) {
      const share = Math.sign(i) * Math.sqrt(Math.abs(i) / 8);
      stops.push(`rgb(${[0, 1, 2].map((j) => Math.round(mix(share, j))).join(",")})`);
    }
    this.legend.replaceChildren();
    const [low, high] = this.data.ends;
    element("span", "", this.legend).textContent = low.replace("-", "\u2212");
    element("i", "", this.legend).style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    element("span", "", this.legend).textContent = high;
    element("span", "chip-heatmap-quiet", this.legend).textContent = this.data.scale;
    this.legend.setAttribute("role", "img");
    this.legend.setAttribute("aria-label", `Colors from ${low} to ${high}, ${this.data.scale}`);
  }

  // The cells with so many columns that each is a pixel wide at least: of several channels the weight of the largest magnitude.
  aggregated(width) {
    const { rows, columns, values, tops } = this.data, count = columns.length;
    if (width >= count) return this.cells;
    if (this.fewer?.width === width) return this.fewer;
    const made = new ImageData(width, rows.length);
    for (let row = 0; row < rows.length; row++) {
      for (let x = 0; x < width; x++) {
        const from = Math.floor(x * count / width), to = Math.max(from + 1, Math.floor((x + 1) * count / width));
        let strongest = from;
        for (let k = from + 1; k < to; k++) if (Math.abs(values[row * count + k]) > Math.abs(values[row * count + strongest])) strongest = k;
        const source = 4 * (row * count + strongest);
        made.data.set(this.picture.data.subarray(source, source + 4), 4 * (row * width + x));
      }
    }
    this.fewer = document.createElement("canvas");
    [this.fewer.width, this.fewer.height] = [width, rows.length];
    this.fewer.getContext("2d").putImageData(made, 0, 0);
    return this.fewer;
  }

  layout() {
    if (!this.data || !this.root.clientWidth) return;
    this.measured = this.root.clientWidth;
    const { rows, columns, labels } = this.data;
    const context = this.canvas.getContext("2d");
    context.font = `13px ${this.face}`;
    this.left = Math.min(190, 14 + Math.max(...labels.map((label) => context.measureText(label).width)));
    const room = this.frame.clientWidth - this.left - 2;
    const fitting = !this.width || this.width <= this.least;  // also when the window has become wider
    this.least = Math.min(WIDEST, room / columns.length);
    this.width = fitting ? this.least : Math.max(this.least, this.width);
    this.height = Math.round(Math.min(ROW.most, Math.max(ROW.least, ROW.together / rows.length)));
    const whole = [this.left + this.width * columns.length, AXIS + this.height * rows.length];
    this.size = [Math.floor(Math.min(this.frame.clientWidth, whole[0] + 2)), Math.min(TALLEST, whole[1])];
    const scale = window.devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = this.size.map((side) => Math.round(side * scale));
    [this.canvas.style.width, this.canvas.style.height] = this.size.map((side) => `${side}px`);
    // The canvas sticks to the frame while this empty box gives the scroll bars their length.
    this.spacer.style.width = `${whole[0]}px`;
    this.spacer.style.height = `${Math.max(0, whole[1] - this.size[1])}px`;
    this.frame.style.height = `${this.size[1] + (whole[0] > this.frame.clientWidth ? 16 : 2)}px`;
    const scrolls = this.width > this.least + 1e-6;
    this.overview.style.display = scrolls ? "block" : "none";
    if (scrolls) {
      [this.overview.width, this.overview.height] = [Math.round(room * scale), OVERVIEW * scale];
      this.overview.style.width = `${room}px`;
      this.overview.style.marginLeft = `${this.left}px`;
    }
    this.draw();
  }

  later() {
    if (!this.pending) this.pending = requestAnimationFrame(() => { this.pending = 0; this.draw(); });
  }

  draw() {
    if (!this.cells || !this.size) return;
    const { rows, columns, labels, chosen } = this.data;
    const [width, height] = this.size, [x0, y0] = [this.frame.scrollLeft, this.frame.scrollTop];
    const context = this.canvas.getContext("2d"), scale = window.devicePixelRatio || 1;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    context.save();
    context.beginPath();
    context.rect(this.left, AXIS, width - this.left, height - AXIS);
    context.clip();
    const across = Math.round(this.width * columns.length * scale);  // device pixels
    context.drawImage(this.aggregated(across), this.left - x0, AXIS - y0, this.width * columns.length, this.height * rows.length);
    const first = Math.floor(y0 / this.height), last = Math.min(rows.length - 1, Math.ceil((y0 + height) / this.height));
    const from = Math.floor(x0 / this.width), to = Math.min(columns.length - 1, Math.ceil((x0 + width) / this.width));
    if (this.height > 14) for (let row = first; row <= last; row++) context.clearRect(0, AXIS - y0 + (row + 1) * this.height - 1, width, 1);
    if (this.width >= 9) for (let column = from; column <= to; column++) context.clearRect(this.left - x0 + (column + 1) * this.width - 1, AXIS, 1, height);
    if (this.cell) {
      const [row, column] = this.cell;
      context.strokeStyle = this.ink;
      context.lineWidth = 2;
      context.strokeRect(this.left - x0 + column * this.width - 1, AXIS - y0 + row * this.height - 1, Math.max(3, this.width + 1), this.height + 1);
    }
    context.restore();
    context.fillStyle = this.ink;
    context.textBaseline = "middle";
    context.textAlign = "right";
    context.save();
    context.beginPath();
    context.rect(0, AXIS, this.left, height);
    context.clip();
    for (let row = first; row <= last; row++) {
      const marked = rows[row] === chosen || (this.cell && this.cell[0] === row);
      context.font = `${marked ? "bold " : ""}13px ${this.face}`;
      context.fillStyle = rows[row] === chosen ? this.strong : this.ink;
      let text = labels[row];
      while (text.length > 4 && context.measureText(text).width > this.left - 8) text = text.slice(0, -2).trimEnd() + "\u2026";
      context.fillText(text, this.left - 7, AXIS - y0 + (row + 0.5) * this.height);
    }
    context.restore();
    context.font = `12px ${this.face}`;
    context.textAlign = "center";
    context.fillStyle = this.ink;
    const apart = Math.max(1, Math.ceil(36 / this.width)), nice = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((step) => step >= apart) || 1000;
    for (let column = Math.ceil(from / nice) * nice; column <= to; column += nice) {
      const x = this.left - x0 + (column + 0.5) * this.width;
      if (x < this.left + 4 || x > width - 8) continue;
      context.fillText(String(columns[column]), x, 11);
      context.fillRect(x - 0.5, AXIS - 8, 1, 5);
    }
    this.canvas.dataset.painted = "true";
    this.sketch();
  }

  // The small map of everything, and a frame around what is in sight.
  sketch() {
    if (this.overview.style.display === "none") return;
    const scale = window.devicePixelRatio || 1, context = this.overview.getContext("2d");
    const [width, height] = [this.overview.width / scale, OVERVIEW], { rows, columns } = this.data;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.aggregated(Math.min(columns.length, Math.round(width * scale))), 0, 3, width, height - 6);
    const tall = this.height * rows.length, seen = [(this.size[0] - this.left) / (this.width * columns.length), (this.size[1] - AXIS) / tall];
    context.strokeStyle = this.strong;
    context.lineWidth = 2;
    context.strokeRect(
      this.frame.scrollLeft / (this.width * columns.length) * width + 1, 1 + this.frame.scrollTop / tall * (height - 2),
      Math.max(6, Math.min(1, seen[0]) * width - 2), Math.max(6, Math.min(1, seen[1]) * (height - 2)),
    );
  }

  travel(event) {
    const box = this.overview.getBoundingClientRect(), { rows, columns } = this.data;
    this.frame.scrollLeft = (event.clientX - box.left) / box.width * this.width * columns.length - (this.size[0] - this.left) / 2;
    this.frame.scrollTop = (event.clientY - box.top) / box.height * this.height * rows.length - (this.size[1] - AXIS) / 2;
  }

  zoom(factor) {
    const middle = (this.frame.scrollLeft + (this.size[0] - this.left) / 2) / this.width;
    this.width = factor ? Math.max(this.least, Math.min(WIDEST, this.width * factor)) : this.least;
    // From all channels at once the first step leads to cells that a pointer can tell apart.
    if (factor > 1 && this.width < 3) this.width = Math.max(this.least, 3);
    this.layout();
    this.frame.scrollLeft = middle * this.width - (this.size[0] - this.left) / 2;
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const column = Math.floor((x - this.left + this.frame.scrollLeft) / this.width), row = Math.floor((y - AXIS + this.frame.scrollTop) / this.height);
    const inside = x >= this.left && y >= AXIS && row < this.data.rows.length && column < this.data.columns.length;
    this.cell = inside ? [row, column] : null;
    this.canvas.style.cursor = inside ? "pointer" : "default";
    this.tell(false);
  }

  tell(aloud) {
    this.later();
    if (!this.cell) { this.tip.style.display = "none"; return; }
    const [row, column] = this.cell, { labels, columns, values } = this.data;
    const text = `${labels[row]}, channel ${columns[column]}: ${number(values[row * columns.length + column])}`;
    this.tip.textContent = text;
    this.tip.style.display = "block";
    const x = this.left + (column + 0.5) * this.width - this.frame.scrollLeft, y = AXIS + row * this.height - this.frame.scrollTop + this.frame.offsetTop;
    this.tip.style.left = `${Math.max(0, Math.min(x - this.tip.offsetWidth / 2, this.root.clientWidth - this.tip.offsetWidth))}px`;
    this.tip.style.top = `${y - this.tip.offsetHeight - 6}px`;
    if (aloud) this.said.textContent = text;  // the mouse would have a screen reader talk without end
  }

  open() {
    if (!this.cell) return;
    const [row, column] = this.cell;
    this.choose({ class: this.data.rows[row], channel: this.data.columns[column] });
  }

  key(event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-10, 0], PageDown: [10, 0] };
    const { rows, columns } = this.data;
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.open(); return; }
    let [row, column] = this.cell || [0, -1];
    if (event.key === "Home") column = 0;
    else if (event.key === "End") column = columns.length - 1;
    else if (moves[event.key]) [row, column] = this.cell ? [row + moves[event.key][0], column + moves[event.key][1]] : [0, 0];
    else return;
    event.preventDefault();
    this.cell = [Math.max(0, Math.min(rows.length - 1, row)), Math.max(0, Math.min(columns.length - 1, column))];
    // Scrolled so that the cell is in sight.
    const [x, y] = [this.cell[1] * this.width, this.cell[0] * this.height], [wide, tall] = [this.size[0] - this.left, this.size[1] - AXIS];
    if (x < this.frame.scrollLeft) this.frame.scrollLeft = x;
    if (x + this.width > this.frame.scrollLeft + wide) this.frame.scrollLeft = x + this.width - wide;
    if (y < this.frame.scrollTop) this.frame.scrollTop = y;
    if (y + this.height > this.frame.scrollTop + tall) this.frame.scrollTop = y + this.height - tall;
    this.tell(true);
  }

  end() {
    this.observer.disconnect();
    this.root.replaceChildren();
  }
}

const made = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".chip-heatmap");
  const first = !made.has(root);
  if (first) made.set(root, new HeatMap(root));
  made.get(root).show(data, (cell) => setTriggerValue("cell", cell));
  // After the next frame, that is when the picture is on the screen.
  if (first) requestAnimationFrame(() => setTimeout(() => setTriggerValue("painted", true)));
  return () => { made.get(root)?.end(); made.delete(root); };
}
