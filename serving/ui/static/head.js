// The head of the page: the choice of model, light and dark, and the model in plain words.

import { Pane, address, ask, page, trouble } from "./page.js";

export default class Head extends Pane {
  constructor(root) {
    super(root);
    if (page.studio) this.$(".lead").textContent = "Label a few of your photos, train, and see your own model at work.";
    this.showProblem(trouble);
    this.on(".model", "change", ({ value }) => {
      page.remember({ [this.direction]: value });
      page.dispatchEvent(new Event(this.direction));
    });
    const show = () => this.attempt(() => this.#show());
    for (const name of ["to_photo", "to_label", "tab"]) page.addEventListener(name, show);
    for (const button of document.querySelectorAll("[id^=tab-][id$=-button]")) {
      const [, tab] = button.id.split("-");
      button.addEventListener("click", () => {
        if (page.tab !== tab) page.remember({ tab }, { step: true });
        page.dispatchEvent(new Event("tab"));
      });
    }
    addEventListener("popstate", ({ state }) => {
      if (state?.load !== performance.timeOrigin) return location.reload(); // of a link that was opened in this tab
      page.remember({ tab: new URLSearchParams(location.hash.slice(1)).get("tab") ?? page.tab });
      page.open(page.tab);
    });
    document.addEventListener("dragover", (event) => event.preventDefault()); // a dropped file would replace the page
    const take = (file) => {
      page.dropped = file;
      page.open("read");
    };
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      const { files } = event.dataTransfer;
      const maps = page.tab === "paint" && event.target.closest(".canvas") ? document.querySelector("#paint .map-file") : null;
      if (!files.length) return;
      if (!maps) return take(files[0]);
      maps.files = files; // on the canvas: a label map
      maps.dispatchEvent(new Event("change", { bubbles: true }));
    });
    document.addEventListener("paste", ({ clipboardData: { files } }) => files.length && take(files[0]));
    page.open(page.tab);
  }

  /** Show the models of the open pane, and the chosen one in plain words: what taught it, and how often it is right. */
  async #show() {
    this.direction = page.tab === "paint" ? "to_photo" : "to_label";
    const { model } = this;
    this.$(".card").hidden = this.$(".settings label").hidden = !model;
    if (!model) return;
    const choices = page.of(this.direction).map(({ name }) => new Option(name, name, false, name === model.name));
    this.$(".model").replaceChildren(...choices);
    const { training, metrics, description } = await (await ask(address(`models/${model.name}`))).json();
    if (model !== this.model) return;
    this.showProblem(null);
    const { pairs, terms } = training;
    const unseen = ([split, figures]) => split !== "train" && !figures.seen_in_training && figures.pixel_accuracy;
    const measured = Object.entries(metrics).find(unseen);
    const right = measured && this.direction === "to_label" ? Math.round(100 * measured[1].pixel_accuracy) : 0;
    const drawn = terms.startsWith("synthetic"); // the one kind of photos that models carry with them
    this.$(".taught-by").textContent = pairs ? `Learned from ${pairs} labelled photos.` : "";
    const photos = "photos that it did not learn from";
    this.$(".right").textContent = right ? `It gets ${right} of 100 pixels right on ${photos}.` : "";
    this.$("summary").textContent = drawn ? "See them, and more about this model" : "About this model";
    this.$(".description").textContent = [description, terms && `Data: ${terms}.`].filter(Boolean).join(" ");
    this.$(".taught").hidden = !drawn;
    if (drawn) this.$(".taught").src = address(`models/${model.name}/pairs`);
  }
}
