// The pane "Photo → map": a photo that is dropped, pasted, taken or chosen is read at once.

import { css, shares } from "./labels.js";
import { Pane, ask, download, fill, openPhoto, page, translate } from "./page.js";
import { at, project } from "./project.js";
import { MapView, readPhoto } from "./view.js";

const ENDINGS = { colours: "png", ids: "png", overlay: "jpg", json: "json", polygons: "json" };
const TRACE = 0.001; // classes on less of the photo than this share one line
const OWN_EXAMPLES = 6;
const KEPT_SIDE = 1024; // of the photo that survives a reload

export default class Read extends Pane {
  photo = null;

  constructor(root) {
    super(root);
    if (!this.model) {
      root.textContent = "No model on this server turns photos into maps.";
      return;
    }
    this.views = [...root.querySelectorAll(".view")].map((each) => new MapView(each));
    this.on("[type=file]", "change", ({ files: [file] }) => this.#openOwn(file));
    document.addEventListener("dragover", (event) => event.preventDefault()); // else a dropped file replaces the page
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      this.#openOwn(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", ({ clipboardData }) => this.#openOwn(clipboardData.files[0]));
    for (const name of ["wipe", "opacity"]) {
      this.on(`.${name}`, "input", ({ value }) => root.style.setProperty(`--${name}`, `${value}%`));
    }
    this.on(".sure", "change", () => this.#draw());
    this.on(".edit", "click", () => {
      const detail = { map: this.views[0].map, photo: this.photo.blob };
      page.dispatchEvent(new CustomEvent("edit", { detail }));
      page.open("paint");
    });
    this.on("[data-output]", "click", (button) => this.#save(button.dataset.output));
    page.addEventListener("to_label", () => this.run());
    this.attempt(() => this.#begin());
  }

  async #begin() {
    if (page.studio) await this.#showUnlabelled();
    this.scenes = [...this.$(".scenes").children];
    this.on(".scene", "click", (button) => this.#open(() => this.#example(this.scenes.indexOf(button))));
    page.addEventListener("tab", () => this.#first());
    this.#first();
  }

  /** Offer photos of the project that the model learned nothing from by label. */
  async #showUnlabelled() {
    await project.refresh();
    const photos = project.state.photos.filter(({ labelled }) => !labelled);
    const some = photos.filter((_, index) => index % Math.ceil(photos.length / OWN_EXAMPLES) === 0);
    if (!some.length) return;
    fill(this.$(".scenes"), some, (button, { name: alt }) => {
      Object.assign(button.firstChild, { src: at(`photos/${alt}`, { side: KEPT_SIDE }), alt });
    });
  }

  /** What is there when the pane is first seen: the photo that was there before, or an example. */
  #first() {
    if (this.photo || this.root.dataset.state === "waiting" || page.tab !== "read") return;
    const kept = page.kept("photo");
    if (kept) this.#open(async () => openPhoto(await (await fetch(kept)).blob()));
    else this.#open(() => this.#example(page.state.get("example")));
  }

  /** The photo of the example of that number, or of the first. */
  async #example(index) {
    const button = this.scenes[index] ?? this.scenes[0];
    const { src, alt } = button.firstChild;
    const blob = await (await ask(src)).blob();
    page.remember({ example: this.scenes.indexOf(button) });
    page.keep("photo", null);
    return openPhoto(new File([blob], `${alt.replaceAll(/\W+/g, "-")}.jpg`, { type: blob.type }));
  }

  #openOwn(file) {
    if (page.tab !== "read" || !file) return;
    this.#open(async () => {
      const photo = await openPhoto(file);
      this.#keep(photo);
      return photo;
    });
  }

  /** Keep the visitor's photo, small, so that a reload loses nothing. */
  async #keep(photo) {
    const { blob } = await openPhoto(photo.blob, KEPT_SIDE);
    page.keep("photo", `data:${blob.type};base64,${(await blob.bytes()).toBase64()}`);
  }

  /** Read the same photo again: with another model, or beside another one. */
  run() {
    const { photo } = this;
    if (photo) this.#open(() => photo);
  }

  #open(source) {
    this.#clear();
    this.photo = null;
    this.root.dataset.state = "waiting";
    this.attempt(async (signal) => {
      const photo = await source();
      signal.throwIfAborted();
      this.photo = photo;
      await this.#read(signal);
    }, {
      name: "read",
      failed: () => {
        if (this.root.dataset.state === "current") return; // a map without its confidence stays
        this.#clear();
        this.root.dataset.state = "failed";
      },
    });
  }

  /** Read the photo with the chosen model, and with the one to compare it with. */
  async #read(signal) {
    const models = [this.model, this.offerComparison()].filter(Boolean);
    this.$(".found").hidden = false;
    this.$(".second").hidden = models.length < 2;
    for (const view of this.views) view.showPhoto(this.photo);
    const shown = models.map((model, index) => [model, this.views[index]]);
    for (const [model, view] of shown) {
      view.root.nextElementSibling.textContent = models.length > 1 ? model.name : "";
      view.showMap(await readPhoto(this.photo, model, signal));
    }
    this.#showLegend();
    this.root.dataset.state = "current";
    for (const [model, view] of shown.filter(([{ confidence }]) => confidence)) {
      view.confidence = (await readPhoto(this.photo, model, signal, "confidence")).ids;
    }
    this.#showLegend();
  }

  #showLegend() {
    const { map, confidence } = this.views[0];
    const found = shares(map, confidence);
    const large = found.filter(({ share }) => share >= TRACE);
    fill(this.$(".legend"), large, (item, { row, share, sure }) => {
      const button = item.firstChild;
      const [swatch, name, bar, percentage, sureness] = button.children;
      button.dataset.id = row.id;
      swatch.style.background = css(row);
      name.textContent = row.name;
      bar.firstChild.style.width = `${100 * share}%`;
      percentage.textContent = percent(share);
      if (confidence) sureness.textContent = `${Math.round(100 * sure)} % sure`;
      else sureness.remove();
      this.on(button, "click", () => this.#isolate(row.id));
    });
    const traces = found.filter(({ share }) => share < TRACE).map(({ row }) => row.name);
    this.$(".traces").textContent = traces.length ? `And a few pixels of ${traces.join(", ")}.` : "";
    const names = large.slice(0, 3).map(({ row, share }) => `${row.name} ${percent(share)}`);
    this.$(".status").textContent = `The map is there. ${names.join(", ")}.`;
    this.$(".sure").disabled = !confidence;
    this.$(".edit").disabled = !page.model("to_photo");
    this.showSnippets("segment", { model: this.model.name, output: "colours" }, "street.jpg", "map.png");
    this.#draw();
  }

  #isolate(id) {
    const only = this.views[0].only === id ? null : id;
    for (const view of this.views) view.only = only;
    this.$(".sure").checked = false;
    this.#draw();
  }

  #draw() {
    const { checked: sure } = this.$(".sure");
    this.$(".key").hidden = !sure;
    for (const view of this.views) view.draw({ sure });
    const { only } = this.views[0];
    for (const button of this.root.querySelectorAll(".legend button")) {
      button.ariaPressed = Number(button.dataset.id) === only;
    }
  }

  async #save(output) {
    const blob = await translate("segment", this.photo.blob, { model: this.model.name, output });
    download(blob, `${this.photo.name}-${output}.${ENDINGS[output]}`);
  }

  #clear() {
    this.tell(null);
    this.$(".found").hidden = true;
    this.$(".legend").replaceChildren();
    this.$(".traces").textContent = this.$(".status").textContent = "";
    this.views.forEach((view) => view.clear());
  }
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
