// The project folder in studio mode, as the panes Pick, Label and Train share it: its state, and requests to /studio.

import { address, ask, fill } from "./page.js";

const STUDIO = new URL("../studio/", document.baseURI);
const POLL = 1000; // milliseconds between two requests for the state of running work

/** A path below /studio, in which names of photos may have slashes. */
export const at = (path, parameters) => address(path.split("/").map(encodeURIComponent).join("/"), parameters, STUDIO);

class Project extends EventTarget {
  state = null;
  #timer = null;

  /** Ask for the state, send the panes ("change", and "done" when work has ended), and go on while work runs. */
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
    const file = body instanceof Blob ? body : new Blob([JSON.stringify(body)], { type: "application/json" });
    await ask(at(path), { method, body: file });
    await this.refresh();
  }
}

export const project = new Project();

/** Fill a pane's row of photos, a caption below each. */
export function showThumbnails(pane, photos, caption) {
  fill(pane.$(".thumbs"), photos, (button, photo, index) => {
    button.title = button.dataset.name = photo.name;
    Object.assign(button.firstChild, { src: at(`photos/${photo.name}`, { side: 240 }), alt: photo.name });
    button.lastChild.textContent = caption(photo, index);
  });
}

/** "12 % labelled", or what is still to be done. */
export const progress = ({ labelled }) => (labelled ? `${Math.ceil(100 * labelled)} % labelled` : "to label");
