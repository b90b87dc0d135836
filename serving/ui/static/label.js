// The pane "Label": the class table, and each pick on the canvas over its photo. Every stroke is saved.

import { LabelCanvas } from "./canvas.js";
import { encodePng, inClasses, painted, readGrey, readNumbers, voidId } from "./labels.js";
import { Pane, ask, fill, page } from "./page.js";
import { at, progress, project, showThumbnails } from "./project.js";
import { readPhoto } from "./view.js";

const SIDE = 1024; // most pixels a side of the canvas; larger photos get the map enlarged
const COLOURS = ["#6b7fd7", "#e4572e", "#3fa34d", "#f2b134", "#8e44ad", "#1fb5ad", "#c2185b", "#7d5a3c", "#5c6b73"];

export default class Label extends Pane {
  #saving = Promise.resolve();
  #photo = null; // the JPEG on the canvas
  name = null;

  constructor(root) {
    super(root);
    this.canvas = new LabelCanvas(this.$(".canvas"));
    this.canvas.addEventListener("settled", () => this.#save());
    this.on(".add", "click", () => this.#addClass());
    this.on(".rows", "change", () => this.#saveClasses(this.#rows));
    this.on(".next", "click", () => this.#open(this.#following()));
    this.on(".draft", "click", () => this.#draft());
    this.on(".keep", "change", ({ checked }) => project.send("PUT", `kept/${this.name}`, { kept: checked }));
    this.on(".grain", "change", () => this.#segment());
    project.addEventListener("change", () => this.#show());
    page.addEventListener("tab", () => this.#openChosen());
    if (project.state) this.#show(); // panes may begin when they are first looked at
  }

  /** Open the photo that the URL names when the pane is looked at. */
  #openChosen() {
    if (page.tab !== "label" || !project.state) return;
    const names = project.toLabel;
    const wanted = page.state.get("photo");
    if (this.name !== null && wanted === this.name) return; // even where it is no pick, and all of its label is erased
    const name = names.includes(wanted) ? wanted : names.find((each) => !project.photo(each).labelled) ?? names[0];
    if (name && name !== this.name) this.#open(name);
  }

  #show() {
    const names = project.toLabel;
    const done = names.filter((name) => project.photo(name).labelled).length;
    this.$(".done").textContent = names.length ? `${done} of ${names.length} labelled` : "Pick photos first.";
    showThumbnails(this, names, (name) => {
      const { labelled, kept } = project.photo(name);
      return progress(labelled) + (kept ? ", for measuring" : "");
    }, (name) => this.#open(name));
    for (const button of this.$(".thumbs").children) button.ariaPressed = button.dataset.name === this.name;
    this.$(".keep").checked = project.photo(this.name).kept;
    if (!this.$(".rows").contains(document.activeElement)) this.#showClasses(painted(project.state.classes));
    this.#openChosen();
  }

  #following() {
    const names = project.toLabel;
    const after = [...names.slice(names.indexOf(this.name) + 1), ...names];
    return after.find((name) => name !== this.name && !project.photo(name).labelled) ?? after[0];
  }

  async #open(name) {
    await this.attempt(async (signal) => {
      await this.#saving;
      const load = (kind) => ask(at(`${kind}/${name}`, { side: SIDE }), { signal });
      const [photo, label] = await Promise.all([load("photos"), load("labels")]);
      const blob = await photo.blob();
      const { width, height } = await createImageBitmap(blob);
      const { classes } = project.state;
      const empty = () => ({ ids: new Uint8Array(width * height).fill(voidId(classes)), width, height });
      const map = label.status === 204 ? empty() : await readGrey(await label.blob());
      signal.throwIfAborted();
      this.name = name;
      this.#photo = blob;
      this.$(".desk").hidden = false;
      this.$(".saved").textContent = "";
      this.root.style.setProperty("--ratio", width / height);
      this.canvas.open({ ...map, classes }, blob);
      this.$(".draft").hidden = !this.model;
      page.remember({ photo: name });
      this.root.dataset.state = "current";
      this.#show();
      await this.#segment();
    }, { name: "open" });
  }

  async #segment() {
    const { name } = this;
    const url = at(`superpixels/${name}`, { side: SIDE, count: this.$(".grain").value });
    const { numbers } = await readNumbers(await (await ask(url)).blob());
    if (name === this.name) this.canvas.setSegments(numbers);
  }

  /** What the model sees in the photo, to be corrected; saved like a stroke. */
  async #draft() {
    const { name } = this;
    const map = await readPhoto({ blob: this.#photo }, this.model);
    if (name !== this.name) return; // another photo was opened meanwhile
    this.canvas.replaceMap(inClasses(map, this.canvas.map.classes).ids);
  }

  #save() {
    const { name, canvas: { map } } = this;
    this.$(".saved").textContent = "Saving…";
    this.#saving = this.#saving.then(() => this.attempt(async () => {
      await project.send("PUT", `labels/${name}`, await encodePng(map));
      this.tell(null);
      this.$(".saved").textContent = "Saved.";
    }));
  }

  #showClasses(classes) {
    fill(this.$(".rows"), classes, (row, { id, name, color }, index) => {
      const [colour, text, key, remove] = row.children;
      row.dataset.id = id;
      colour.value = `#${new Uint8Array(color).toHex()}`;
      text.value = name;
      key.textContent = index < 9 ? `key ${index + 1}` : "";
      this.on(remove, "click", () => this.#saveClasses(this.#rows.filter((each) => each.id !== id)));
    });
  }

  /** The rows of the class table as they are on the page. */
  get #rows() {
    return [...this.$(".rows").children].map((row) => {
      const [colour, text] = row.children;
      return { id: Number(row.dataset.id), name: text.value.trim(), color: levels(colour.value) };
    });
  }

  #addClass() {
    const rows = this.#rows;
    const used = project.state.classes.map(({ id }) => id);
    const id = [...Array(255).keys()].find((each) => !used.includes(each));
    const color = levels(COLOURS[rows.length % COLOURS.length]);
    return this.#saveClasses([...rows, { id, name: `class ${id}`, color }]);
  }

  async #saveClasses(rows) {
    try {
      await project.send("PUT", "classes", [...rows, ...project.state.classes.filter((row) => row.ignore)]);
      if (this.name) this.canvas.setClasses(project.state.classes);
    } finally {
      this.#showClasses(painted(project.state.classes));
    }
  }
}

const levels = (colour) => [...Uint8Array.fromHex(colour.slice(1))];
