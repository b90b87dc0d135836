// The pane "Pick": how many photos can be labelled, which ones they are, and how they lie among all photos.

import { Pane, ask, fill, page } from "./page.js";
import { at, progress, project, showThumbnails } from "./project.js";

export default class Pick extends Pane {
  #drawn = null; // the file of the picks among the dots

  constructor(root) {
    super(root);
    this.on("form", "submit", () => project.send("POST", "picks", { count: Number(this.$(".count").value) }));
    this.on(".thumb", "click", ({ dataset: { name } }) => {
      page.remember({ photo: name });
      page.open("label");
    });
    project.addEventListener("change", () => this.attempt(() => this.#show()));
    this.attempt(() => project.refresh());
  }

  async #show() {
    const { photos, to_label: toLabel, folder, picks, work } = project.state;
    const labelled = photos.filter((photo) => photo.labelled).length;
    const picking = work.running && work.kind === "pick";
    this.$(".in-folder").textContent = `${photos.length} photos in ${folder}, ${labelled} of them labelled.`;
    this.$("form button").disabled = work.running;
    this.$("form button").textContent = labelled ? "Pick more" : picks ? "Pick again" : "Pick them";
    if (work.kind === "pick" && work.error) this.showProblem(work.error);
    this.root.dataset.state = picking ? "waiting" : "current";
    this.$(".picked").hidden = !picks;
    if (!picks || picking) return;
    showThumbnails(this, toLabel.slice(0, picks.photos.length), (photo, index) => {
      const { represents } = picks.photos[index];
      const stands = represents ? `stands for ${represents} of ${photos.length}, ` : "";
      return `${index + 1}. ${stands}${progress(photo)}`;
    });
    if (this.#drawn === picks.file) return;
    this.#drawn = picks.file;
    const { points, near } = await (await ask(at("map"))).json();
    this.$(".plane").hidden = !points.length;
    fill(this.$(".dots"), points, (dot, { name, x, y }) => {
      Object.assign(dot.style, { left: `${4 + 92 * x}%`, top: `${5 + 90 * y}%` });
      dot.title = name;
      dot.textContent = picks.photos.findIndex((pick) => pick.name === name) + 1 || "";
    });
    this.$(".near").hidden = !near.length;
    this.$(".near b").textContent = near.length;
  }
}
