// The pane "Paint → photo": a canvas, and its photo beside it after each stroke.

import { LabelCanvas } from "./canvas.js";
import { SCENE_CLASSES, encodePng, inClasses, plain, readIds, related, resized } from "./labels.js";
import { Pane, address, ask, download, fill, fitted, openPhoto, page, showBlob, translate, wait } from "./page.js";
import { MapView, readPhoto } from "./view.js";

const DEFAULT_SIDE = 512; // of a map, for models that work at any size
const STYLE_SIDE = 512; // at most, of a photo whose style is read
const VARIATIONS = 4;
const VARIATIONS_AFTER = 900; // milliseconds without a stroke

export default class Paint extends Pane {
  #asked = null; // the ids whose photo was asked for last
  #left = []; // the maps of models that were chosen before

  constructor(root) {
    super(root, "to_photo");
    const missing = page.studio ? "The studio trains models that read photos; none here makes photos from maps." : null;
    if (!this.model) throw new Error(missing ?? "No model on this server makes photos from maps.");
    this.canvas = new LabelCanvas(this.$(".canvas"));
    this.back = new MapView(this.$(".difference"));
    const seed = Number(page.state.get("seed") ?? 1);
    this.seed = Number.isSafeInteger(seed) ? seed : 1;
    this.canvas.addEventListener("change", () => this.#changed(false));
    this.canvas.addEventListener("settled", () => this.#changed(true));
    this.on(".scene", "click", (button) => this.#begin(() => this.#sceneMap(button)));
    this.on(".map-file", "change", ({ files: [file] }) => this.#begin((signal) => this.#mapFile(file, signal)));
    this.on(".photo-file", "change", ({ files: [file] }) => this.#begin(async (signal) => {
      this.mark();
      const photo = await openPhoto(file);
      return { ...(await readPhoto(photo, page.model("to_label"), signal)), photo: photo.blob };
    }));
    this.on(".style-file", "change", ({ files: [file] }) =>
      this.attempt((signal) => this.#takeStyle(file, signal), "style"));
    this.on(".drop-style", "click", () => {
      this.#showStyle(null);
      this.run();
    });
    this.on(".variation", "click", ({ value }) => this.#reseed(Number(value)));
    this.on(".more-photos", "click", () => this.#reseed(this.seed + VARIATIONS));
    this.on(".save-photo", "click", () => download(this.photo, `photo-seed-${this.seed}.jpg`));
    this.on(".save-map", "click", async () => download(await encodePng(this.canvas.map), "map.png"));
    this.on(".read-back", "click", () => this.#readBack());
    page.addEventListener("to_photo", () => {
      this.#showStyle(null);
      this.#offerStarts();
      if (this.canvas.map) this.#left.push({ ...this.canvas.map });
      this.#begin(() => this.#kept());
    });
    page.addEventListener("edit", ({ detail }) => {
      this.mark();
      this.#begin(() => ({ ...detail.map, photo: detail.photo }));
    });
    this.canvas.class = this.model.classes.find(({ name }) => plain(name) === "car")?.id; // a first dab worth seeing
    this.#showStyle(null);
    const kept = JSON.parse(sessionStorage.getItem("map"));
    this.#offerStarts();
    this.mark(this.$(".scenes").children[page.state.get("scene_to_photo")]);
    if (kept) this.#left.push({ ...kept, ids: Uint8Array.fromBase64(kept.ids) });
    this.#begin(() => this.#kept());
  }

  /** Open a map on the canvas, in the model's classes and at its size, over its `photo` if it has one. */
  #begin(source) {
    this.attempt(async (signal) => {
      this.$(".note").hidden = true;
      const { photo = null, ...map } = await source(signal);
      signal.throwIfAborted();
      const [height, width] = this.model.size ?? fitted(map, DEFAULT_SIDE).reverse();
      const { map: before } = this.canvas;
      const next = resized(inClasses(map, this.model.classes), width, height);
      this.clear();
      if (before?.classes === next.classes && before.width === width && before.height === height) {
        this.canvas.lay(photo);
        this.canvas.replaceMap(next.ids); // which can be undone
        return;
      }
      this.root.style.setProperty("--ratio", `${width} / ${height}`);
      this.canvas.open(next, photo);
      this.#changed(true);
    }, "begin");
  }

  /** Offer the scenes, and what needs a reader of photos where there is one that knows the model's classes. */
  #offerStarts() {
    this.offerScenes();
    const reader = page.model("to_label");
    const unread = !reader || !related(reader, this.model.classes);
    this.$(".read-back").hidden = this.$(".photo-file").parentElement.hidden = unread;
  }

  /** The last map of which the model knows a class, or a scene. */
  #kept() {
    return this.#left.findLast((map) => related(map, this.model.classes)) ?? this.#sceneMap();
  }

  /** The map of a scene, which lies beside its picture. */
  async #sceneMap(button) {
    const png = await ask(this.scene(button).src.replace(".jpg", ".png"));
    const classes = this.model.examples.length ? this.model.classes : SCENE_CLASSES;
    return { ...(await readIds(await png.blob())), classes };
  }

  async #mapFile(file, signal) {
    const url = address("map", { model: this.model.name }, document.baseURI);
    const response = await ask(url, { method: "POST", body: file, signal });
    this.mark();
    this.$(".note").hidden = response.headers.get("X-Label-Spelling") !== "snapped colours";
    return { ...(await readIds(await response.blob())), classes: this.model.classes };
  }

  /** Ask for the photo of the map as it is now. While a stroke is painted the request under way is left to finish. */
  #changed(settled) {
    if (settled) page.keep("map", { ...this.canvas.map, ids: this.canvas.map.ids.toBase64() });
    if (this.#asked === this.canvas.map.ids) return;
    this.showProblem(null);
    this.$(".variations").style.visibility = "hidden"; // they keep their place
    this.$(".back").hidden = this.$(".save-photo").disabled = this.$(".read-back").disabled = true;
    const busy = ["waiting", "failed"].includes(this.root.dataset.state);
    this.root.dataset.state = "waiting";
    if (busy && !settled) return;
    this.attempt(async (signal) => {
      while (this.#asked !== this.canvas.map.ids) {
        this.#asked = this.canvas.map.ids;
        await this.#makePhotos(signal);
      }
      this.root.dataset.state = "current";
      this.$(".status").textContent = "The photo shows the map as it is now.";
      if (!this.model.seeded || this.style) return this.$(".variations").replaceChildren();
      await wait(VARIATIONS_AFTER);
      await this.#showVariations(signal);
    }, "answer");
  }

  /** Ask again for the same map: another seed, style, or model to compare with. */
  run() {
    this.#asked = null;
    this.#changed(true);
  }

  #reseed(seed) {
    this.seed = seed;
    page.remember({ seed });
    this.run();
  }

  async #makePhotos(signal) {
    const png = await encodePng(this.canvas.map);
    const images = this.root.querySelectorAll(".answer img");
    for (const [index, model] of this.compared().entries()) {
      const parameters = { model: model.name };
      if (this.style && index === 0) parameters.style = this.style;
      else if (model.seeded) parameters.seed = this.seed;
      const photo = await translate("synthesize", png, parameters, signal);
      await showBlob(images[index], photo);
      signal.throwIfAborted();
      if (index > 0) continue;
      this.photo = photo;
      this.$(".save-photo").disabled = this.$(".read-back").disabled = false;
      this.showSnippets("synthesize", parameters, "map.png", "photo.jpg");
    }
  }

