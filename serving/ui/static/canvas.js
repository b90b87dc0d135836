// A canvas on which class ids are painted: one byte a pixel, without anti-aliasing. Fires "change" with {settled}.

import { colourTable, css, drawValues, painted, voidId } from "./labels.js";

const TOOLS = [["brush", "Brush", "b"], ["fill", "Fill", "f"], ["line", "Line", "l"], ["polygon", "Polygon", "p"],
  ["superpixel", "Superpixel", "s"], ["pick", "Pipette", "i"], ["erase", "Erase", "e"], ["move", "Move", "m"]];
const EDGE = 0xb0ffffff; // of superpixels: white, a little transparent
const SIZES = [1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 48, 64];
const MOST_UNDO = 50;
const EDGE_PULL = 6; // pixels of the screen within which a polygon's corner is drawn to the map's edge
const TEMPLATE = `
  <div class="tools" role="toolbar" aria-label="Painting tools">
    ${TOOLS.map(([name, text, key]) => `<button type="button" data-tool="${name}" title="${text} (${key.toUpperCase()})">${text}</button>`).join("")}
    <label class="size" title="Brush size ([ and ])">Size <input type="range" min="0" max="${SIZES.length - 1}" step="1"></label>
    <span class="group">
      <button type="button" data-do="undo" title="Undo (Ctrl+Z)">Undo</button>
      <button type="button" data-do="redo" title="Redo (Ctrl+Y)">Redo</button>
    </span>
    <span class="group">
      <button type="button" data-do="closer" aria-label="Zoom in" title="Zoom in (+)">+</button>
      <button type="button" data-do="farther" aria-label="Zoom out" title="Zoom out (-)">−</button>
      <button type="button" data-do="whole" title="Show the whole map (Home)">Fit</button>
    </span>
  </div>
  <div class="classes" role="group" aria-label="What to paint"></div>
  <div class="viewport" tabindex="0" role="application" aria-label="Your map. Paint with the mouse or a finger; arrow keys move the brush and the space bar uses it.">
    <div class="sheet"><img class="under" alt="" hidden><canvas class="map"></canvas><canvas class="edges"></canvas>
      <svg class="marks" preserveAspectRatio="none" aria-hidden="true"><circle hidden></circle><polyline></polyline></svg></div>
  </div>
  <div class="more">
    <label class="opacity" hidden>Map over photo <input type="range" min="0" max="100" value="60"></label>
    <span class="replace">Turn all <select class="from" aria-label="Class to replace"></select> into
      <select class="to" aria-label="Class to put there"></select> <button type="button" data-do="replace">Replace</button></span>
  </div>`;

export class LabelCanvas extends EventTarget {
  #undo = [];
  #redo = [];
  #pointers = new Map(); // id -> position in the window
  #stroke = null; // {first, last} while a pointer is down
  #corners = []; // of the polygon under way
  #view = { x: 0, y: 0, zoom: 1 };
  #cursor = null; // where the brush is, in pixels of the map
  revision = 0; // counts the changes of the map

  constructor(root) {
    super();
    this.root = root;
    root.classList.add("label-canvas");
    root.innerHTML = TEMPLATE;
    this.$ = (selector) => root.querySelector(selector);
    this.viewport = this.$(".viewport");
    this.map = null;
    this.setSegments(null);
    this.size = 8;
    this.selectTool("brush");
    this.setSize(8);
    this.#listen();
  }

  /** Show another map; the history begins anew. `photo` is the URL of a picture to lay below it. */
  open(map, { photo = null } = {}) {
    const known = this.map?.classes === map.classes;
    this.map = { ...map, ids: Uint8Array.from(map.ids) };
    this.#undo = [];
    this.#redo = [];
    this.#corners = [];
    this.#stroke = null;
    this.viewport.style.aspectRatio = `${map.width} / ${map.height}`;
    this.$(".marks").setAttribute("viewBox", `0 0 ${map.width} ${map.height}`);
    Object.assign(this.$(".under"), { hidden: !photo, src: photo ?? "" });
    this.$(".opacity").hidden = !photo;
    this.setSegments(null);
    this.#setOpacity();
    if (!known) this.#showClasses();
    this.#look(0, 0, 1);
    this.revision++;
    this.#draw();
  }

