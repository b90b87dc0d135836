// The pane "Paint → photo": a canvas, and its photo beside it after each stroke.

import { LabelCanvas } from "./canvas.js";
import { encodePng, fromScene, greyValues, inClasses, plain, resized } from "./labels.js";
import { Latest, ask, download, fillPicker, openPhoto, page, showSnippets, tell, translate } from "./page.js";
import { MapView, SCENES, scene, showScenes } from "./view.js";

const DEFAULT_SIDE = 512; // of a map, for models that work at any size
const LOOKS = 4;
const LOOKS_AFTER = 900; // milliseconds without a stroke

export async function mount(root) {
  await page.ready.catch(() => {}); // the head of the page shows why
  if (!page.model("to_photo")) {
    root.textContent = "No model on this server makes photos from maps.";
    return;
  }
  const pane = new Paint(root);
  await pane.start();
  root.pane = pane; // for tests and the console
}

class Paint {
  #photos = new Latest();
  #looks = new Latest();
  #backs = new Latest();
  #starts = new Latest();
  #revision = null; // of the map whose photo was asked for last
  #timer = null;

  constructor(root) {
    this.root = root;
    this.$ = (selector) => root.querySelector(selector);
    this.canvas = new LabelCanvas(this.$(".canvas"));
    this.seed = Number(page.state.get("seed") ?? 1);
    this.back = new MapView(this.$(".difference"));
    this.canvas.addEventListener("change", ({ detail }) => this.#changed(detail.settled));
    showScenes(root, "Map", SCENES, (index) => this.#begin(() => this.#scene(index)));
    this.$(".map-file").addEventListener("change", ({ target }) => this.#begin(() => this.#mapFile(target)));
    this.$(".photo-file").addEventListener("change", ({ target }) => this.#begin((signal) => this.#photoFile(target, signal)));
    this.$(".save-photo").addEventListener("click", () => download(this.photo, `photo-seed-${this.seed}.jpg`));
    this.$(".save-map").addEventListener("click", async () => download(await encodePng(this.canvas.map), "map.png"));
    this.$(".read-back").addEventListener("click", () => this.#readBack());
    this.$(".read-back").hidden = !page.model("to_label");
    this.$(".compare").addEventListener("change", ({ target }) => {
      page.remember({ beside: target.value });
      this.#renew();
    });
    page.addEventListener("to_photo", () => this.#begin(() => this.canvas.map ?? this.#scene(0)));
    page.addEventListener("edit", ({ detail }) => this.#begin(() => detail.map, { photo: detail.photo }));
  }

  async start() {
    const kept = page.kept("map");
    const index = Number(page.state.get("scene") ?? 0);
    this.canvas.class = this.model.classes.find(({ name }) => plain(name) === "car")?.id; // a first dab worth seeing
    await this.#begin(() => (kept ? { ...kept, ids: bytesOf(kept.ids) } : this.#scene(index)));
  }

  get model() {
    return page.model("to_photo");
  }

  /** Open a map on the canvas, in the model's classes and at its size. */
  async #begin(source, { photo = null } = {}) {
    tell(this.root, null);
    this.$(".note").textContent = "";
    const others = page.of("to_photo").filter(({ name }) => name !== this.model.name);
    fillPicker(this.$(".compare"), others, { chosen: others.find(({ name }) => name === page.state.get("beside"))?.name, none: "nothing" });
    this.$(".compare").parentElement.hidden = !others.length;
    try {
      await this.#starts.run(async (signal) => {
        const map = await source(signal);
        if (signal.aborted) return;
        const [height, width] = this.model.size ?? fitted(map);
        this.#clear();
        this.root.style.setProperty("--ratio", `${width} / ${height}`);
        this.canvas.open(resized(inClasses(map, this.model.classes), width, height), { photo });
        this.#changed(true);
      });
    } catch (problem) {
      tell(this.root, problem);
    }
  }

  async #scene(index) {
    page.remember({ scene: index });
    return fromScene(await greyValues(await (await ask(scene(index).png)).blob()), this.model.classes);
  }

  async #mapFile(input) {
    const [file] = input.files;
    input.value = "";
    const read = (snap) => ask(new URL(`map?model=${this.model.name}&snap=${snap}`, document.baseURI), { method: "POST", body: file });
    let snapped = false;
    const response = await read(false).catch((problem) => {
      if (!SNAPPABLE.includes(problem.code)) throw problem;
      snapped = true;
      return read(true);
    });
    const { values, width, height } = await greyValues(await response.blob());
    if (snapped) this.$(".note").textContent = "Some colours of this file belong to no class: their pixels got the class with the nearest colour.";
    return { ids: values, width, height, classes: this.model.classes };
  }

  async #photoFile(input, signal) {
    const [file] = input.files;
    input.value = "";
    return readPhoto(await openPhoto(file), signal);
  }

  /** Ask for the photo of the map as it is now. While a stroke is painted the request under way is left to finish. */
  async #changed(settled) {
    if (settled) {
      const { ids, width, height, classes } = this.canvas.map;
      page.keep("map", { ids: textOf(ids), width, height, classes });
    }
    if (this.#revision === this.canvas.revision) return;
    this.#looks.abort();
    this.#backs.abort();
    clearTimeout(this.#timer);
    this.$(".looks").hidden = this.$(".back").hidden = true;
    this.root.dataset.state = "waiting";
    if (this.#photos.busy && !settled) return;
    try {
      while (this.#revision !== this.canvas.revision) {
        this.#revision = this.canvas.revision;
        if (!(await this.#photos.run((signal) => this.#makePhotos(signal)))) return;
      }
      this.root.dataset.state = "current";
      this.$(".status").textContent = "The photo shows the map as it is now.";
      if (this.model.seeded) this.#timer = setTimeout(() => this.#showLooks(), LOOKS_AFTER);
    } catch (problem) {
      this.#revision = null;
      this.#clear();
      this.root.dataset.state = "failed";
      tell(this.root, problem);
    }
  }

  /** Ask again for the same map: another seed, or another model to compare with. */
  #renew() {
    this.#revision = null;
    this.#changed(true);
  }

  async #makePhotos(signal) {
    const png = await encodePng(this.canvas.map);
    const beside = this.$(".compare").value;
    const [first, second] = this.root.querySelectorAll(".answer");
    second.hidden = !beside;
    await this.#makePhoto(first, this.model, png, signal);
    if (beside) await this.#makePhoto(second, page.models.find(({ name }) => name === beside), png, signal);
    tell(this.root, null);
  }

  async #makePhoto(figure, model, png, signal) {
    const parameters = { model: model.name, ...(model.seeded ? { seed: this.seed } : {}) };
    const photo = await (await translate("synthesize", png, parameters, signal)).blob();
    if (signal.aborted) return;
    await show(figure.querySelector("img"), photo, "The photo of your map");
    figure.querySelector("figcaption").textContent = this.$(".compare").value ? model.name : "Its photo";
    if (model !== this.model) return;
    this.photo = photo;
    this.$(".save-photo").disabled = this.$(".read-back").disabled = false;
    showSnippets(this.root, "synthesize", parameters, { input: "map.png", output: "photo.jpg" });
  }

  #clear() {
    this.photo = null;
    for (const image of this.root.querySelectorAll(".answer img")) image.removeAttribute("src");
    this.$(".save-photo").disabled = this.$(".read-back").disabled = true;
    this.$(".looks").hidden = this.$(".back").hidden = true;
  }

  /** Photos of the same map by other seeds; a click keeps one. */
  async #showLooks() {
    await this.#looks.run(async (signal) => {
      const first = this.seed - ((this.seed - 1) % LOOKS);
      const map = await encodePng(this.canvas.map);
      const looks = [];
      for (let seed = first; seed < first + LOOKS; seed += 1) {
        const response = await translate("synthesize", map, { model: this.model.name, seed }, signal);
        looks.push(await this.#look(seed, await response.blob()));
      }
      if (signal.aborted) return;
      this.$(".looks").replaceChildren(...looks);
      this.$(".looks").hidden = false;
    }).catch((problem) => tell(this.root, problem));
  }

  async #look(seed, photo) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "look" });
    button.setAttribute("aria-pressed", seed === this.seed);
    const image = Object.assign(new Image(), { src: URL.createObjectURL(photo), alt: `Look ${seed}` });
    await image.decode();
    URL.revokeObjectURL(image.src);
    button.append(image);
    button.addEventListener("click", () => {
      this.seed = seed;
      page.remember({ seed });
      this.#renew();
    });
    return button;
  }

  /** Turn the photo into a map again, and mark where the two maps differ. */
  async #readBack() {
    try {
      await this.#backs.run(async (signal) => {
        const { map } = this.canvas;
        const photo = { blob: this.photo, width: map.width, height: map.height };
        const found = inClasses(await readPhoto(photo, signal), map.classes);
        if (signal.aborted) return;
        this.back.showPhoto(photo);
        this.back.showMap({ ...found, ids: found.ids.map((id, index) => (id === map.ids[index] ? NOTHING : id)) });
        const same = found.ids.filter((id, index) => id === map.ids[index]).length / map.ids.length;
        this.$(".back figcaption").textContent = `Read back, ${Math.round(100 * same)} of 100 pixels are what you painted. `
          + "Where the photo is coloured, the reader saw the class of that colour instead.";
        this.$(".back").hidden = false;
        this.$(".status").textContent = this.$(".back figcaption").textContent;
      });
    } catch (problem) {
      tell(this.root, problem);
    }
  }
}

const NOTHING = 255;
const SNAPPABLE = ["lossy_label_map", "unknown_colours"];

/** Read a photo as a map, at the photo's size. */
export async function readPhoto(photo, signal) {
  const model = page.model("to_label");
  const { values, width, height } = await greyValues(await (await translate("segment", photo.blob, { model: model.name, output: "ids" }, signal)).blob());
  return { ids: values, width, height, classes: model.classes };
}

async function show(image, blob, alt) {
  const old = image.src;
  Object.assign(image, { src: URL.createObjectURL(blob), alt });
  await image.decode().catch(() => {});
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

function fitted({ width, height }) {
  const scale = Math.min(1, DEFAULT_SIDE / Math.max(width, height));
  return [Math.max(1, Math.round(height * scale)), Math.max(1, Math.round(width * scale))];
}

const textOf = (ids) => btoa(ids.reduce((text, id) => text + String.fromCharCode(id), ""));
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
