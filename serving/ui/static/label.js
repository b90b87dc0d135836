// The pane "Label": the class table, and each pick on the canvas over its photo. Every stroke is saved.

import { LabelCanvas } from "./canvas.js";
import { encodePng, inClasses, painted, readIds, related } from "./labels.js";
import { Pane, ask, fill, page } from "./page.js";
import { at, progress, project, showThumbnails } from "./project.js";
import { readPhoto } from "./view.js";

const SIDE = 1024; // most pixels a side of the canvas; larger photos get the map enlarged
const COLOURS = ["#6b7fd7", "#e4572e", "#3fa34d", "#f2b134", "#8e44ad", "#1fb5ad", "#c2185b", "#7d5a3c", "#5c6b73"];

export default class Label extends Pane {
  #unsaved = null; // the newest map that is not yet in the folder, and its photo
  #saving = null; // the promise of the save under way
  #savingClasses = Promise.resolve();
  #versions = {}; // of the label maps that were opened
  #opening = null; // the photo that is being loaded

  constructor(root) {
    super(root);
    this.canvas = new LabelCanvas(this.$(".canvas"));
    this.canvas.addEventListener("settled", () => this.#save());
    this.on(".thumb", "click", ({ dataset: { name } }) => this.#open(name));
    this.on(".add", "click", () => this.#addClass());
    this.on(".rows", "change", () => this.#saveRows());
    this.on(".rows button", "click", ({ parentElement: row }) => {
      row.remove();
      return this.#saveRows();
    });
    this.on(".next", "click", () => this.#open(this.#following()));
    this.on(".draft", "click", () => this.#draft());
    this.on(".keep", "change", async ({ checked }) => {
      const { name } = this;
      await this.#saving;
      await project.send("PUT", `kept/${name}`, { kept: checked }).finally(() => this.#show());
    });
    addEventListener("beforeunload", (event) => this.#unsaved && event.preventDefault());
    this.on(".grain", "change", () => this.#segment());
    project.addEventListener("change", () => this.#show());
    page.addEventListener("tab", () => this.#openChosen());
    if (project.state) this.#show(); // panes may begin when they are first looked at
  }

  /** Open the photo that the URL names when the pane is looked at. */
  #openChosen() {
    if (page.tab !== "label" || !project.state) return;
    const wanted = page.state.get("photo");
    if (wanted && wanted === this.name) return; // even where it is no pick, and all of its label is erased
    const name = project.state.to_label.find((photo) => photo.name === wanted)?.name ?? this.#following();
    if (name && name !== this.name && name !== this.#opening) this.#open(name);
  }

  #show() {
    const { to_label: photos } = project.state;
    const done = photos.filter(({ labelled }) => labelled).length;
    const next = done && done === photos.length ? ": now train" : "";
    this.$(".done").textContent = photos.length ? `${done} of ${photos.length} labelled${next}` : "Pick photos first.";
    showThumbnails(this, photos, (photo) => progress(photo) + (photo.kept ? ", for measuring" : ""));
    for (const button of this.$(".thumbs").children) button.ariaPressed = button.dataset.name === this.name;
    this.$(".keep").checked = photos.find(({ name }) => name === this.name)?.kept ?? false;
    this.$(".draft").hidden = !this.model;
    if (!this.$(".rows").contains(document.activeElement)) this.#showClasses();
    this.#openChosen();
  }

  #following() {
    const { to_label: photos } = project.state;
    const after = [...photos.slice(photos.findIndex(({ name }) => name === this.name) + 1), ...photos];
    return (after.find(({ name, labelled }) => name !== this.name && !labelled) ?? after[0])?.name;
  }

  async #open(name) {
    this.#opening = name;
    await this.attempt(async (signal) => {
      await this.#saving;
      if (this.#unsaved) await this.#saveNewest();
      const load = (kind) => ask(at(`${kind}/${name}`, { side: SIDE }), { signal });
      const [file, label] = await Promise.all([load("photos"), load("labels")]);
      const photo = await file.blob();
      const map = await readIds(await label.blob());
      signal.throwIfAborted();
      this.name = name;
      this.#versions[name] = label.headers.get("ETag");
      this.photo = photo;
      this.$(".desk").hidden = false;
      this.$(".saved").textContent = "";
      this.root.style.setProperty("--ratio", map.width / map.height);
      this.canvas.open({ ...map, classes: project.state.classes }, photo);
      page.remember({ photo: name });
      this.root.dataset.state = "current";
      this.#show();
      await this.#segment();
    }, "open");
    if (this.#opening === name) this.#opening = null;
  }

  async #segment() {
    const { name } = this;
    const url = at(`superpixels/${name}`, { side: SIDE, count: this.$(".grain").value });
    const { ids } = await readIds(await (await ask(url)).blob(), Uint16Array);
    if (name === this.name) this.canvas.setSegments(ids);
  }

  /** What the model sees in the photo, to be corrected; saved like a stroke. */
  async #draft() {
    const { name } = this;
    const map = await readPhoto({ blob: this.photo }, this.model);
    if (name !== this.name) return; // another photo was opened meanwhile
    if (!related(map, this.canvas.map.classes)) throw new Error("The model knows none of these classes: train again.");
    this.canvas.replaceMap(inClasses(map, this.canvas.map.classes).ids);
  }

  /** Save the map: at once, or together with what is painted while the map before is being saved. */
  #save() {
    this.#unsaved = { name: this.name, map: { ...this.canvas.map } };
    this.$(".saved").textContent = "Saving…";
    this.#saving ??= this.attempt(() => this.#saveNewest()).finally(() => (this.#saving = null));
  }

  async #saveNewest() {
    try {
      while (this.#unsaved) {
        const unsaved = this.#unsaved;
        const png = await encodePng(unsaved.map);
        const path = `labels/${unsaved.name}`;
        this.#versions[unsaved.name] = await project.send("PUT", path, png, this.#versions[unsaved.name]);
        if (this.#unsaved === unsaved) this.#unsaved = null;
      }
      this.showProblem(null);
    } finally {
      this.$(".saved").textContent = this.#unsaved ? "Not saved." : "Saved.";
    }
  }

  #showClasses() {
    fill(this.$(".rows"), painted(project.state.classes), (row, { id, name, color }, index) => {
      const [colour, text, key] = row.children;
      row.dataset.id = id;
      colour.value = `#${new Uint8Array(color).toHex()}`;
      text.value = name;
      key.textContent = index < 9 ? `key ${index + 1}` : "";
    });
  }

  /** The rows of the class table as they are on the page. */
  get #rows() {
    return [...this.$(".rows").children].map((row) => {
      const [colour, text] = row.children;
      return { id: Number(row.dataset.id), name: text.value.trim(), color: levels(colour.value) };
    });
  }

  #saveRows() {
    const rows = this.#rows; // as they are now
    return this.#saveClasses(() => rows);
  }

  #addClass() {
    return this.#saveClasses(() => {
      const { classes } = project.state;
      const id = Math.max(...classes.map((row) => row.id % 255)) + 1; // 255 is void
      const distance = (one, other) => Math.hypot(...one.map((level, index) => level - other[index]));
      const apart = (color) => classes.every((row) => distance(row.color, color) > 60);
      const color = COLOURS.map(levels).find(apart) ?? [...crypto.getRandomValues(new Uint8Array(3))];
      return [...this.#rows, { id, name: `class ${id}`, color }];
    });
  }

  /** Save what `rows` returns once the saves before are over. */
  #saveClasses(rows) {
    const save = async () => {
      const table = [...rows(), ...project.state.classes.filter((row) => row.ignore)];
      await project.send("PUT", "classes", table, project.state.table);
      if (this.name) this.canvas.setClasses(project.state.classes);
    };
    this.#savingClasses = this.#savingClasses.then(save, save);
    return this.#savingClasses.catch((problem) => {
      this.#showClasses();
      throw problem;
    });
  }
}

const levels = (colour) => [...Uint8Array.fromHex(colour.slice(1))];
