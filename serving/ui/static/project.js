// The project folder in studio mode, as the panes Pick, Label and Train share it: its state, and requests to /studio.

import { address, ask, fill } from "./page.js";

const STUDIO = new URL("../studio/", document.baseURI);
const POLL = 1000; // milliseconds between looks at running work

/** A path below /studio, in which names of photos may have slashes. */
export const at = (path, parameters) => address(path.split("/").map(encodeURIComponent).join("/"), parameters, STUDIO);

class Project extends EventTarget {
  state = null;
  #timer = null;

  /** Ask for the state, tell the panes ("change", and "done" when work has ended), and go on while work runs. */
  async refresh() {
    clearTimeout(this.#timer);
    const before = this.state?.work.running;
    this.state = await (await ask(at("project"))).json();
    const { running } = this.state.work;
    this.dispatchEvent(new Event("change"));
    if (before && !running) this.dispatchEvent(new Event("done"));
    if (running) this.#refreshLater();
  }

  #refreshLater() {
    this.#timer = setTimeout(() => this.refresh().catch(() => this.#refreshLater()), POLL);
  }

  /** Write something, and look at what it changed. */
  async send(method, path, body = {}) {
    const file = body instanceof Blob;
    const headers = { "Content-Type": file ? body.type : "application/json" };
    await ask(at(path), { method, headers, body: file ? body : JSON.stringify(body) });
    await this.refresh();
  }

  /** The photos to label, by rank; then those that are labelled beside them. */
  get toLabel() {
    const picks = this.state.picks?.photos.map(({ name }) => name) ?? [];
    const labelled = this.state.photos.filter((photo) => photo.labelled).map(({ name }) => name);
    return [...new Set([...picks, ...labelled])];
  }

  photo(name) {
    return this.state.photos.find((photo) => photo.name === name) ?? { labelled: 0, kept: false };
  }
}

export const project = new Project();

/** Fill a pane's row of photos, a caption below each; `choose(name)` is called with the one that was clicked. */
export function showThumbnails(pane, names, caption, choose) {
  fill(pane.$(".thumbs"), names, (button, name, index) => {
    button.title = button.dataset.name = name;
    Object.assign(button.firstChild, { src: at(`photos/${name}`, { side: 240 }), alt: name });
    button.lastChild.textContent = caption(name, index);
    pane.on(button, "click", () => choose(name));
  });
}

/** "12 % labelled", or what is still to be done. */
export const progress = (share) => (share ? `${Math.max(1, Math.round(100 * share))} % labelled` : "to label");
