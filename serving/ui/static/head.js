// The head of the page: the choice of model, light and dark, and the model in plain words.

import { API, ask, fillPicker, page, tell } from "./page.js";

const TABS = ["pick", "label", "train", "read", "paint"];

export async function mount(root) {
  const picker = root.querySelector(".model");
  const theme = root.querySelector(".theme");
  const dark = (on) => {
    document.body.classList.toggle("dark", on);
    theme.setAttribute("aria-pressed", on);
  };
  dark(localStorage.theme ? localStorage.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  theme.addEventListener("click", () => {
    dark(!document.body.classList.contains("dark"));
    localStorage.theme = document.body.classList.contains("dark") ? "dark" : "light";
  });
  if (page.studio) root.querySelector(".lead").textContent = "Label a few of your photos, train, and see your own model at work.";
  try {
    await page.ready;
  } catch (problem) {
    tell(root, problem);
    return;
  }
  const show = () => {
    const models = page.of(page.direction);
    picker.parentElement.hidden = !models.length;
    fillPicker(picker, models, { chosen: page.chosen[page.direction] });
    showCard(root.querySelector(".card"), page.model(page.direction));
  };
  picker.addEventListener("change", () => page.choose(page.direction, picker.value));
  for (const name of ["to_photo", "to_label", "tab"]) page.addEventListener(name, show);
  for (const tab of TABS) {
    document.getElementById(`tab-${tab}-button`)?.addEventListener("click", () => {
      if (page.tab !== tab) page.remember({ tab }, { step: true });
      page.dispatchEvent(new CustomEvent("tab"));
    });
  }
  addEventListener("popstate", () => {
    page.state = new URLSearchParams(location.hash.slice(1));
    page.open(page.tab);
  });
  page.open(page.tab);
}

/** A model in plain words: what it was learned from, and how often it is right. */
async function showCard(line, model) {
  line.textContent = "";
  if (!model) return;
  const { training, metrics, description } = await (await ask(new URL(`models/${model.name}`, API))).json();
  if (page.chosen[page.direction] !== model.name) return;
  const measured = Object.entries(metrics).find(([split, figures]) => split !== "train" && page.direction === "to_label" && figures.pixel_accuracy)?.[1];
  const taught = training.pairs ? `Learned from only ${training.pairs} labelled photos.` : "";
  const right = measured ? `It gets ${Math.round(100 * measured.pixel_accuracy)} of 100 pixels right on photos it never saw.` : "";
  const detail = Object.assign(document.createElement("details"), { innerHTML: "<summary>About this model</summary><p></p>" });
  detail.lastChild.textContent = [description, training.terms && `Data: ${training.terms}.`].filter(Boolean).join(" ");
  if (training.terms.startsWith("synthetic")) { // the one kind of photos that models carry with them
    detail.append(Object.assign(new Image(), { src: new URL(`models/${model.name}/pairs`, API), className: "taught", alt: "The labelled photos and their maps" }));
    detail.firstChild.textContent = "See them, and more about this model";
  }
  line.replaceChildren(Object.assign(document.createElement("strong"), { textContent: taught }), ` ${right} `, detail);
}
