// The pane "Paint → photo": a canvas, and its photo beside it after each stroke.

import { LabelCanvas } from "./canvas.js";
import { SCENE_CLASSES, encodePng, inClasses, plain, readGrey, resized } from "./labels.js";
import { Pane, address, ask, download, fill, fitted, openPhoto, page, showBlob, translate, wait } from "./page.js";
import { MapView, readPhoto } from "./view.js";

const DEFAULT_SIDE = 512; // of a map, for models that work at any size
const STYLE_SIDE = 512; // at most, of a photo whose style is read
const LOOKS = 4;
const LOOKS_AFTER = 900; // milliseconds without a stroke
const NOTHING = 255; // the id of no class

export default class Paint extends Pane {
  #asked = null; // the ids whose photo was asked for last

  constructor(root) {
    super(root, "to_photo");
    if (!this.model) {
      root.textContent = "No model on this server makes photos from maps.";
      return;
    }
    this.canvas = new LabelCanvas(this.$(".canvas"));
    this.back = new MapView(this.$(".difference"));
    this.seed = Number(page.state.get("seed") ?? 1);
    this.canvas.addEventListener("change", () => this.#changed(false));
    this.canvas.addEventListener("settled", () => this.#changed(true));
    this.scenes = [...this.$(".scenes").children];
    this.on(".scene", "click", (button) => this.#begin(() => this.#scene(this.scenes.indexOf(button))));
    this.on(".map-file", "change", ({ files: [file] }) => this.#begin(() => this.#mapFile(file)));
    this.on(".photo-file", "change", ({ files: [file] }) => this.#begin(async (signal) =>
      readPhoto(await openPhoto(file), page.model("to_label"), signal)));
    this.on(".style-file", "change", ({ files: [file] }) => this.attempt((signal) => this.#takeStyle(file, signal)));
    this.on(".drop-style", "click", () => {
      this.#showStyle(null);
      return this.run();
    });
    this.on(".save-photo", "click", () => download(this.photo, `photo-seed-${this.seed}.jpg`));
    this.on(".save-map", "click", async () => download(await encodePng(this.canvas.map), "map.png"));
    this.on(".read-back", "click", () => this.#readBack());
    this.$(".read-back").hidden = this.$(".photo-file").parentElement.hidden = !page.model("to_label");
    this.#showStyle(null);
    page.addEventListener("to_photo", () => this.#showStyle(null));
    page.addEventListener("to_photo", () => this.#begin(() => this.canvas.map ?? this.#scene(0)));
    page.addEventListener("edit", ({ detail }) => this.#begin(() => detail.map, detail.photo));
    this.canvas.class = this.model.classes.find(({ name }) => plain(name) === "car")?.id; // a first dab worth seeing
    const kept = page.kept("map");
    if (kept) this.#begin(() => ({ ...kept, ids: Uint8Array.fromBase64(kept.ids) }));
    else this.#begin(() => this.#scene(page.state.get("scene")));
  }

  /** Open a map on the canvas, in the model's classes and at its size, over a photo where it is of one. */
  #begin(source, photo = null) {
    return this.attempt(async (signal) => {
      this.$(".note").textContent = "";
      this.offerComparison();
      const map = await source(signal);
      signal.throwIfAborted();
      const [height, width] = this.model.size ?? fitted(map, DEFAULT_SIDE).reverse();
      this.#clear();
      this.root.style.setProperty("--ratio", `${width} / ${height}`);
      this.canvas.open(resized(inClasses(map, this.model.classes), width, height), photo);
      this.#changed(true);
    }, { name: "begin" });
  }

  /** The map of an example, or of the first. */
  async #scene(index) {
    const button = this.scenes[index] ?? this.scenes[0];
    page.remember({ scene: this.scenes.indexOf(button) });
    const png = await ask(button.firstChild.src.replace(".jpg", ".png"));
    return { ...(await readGrey(await png.blob())), classes: SCENE_CLASSES };
  }

  async #mapFile(file) {
    const url = address("map", { model: this.model.name }, document.baseURI);
    const response = await ask(url, { method: "POST", body: file });
    if (response.headers.get("X-Label-Spelling") === "snapped colours") {
      this.$(".note").textContent =
        "Some colours of this file belong to no class: their pixels got the class with the nearest colour.";
    }
    return { ...(await readGrey(await response.blob())), classes: this.model.classes };
  }

  /** Ask for the photo of the map as it is now. While a stroke is painted the request under way is left to finish. */
  async #changed(settled) {
    if (settled) page.keep("map", { ...this.canvas.map, ids: this.canvas.map.ids.toBase64() });
    if (this.#asked === this.canvas.map.ids) return;
    this.tell(null);
    this.$(".looks").replaceChildren();
    this.$(".back").hidden = true;
    const busy = this.root.dataset.state === "waiting";
    this.root.dataset.state = "waiting";
    if (busy && !settled) return;
    await this.attempt(async (signal) => {
      while (this.#asked !== this.canvas.map.ids) {
        this.#asked = this.canvas.map.ids;
        await this.#makePhotos(signal);
      }
      this.root.dataset.state = "current";
      this.$(".status").textContent = "The photo shows the map as it is now.";
      if (!this.model.seeded || this.style) return;
      await wait(LOOKS_AFTER, signal);
      await this.#showLooks(signal);
    }, {
      name: "photos",
      failed: () => {
        if (this.root.dataset.state === "current") return; // a photo without other looks stays
        this.#asked = null;
        this.#clear();
        this.root.dataset.state = "failed";
      },
    });
  }

  /** Ask again for the same map: another seed, or another model to compare with. */
  run() {
    this.#asked = null;
    return this.#changed(true);
  }

  async #makePhotos(signal) {
    const png = await encodePng(this.canvas.map);
    const beside = page.of("to_photo").find(({ name }) => name === this.$(".compare").value);
    this.$(".second").hidden = !beside;
    for (const [index, model] of [this.model, beside].filter(Boolean).entries()) {
      const parameters = { model: model.name };
      if (this.style && index === 0) parameters.style = this.style;
      else if (model.seeded) parameters.seed = this.seed;
      const photo = await translate("synthesize", png, parameters, signal);
      const figure = this.root.querySelectorAll(".answer")[index];
      await showBlob(figure.querySelector("img"), photo);
      figure.querySelector("figcaption").textContent = beside ? model.name : "Its photo";
      signal.throwIfAborted();
      if (index > 0) continue;
      this.photo = photo;
      this.$(".save-photo").disabled = this.$(".read-back").disabled = false;
      this.showSnippets("synthesize", parameters, "map.png", "photo.jpg");
    }
  }

  /** Give the photos the look of a photo of the visitor's. */
  async #takeStyle(file, signal) {
    const { blob, name } = await openPhoto(file, STYLE_SIDE);
    const found = await translate("style", blob, { model: this.model.name }, signal);
    this.#showStyle(JSON.parse(await found.text()).style.join(","), name);
    return this.run();
  }

  #showStyle(style, name) {
    this.style = style;
    this.$(".style-of").hidden = !this.model.style;
    this.$(".drop-style").hidden = !style;
    this.$(".drop-style").textContent = `Style of ${name} ×`;
  }

  #clear() {
    this.photo = null;
    for (const image of this.root.querySelectorAll(".answer img")) image.removeAttribute("src");
    this.$(".save-photo").disabled = this.$(".read-back").disabled = true;
  }

  /** Show photos of the same map by other seeds; a click keeps one. */
  async #showLooks(signal) {
    const png = await encodePng(this.canvas.map);
    const first = this.seed - ((this.seed - 1) % LOOKS);
    const looks = [{ seed: this.seed, photo: this.photo }];
    for (let seed = first; seed < first + LOOKS; seed++) {
      if (seed === this.seed) continue;
      looks.push({ seed, photo: await translate("synthesize", png, { model: this.model.name, seed }, signal) });
    }
    fill(this.$(".looks"), looks.sort((a, b) => a.seed - b.seed), (button, { seed, photo }) => {
      const image = button.firstChild;
      button.ariaPressed = seed === this.seed;
      image.alt = `Look ${seed}`;
      showBlob(image, photo).then(() => URL.revokeObjectURL(image.src));
      this.on(button, "click", () => {
        this.seed = seed;
        this.#showStyle(null);
        page.remember({ seed });
        return this.run();
      });
    });
  }

  /** Turn the photo into a map again, and mark where the two maps differ. */
  async #readBack() {
    const { map } = this.canvas;
    const photo = { blob: this.photo, width: map.width, height: map.height };
    const found = inClasses(await readPhoto(photo, page.model("to_label")), map.classes);
    if (photo.blob !== this.photo || this.root.dataset.state !== "current") return; // of a map that is gone
    const other = found.ids.map((id, index) => (id === map.ids[index] ? NOTHING : id));
    const same = found.ids.filter((id, index) => id === map.ids[index]).length / map.ids.length;
    this.back.showPhoto(photo);
    this.back.showMap({ ...found, ids: other });
    this.$(".back figcaption").textContent = this.$(".status").textContent =
      `Read back, ${Math.round(100 * same)} of 100 pixels are what you painted. `
      + "Where the photo is coloured, the reader saw the class of that colour instead.";
    this.$(".back").hidden = false;
  }
}
