// The pane "Train": start, stop and continue training, watch it, and compare the rounds.

import { Pane, fill, page } from "./page.js";
import { at, project } from "./project.js";

const DOING = { evaluate: "Measuring…", export: "Exporting the model…" };

export default class Train extends Pane {
  constructor(root) {
    super(root);
    this.on("form", "submit", () => project.send("POST", "train", { steps: Number(this.$(".steps").value) }));
    this.on("[data-post]", "click", ({ dataset: { post } }) => project.send("POST", post));
    this.on(".try", "click", () => {
      page.remember({ tab: "read" });
      location.reload(); // the panes begin anew with the new model
    });
    this.on(".more-picks", "click", () => page.open("pick"));
    project.addEventListener("change", () => this.#show());
    if (project.state) this.#show();
  }

  #show() {
    const { photos, work, runs } = project.state;
    const run = runs.at(-1);
    const training = work.running && work.kind === "train";
    const kept = photos.filter((photo) => photo.kept).length;
    const labelled = photos.filter((photo) => photo.labelled && !photo.kept).length;
    this.$(".lead-line").textContent = `Photos to learn from: ${labelled} with a label, `
      + `${photos.length - labelled - kept} without. Kept for measuring: ${kept}.`;
    this.$("form .primary").disabled = work.running || !labelled;
    this.$(".resume").hidden = work.running || !run || (run.step === run.steps && run.exported);
    this.root.dataset.state = training ? "waiting" : "current";
    this.$("progress").value = work.command === "train" ? (run?.step ?? 0) / (run?.steps ?? 1) : 1;
    this.$(".training-status").textContent = DOING[work.command] ?? progressOf(run, training);
    if (work.kind === "train" && work.error) this.showProblem(work.error);
    this.$(".progress").hidden = !run?.loss.length;
    if (run?.loss.length) this.#showRun(run);
    this.#showRounds(runs.filter(({ evaluation }) => evaluation), training);
    this.$(".log").hidden = !work.log.length || work.kind !== "train";
    this.$(".log pre").textContent = work.log.join("\n");
  }

  #showRun({ name, loss, score, steps, samples }) {
    const most = Math.max(...loss.map(([, value]) => value));
    const point = (top) => ([step, value]) => [(300 * step) / steps, 100 - (96 * value) / top];
    this.$(".loss").setAttribute("points", loss.map(point(most)).join(" "));
    this.$(".score").setAttribute("points", score.map(point(1)).join(" "));
    const measured = score.length ? `; in green, the mean IoU on photos kept for measuring: ${digits(score)} of 1` : "";
    const caption = `The loss up to step ${loss.at(-1)[0]} of ${steps}: ${digits(loss)}, at most ${most.toFixed(3)}`;
    this.$("figcaption").textContent = caption + measured;
    const grid = samples.at(-1);
    this.$(".grid").hidden = !grid;
    if (grid) this.$(".grid img").src = at(`runs/${name}/samples/${grid}`);
  }

  #showRounds(rounds, training) {
    this.$(".outcome").hidden = training || !rounds.length;
    if (!rounds.length) return;
    fill(this.$(".rounds tbody"), rounds, (row, { name, pairs, steps, evaluation }) => {
      const { figures, baselines, samples } = evaluation;
      const iou = figures.mean_iou.toFixed(3) + (figures.seen_in_training ? " (seen in training)" : "");
      const baseline = baselines.commonest_class?.mean_iou?.toFixed(3) ?? "";
      const worst = new Image();
      worst.alt = worst.title = samples.to_label.worst.name;
      worst.src = at(`photos/${worst.alt}`, { side: 240 });
      for (const cell of [name, pairs, steps, iou, baseline]) row.insertCell().append(cell);
      row.insertCell().append(worst, worst.alt);
    });
    const { pixel_accuracy: accuracy, seen_in_training: seen, samples } = rounds.at(-1).evaluation.figures;
    const kept = samples === 1 ? "the one photo" : `the ${samples} photos`;
    const chosen = "kept for measuring, by which its best step was chosen";
    const photos = seen ? "the photos that it learned from" : `${kept} ${chosen}`;
    this.$(".verdict").textContent = `It gets ${Math.round(100 * accuracy)} of 100 pixels right on ${photos}.`;
  }
}

const digits = (points) => points.at(-1)[1].toFixed(3);

function progressOf(run, training) {
  if (!run?.step) return training ? "Starting…" : "";
  const { step, steps, size, recipe, seconds_left: left } = run;
  if (!training) return step < steps ? `Stopped at step ${step} of ${steps}. “Train” starts a new run.` : "";
  const time = left < 90 ? `${Math.ceil(left)} s left` : `about ${Math.round(left / 60)} min left`;
  return `Step ${step} of ${steps} of ${recipe} at ${size.join("x")}${left === null ? "" : `, ${time}`}`;
}
