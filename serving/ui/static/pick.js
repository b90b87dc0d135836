// The pane "Pick": how many photos can be labelled, which ones they are, and how they lie among all photos.

import { ask, page, tell } from "./page.js";
import { at, progress, project, thumbnail } from "./project.js";

const SVG = "http://www.w3.org/2000/svg";

export async function mount(root) {
  const $ = (selector) => root.querySelector(selector);
  let drawn = null; // the picks on the map
  $("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    tell(root, null);
    await project.send("POST", "picks", { count: Number($(".count").value) }).catch((problem) => tell(root, problem));
  });

  const show = async () => {
    const { photos, folder, picks, work } = project.state;
    const labelled = photos.filter((photo) => photo.labelled).length;
    $(".lead-line").textContent = `${photos.length} photos in ${folder}, ${labelled} of them labelled. `
      + (labelled ? "More picks are of scenes of which no photo is labelled yet." : "The picks cover as many different scenes as possible.");
    const picking = work.running && work.kind === "pick";
    $("form button").disabled = work.running;
    $("form button").textContent = labelled ? "Pick more" : picks ? "Pick again" : "Pick them";
    $(".question").textContent = `How many ${labelled ? "more " : ""}photos can you label?`;
    $(".busy").hidden = !picking;
    $(".busy").textContent = "Comparing the photos…";
    if (work.kind === "pick" && work.error) tell(root, new Error(work.error));
    root.dataset.state = picking ? "waiting" : "current";
    $(".picked").hidden = !picks;
    if (!picks || picking) return;
    $(".thumbs").replaceChildren(...picks.photos.map(({ name, represents }, rank) => {
      const stands = represents ? `stands for ${represents} of ${photos.length}` : "";
      return thumbnail(name, `${rank + 1}. ${[stands, progress(project.photo(name).labelled)].filter(Boolean).join(", ")}`, () => {
        page.remember({ photo: name });
        page.open("label");
      });
    }));
    if (drawn === picks.file) return;
    drawn = picks.file;
    const { points, near } = await (await ask(at("map"))).json();
    $(".plane").hidden = !points.length;
    $(".plane svg").replaceChildren(...points.map(dot), ...picks.photos.flatMap(({ name }, rank) => numbered(points, name, rank + 1)));
    $(".plane figcaption").textContent = "Every dot is a photo; similar photos are close to each other, and the picks are numbered. "
      + (near.length ? `${near.length} photos look nearly the same as a pick and need no label of their own.` : "");
  };
  project.addEventListener("change", () => show().catch((problem) => tell(root, problem)));
  await project.refresh().catch((problem) => tell(root, problem));
}

function dot({ name, x, y }) {
  const circle = document.createElementNS(SVG, "circle");
  for (const [key, value] of Object.entries({ cx: 100 * x, cy: 70 * y, r: 1.1 })) circle.setAttribute(key, value);
  circle.append(Object.assign(document.createElementNS(SVG, "title"), { textContent: name }));
  return circle;
}

function numbered(points, name, rank) {
  const point = points.find((each) => each.name === name);
  if (!point) return [];
  const group = document.createElementNS(SVG, "g");
  group.setAttribute("transform", `translate(${100 * point.x} ${70 * point.y})`);
  group.innerHTML = `<circle r="2.8"></circle><text dy="1.1">${rank}</text>`;
  return [group];
}
