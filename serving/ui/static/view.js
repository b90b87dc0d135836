// A photo with its map laid over it: wipe, opacity, one class alone, how sure the model is, and the class under the pointer.

import { colourTable, drawValues } from "./labels.js";

/** From unsure (yellow) to sure (dark blue), for each confidence 0..255. */
const SURE = new Uint32Array(Uint8ClampedArray.from({ length: 1024 }, (_, index) => {
  const sure = (index >> 2) / 255;
  return [253 - 185 * sure, 231 - 230 * sure, 37 + 47 * sure, 255][index & 3];
}).buffer);

export class MapView {
  #url = null;

  constructor(root) {
    this.root = root;
    root.classList.add("map-view");
    root.innerHTML = `<img class="photo" alt=""><canvas class="map" role="img"></canvas><span class="tip" hidden></span>`;
    this.canvas = root.querySelector("canvas");
    this.tip = root.querySelector(".tip");
    this.canvas.addEventListener("pointermove", (event) => this.#name(event));
    this.canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
  }

  /** Show the photo alone. */
  showPhoto(photo) {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = URL.createObjectURL(photo.blob);
    const image = this.root.querySelector("img");
    Object.assign(image, { src: this.#url, width: photo.width, height: photo.height, alt: "The photo" });
    this.root.style.setProperty("--ratio", photo.width / photo.height);
    this.clear();
  }

  clear() {
    this.map = this.confidence = null;
    this.only = null;
    this.canvas.hidden = this.tip.hidden = true;
  }

  /** Lay a map of the photo's size over it. */
  showMap(map) {
    this.map = map;
    this.draw();
  }

  /** Lay a picture over the photo, where a model answers with one. */
  showPicture(bitmap) {
    Object.assign(this.canvas, { width: bitmap.width, height: bitmap.height, hidden: false });
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
  }

  draw({ sure = false } = {}) {
    if (!this.map) return;
    const { ids, width, height, classes } = this.map;
    const shown = sure && this.confidence;
    this.canvas.hidden = false;
    this.canvas.setAttribute("aria-label", shown ? "How sure the model is of each pixel" : "The map over the photo");
    drawValues(this.canvas, shown || ids, width, height, shown ? SURE : colourTable(classes, { only: this.only }));
  }

  #name({ offsetX, offsetY }) {
    if (!this.map) return;
    const { ids, width, height, classes } = this.map;
    const x = Math.min(width - 1, Math.floor((offsetX / this.canvas.clientWidth) * width));
    const y = Math.min(height - 1, Math.floor((offsetY / this.canvas.clientHeight) * height));
    const row = classes.find(({ id }) => id === ids[y * width + x]);
    const sure = this.confidence ? `, ${Math.round(this.confidence[y * width + x] / 2.55)} % sure` : "";
    Object.assign(this.tip, { textContent: `${row?.name ?? "nothing"}${sure}`, hidden: false });
    this.tip.style.left = `${Math.min(offsetX + 14, this.canvas.clientWidth - this.tip.offsetWidth)}px`;
    this.tip.style.top = `${Math.max(0, offsetY - 34)}px`;
  }
}

const file = (name) => new URL(`page/examples/${name}`, document.baseURI);

/** What can be started from: pictures with a name, and the maps of drawn scenes. */
export const SCENES = ["a street with people and bicycles", "a street with parked cars", "a wide road with trees", "cars between trees"]
  .map((name, index) => ({ name, jpg: file(`street-${index + 1}.jpg`), png: file(`street-${index + 1}.png`) }));

/** Fill the row of examples; `choose(index)` is called with the one that was clicked. */
export function showScenes(root, kind, examples, choose) {
  root.querySelector(".scenes").replaceChildren(...examples.map(({ name, jpg }, index) => {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "scene" });
    button.append(Object.assign(new Image(), { src: jpg, alt: `${kind}: ${name}` }));
    button.addEventListener("click", () => choose(index));
    return button;
  }));
}

/** The drawn scene of that number, or the first. */
export const scene = (index) => SCENES[index] ?? SCENES[0];
