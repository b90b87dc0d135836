// The pane "Train": start, stop and continue training, watch it, and compare the rounds.

import { Pane, fill, page } from "./page.js";
import { at, project } from "./project.js";

const DOING = { evaluate: "Measuring…", export: "Exporting the model…" };

export default class Train extends Pane {
  constructor(root) {
    super(root);
    this.on("form", "submit", () => project.send("POST", "train", { steps: Number(this.$(".steps").value) }));
    this.on(".stop", "click", () => project.send("POST", "stop"));
    this.on(".resume", "click", () => project.send("POST", "resume"));
    this.on(".try", "click", () => {
      page.remember({ tab: "read" });
      location.reload(); // the panes begin anew with the new model
    });
    this.on(".more-picks", "click", () => page.open("pick"));
    project.addEventListener("change", () => this.#show());
    project.addEventListener("done", () => this.attempt(() => page.load()));
    if (project.state) this.#show();
  }

  #show() {
    const { photos, work, runs } = project.state;
    const run = runs.at(-1);
    const training = work.running && work.kind === "train";
    const kept = photos.filter((photo) => photo.kept).length;
    const labelled = photos.filter((photo) => photo.labelled && !photo.kept).length;
    const others = photos.length - labelled - kept;
    this.$(".lead-line").textContent = labelled
      ? `The model learns from ${count(labelled, "labelled photo")} and from ${others} without a label; `
        + (kept ? `${count(kept, "photo")} more will show how good it is.` : "none is kept for measuring yet.")
      : "Label a photo first.";
    this.$("form .primary").disabled = work.running || !labelled;
    this.$(".stop").hidden = this.$(".running").hidden = !training;
    this.$(".resume").hidden = work.running || !run || (run.step === run.steps && run.exported);
    this.root.dataset.state = training ? "waiting" : "current";
    this.$("progress").value = work.command === "train" ? (run?.step ?? 0) / (run?.steps ?? 1) : 1;
    this.$(".pace").textContent = DOING[work.command] ?? pace(run);
    if (work.kind === "train" && work.error) this.tell(work.error);
    this.$(".progress").hidden = !run?.loss.length;
    if (run?.loss.length) this.#showRun(run);
    this.#showRounds(runs.filter(({ evaluation }) => evaluation), training);
    this.$(".log").hidden = !work.log.length || work.kind !== "train";
    this.$(".log pre").textContent = work.log.join("\n");
  }

  #showRun({ name, loss, score, steps, samples }) {
    const most = Math.max(...loss.map(([, value]) => value));
    const place = (top) => ([step, value]) => [(300 * step) / steps, 100 - (96 * value) / top];
    this.$(".loss").setAttribute("points", loss.map(place(most)).join(" "));
    this.$(".score").setAttribute("points", score.map(place(1)).join(" "));
    const iou = score.at(-1)?.[1].toFixed(2);
    this.$(".curve figcaption").textContent = `Loss over the steps: ${loss.at(-1)[1].toFixed(2)} now.`
      + (iou ? ` Mean IoU on photos kept for measuring: ${iou} (green, 0 to 1).` : "");
    const grid = samples.at(-1);
    this.$(".grid").hidden = !grid;
    if (grid) this.$(".grid img").src = at(`runs/${name}/samples/${grid}`);
  }

  #showRounds(rounds, training) {
    this.$(".outcome").hidden = training || !rounds.length;
    fill(this.$(".rounds tbody"), rounds, (row, { name, pairs, steps, evaluation }) => {
      const { figures, baselines, samples } = evaluation;
      const iou = figures.mean_iou.toFixed(3) + (figures.seen_in_training ? " (seen in training)" : "");
      const baseline = baselines.commonest_class?.mean_iou?.toFixed(3) ?? "";
      const cells = [name, pairs, steps, iou, baseline, samples.to_label.worst.name];
      for (const text of cells) row.insertCell().append(text);
    });
    this.$(".verdict").textContent = rounds.length ? verdict(...rounds.slice(-2).reverse()) : "";
  }
}

const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function pace(run) {
  if (!run?.step) return "Starting…";
  const { step, steps, size, seconds_left: left } = run;
  const time = left < 90 ? `${Math.ceil(left)} s left` : `about ${Math.round(left / 60)} min left`;
  return `Step ${step} of ${steps} at ${size.join("x")}${left === null ? "" : `, ${time}`}`;
}

function verdict({ evaluation: { figures } }, former) {
  const where = figures.seen_in_training
    ? "on the photos that it learned from, which says little about others"
    : "on photos that it never saw";
  const change = former ? ` Mean IoU was ${former.evaluation.figures.mean_iou.toFixed(3)} in the round before.` : "";
  return `It gets ${Math.round(100 * figures.pixel_accuracy)} of 100 pixels right ${where}.${change}`;
}
