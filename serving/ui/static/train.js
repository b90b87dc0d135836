// The pane "Train": start, stop and continue training, watch it, and compare the rounds.

import { page, tell } from "./page.js";
import { at, project } from "./project.js";

const DOING = { train: "Training", evaluate: "Measuring", export: "Exporting the model" };

export async function mount(root) {
  const $ = (selector) => root.querySelector(selector);
  const act = async (path, body) => {
    tell(root, null);
    await project.send("POST", path, body).catch((problem) => tell(root, problem));
  };
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    act("train", { steps: Number($(".steps").value) });
  });
  $(".stop").addEventListener("click", () => act("stop"));
  $(".resume").addEventListener("click", () => act("resume"));
  $(".try").addEventListener("click", () => {
    page.remember({ tab: "read" });
    location.reload(); // the panes begin anew with the new model
  });
  $(".more-picks").addEventListener("click", () => page.open("pick"));

  const show = () => {
    const { photos, work, runs } = project.state;
    const labelled = project.teaching;
    const training = work.running && work.kind === "train";
    const run = runs.at(-1);
    const kept = photos.filter((photo) => photo.kept).length;
    const others = photos.length - labelled - kept;
    $(".lead-line").textContent = labelled
      ? `The model learns from ${count(labelled, "labelled photo")} and from ${others} without a label; `
        + (kept ? `${count(kept, "photo")} more will show how good it is.` : "none is kept for measuring yet.")
      : "Label a photo first.";
    $("form .primary").disabled = work.running || !labelled;
    $(".stop").hidden = !training;
    $(".resume").hidden = work.running || !run || (run.step === run.steps && run.exported);
    $(".running").hidden = !training;
    root.dataset.state = training ? "waiting" : "current";
    if (training) {
      $("progress").value = run && work.command === "train" ? run.step / run.steps : work.command === "train" ? 0 : 1;
      $(".pace").textContent = pace(work, run);
    }
    if (work.kind === "train" && work.error) tell(root, new Error(work.error));
    $(".progress").hidden = !run?.loss.length;
    if (run?.loss.length) draw(run);
    const measured = runs.filter(({ evaluation }) => evaluation);
    $(".outcome").hidden = training || !measured.length;
    $(".rounds tbody").replaceChildren(...measured.map(round));
    $(".verdict").textContent = measured.length ? verdict(measured) : "";
    $(".log").hidden = !work.log.length || work.kind !== "train";
    $(".log pre").textContent = work.log.join("\n");
  };

  const draw = ({ name, loss, score, steps, samples }) => {
    const most = Math.max(...loss.map(([, value]) => value));
    const line = (points, top) => points.map(([step, value]) => `${(300 * step) / steps},${100 - (96 * value) / top}`).join(" ");
    $(".loss").setAttribute("points", line(loss, most));
    $(".score").setAttribute("points", line(score, 1));
    const reached = score.length ? ` Mean IoU on photos kept for measuring: ${score.at(-1)[1].toFixed(2)} (green, 0 to 1).` : "";
    $(".curve figcaption").textContent = `Loss over the steps: ${loss.at(-1)[1].toFixed(2)} now.${reached}`;
    const grid = samples.at(-1);
    $(".grid").hidden = !grid;
    if (grid) $(".grid img").src = at(`runs/${name}/samples/${grid}`);
  };

  project.addEventListener("change", show);
  if (project.state) show();
  project.addEventListener("done", () => page.load().catch((problem) => tell(root, problem)));
}

const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function pace({ command }, run) {
  if (command !== "train") return `${DOING[command]}…`;
  if (!run?.step) return "Starting…";
  const left = run.seconds_left;
  const time = left === null ? "" : left < 90 ? `, ${Math.ceil(left)} s left` : `, about ${Math.round(left / 60)} min left`;
  return `Step ${run.step} of ${run.steps} at ${run.size.join("x")}${time}`;
}

function round({ name, pairs, steps, evaluation }) {
  const { figures, baselines, samples } = evaluation;
  const row = document.createElement("tr");
  const seen = figures.seen_in_training ? " (seen in training)" : "";
  const cells = [name, pairs, steps, figures.mean_iou.toFixed(3) + seen, baselines.commonest_class?.mean_iou?.toFixed(3) ?? "", samples.to_label.worst.name];
  row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return row;
}

function verdict(measured) {
  const [former, last] = measured.slice(-2).length === 2 ? measured.slice(-2) : [null, measured.at(-1)];
  const right = Math.round(100 * last.evaluation.figures.pixel_accuracy);
  const seen = last.evaluation.figures.seen_in_training;
  const where = seen ? "on the photos that it learned from, which says little about others" : "on photos that it never saw";
  const change = former ? ` Mean IoU was ${former.evaluation.figures.mean_iou.toFixed(3)} in the round before.` : "";
  return `It gets ${right} of 100 pixels right ${where}.${change}`;
}
