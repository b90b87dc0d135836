// What the panes share: the models, the state in the URL, requests to /v1, and what each pane does with its elements.

import { related } from "./labels.js";

const API = new URL("../v1/", document.baseURI);
const MOST_PIXELS_A_SIDE = 2048;

if (!("toBase64" in Uint8Array.prototype)) {
  throw new Error("This page needs a newer browser: Chrome 140, Firefox 133, Safari 18.2 or later.");
}

/** Fetch, or throw the server's own sentence. */
export async function ask(url, options = {}) {
  const response = await fetch(url, options).catch(() => {
    throw new Error("The server does not answer. Try again in a moment.");
  });
  if (response.ok) return response;
  if (response.status === 429) { // a public server's limit: go on a little slower
    await wait(1000 * (Number(response.headers.get("Retry-After")) || 1));
    return ask(url, options);
  }
  const { error } = await response.json().catch(() => ({ error: { message: `error ${response.status}.`, hint: "" } }));
  throw new Error(`${error.message[0].toUpperCase()}${error.message.slice(1)} ${error.hint}`.trim());
}

export const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** A URL below `base` with these parameters. */
export const address = (path, parameters = {}, base = API) =>
  Object.assign(new URL(path, base), { search: new URLSearchParams(parameters) });

/** What /v1/segment, /v1/synthesize or /v1/style makes of a picture: a Blob. */
export async function translate(endpoint, picture, parameters, signal) {
  const headers = { "Content-Type": picture.type || "application/octet-stream" };
  const options = { method: "POST", body: await picture.arrayBuffer(), headers, signal };
  const answer = await (await ask(address(endpoint, parameters), options)).blob();
  signal?.throwIfAborted();
  return answer;
}

