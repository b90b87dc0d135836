// The pane "Photo → map": a photo that is dropped, pasted, taken or chosen is read at once.

import { css, greyValues, painted, shares } from "./labels.js";
import { Latest, ask, download, fillPicker, openPhoto, page, showSnippets, tell, translate } from "./page.js";
import { at, project } from "./project.js";
import { MapView, SCENES, showScenes } from "./view.js";

const ENDINGS = { colours: "png", ids: "png", overlay: "jpg", json: "json", polygons: "json" };
const TRACE = 0.001; // classes on less of the photo than this share one line
const OWN_EXAMPLES = 6;
const KEPT_SIDE = 1024; // of the photo that survives a reload

export async function mount(root) {
  await page.ready.catch(() => {});
  if (!page.model("to_label")) {
    root.textContent = "No model on this server turns photos into maps.";
    return;
  }
  let examples = SCENES;
  if (page.studio) { // photos of the project that the model learned nothing from by label
    await project.refresh();
    const unlabelled = project.state.photos.filter(({ labelled }) => !labelled);
    const others = unlabelled.filter((_, index) => index % Math.ceil(unlabelled.length / OWN_EXAMPLES) === 0);
    if (others.length) examples = others.map(({ name }) => ({ name, jpg: at(`photos/${name}`, { side: 1024 }) }));
  }
  root.pane = new Read(root, examples);
}

class Read {
  #reading = new Latest();

