// The project folder in studio mode, as the panes Pick, Label and Train share it: its state, and requests to /studio.

import { address, ask, fill, page } from "./page.js";

const STUDIO = new URL("../studio/", document.baseURI);
const POLL = 1000; // milliseconds between two requests for the state of running work

/** A path below /studio, in which names of photos may have slashes. */
export const at = (path, parameters) => address(path.split("/").map(encodeURIComponent).join("/"), parameters, STUDIO);

class Project extends EventTarget {
  state = null;
  #timer = null;

  /** Ask for the state, tell the panes ("change"), and go on while work runs. */
  async refresh() {
    clearTimeout(this.#timer);
    const before = this.state?.work.running;
    this.state = await (await ask(at("project"))).json();
    const { running } = this.state.work;
    if (before && !running) await page.load(); // there may be another model
    this.dispatchEvent(new Event("change"));
    if (running) this.#refreshLater();
  }

  #refreshLater() {
    this.#timer = setTimeout(() => this.refresh().catch(() => this.#refreshLater()), POLL);
  }

  /**
   * Write something, and look at what it changed. With the `version` of what was read, it is refused where somebody
   * else wrote it since. Resolves to the version of what was written.
   */
  async send(method, path, body = {}, version = "") {
    const file = body instanceof Blob ? body : new Blob([JSON.stringify(body)], { type: "application/json" });
    const response = await ask(at(path), { method, body: file, headers: version ? { "If-Match": version } : {} });
    await this.refresh().catch(() => this.#refreshLater()); // it is written
    return response.headers.get("ETag");
  }
}

export const project = new Project();

/** Fill a pane's row of photos, a caption below each. */
export function showThumbnails(pane, photos, caption) {
  const names = photos.map(({ name }) => name).join("\n");
  if (names !== pane.thumbnails) { // else the focus would be lost
    pane.thumbnails = names;
    fill(pane.$(".thumbs"), photos, (button, { name }) => {
      button.title = button.dataset.name = name;
      Object.assign(button.firstChild, { src: at(`photos/${name}`, { side: 240 }), alt: name });
    });
  }
  photos.forEach((photo, index) => (pane.$(".thumbs").children[index].lastChild.textContent = caption(photo, index)));
}

/** "12 % labelled", or what is still to be done. */
export const progress = ({ labelled }) => (labelled ? `${Math.ceil(100 * labelled)} % labelled` : "to label");