  /** Numbers of superpixels, one a pixel of the map, for the tool that paints them whole; null: no such tool. */
  setSegments(segments) {
    this.segments = segments;
    this.$("[data-tool=superpixel]").hidden = !segments;
    if (!segments) {
      if (this.tool === "superpixel") this.selectTool("brush");
      return;
    }
    const { width, height } = this.map;
    const edges = Uint8Array.from(segments, (number, index) => number !== segments[index + 1] || number !== segments[index + width]);
    drawValues(this.$(".edges"), edges, width, height, [0, EDGE]);
  }

  /** The ids as they are now, a copy. */
  ids() {
    return Uint8Array.from(this.map.ids);
  }

  selectTool(name) {
    this.tool = name;
    this.#corners = [];
    for (const button of this.root.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === name);
    this.viewport.dataset.tool = name;
    if (this.map) this.#mark();
  }

  selectClass(id) {
    this.class = id;
    for (const button of this.root.querySelectorAll("[data-id]")) button.setAttribute("aria-pressed", Number(button.dataset.id) === id);
    if (["erase", "pick", "move"].includes(this.tool)) this.selectTool("brush");
  }

  setSize(size) {
    this.size = size;
    this.$(".size input").value = SIZES.findIndex((each) => each >= size);
    if (this.map) this.#mark();
  }

  undo() {
    this.#travel(this.#undo, this.#redo);
  }

  redo() {
    this.#travel(this.#redo, this.#undo);
  }

