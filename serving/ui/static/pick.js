// The pane "Pick": how many photos can be labelled, which ones they are, and how they lie among all photos.

import { Pane, ask, fill, page } from "./page.js";
import { at, progress, project, showThumbnails } from "./project.js";

export default class Pick extends Pane {
  #drawn = null; // the file of the picks among the dots

  constructor(root) {
    super(root);
    this.on("form", "submit", () => project.send("POST", "picks", { count: Number(this.$(".count").value) }));
    project.addEventListener("change", () => this.attempt(() => this.#show()));
    this.attempt(() => project.refresh());
  }

  async #show() {
    const { photos, folder, picks, work } = project.state;
    const labelled = photos.filter((photo) => photo.labelled).length;
    const picking = work.running && work.kind === "pick";
    const lead = labelled
      ? "More picks are of scenes of which no photo is labelled yet."
      : "The picks cover as many different scenes as possible.";
    this.$(".lead-line").textContent = `${photos.length} photos in ${folder}, ${labelled} of them labelled. ${lead}`;
    this.$("form button").disabled = work.running;
    this.$("form button").textContent = labelled ? "Pick more" : picks ? "Pick again" : "Pick them";
    this.$(".question").textContent = `How many ${labelled ? "more " : ""}photos can you label?`;
    this.$(".busy").hidden = !picking;
    if (work.kind === "pick" && work.error) this.tell(work.error);
    this.root.dataset.state = picking ? "waiting" : "current";
    this.$(".picked").hidden = !picks;
    if (!picks || picking) return;
    const names = picks.photos.map(({ name }) => name);
    showThumbnails(this, names, (name, index) => {
      const { represents } = picks.photos[index];
      const stands = represents ? `stands for ${represents} of ${photos.length}, ` : "";
      return `${index + 1}. ${stands}${progress(project.photo(name).labelled)}`;
    }, (name) => {
      page.remember({ photo: name });
      page.open("label");
    });
    if (this.#drawn === picks.file) return;
    this.#drawn = picks.file;
    const { points, near } = await (await ask(at("map"))).json();
    this.$(".plane").hidden = !points.length;
    fill(this.$(".dots"), points, (dot, { name, x, y }) => {
      Object.assign(dot.style, { left: `${4 + 92 * x}%`, top: `${5 + 90 * y}%` });
      dot.title = name;
      dot.textContent = names.indexOf(name) + 1 || "";
    });
    this.$(".plane figcaption").textContent =
      "Every dot is a photo; similar photos are close to each other, and the picks are numbered. "
      + (near.length ? `${near.length} photos look nearly the same as a pick and need no label of their own.` : "");
  }
}
