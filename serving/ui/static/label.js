// The pane "Label": the class table, and each pick on the canvas over its photo. Every stroke is saved.

import { LabelCanvas } from "./canvas.js";
import { encodePng, greyValues, inClasses, segmentNumbers, voidId } from "./labels.js";
import { Latest, ask, page, tell, translate } from "./page.js";
import { at, progress, project, thumbnail } from "./project.js";

const SIDE = 1024; // most pixels a side of the canvas; larger photos get the map enlarged
const COLOURS = ["#6b7fd7", "#e4572e", "#3fa34d", "#f2b134", "#8e44ad", "#1fb5ad", "#c2185b", "#7d5a3c", "#5c6b73"];

export async function mount(root) {
  root.pane = new Label(root);
}

class Label {
  #opening = new Latest();
  #saving = Promise.resolve();
  #photo = null; // the JPEG on the canvas
  #url = null; // of it
  name = null;

  constructor(root) {
    this.root = root;
    this.$ = (selector) => root.querySelector(selector);
    this.canvas = new LabelCanvas(this.$(".canvas"));
    this.canvas.addEventListener("change", ({ detail }) => detail.settled && this.#save());
    this.$(".add").addEventListener("click", () => this.#addClass());
    this.$(".rows").addEventListener("change", () => this.#saveClasses());
    this.$(".rows").addEventListener("click", ({ target }) => {
      if (!target.matches(".remove")) return;
      target.parentElement.remove();
      this.#saveClasses();
    });
    this.$(".next").addEventListener("click", () => this.#open(this.#following()));
    this.$(".draft").addEventListener("click", () => this.#draft());
    this.$(".keep").addEventListener("change", ({ target }) => this.#attempt(() => project.send("PUT", `kept/${this.name}`, { kept: target.checked })));
    this.$(".grain").addEventListener("change", () => this.#segment());
    project.addEventListener("change", () => this.#show());
    page.addEventListener("tab", () => this.#chosen());
    if (project.state) this.#show(); // panes may begin when they are first looked at
  }

  /** Open the photo that the URL names when the pane is looked at. */
  #chosen() {
    if (page.state.get("tab") !== "label" || !project.state) return;
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
    this.$(".strip .thumbs").replaceChildren(...names.map((name) => {
      const { labelled, kept } = project.photo(name);
      const button = thumbnail(name, progress(labelled) + (kept ? ", for measuring" : ""), () => this.#open(name));
      button.setAttribute("aria-pressed", name === this.name);
      return button;
    }));
    this.$(".keep").checked = this.name !== null && project.photo(this.name).kept;
    if (!this.$(".rows").contains(document.activeElement)) this.#showClasses();
    this.#chosen();
  }

  #following() {
    const names = project.toLabel;
    const after = [...names.slice(names.indexOf(this.name) + 1), ...names];
    return after.find((name) => name !== this.name && !project.photo(name).labelled) ?? after[0];
  }

  async #open(name) {
    await this.#attempt(() => this.#opening.run(async (signal) => {
      await this.#saving;
      const [photo, label] = await Promise.all(["photos", "labels"].map((kind) => ask(at(`${kind}/${name}`, { side: SIDE }), { signal })));
      const blob = await photo.blob();
      const { width, height } = await createImageBitmap(blob);
      const { classes } = project.state;
      const ids = label.status === 204 ? new Uint8Array(width * height).fill(voidId(classes)) : (await greyValues(await label.blob())).values;
      if (signal.aborted) return;
      this.name = name;
      this.#photo = blob;
      this.$(".desk").hidden = false;
      this.$(".saved").textContent = "";
      this.root.style.setProperty("--ratio", width / height);
      if (this.#url) URL.revokeObjectURL(this.#url);
      this.#url = URL.createObjectURL(blob);
      this.canvas.open({ ids, width, height, classes }, { photo: this.#url });
      this.$(".draft").hidden = !page.model("to_label");
      page.remember({ photo: name });
      this.root.dataset.state = "current";
      this.#show();
      await this.#segment();
    }));
  }

  async #segment() {
    const count = this.$(".grain").value;
    const { name } = this;
    const numbers = await segmentNumbers(await (await ask(at(`superpixels/${name}`, { side: SIDE, count }))).blob());
    if (name === this.name) this.canvas.setSegments(numbers);
  }

  /** What the model sees in the photo, to be corrected; saved like a stroke. */
  async #draft() {
    await this.#attempt(async () => {
      const { name } = this;
      const model = page.model("to_label");
      const blob = await (await translate("segment", this.#photo, { model: model.name, output: "ids" })).blob();
      const { values: ids, width, height } = await greyValues(blob);
      if (name !== this.name) return; // another photo was opened meanwhile
      this.canvas.replaceMap(inClasses({ ids, width, height, classes: model.classes }, this.canvas.map.classes).ids);
    });
  }

  #save() {
    const { name } = this;
    const { map } = this.canvas;
    this.$(".saved").textContent = "Saving…";
    this.#saving = this.#saving.then(() => this.#attempt(async () => {
      await project.send("PUT", `labels/${name}`, await encodePng(map));
      this.$(".saved").textContent = "Saved.";
    }));
  }

  #showClasses() {
    const rows = project.state.classes.filter((row) => !row.ignore);
    this.$(".rows").replaceChildren(...rows.map((row, index) => classRow(row, index)));
  }

  #addClass() {
    const used = project.state.classes.map(({ id }) => id);
    const id = [...Array(255).keys()].find((each) => !used.includes(each));
    const count = this.$(".rows").children.length;
    this.$(".rows").append(classRow({ id, name: `class ${id}`, color: levels(COLOURS[count % COLOURS.length]), ignore: false }, count));
    this.#saveClasses();
  }

  async #saveClasses() {
    const rows = [...this.$(".rows").children].map((row) => ({
      id: Number(row.dataset.id), name: row.querySelector("[type=text]").value.trim(), color: levels(row.querySelector("[type=color]").value),
    }));
    const ignored = project.state.classes.filter((row) => row.ignore);
    await this.#attempt(async () => {
      await project.send("PUT", "classes", [...rows, ...ignored]);
      if (this.name) this.canvas.setClasses(project.state.classes);
    });
    this.#showClasses();
  }

  async #attempt(work) {
    try {
      await work();
      tell(this.root, null);
    } catch (problem) {
      tell(this.root, problem);
    }
  }
}

function classRow({ id, name, color }, index) {
  const row = Object.assign(document.createElement("div"), { className: "row" });
  row.dataset.id = id;
  row.innerHTML = `<input type="color" aria-label="Colour"><input type="text" aria-label="Name" maxlength="80"><span class="label">${index < 9 ? `key ${index + 1}` : ""}</span>
    <button type="button" class="remove">Remove</button>`;
  row.querySelector("[type=color]").value = `#${color.map((level) => level.toString(16).padStart(2, "0")).join("")}`;
  row.querySelector("[type=text]").value = name;
  return row;
}

const levels = (colour) => [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
