// What the panes share: the models, the chosen ones, the state in the URL, requests to /v1, and the head of the page.

export const API = new URL("../v1/", document.baseURI);
const MOST_PIXELS_A_SIDE = 2048;

/** Something that went wrong, as a sentence for the visitor. */
export class Problem extends Error {
  constructor(message, code = "") {
    super(message);
    this.code = code;
  }
}

/** Fetch, or throw the server's own sentence as a Problem. */
export async function ask(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Try again in a moment.");
  }
  if (response.ok) return response;
  if (response.status === 429) { // a public server's limit: go on a little slower
    await new Promise((done) => setTimeout(done, 1000 * (Number(response.headers.get("Retry-After")) || 1)));
    options.signal?.throwIfAborted();
    return ask(url, options);
  }
  const { error } = await response.json().catch(() => ({ error: { message: `error ${response.status}.`, hint: "" } }));
  throw new Problem(`${error.message[0].toUpperCase()}${error.message.slice(1)} ${error.hint}`.trim(), error.code);
}

/** POST a picture to /v1/segment or /v1/synthesize. */
export async function translate(endpoint, picture, parameters, signal) {
  const headers = { "Content-Type": picture.type || "application/octet-stream" };
  return ask(addressOf(endpoint, parameters), { method: "POST", body: await picture.arrayBuffer(), headers, signal });
}

function addressOf(endpoint, parameters) {
  const url = new URL(endpoint, API);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url;
}

/** One request at a time: a newer one aborts the one under way, whose answer is then never used. */
export class Latest {
  #controller = null;

  get busy() {
    return this.#controller !== null;
  }

  abort() {
    this.#controller?.abort();
    this.#controller = null;
  }

  /** Call `work(signal)`; return whether it ended as the newest. */
  async run(work) {
    this.abort();
    const controller = (this.#controller = new AbortController());
    try {
      await work(controller.signal);
      return !controller.signal.aborted;
    } catch (error) {
      if (!controller.signal.aborted) throw error;
      return false;
    } finally {
      if (this.#controller === controller) this.#controller = null;
    }
  }
}

/** A photo that the visitor gave, upright, at most 2048 pixels a side: {blob, width, height, name}. */
export async function openPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Problem(`${file.name || "This"} is not a picture that your browser can show. Choose a JPEG, PNG or WebP file.`);
  }
  const scale = Math.min(1, MOST_PIXELS_A_SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [Math.round(bitmap.width * scale), Math.round(bitmap.height * scale)];
  const name = (file.name ?? "photo").replace(/\.\w+$/, "");
  if (scale === 1) return { blob: file, width, height, name };
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return { blob: await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 }), width, height, name };
}

export function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Show a sentence where the eye is, or take it away. */
export function tell(root, problem) {
  const line = root.querySelector(".problem");
  line.hidden = !problem;
  line.textContent = problem ? problem.message : "";
}

/** Fill a pane's "Do this from a program". */
export function showSnippets(root, endpoint, parameters, { input, output }) {
  const url = addressOf(endpoint, parameters);
  const named = Object.entries(parameters).map(([name, value]) => `"${name}": ${JSON.stringify(value)}`).join(", ");
  const snippets = {
    curl: `curl -F image=@${input} "${url}" -o ${output}`,
    Python: `import requests\n\nanswer = requests.post("${url.origin}${url.pathname}", params={${named}}, files={"image": open("${input}", "rb")})\n`
      + `answer.raise_for_status()\nopen("${output}", "wb").write(answer.content)`,
  };
  root.querySelector(".snippets").replaceChildren(...Object.entries(snippets).map(([name, text]) => {
    const block = document.createElement("div");
    block.innerHTML = `<button type="button">Copy ${name}</button><pre tabindex="0"></pre>`;
    const [button, code] = block.children;
    code.textContent = text;
    button.addEventListener("click", async () => {
      getSelection().selectAllChildren(code);
      await navigator.clipboard?.writeText(text); // without https the text stays selected, to be copied by hand
      button.textContent = navigator.clipboard ? "Copied" : "Press Ctrl+C";
    });
    return block;
  }));
}

class Page extends EventTarget {
  models = [];
  chosen = {};
  state = new URLSearchParams(location.hash.slice(1));
  ready = this.load();

  /** Ask for the models and choose those of the URL, else the defaults. */
  async load() {
    const list = await (await ask(new URL("models", API))).json();
    this.models = list.models;
    for (const direction of ["to_photo", "to_label"]) {
      const wanted = this.state.get(direction);
      this.chosen[direction] = this.of(direction).some((model) => model.name === wanted) ? wanted : list.defaults[direction];
    }
  }

  /** The models of a direction. Only those between photos and classes can be painted for. */
  of(direction) {
    return this.models.filter((model) => model.directions.includes(direction) && (direction === "to_label" || model.classes.length));
  }

  model(direction) {
    return this.models.find((model) => model.name === this.chosen[direction]);
  }

  /** Whether this is the page of a project folder, with the panes Pick, Label and Train. */
  get studio() {
    return document.getElementById("tab-pick-button") !== null;
  }

  get tab() {
    return this.state.get("tab") ?? (this.studio ? "pick" : this.chosen.to_photo ? "paint" : "read");
  }

  get direction() {
    return this.tab === "paint" ? "to_photo" : "to_label";
  }

  choose(direction, name) {
    const { directions } = this.models.find((model) => model.name === name);
    for (const each of directions.filter((other) => other === direction || this.of(other).some((model) => model.name === name))) {
      this.chosen[each] = name;
      this.remember({ [each]: name });
      this.dispatchEvent(new CustomEvent(each));
    }
  }

  /** Put values into the URL; a change of tab is a step in the browser's history. */
  remember(values, { step = false } = {}) {
    for (const [name, value] of Object.entries(values)) this.state.set(name, value);
    history[step ? "pushState" : "replaceState"](null, "", `#${this.state}`);
  }

  /** Open a pane. */
  open(tab) {
    document.getElementById(`tab-${tab}-button`)?.click();
  }

  /** Keep something until the browser's tab is closed. What is too large is not kept. */
  keep(name, value) {
    try {
      sessionStorage.setItem(name, JSON.stringify(value));
    } catch {
      sessionStorage.removeItem(name);
    }
  }

  kept(name) {
    return JSON.parse(sessionStorage.getItem(name));
  }
}

export const page = new Page();

/** The choices of a model picker. */
export function fillPicker(select, models, { chosen, none }) {
  select.replaceChildren(...(none ? [new Option(none, "")] : []), ...models.map((model) => new Option(model.name, model.name)));
  select.value = chosen ?? "";
}
