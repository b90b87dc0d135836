// A photo with its map laid over it: wipe, opacity, one class alone, confidence, and the class under the pointer.

import { drawMap, readIds } from "./labels.js";
import { showBlob, translate } from "./page.js";

/** From unsure (yellow) to sure (dark blue), for each confidence 0..255. */
const SURE = Array.from({ length: 256 }, (_, id) => ({ id, color: [253 - 0.73 * id, 231 - 0.9 * id, 37 + 0.18 * id] }));

export class MapView {
  /** `root` holds the markup of view.html. */
  constructor(root) {
    this.root = root;
    [this.image, this.canvas, this.tip] = root.children;
    this.canvas.addEventListener("pointermove", (event) => this.#name(event));
    this.canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
  }

  /** Show the photo alone. */
  showPhoto({ blob, width, height }) {
    Object.assign(this.image, { width, height });
    showBlob(this.image, blob);
    this.root.style.setProperty("--ratio", width / height);
    this.clear();
  }

  clear() {
    this.map = this.confidence = this.only = null;
    this.canvas.hidden = this.tip.hidden = true;
  }

  /** Lay a map of the photo's size over it, or how sure the model is of each pixel. */
  draw(map = this.map, { sure = false } = {}) {
    this.map = map;
    if (!map) return;
    const shown = sure && this.confidence;
    const classes = map.classes.filter(({ id }) => this.only === null || id === this.only);
    this.canvas.hidden = false;
    this.canvas.ariaLabel = shown ? "How sure the model is of each pixel" : "The map over the photo";
    drawMap(this.canvas, shown ? { ...map, ids: shown, classes: SURE } : { ...map, classes });
  }

  #name({ offsetX, offsetY }) {
    const { ids, width, height, classes } = this.map;
    const { clientWidth, clientHeight } = this.canvas;
    const x = Math.min(width - 1, Math.floor((offsetX / clientWidth) * width));
    const y = Math.min(height - 1, Math.floor((offsetY / clientHeight) * height));
    const row = classes.find(({ id }) => id === ids[y * width + x]);
    const sure = this.confidence ? `, ${Math.round(this.confidence[y * width + x] / 2.55)} % sure` : "";
    Object.assign(this.tip, { textContent: `${row?.name ?? "nothing"}${sure}`, hidden: false });
    this.tip.style.left = `${Math.min(offsetX + 14, clientWidth - this.tip.offsetWidth)}px`;
    this.tip.style.top = `${Math.max(0, offsetY - 34)}px`;
  }
}

/** Read a photo as a map in the classes of a model, at the photo's size; or how sure it is, as a map of 0..255. */
export async function readPhoto({ blob }, model, signal, output = "ids") {
  const answer = await translate("segment", blob, { model: model.name, output }, signal);
  const map = { ...(await readIds(answer)), classes: model.classes };
  signal?.throwIfAborted();
  return map;
}