  /** Give every pixel of one class to another. */
  replace(from, to) {
    this.#edit(() => {
      const { ids } = this.map;
      for (let i = 0; i < ids.length; i++) if (ids[i] === from) ids[i] = to;
    });
  }

  /** Put other ids on the canvas, as an edit that can be undone. */
  replaceMap(ids) {
    this.#edit(() => this.map.ids.set(ids));
  }

  /** Rename or recolour the classes; the ids stay. */
  setClasses(classes) {
    this.map.classes = classes;
    this.#showClasses();
    this.#draw();
  }

  #showClasses() {
    const rows = painted(this.map.classes);
    this.$(".classes").replaceChildren(...rows.map((row, index) => {
      const button = Object.assign(document.createElement("button"), { type: "button", title: row.name });
      button.dataset.id = row.id;
      button.innerHTML = `<i class="swatch" style="background:${css(row)}"></i><span></span>${index < 9 ? `<kbd>${index + 1}</kbd>` : ""}`;
      button.querySelector("span").textContent = row.name;
      return button;
    }));
    const options = (list) => list.map((row) => new Option(row.name, row.id));
    this.$(".from").replaceChildren(...options([...rows, ...this.map.classes.filter((row) => row.ignore)]));
    this.$(".to").replaceChildren(...options(rows));
    this.$(".to").selectedIndex = Math.min(1, rows.length - 1);
    this.selectClass(rows.find((row) => row.id === this.class)?.id ?? rows[0].id);
  }

  #listen() {
    const { root, viewport } = this;
    root.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button?.dataset.tool) this.selectTool(button.dataset.tool);
      if (button?.dataset.id) this.selectClass(Number(button.dataset.id));
      if (button?.dataset.do) this.#do(button.dataset.do);
    });
    this.$(".size input").addEventListener("input", ({ target }) => this.setSize(SIZES[target.value]));
    this.$(".opacity input").addEventListener("input", () => this.#setOpacity());
    root.addEventListener("keydown", (event) => this.#key(event));
    viewport.addEventListener("pointerdown", (event) => this.#down(event));
    viewport.addEventListener("pointermove", (event) => this.#move(event));
    viewport.addEventListener("pointerup", (event) => this.#up(event));
    viewport.addEventListener("pointercancel", (event) => this.#up(event));
    viewport.addEventListener("pointerleave", () => this.#hover(null));
    viewport.addEventListener("dblclick", () => this.#closePolygon());
    viewport.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
      event.preventDefault();
      this.#zoomAt(event, Math.exp(-event.deltaY / 200));
    }, { passive: false });
  }

  #do(name) {
    if (name === "replace") this.replace(Number(this.$(".from").value), Number(this.$(".to").value));
    else if (name === "whole") this.#look(0, 0, 1);
    else if (name === "undo" || name === "redo") this[name]();
    else this.#zoomAt(this.#middle(), name === "closer" ? 1.5 : 1 / 1.5);
  }

  #key(event) {
    if (event.target.matches("input, select") || event.altKey) return;
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z" && key !== "y") return;
      if (key === "y" || event.shiftKey) this.redo();
      else this.undo();
    } else if (key === "[" || key === "]") {
      const index = SIZES.indexOf(this.size) + (key === "]" ? 1 : -1);
      this.setSize(SIZES[Math.min(SIZES.length - 1, Math.max(0, index))]);
    } else if (key >= "1" && key <= "9") {
      const row = painted(this.map.classes)[Number(key) - 1];
      if (row) this.selectClass(row.id);
    } else if (TOOLS.some(([, , letter]) => letter === key)) {
      this.selectTool(TOOLS.find(([, , letter]) => letter === key)[0]);
    } else if (key === "+" || key === "=" || key === "-" || key === "home") {
      this.#do({ "-": "farther", home: "whole" }[key] ?? "closer");
    } else if (key === "escape") {
      this.selectTool(this.tool);
    } else if (event.target !== this.viewport || !this.#keyOnCanvas(key, event.shiftKey)) {
      return;
    }
    event.preventDefault();
  }

  /** Paint without a mouse: arrows move the brush, the space bar uses it, Enter closes a polygon. */
  #keyOnCanvas(key, fast) {
    const { width, height } = this.map;
    const [x, y] = this.#cursor ?? [width / 2, height / 2];
    const step = fast ? 10 : 2;
    const moves = { arrowleft: [-step, 0], arrowright: [step, 0], arrowup: [0, -step], arrowdown: [0, step] };
    if (key in moves) {
      const clamp = (value, most) => Math.min(most - 0.5, Math.max(0.5, value));
      this.#hover([clamp(x + moves[key][0], width), clamp(y + moves[key][1], height)]);
    } else if (key === " " && this.tool !== "move") {
      this.#begin([x, y]);
      this.#end();
    } else if (key === "enter") {
      this.#closePolygon();
    } else {
      return false;
    }
    return true;
  }

  #down(event) {
    this.viewport.focus({ preventScroll: true });
    this.viewport.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, event);
    if (this.#pointers.size === 2) { // two fingers zoom and move
      if (this.#stroke) this.map.ids = this.#undo.pop();
      this.#stroke = null;
      this.#edited(true);
    } else if (this.#pointers.size === 1 && event.button === 0 && this.tool !== "move") {
      this.#begin(this.#at(event));
    }
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    const point = this.#at(event);
    if (before && this.#pointers.size === 2) {
      const [other] = [...this.#pointers].find(([id]) => id !== event.pointerId).slice(1);
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      this.#shift((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
      this.#zoomAt({ clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 }, apart(event) / apart(before));
    } else if (before && !this.#stroke) {
      if (this.tool === "move" || event.buttons === 4) this.#shift(event.clientX - before.clientX, event.clientY - before.clientY);
    } else if (this.#stroke) {
      for (const each of event.getCoalescedEvents?.() ?? [event]) this.#extend(this.#at(each));
    }
    if (before) this.#pointers.set(event.pointerId, event);
    this.#hover(point);
  }

  #up(event) {
    this.#pointers.delete(event.pointerId);
    if (this.#stroke) this.#end();
  }

  #begin(point) {
    if (this.tool === "pick") {
      const id = this.map.ids[this.#index(point)];
      if (painted(this.map.classes).some((row) => row.id === id)) this.selectClass(id);
    } else if (this.tool === "polygon") {
      const [first] = this.#corners;
      const near = first && Math.hypot(first[0] - point[0], first[1] - point[1]) * this.#scale() < 10;
      if (near && this.#corners.length > 2) this.#closePolygon();
      else this.#corners.push(this.#atEdge(point));
    } else {
      this.#stroke = { first: point, last: point };
      this.#record();
      if (this.tool === "fill") {
        this.#fill(point);
        this.#edited(false);
      } else {
        this.#extend(point);
      }
    }
    this.#hover(point);
  }

  #extend(point) {
    if (this.tool === "fill") return;
    if (this.tool === "line") { // drawn anew from its start until the pointer is lifted
      this.map.ids.set(this.#undo.at(-1));
      this.#segment(this.#stroke.first, point);
    } else if (this.tool === "superpixel") {
      this.#paintSegments(this.#stroke.last, point);
    } else {
      this.#segment(this.#stroke.last, point);
    }
    this.#stroke.last = point;
    this.#edited(false);
  }

  #end() {
    this.#stroke = null;
    this.#tell(true);
  }

  #closePolygon() {
    const corners = this.#corners;
    this.#corners = [];
    if (corners.length > 2) this.#edit(() => this.#polygon(corners));
    this.#mark();
  }

  #edit(change) {
    this.#record();
    change();
    this.#edited(true);
  }

  #record() {
    this.#undo.push(this.ids());
    if (this.#undo.length > MOST_UNDO) this.#undo.shift();
    this.#redo = [];
  }

  #travel(from, to) {
    if (!from.length) return;
    to.push(this.ids());
    this.map.ids = from.pop();
    this.#edited(true);
  }

  #edited(settled) {
    this.revision++;
    this.#draw();
    this.#tell(settled);
  }

  #tell(settled) {
    this.dispatchEvent(new CustomEvent("change", { detail: { settled } }));
  }

  get #paint() {
    return this.tool === "erase" ? voidId(this.map.classes) : this.class;
  }

  /** A corner near an edge of the map lies on it: nobody hits the last pixel. */
  #atEdge(point) {
    const near = EDGE_PULL / this.#scale();
    return point.map((value, axis) => {
      const most = [this.map.width, this.map.height][axis];
      return value < near ? 0 : value > most - near ? most : value;
    });
  }

  #index([x, y]) {
    const clamp = (value, most) => Math.min(most - 1, Math.max(0, Math.floor(value)));
    return clamp(y, this.map.height) * this.map.width + clamp(x, this.map.width);
  }

  /** Every pixel whose middle lies within half the brush's size of the segment. */
  #segment([ax, ay], [bx, by]) {
    const { ids, width, height } = this.map;
    const radius = Math.max(this.size / 2, 0.71); // the smallest brush misses no pixel
    const [dx, dy] = [bx - ax, by - ay];
    const long = dx * dx + dy * dy || 1;
    const paint = this.#paint;
    const [left, right] = [Math.max(0, Math.floor(Math.min(ax, bx) - radius)), Math.min(width - 1, Math.ceil(Math.max(ax, bx) + radius))];
    const [top, bottom] = [Math.max(0, Math.floor(Math.min(ay, by) - radius)), Math.min(height - 1, Math.ceil(Math.max(ay, by) + radius))];
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const [px, py] = [x + 0.5 - ax, y + 0.5 - ay];
        const along = Math.min(1, Math.max(0, (px * dx + py * dy) / long));
        if (Math.hypot(px - along * dx, py - along * dy) <= radius) ids[y * width + x] = paint;
      }
    }
  }

  /** Every superpixel under the way from one point to the other. */
  #paintSegments([ax, ay], [bx, by]) {
    const { ids } = this.map;
    const steps = Math.ceil(Math.hypot(bx - ax, by - ay)) + 1;
    const hit = new Set();
    for (let i = 0; i <= steps; i++) hit.add(this.segments[this.#index([ax + ((bx - ax) * i) / steps, ay + ((by - ay) * i) / steps])]);
    for (let i = 0; i < ids.length; i++) if (hit.has(this.segments[i])) ids[i] = this.#paint;
  }

  /** Every pixel of one class that hangs together with this one along edges. */
  #fill(point) {
    const { ids, width } = this.map;
    const start = this.#index(point);
    const [old, paint] = [ids[start], this.#paint];
    const open = old === paint ? [] : [start];
    while (open.length) {
      const index = open.pop();
      if (ids[index] !== old) continue;
      ids[index] = paint;
      if (index % width > 0) open.push(index - 1);
      if (index % width < width - 1) open.push(index + 1);
      open.push(index - width, index + width); // outside of the map there is no class: undefined
    }
  }

  /** Every pixel whose middle lies inside the polygon. */
  #polygon(corners) {
    const { ids, width, height } = this.map;
    for (let row = 0; row < height; row++) {
      const y = row + 0.5;
      const crossings = corners.flatMap(([ax, ay], index) => {
        const [bx, by] = corners[(index + 1) % corners.length];
        return ay > y === by > y ? [] : [ax + ((y - ay) * (bx - ax)) / (by - ay)];
      }).sort((a, b) => a - b);
      for (let i = 0; i < crossings.length; i += 2) {
        const [from, to] = [Math.ceil(crossings[i] - 0.5), Math.ceil(crossings[i + 1] - 0.5)];
        ids.fill(this.class, row * width + Math.max(0, from), row * width + Math.min(width, Math.max(0, to)));
      }
    }
  }

  #draw() {
    const { ids, width, height, classes } = this.map;
    drawValues(this.$(".map"), ids, width, height, colourTable(classes, { voidToo: this.$(".under").hidden }));
    this.$("[data-do=undo]").disabled = !this.#undo.length;
    this.$("[data-do=redo]").disabled = !this.#redo.length;
    this.#mark();
  }

  #hover(point) {
    this.#cursor = point;
    this.#mark();
  }

  /** The ring of the brush and the polygon under way. */
  #mark() {
    const ring = this.$("circle");
    const round = ["brush", "line", "erase"].includes(this.tool);
    ring.toggleAttribute("hidden", !this.#cursor || !round);
    const [x, y] = this.#cursor ?? [0, 0];
    for (const [name, value] of Object.entries({ cx: x, cy: y, r: this.size / 2 })) ring.setAttribute(name, value);
    const points = this.#corners.length && this.#cursor ? [...this.#corners, this.#cursor] : this.#corners;
    this.$("polyline").setAttribute("points", points.join(" "));
  }

  #setOpacity() {
    this.$(".map").style.opacity = this.$(".under").hidden ? 1 : this.$(".opacity input").value / 100;
  }

  #at({ clientX, clientY }) {
    const { left, top } = this.$(".map").getBoundingClientRect();
    return [(clientX - left) / this.#scale(), (clientY - top) / this.#scale()];
  }

  #scale() {
    return this.$(".map").getBoundingClientRect().width / this.map.width;
  }

  #middle() {
    const { left, top, width, height } = this.viewport.getBoundingClientRect();
    return { clientX: left + width / 2, clientY: top + height / 2 };
  }

  #shift(dx, dy) {
    this.#look(this.#view.x + dx, this.#view.y + dy, this.#view.zoom);
  }

  #zoomAt({ clientX, clientY }, factor) {
    const { left, top } = this.viewport.getBoundingClientRect();
    const zoom = Math.min(16, Math.max(1, this.#view.zoom * factor));
    const change = zoom / this.#view.zoom;
    const keep = (from, at) => at - (at - from) * change;
    this.#look(keep(this.#view.x, clientX - left), keep(this.#view.y, clientY - top), zoom);
  }

  /** Set the zoom and where the sheet lies, never leaving a gap at an edge. */
  #look(x, y, zoom) {
    const { clientWidth, clientHeight } = this.viewport;
    const hold = (value, side) => Math.min(0, Math.max(side * (1 - zoom), value));
    this.#view = { x: hold(x, clientWidth), y: hold(y, clientHeight), zoom };
    this.$(".sheet").style.transform = `translate(${this.#view.x}px, ${this.#view.y}px) scale(${zoom})`;
  }
}