  /** Give the photos the look of a photo of the visitor's. */
  async #takeStyle(file, signal) {
    const { model } = this;
    const { blob, name } = await openPhoto(file, STYLE_SIDE);
    const { style } = JSON.parse(await (await translate("style", blob, { model: model.name }, signal)).text());
    if (model !== this.model) return;
    this.#showStyle(style.join(","), name);
    this.run();
  }

  #showStyle(style, name) {
    this.style = style;
    this.$(".style-of").hidden = !this.model.style;
    this.$(".drop-style").hidden = !style;
    this.$(".drop-style").textContent = `Style of ${name} ×`;
  }

  clear() {
    this.photo = this.#asked = null;
    for (const image of this.root.querySelectorAll(".answer img")) image.removeAttribute("src");
    this.$(".save-photo").disabled = this.$(".read-back").disabled = true;
  }

  /** Show photos of the same map by other seeds; a click keeps one. */
  async #showVariations(signal) {
    const png = await encodePng(this.canvas.map);
    const first = this.seed - ((this.seed - 1) % VARIATIONS);
    const variations = new Map([[this.seed, this.photo]]);
    for (let seed = first; seed < first + VARIATIONS; seed++) {
      if (seed === this.seed) continue;
      variations.set(seed, await translate("synthesize", png, { model: this.model.name, seed }, signal));
    }
    fill(this.$(".variations"), [...variations.keys()].sort((a, b) => a - b), (button, seed) => {
      const image = button.firstChild;
      Object.assign(button, { value: seed, ariaPressed: seed === this.seed });
      image.alt = `Variation ${seed}`;
      showBlob(image, variations.get(seed)).then(() => URL.revokeObjectURL(image.src));
    });
    this.$(".variations").style.visibility = "";
  }

  /** Turn the photo into a map again, and mark where the two maps differ. */
  async #readBack() {
    const { map } = this.canvas;
    const photo = { blob: this.photo, width: map.width, height: map.height };
    const found = inClasses(await readPhoto(photo, page.model("to_label")), map.classes);
    if (photo.blob !== this.photo || this.root.dataset.state !== "current") return; // of a map that is gone
    const other = found.ids.map((id, index) => (id === map.ids[index] ? 255 : id)); // no class: transparent
    const same = found.ids.filter((id, index) => id === map.ids[index]).length / map.ids.length;
    this.back.showPhoto(photo);
    this.back.draw({ ...found, ids: other });
    this.$(".back b").textContent = Math.round(100 * same);
    this.$(".back").hidden = false;
    this.$(".status").textContent = this.$(".back figcaption").textContent;
    this.$(".back").scrollIntoView({ block: "nearest" });
  }
}
