// The pane "Photo → map": a photo that is dropped, pasted, taken or chosen is read at once.

import { css, related, shares } from "./labels.js";
import { Pane, address, ask, download, fill, openPhoto, page } from "./page.js";
import { at, project } from "./project.js";
import { MapView, readPhoto } from "./view.js";

const LEAST = 0.001; // of the photo, for a class to be in the legend
const OWN_EXAMPLES = 6;
const KEPT_SIDE = 1024; // of the photo that survives a reload, where it has more bytes than this:
const KEPT_BYTES = 3e6;

export default class Read extends Pane {
  constructor(root) {
    super(root);
    const missing = page.studio ? "There is no model yet: train one first." : "No model on this server reads photos.";
    if (!this.model) throw new Error(missing);
    this.views = [...root.querySelectorAll(".view")].map((each) => new MapView(each));
    this.on("[type=file]", "change", ({ files: [file] }) => this.#openOwn(file));
    this.on(".scene", "click", (button) => this.#open(() => this.#example(button)));
    this.on(".sure", "change", () => this.#draw());
    this.on(".legend button", "click", ({ dataset: { id } }) => this.#isolate(Number(id)));
    this.on(".edit", "click", () => {
      const detail = { map: this.views[0].map, photo: this.photo.blob };
      page.dispatchEvent(new CustomEvent("edit", { detail }));
      page.open("paint");
    });
    this.on("[data-output]", "click", ({ dataset: { output } }) => this.#save(output));
    this.offerScenes();
    page.addEventListener("to_label", () => {
      if (!page.studio) this.offerScenes();
      this.run();
    });
    this.attempt(async () => {
      if (page.studio) await this.#showUnlabelled();
      page.addEventListener("tab", () => this.#first());
      this.#first();
    });
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
    if (page.dropped) return this.#openOwn(page.dropped);
    if ((this.root.dataset.state ?? "failed") !== "failed" || page.tab !== "read") return;
    if (this.photo) return this.run();
    const kept = JSON.parse(sessionStorage.getItem("photo"));
    this.#open(async () => (kept ? { ...kept, blob: await (await fetch(kept.url)).blob() } : this.#example()));
  }

  async #example(button) {
    const { src, alt } = this.scene(button);
    const blob = await (await ask(src)).blob();
    return { ...(await openPhoto(blob)), name: alt.replaceAll(/\W+/g, "-") };
  }

  #openOwn(file) {
    page.dropped = null;
    this.mark();
    this.#open(() => openPhoto(file));
  }

  /** Keep the photo, small, so that a reload loses nothing. */
  async #keep() {
    const { photo } = this;
    const small = photo.blob.size > KEPT_BYTES ? await openPhoto(photo.blob, KEPT_SIDE) : photo;
    const url = `data:${small.blob.type};base64,${(await small.blob.bytes()).toBase64()}`;
    page.keep("photo", { ...small, ...photo, width: small.width, height: small.height, url });
  }

  /** Read the same photo again: with another model, or beside another one. */
  run() {
    const { photo } = this;
    if (photo) this.#open(() => photo);
  }

  /** Read a photo with the chosen model, and with the one to compare it with. */
  #open(source) {
    this.clear();
    this.photo = null;
    this.root.dataset.state = "waiting";
    this.$(".status").textContent = "Reading…";
    this.attempt(async (signal) => {
      const photo = await source();
      signal.throwIfAborted();
      this.photo = photo;
      this.#keep();
      const models = [...this.compared().entries()];
      this.$(".found").hidden = false;
      for (const view of this.views) view.showPhoto(photo);
      for (const [index, model] of models) this.views[index].draw(await readPhoto(photo, model, signal));
      this.#showLegend();
      this.root.dataset.state = "current";
      for (const [index, model] of models.filter(([, { confidence }]) => confidence)) {
        this.views[index].confidence = (await readPhoto(photo, model, signal, "confidence")).ids;
      }
      this.#showLegend();
    }, "answer");
  }

  #showLegend() {
    const { map, confidence } = this.views[0];
    const found = shares(map, confidence).filter(({ share }) => share >= LEAST);
    fill(this.$(".legend"), found, ({ firstChild: button }, { row, share, sure }) => {
      const [swatch, name, bar, percentage, sureness] = button.children;
      button.dataset.id = row.id;
      swatch.style.background = css(row);
      name.textContent = row.name;
      bar.firstChild.style.width = `${100 * share}%`;
      percentage.textContent = percent(share);
      sureness.textContent = confidence ? `${Math.round(100 * sure)} % sure` : "";
    });
    const names = found.slice(0, 3).map(({ row, share }) => `${row.name} ${percent(share)}`);
    this.$(".status").textContent = `The map is there. ${names.join(", ")}.`;
    this.$(".sure").disabled = !confidence;
    const painter = page.model("to_photo");
    this.$(".edit").hidden = !painter || !related(map, painter.classes);
    const shrunk = this.photo.original ? `, shrunk from ${this.photo.original}` : "";
    this.$(".read-size").textContent = `Save as, ${map.width} x ${map.height} pixels${shrunk}:`;
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
    const sure = this.$(".sure").checked && !this.$(".sure").disabled;
    this.$(".key").hidden = !sure;
    for (const view of this.views) view.draw(view.map, { sure });
    const { only } = this.views[0];
    for (const { firstChild: row } of this.$(".legend").children) row.ariaPressed = Number(row.dataset.id) === only;
  }

  async #save(output) {
    const { blob: photo, name, file } = this.photo;
    const body = new FormData(); // which names the photo in COCO's answer
    body.append("image", photo, file);
    const url = address("segment", { model: this.model.name, output });
    const blob = await (await ask(url, { method: "POST", body })).blob();
    download(blob, `${name}-${output}.${blob.type.split("/")[1]}`);
  }

  clear() {
    this.showProblem(null);
    this.$(".found").hidden = true;
    this.$(".legend").replaceChildren();
    this.$(".status").textContent = "";
    this.views.forEach((view) => view.clear());
  }
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
