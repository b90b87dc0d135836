// The project folder in studio mode, as the panes Pick, Label and Train share it: its state, and requests to /studio.

import { ask } from "./page.js";

const STUDIO = new URL("../studio/", document.baseURI);
const POLL = 1000; // milliseconds between looks at running work

/** A path below /studio, in which names of photos may have slashes. */
export function at(path, parameters = {}) {
  const url = new URL(path.split("/").map(encodeURIComponent).join("/"), STUDIO);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url;
}

class Project extends EventTarget {
  state = null;
  #timer = null;

  /** Ask for the state, tell the panes ("change", and "done" when work has ended), and go on while work runs. */
  async refresh() {
    clearTimeout(this.#timer);
    const before = this.state?.work.running;
    this.state = await (await ask(at("project"))).json();
    this.dispatchEvent(new CustomEvent("change"));
    if (before && !this.state.work.running) this.dispatchEvent(new CustomEvent("done"));
    if (this.state.work.running) this.#timer = setTimeout(() => this.refresh().catch(() => this.#again()), POLL);
  }

  /** Write something, and look at what it changed. */
  async send(method, path, body) {
    const json = body !== undefined && !(body instanceof Blob);
    const headers = { "Content-Type": json ? "application/json" : body?.type ?? "application/json" };
    await ask(at(path), { method, headers, body: json ? JSON.stringify(body) : body });
    await this.refresh();
  }

  /** The photos to label, by rank; then those that are labelled beside them. */
  get toLabel() {
    const picks = this.state.picks?.photos.map(({ name }) => name) ?? [];
    const others = this.state.photos.filter(({ name, labelled }) => labelled && !picks.includes(name)).map(({ name }) => name);
    return [...picks, ...others];
  }

  photo(name) {
    return this.state.photos.find((photo) => photo.name === name) ?? { labelled: 0, kept: false };
  }

  /** How many photos the model learns from with their labels. */
  get teaching() {
    return this.state.photos.filter(({ labelled, kept }) => labelled && !kept).length;
  }

  #again() {
    this.#timer = setTimeout(() => this.refresh().catch(() => this.#again()), 5 * POLL);
  }
}

export const project = new Project();

/** A small picture of a photo, with a line of text below it, to be clicked. */
export function thumbnail(name, caption, click) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "thumb", title: name });
  button.dataset.name = name;
  const image = Object.assign(new Image(), { src: at(`photos/${name}`, { side: 240 }), alt: name, loading: "lazy" });
  button.append(image, Object.assign(document.createElement("span"), { textContent: caption }));
  button.addEventListener("click", click);
  return button;
}

/** "12 % labelled", or what is still to be done. */
export const progress = (share) => (share ? `${Math.max(1, Math.round(100 * share))} % labelled` : "to label");
