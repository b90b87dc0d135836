// A canvas on which class ids are painted: one byte a pixel, without anti-aliasing. Fires "change" while it
// is painted on, and "settled" when an edit has ended.

import { css, drawMap, isCut, painted, voidId } from "./labels.js";
import { fill, showBlob } from "./page.js";

const EDGES = [{ id: 1, color: [255, 255, 255, 176] }]; // of superpixels: white, a little transparent
const COVERED = 85; // of 255: a pixel is painted where a third of it is covered
const MOST_UNDO = 50;
const EDGE_PULL = 6; // pixels of the screen within which a polygon's corner is drawn to the map's edge
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class LabelCanvas extends EventTarget {
  #history = []; // the ids after each edit
  #now = 0; // which of them the canvas shows
  #points = []; // of the stroke or polygon under way
  #zoom = 1;
  #grabbed = null; // the point of the map on which the pointer was pressed
  #cursor = null; // where the brush is, in pixels of the map
  map = null; // whose ids are another array after each edit

  /** `root` holds the markup of canvas.html. */
  constructor(root) {
    super();
    this.root = root;
    this.$ = (selector) => root.querySelector(selector);
    this.viewport = this.$(".viewport");
    this.selectTool("brush");
    this.#listenToControls();
    this.#listenToPointer();
  }

  /** Show another map; the history begins anew. `photo` is a picture to lay below it. */
  open(map, photo = null) {
    const { width, height } = map;
    this.map = { ...map };
    [this.#history, this.#now, this.#points] = [[map.ids], 0, []];
    this.viewport.style.aspectRatio = `${width} / ${height}`;
    this.$(".marks").setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.lay(photo);
    this.segments = null;
    this.$(".edges").width = 0; // clears it
    this.#showClasses();
    this.#zoomBy(1 / this.#zoom);
    this.#draw();
  }

  /** Lay a photo below the map, cut as `resized` cuts its map, or none. */
  lay(photo) {
    const under = this.$(".under");
    under.hidden = this.$(".opacity").hidden = !photo;
    if (!photo) return;
    showBlob(under, photo).then(() => {
      under.style.objectFit = isCut({ width: under.naturalWidth, height: under.naturalHeight }, this.map) ? "cover" : "fill";
    });
  }

  /** Name and colour the classes anew; the map and its history stay. */
  setClasses(classes) {
    this.map.classes = classes;
    this.#showClasses();
    this.#draw();
  }

  /** Numbers of superpixels, one a pixel of the map, for the tool that paints them whole. */
  setSegments(segments) {
    this.segments = segments;
    this.$("[data-tool=superpixel]").hidden = false;
    const apart = (number, index) => number !== segments[index + 1] || number !== segments[index + this.map.width];
    drawMap(this.$(".edges"), { ...this.map, ids: segments.map(apart), classes: EDGES });
  }

  selectTool(name) {
    this.tool = this.viewport.dataset.tool = name;
    this.#points = [];
    for (const each of this.root.querySelectorAll("button[data-tool]")) each.ariaPressed = each.dataset.tool === name;
    this.#mark();
  }

  selectClass(id) {
    this.class = id;
    for (const button of this.$(".classes").children) button.ariaPressed = Number(button.dataset.id) === id;
    if (["erase", "pick", "move"].includes(this.tool)) this.selectTool("brush");
  }

  /** Put other ids on the canvas, as an edit that can be undone. */
  replaceMap(ids) {
    this.#history = [...this.#history.slice(0, this.#now + 1), ids].slice(-MOST_UNDO);
    this.#travel(this.#history.length - 1);
  }

  #showClasses() {
    const rows = painted(this.map.classes);
    fill(this.$(".classes"), rows, (button, row, index) => {
      button.title = row.name;
      button.dataset.id = row.id;
      const [swatch, name, key] = button.children;
      swatch.style.background = css(row);
      name.textContent = row.name;
      if (index < 9) button.ariaKeyShortcuts = key.textContent = index + 1;
    });
    for (const select of this.root.querySelectorAll(".replace select")) {
      select.replaceChildren(...this.map.classes.map((row) => new Option(row.name, row.id)));
    }
    this.$(".to").selectedIndex = Math.min(1, rows.length - 1);
    this.selectClass((rows.find((row) => row.id === this.class) ?? rows[0]).id);
  }

  #listenToControls() {
    const actions = {
      undo: () => (this.#points.length ? this.#mark(this.#points.pop()) : this.#travel(this.#now - 1)),
      redo: () => this.#travel(this.#now + 1),
      closer: () => this.#zoomBy(1.5),
      farther: () => this.#zoomBy(1 / 1.5),
      whole: () => this.#zoomBy(1 / this.#zoom),
      replace: () => {
        const [from, to] = [".from", ".to"].map((each) => Number(this.$(each).value));
        this.replaceMap(this.map.ids.map((id) => (id === from ? to : id)));
      },
    };
    this.root.addEventListener("click", ({ target }) => {
      const { tool, id, do: action } = target.closest("button")?.dataset ?? {};
      if (tool) this.selectTool(tool);
      if (id) this.selectClass(Number(id));
      if (action) actions[action]();
    });
    this.root.addEventListener("keydown", (event) => this.#press(event));
  }

  #listenToPointer() {
    const { viewport } = this;
    viewport.addEventListener("pointerdown", (event) => {
      viewport.focus({ preventScroll: true });
      viewport.setPointerCapture(event.pointerId);
      this.#grabbed = this.#at(event);
      if (event.isPrimary && event.button === 0) this.#begin(this.#grabbed);
    });
    viewport.addEventListener("pointermove", (event) => {
      if (this.#stroking && event.isPrimary) {
        const events = event.getCoalescedEvents?.() ?? [];
        this.#points.push(...[...events, event].map((each) => this.#at(each)));
        this.#paint();
      } else if (event.buttons === 4 || (event.buttons === 1 && this.tool === "move")) {
        this.#scrollTo(this.#grabbed, event);
      }
      this.#mark(this.#at(event));
    });
    viewport.addEventListener("pointerup", () => this.#stroking && this.replaceMap(this.map.ids));
    viewport.addEventListener("pointercancel", () => this.#stroking && this.#travel(this.#now)); // two fingers zoom
    viewport.addEventListener("pointerleave", () => this.#mark(null));
    viewport.addEventListener("dblclick", () => this.#closePolygon());
    viewport.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
      event.preventDefault();
      this.#zoomBy(Math.exp(-event.deltaY / 200), event);
    }, { passive: false });
  }

  /** A key presses the button that names it, or changes the brush; on the canvas, arrows and the space bar paint. */
  #press(event) {
    const { key, shiftKey, target } = event;
    if (target.matches("input:not([type=range]), select") || event.altKey) return;
    const name = event.ctrlKey || event.metaKey ? `Control+${shiftKey ? "Shift+" : ""}${key}` : key;
    const button = this.$(`[aria-keyshortcuts~=${JSON.stringify(name)} i]:not([hidden])`);
    const { width, height } = this.map;
    const [x, y] = this.#cursor ?? [width / 2, height / 2];
    if (button) {
      button.click();
    } else if (name === "[" || name === "]") {
      this.$(".size input").stepUp(name === "]" ? 1 : -1);
      this.#mark();
    } else if (name === "Escape") {
      if (this.#stroking) this.#travel(this.#now);
      this.selectTool(this.tool);
    } else if (target !== this.viewport) {
      return;
    } else if (name in MOVES) {
      const [right, down] = MOVES[name].map((step) => step * (shiftKey ? 10 : 2));
      this.#mark([clamp(x + right, 0.5, width - 0.5), clamp(y + down, 0.5, height - 0.5)]);
    } else if (name === " ") {
      this.#begin([x, y]);
      if (this.#stroking) this.replaceMap(this.map.ids);
    } else if (name === "Enter") {
      this.#closePolygon();
    } else {
      return;
    }
    event.preventDefault();
  }

  #begin(point) {
    if (this.tool === "pick") {
      this.$(`[data-id="${this.map.ids[this.#index(point)]}"]`)?.click();
    } else if (this.tool === "polygon") {
      const [[x, y] = [Infinity, 0]] = this.#points;
      if (Math.hypot(x - point[0], y - point[1]) * this.#scale() < 10) this.#closePolygon();
      else this.#points.push(this.#atEdge(point));
    } else if (this.tool !== "move") {
      this.#points = [point];
      this.#paint();
    }
    this.#mark(point);
  }

  get #stroking() {
    return this.tool !== "polygon" && this.#points.length > 0;
  }

  #closePolygon() {
    if (this.tool !== "polygon" || this.#points.length < 3) return;
    this.#paint();
    this.replaceMap(this.map.ids);
  }

  /** Paint what the tool makes of the points so far. */
  #paint() {
    const paint = this.tool === "erase" ? voidId(this.map.classes) : this.class;
    const covered = this.tool === "fill" ? this.#connected(this.#points[0]) : this.#covered();
    this.map.ids = this.#history[this.#now].map((id, index) => (covered[index] ? paint : id));
    this.#draw();
    this.dispatchEvent(new Event("change"));
  }

  /** Show a map of the history. */
  #travel(to) {
    this.#points = [];
    this.#now = to;
    this.map.ids = this.#history[to];
    this.#draw();
    this.dispatchEvent(new Event("settled"));
  }

  /** How wide the brush is: at least so wide that it covers a third of a pixel wherever it is. */
  get #size() {
    return 2 ** (this.$(".size input").value / 2);
  }

  /** A corner near an edge of the map lies on it: nobody hits the last pixel. */
  #atEdge([x, y]) {
    const near = EDGE_PULL / this.#scale();
    const pulled = (value, most) => (value < near ? 0 : value > most - near ? most : value);
    return [pulled(x, this.map.width), pulled(y, this.map.height)];
  }

  #index([x, y]) {
    const { width, height } = this.map;
    return clamp(Math.floor(y), 0, height - 1) * width + clamp(Math.floor(x), 0, width - 1);
  }

  /** For each pixel, whether the stroke or the polygon of the points covers it. */
  #covered() {
    const { width, height } = this.map;
    const closed = this.tool === "polygon";
    const points = this.tool === "line" ? [this.#points[0], this.#points.at(-1)] : this.#points;
    const path = new Path2D(`M${points.join("L")}${closed ? "Z" : "l.01 0"}`);
    const bySuperpixel = this.tool === "superpixel";
    const lineWidth = bySuperpixel ? Math.SQRT2 : this.#size; // a thinner one misses the corners of pixels
    const ink = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    Object.assign(ink, { lineWidth, lineCap: "round", lineJoin: "round" });
    if (closed) ink.fill(path, "evenodd");
    else ink.stroke(path);
    const { data } = ink.getImageData(0, 0, width, height);
    const covered = new Uint32Array(data.buffer).map((pixel) => pixel >>> 24 > COVERED);
    if (!bySuperpixel) return covered;
    if (!this.segments) return []; // they are on their way
    const numbers = new Set(this.segments.filter((_, index) => covered[index]));
    return this.segments.map((number) => numbers.has(number));
  }

  /** For each pixel, whether it hangs together with this one along edges of pixels of its class. */
  #connected(point) {
    const { ids, width } = this.map;
    const start = this.#index(point);
    const connected = new Uint8Array(ids.length);
    const open = [start];
    while (open.length) {
      const index = open.pop();
      if (ids[index] !== ids[start] || connected[index]) continue;
      connected[index] = 1;
      if (index % width > 0) open.push(index - 1);
      if (index % width < width - 1) open.push(index + 1);
      open.push(index - width, index + width); // outside of the map there is no class: undefined
    }
    return connected;
  }

  #draw() {
    const { classes } = this.map;
    drawMap(this.$(".map"), { ...this.map, classes: this.$(".under").hidden ? classes : painted(classes) });
    this.$("[data-do=redo]").disabled = this.#now === this.#history.length - 1;
    this.#mark();
  }

  /** Draw the ring of the brush, where it is now, and the polygon under way. */
  #mark(cursor = this.#cursor) {
    this.#cursor = cursor;
    this.$("[data-do=undo]").disabled = this.#now === 0 && this.#points.length === 0;
    const ring = this.$("circle");
    ring.toggleAttribute("hidden", !cursor || !["brush", "line", "erase"].includes(this.tool));
    const [cx, cy] = cursor ?? [0, 0];
    for (const [name, value] of Object.entries({ cx, cy, r: this.#size / 2 })) ring.setAttribute(name, value);
    const corners = this.tool === "polygon" && this.#points.length ? [...this.#points, cursor ?? this.#points[0]] : [];
    this.$("polyline").setAttribute("points", corners.join(" "));
  }

  #at({ clientX, clientY }) {
    const { left, top } = this.$(".map").getBoundingClientRect();
    return [(clientX - left) / this.#scale(), (clientY - top) / this.#scale()];
  }

  /** Pixels of the window for each pixel of the map. */
  #scale() {
    return this.$(".map").getBoundingClientRect().width / this.map.width;
  }

  /** Scroll so that a point of the map lies under a position of the pointer. */
  #scrollTo([x, y], pointer) {
    const [left, top] = this.#at(pointer);
    this.viewport.scrollBy((x - left) * this.#scale(), (y - top) * this.#scale());
  }

  /** Zoom; what is under the pointer, by default the middle, stays there. */
  #zoomBy(factor, pointer = null) {
    const { left, top, width, height } = this.viewport.getBoundingClientRect();
    const fixed = pointer ?? { clientX: left + width / 2, clientY: top + height / 2 };
    const point = this.#at(fixed);
    this.#zoom = clamp(this.#zoom * factor, 1, 16);
    this.viewport.style.setProperty("--zoom", this.#zoom);
    this.#scrollTo(point, fixed);
  }
}

const clamp = (value, least, most) => Math.min(most, Math.max(least, value));