  constructor(root, examples) {
    this.root = root;
    this.examples = examples;
    this.$ = (selector) => root.querySelector(selector);
    this.views = [...root.querySelectorAll(".view")].map((each) => new MapView(each));
    showScenes(root, "Photo", examples, (index) => this.#open(() => this.#example(index), { scene: index }));
    for (const input of root.querySelectorAll("input[type=file]")) {
      input.addEventListener("change", () => {
        const [file] = input.files;
        input.value = "";
        if (file) this.#open(() => file);
      });
    }
    const take = ({ files }) => page.tab === "read" && files.length && this.#open(() => files[0]);
    document.addEventListener("dragover", (event) => event.preventDefault()); // else a dropped file replaces the page
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      take(event.dataTransfer);
    });
    document.addEventListener("paste", ({ clipboardData }) => take(clipboardData));
    this.$(".wipe").addEventListener("input", ({ target }) => root.style.setProperty("--wipe", `${target.value}%`));
    this.$(".opacity").addEventListener("input", ({ target }) => root.style.setProperty("--opacity", target.value / 100));
    this.$(".sure").addEventListener("click", () => this.#showSure(this.$(".sure").getAttribute("aria-pressed") !== "true"));
    this.$(".edit").addEventListener("click", () => {
      page.dispatchEvent(new CustomEvent("edit", { detail: { map: this.views[0].map, photo: URL.createObjectURL(this.photo.blob) } }));
      page.open("paint");
    });
    this.$(".compare").addEventListener("change", ({ target }) => {
      page.remember({ against: target.value });
      this.#run();
    });
    for (const button of root.querySelectorAll("[data-output]")) button.addEventListener("click", () => this.#save(button.dataset.output));
    page.addEventListener("to_label", () => this.#run());
    page.addEventListener("tab", () => this.#first());
    this.#first();
  }

  get model() {
    return page.model("to_label");
  }

  /** What is there when the pane is first seen: the photo that was there before, or an example. */
  #first() {
    if (this.photo || this.#reading.busy || page.tab !== "read") return;
    const [kept, index] = [page.kept("photo"), Number(page.state.get("example") ?? 0)];
    this.#open(async () => (kept ? (await fetch(kept)).blob() : this.#example(index)), { scene: kept ? null : index });
  }

  /** The photo of the example of that number, or of the first. */
  async #example(index) {
    const { name, jpg } = this.examples[index] ?? this.examples[0];
    const blob = await (await ask(jpg)).blob();
    return new File([blob], `${name.replaceAll(/\W+/g, "-")}.jpg`, { type: blob.type });
  }

  async #open(source, { scene: index = null } = {}) {
    this.#clear();
    this.photo = null;
    this.root.dataset.state = "waiting";
    tell(this.root, null);
    try {
      const opened = await this.#reading.run(async (signal) => {
        const photo = await openPhoto(await source());
        if (!signal.aborted) this.photo = photo;
      });
      if (!opened) return;
    } catch (problem) {
      this.root.dataset.state = "failed";
      tell(this.root, problem);
      return;
    }
    if (index !== null) page.remember({ example: index });
    this.#keep(index === null);
    await this.#run();
  }

  /** Read the photo with the chosen model, and with the one to compare it with. */
  async #run() {
    if (!this.photo) return;
    const others = page.of("to_label").filter(({ name }) => name !== this.model.name);
    const beside = others.find(({ name }) => name === page.state.get("against"));
    fillPicker(this.$(".compare"), others, { chosen: beside?.name, none: "nothing" });
    this.$(".compare").parentElement.hidden = !others.length;
    this.#clear();
    tell(this.root, null);
    this.root.dataset.state = "waiting";
    this.$(".found").hidden = false;
    this.$(".second").hidden = !beside;
    const models = beside ? [this.model, beside] : [this.model];
    for (const view of this.views) view.showPhoto(this.photo);
    try {
      await this.#reading.run(async (signal) => {
        for (const [index, model] of models.entries()) await this.#read(this.views[index], model, signal);
        this.root.dataset.state = "current";
        for (const [index, model] of models.entries()) await this.#readConfidence(this.views[index], model, signal);
      });
    } catch (problem) {
      if (this.root.dataset.state !== "current") { // a map without its confidence stays
        this.#clear();
        this.root.dataset.state = "failed";
      }
      tell(this.root, problem);
    }
  }

  async #read(view, model, signal) {
    view.root.parentElement.querySelector("figcaption").textContent = this.$(".second").hidden ? "" : model.name;
    const output = model.classes.length ? "ids" : "colours";
    const blob = await (await translate("segment", this.photo.blob, { model: model.name, output }, signal)).blob();
    const shown = model.classes.length ? await greyValues(blob) : await createImageBitmap(blob);
    if (signal.aborted) return;
    if (model.classes.length) view.showMap({ ids: shown.values, width: shown.width, height: shown.height, classes: model.classes });
    else view.showPicture(shown);
    if (model !== this.model) return;
    showSnippets(this.root, "segment", { model: model.name, output: "colours" }, { input: "street.jpg", output: "map.png" });
    this.#showLegend();
  }

  async #readConfidence(view, model, signal) {
    if (!model.confidence) return;
    const blob = await (await translate("segment", this.photo.blob, { model: model.name, output: "confidence" }, signal)).blob();
    const { values } = await greyValues(blob);
    if (signal.aborted) return;
    view.confidence = values;
    if (model !== this.model) return;
    this.$(".sure").disabled = false;
    this.#showSure(this.$(".sure").getAttribute("aria-pressed") === "true");
    this.#showLegend();
  }

  #showLegend() {
    const { map, confidence } = this.views[0];
    this.$(".edit").disabled = !map || !page.model("to_photo");
    for (const button of this.root.querySelectorAll("[data-output]")) button.disabled = !map && button.dataset.output !== "colours";
    if (!map) return;
    const found = shares(map);
    const large = found.filter(([, share]) => share >= TRACE);
    this.$(".legend").replaceChildren(...large.map(([row, share]) => {
      const item = document.createElement("li");
      item.innerHTML = `<button type="button" aria-pressed="false"><i class="swatch" style="background:${css(row)}"></i><span></span>
        <span class="bar"><i style="width:${100 * share}%"></i></span><b>${percent(share)}</b></button>`;
      item.querySelector("span").textContent = row.name;
      if (confidence) item.querySelector("button").append(sureness(map.ids, confidence, row.id));
      item.firstChild.addEventListener("click", () => this.#isolate(row.id));
      return item;
    }));
    const traces = found.filter(([, share]) => share < TRACE).map(([row]) => row.name);
    this.$(".traces").textContent = traces.length ? `And a few pixels of ${traces.join(", ")}.` : "";
    const names = large.slice(0, 3).map(([row, share]) => `${row.name} ${percent(share)}`);
    this.$(".status").textContent = `The map is there. ${names.join(", ")}.`;
    this.#markIsolated();
  }

  #isolate(id) {
    const only = this.views[0].only === id ? null : id;
    for (const view of this.views) {
      view.only = only;
      view.draw();
    }
    this.$(".sure").setAttribute("aria-pressed", false);
    this.$(".key").hidden = true;
    this.#markIsolated();
  }

  #markIsolated() {
    const rows = shares(this.views[0].map).filter(([, share]) => share >= TRACE);
    this.root.querySelectorAll(".legend button").forEach((button, index) => button.setAttribute("aria-pressed", rows[index][0].id === this.views[0].only));
  }

  #showSure(on) {
    this.$(".sure").setAttribute("aria-pressed", on);
    this.$(".key").hidden = !on;
    for (const view of this.views) view.draw({ sure: on });
  }

  async #save(output) {
    try {
      const blob = await (await translate("segment", this.photo.blob, { model: this.model.name, output })).blob();
      download(blob, `${this.photo.name}-${output}.${ENDINGS[output]}`);
    } catch (problem) {
      tell(this.root, problem);
    }
  }

  #clear() {
    this.#reading.abort();
    this.$(".found").hidden = true;
    this.$(".legend").replaceChildren();
    this.$(".traces").textContent = this.$(".status").textContent = "";
    this.$(".sure").disabled = this.$(".edit").disabled = true;
    this.views.forEach((view) => view.clear());
  }

  /** Keep the visitor's photo, small, so that a reload loses nothing. */
  async #keep(own) {
    if (!own) {
      page.keep("photo", null);
      return;
    }
    const bitmap = await createImageBitmap(this.photo.blob);
    const scale = Math.min(1, KEPT_SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width * scale, height: bitmap.height * scale });
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    page.keep("photo", canvas.toDataURL("image/jpeg", 0.9));
  }
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** How sure the model is of the pixels that it gave to a class. */
function sureness(ids, confidence, id) {
  let [sum, count] = [0, 0];
  for (let i = 0; i < ids.length; i++) if (ids[i] === id) [sum, count] = [sum + confidence[i], count + 1];
  return Object.assign(document.createElement("small"), { textContent: `${Math.round(sum / count / 2.55)} % sure` });
}