/** A picture that the visitor gave, upright and not larger than `side`: {blob, width, height, name, file}. */
export async function openPhoto(file, side = MOST_PIXELS_A_SIDE) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name} is not a picture that your browser can show. Choose a JPEG, PNG, WebP or AVIF file.`);
  });
  const [width, height] = fitted(bitmap, side);
  const names = { file: file.name ?? "photo.jpg", name: file.name?.replace(/\.\w+$/, "") ?? "photo" };
  if (width === bitmap.width) return { blob: file, width, height, ...names };
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const original = `${bitmap.width} x ${bitmap.height}`;
  return { blob: await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 }), width, height, original, ...names };
}

/** A size of the same shape with at most `side` pixels a side: [width, height]. */
export function fitted({ width, height }, side) {
  const scale = Math.min(1, side / Math.max(width, height));
  return [width, height].map((pixels) => Math.max(1, Math.round(pixels * scale)));
}

export function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Show a picture; resolve when it can be seen. */
export async function showBlob(image, blob) {
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
  await image.decode().catch(() => {});
}

/** Fill an element with a copy of the template before it for each item; `complete(copy, item, index)` finishes one. */
export function fill(parent, items, complete) {
  const template = parent.previousElementSibling.content.firstElementChild;
  parent.replaceChildren(...items.map((item, index) => {
    const copy = template.cloneNode(true);
    complete(copy, item, index);
    return copy;
  }));
}

/** A pane: its elements, the line that says what went wrong in it, and the model of its direction. */
export class Pane {
  #tasks = {}; // the AbortController of the newest task of each name

  constructor(root, direction = "to_label") {
    this.root = root;
    this.direction = direction;
    root.pane = this; // for tests and the console
    this.$ = (selector) => root.querySelector(selector);
    this.on(".copy", "click", async (button) => {
      getSelection().selectAllChildren(button.nextElementSibling); // without https it is to be copied by hand
      await navigator.clipboard?.writeText(getSelection().toString());
      button.textContent = navigator.clipboard ? "Copied" : "Press Ctrl+C";
    });
    this.on("[data-variable]", "input", ({ dataset: { variable }, value }) => {
      root.style.setProperty(variable, `${value}%`);
    });
    this.on(".compare", "change", ({ value }) => {
      page.remember({ [`beside_${direction}`]: value });
      return this.run();
    });
  }

  get model() {
    return page.model(this.direction);
  }

  /** Call `work(element)` at an event of an element that the selector matches, now or later. */
  on(selector, event, work) {
    this.root.addEventListener(event, ({ target }) => {
      const element = target.closest(selector);
      if (!element) return;
      this.showProblem(null);
      this.attempt(() => work(element));
    });
  }

  /**
   * Call `work(signal)`, and show its error. A task that has a name is given up when a newer one of that name
   * begins: its signal is aborted. Where "answer" fails before there is one, the pane is cleared.
   */
  async attempt(work, name) {
    const controller = new AbortController();
    if (name) {
      this.#tasks[name]?.abort();
      this.#tasks[name] = controller;
    }
    try {
      await work(controller.signal);
    } catch (problem) {
      if (controller.signal.aborted) return;
      if (name === "answer" && this.root.dataset.state === "waiting") {
        this.clear();
        this.root.dataset.state = "failed";
      }
      this.showProblem(problem.message);
    }
  }

  /** Show a sentence on top of the pane, or remove it. */
  showProblem(sentence) {
    Object.assign(this.$(".problem"), { hidden: !sentence, textContent: sentence });
  }

  /** Offer the model's own examples, or the streets where it has none. */
  offerScenes() {
    const { name, examples } = this.model;
    this.streets ??= [...this.$(".scenes").children];
    this.$(".scenes").replaceChildren(...(examples.length ? examples : this.streets).map((example) => {
      if (example.firstChild) return example;
      const button = this.streets[0].cloneNode(true);
      const src = address(`models/${name}/examples/${example}.jpg`);
      Object.assign(button.firstChild, { src, alt: example.replaceAll("-", " ") });
      return button;
    }));
  }

  /** The picture of a scene: that of a button, the one that the URL names, or the first. */
  scene(button) {
    const all = [...this.$(".scenes").children];
    const chosen = button ?? all[page.state.get(`scene_${this.direction}`)] ?? all[0];
    this.mark(chosen);
    return chosen.firstChild;
  }

  /** Mark the button of the scene that is open, or none. */
  mark(chosen) {
    const all = [...this.$(".scenes").children];
    page.remember({ [`scene_${this.direction}`]: all.indexOf(chosen) });
    for (const button of all) button.ariaPressed = button === chosen;
  }

  /** Offer the other models to compare with; return the model, and the one beside it where the URL names one. */
  compared() {
    const alike = (model) => model !== this.model && related(this.model, model.classes);
    const others = page.of(this.direction).filter(alike);
    const beside = others.find(({ name }) => name === page.state.get(`beside_${this.direction}`));
    const choices = others.map(({ name }) => new Option(name, name, false, name === beside?.name));
    this.$(".compare").replaceChildren(new Option("nothing", ""), ...choices);
    this.$(".second").hidden = !beside;
    const models = [this.model, beside].filter(Boolean);
    const captions = this.root.querySelectorAll(".answer figcaption");
    models.forEach(({ name }, index) => (captions[index].textContent = beside ? name : captions[0].dataset.alone));
    return models;
  }

  /** Fill in how a program does what was just done. */
  showSnippets(endpoint, parameters, input, output) {
    const url = address(endpoint, parameters);
    const values = { input, output, url, endpoint: url.origin + url.pathname, parameters: JSON.stringify(parameters) };
    for (const code of this.root.querySelectorAll(".snippets pre")) {
      code.textContent = code.dataset.text.replace(/\$(\w+)/g, (_, name) => values[name]);
    }
  }
}

class Page extends EventTarget {
  state = new URLSearchParams(location.hash.slice(1));
  models = [];
  dropped = null; // a photo that was dropped or pasted, until the pane that reads photos takes it
  defaults = {}; // the name of a model for each direction

  async load() {
    Object.assign(this, await (await ask(address("models"))).json());
    this.remember({ tab: this.tab });
  }

  /** The models of a direction. Those from photo to photo are for the API alone. */
  of(direction) {
    return this.models.filter((model) => model.directions.includes(direction) && model.classes.length);
  }

  model(direction) {
    const named = (wanted) => this.of(direction).find(({ name }) => name === wanted);
    return named(this.state.get(direction)) ?? named(this.defaults[direction]);
  }

  /** Whether this is the page of a project folder, with the panes Pick, Label and Train. */
  get studio() {
    return document.getElementById("tab-pick-button") !== null;
  }

  get tab() {
    return this.state.get("tab") ?? (this.studio ? "pick" : this.model("to_photo") ? "paint" : "read");
  }

  /** Put values into the URL; a change of tab is a step in the browser's history. */
  remember(values, { step = false } = {}) {
    for (const [name, value] of Object.entries(values)) this.state.set(name, value);
    history[step ? "pushState" : "replaceState"]({ load: performance.timeOrigin }, "", `#${this.state}`);
  }

  open(tab) {
    document.getElementById(`tab-${tab}-button`)?.click();
  }

  /** Keep something as JSON until the browser's tab is closed. What is too large is not kept. */
  keep(name, value) {
    try {
      sessionStorage.setItem(name, JSON.stringify(value));
    } catch {
      sessionStorage.removeItem(name);
    }
  }
}

export const page = new Page();

/** Why there are no models, where the server does not say them. */
export const trouble = await page.load().catch((problem) => problem.message);
