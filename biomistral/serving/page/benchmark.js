// The benchmark panel: a question, its prompt, and how likely the model holds each choice.

import { get, post } from "./api.js";
import { byId, make, percent, showTrouble } from "./dom.js";

const LETTERS = "ABCDEFGHIJKLM";
const MOST_LISTED = 500;
let model = null;
let listing = null;
let question = null; // as it is shown
let underWay = 0; // actions that wait for the server
let newest = 0; // of the requests under way: answers of older ones come too late
let newestList = 0; // the same for lists of questions

// Ask which tasks there are; false if the server has no questions.
export async function startBenchmark(facts) {
  model = facts;
  try {
    listing = await get("panel/tasks");
  } catch (error) {
    if (error.status === 404) return false;
    throw error;
  }
  fill("task", listing.tasks.map((task) => [task.name, task.title]));
  byId("task").addEventListener("change", () => guarded(pickTask));
  byId("language").addEventListener("change", () => guarded(pickLanguage));
  byId("shots").addEventListener("change", () => guarded(pickQuestion));
  byId("scoring").addEventListener("change", () => guarded(pickQuestion));
  byId("number").addEventListener("change", () => guarded(pickQuestion));
  byId("previous").addEventListener("click", () => guarded(() => move(-1)));
  byId("next").addEventListener("click", () => guarded(() => move(1)));
  byId("pick").addEventListener("submit", (event) => { event.preventDefault(); guarded(weigh); });
  byId("scoring").value = listing.scoring;
  await pickTask();
  return true;
}

// Run what a control asks for; meanwhile nothing is asked of the model.
async function guarded(action) {
  underWay += 1;
  byId("weigh").disabled = true;
  try {
    showTrouble("");
    await action();
  } catch (error) {
    showTrouble(error.message);
  } finally {
    underWay -= 1;
    byId("weigh").disabled = underWay > 0;
  }
}

function fill(id, pairs) {
  const before = byId(id).value;
  byId(id).replaceChildren(
    ...pairs.map(([value, text]) => make("option", { value, textContent: text })));
  if (pairs.some(([value]) => String(value) === before)) byId(id).value = before;
}

async function pickTask() {
  const task = listing.tasks.find((each) => each.name === byId("task").value);
  fill("language", task.languages.map(({ code }) => [code, listing.languages[code].name]));
  const isFirst = byId("shots").options.length === 0;
  fill("shots", [...Array(task.most_shots + 1).keys()].map((n) => [n, n === 0 ? "none" : n]));
  if (isFirst) byId("shots").value = Math.min(listing.shots, task.most_shots);
  await pickLanguage();
}

async function pickLanguage() {
  const query = new URLSearchParams({
    task: byId("task").value, language: byId("language").value, count: MOST_LISTED,
  });
  const mine = ++newestList;
  const found = await get(`panel/questions?${query}`);
  if (mine !== newestList) return;
  byId("number").dir = listing.languages[byId("language").value].direction;
  fill("number", found.questions.map((each) => [each.number, `${each.number}. ${each.text}`]));
  await pickQuestion();
}

async function move(step) {
  const select = byId("number");
  const place = select.selectedIndex + step;
  if (place < 0 || place >= select.options.length) return;
  select.selectedIndex = place;
  await pickQuestion();
}

async function pickQuestion() {
  const mine = ++newest;
  const query = new URLSearchParams({
    task: byId("task").value, language: byId("language").value,
    number: byId("number").value, shots: byId("shots").value, scoring: byId("scoring").value,
  });
  const found = await get(`panel/question?${query}`);
  if (mine !== newest) return;
  question = found;
  const box = byId("question");
  box.dir = question.direction;
  box.lang = question.language;
  byId("context").textContent = question.context;
  byId("stem").textContent = question.stem;
  byId("verdict").textContent = "";
  byId("calibration").textContent = "";
  showChoices(null);
  byId("prompt").replaceChildren(question.prompt,
    make("span", { className: "cursor", textContent: "?", title: "Here the model goes on" }));
  byId("prompt-box").hidden = box.hidden = false;
  byId("previous").disabled = byId("number").selectedIndex <= 0;
  byId("next").disabled = byId("number").selectedIndex >= byId("number").options.length - 1;
}

async function weigh() {
  if (!question) return;
  const mine = ++newest;
  const asked = question;
  byId("verdict").textContent = "The model reads…";
  try {
    const reply = await post("v1/choices", {
      model: model.id, prompt: asked.prompt, options: asked.options, scoring: asked.scoring,
      language: asked.language, task: asked.task, group: asked.group, shots: asked.shots,
    });
    if (mine !== newest) return;
    showChoices(reply);
    const right = reply.answer === asked.gold;
    const letter = (index) => LETTERS[index];
    byId("verdict").textContent = right
      ? `Right: ${letter(reply.answer)}, with ${percent(reply.confidence)}.`
      : `Wrong: ${letter(reply.answer)}, with ${percent(reply.confidence)}; right is ${letter(asked.gold)}.`;
    byId("calibration").textContent = explain(reply);
  } catch (error) {
    byId("verdict").textContent = "";
    throw error;
  }
}

function showChoices(reply) {
  byId("choices").replaceChildren(...question.choices.map((text, index) => {
    const item = make("li", { className: "choice" },
      make("span", { className: "letter", textContent: LETTERS[index] }),
      make("span", { className: "text", textContent: text, dir: "auto" }));
    if (!reply) return item;
    const { probability: raw, calibrated_probability: calibrated } = reply.choices[index];
    const shown = calibrated ?? raw;
    const bar = make("span", { className: "bar", "aria-hidden": "true" }, make("i"),
      calibrated === null ? null : make("b"));
    bar.style.setProperty("--share", `${100 * shown}%`);
    bar.style.setProperty("--raw", `${100 * raw}%`);
    const notes = make("span", { className: "notes" },
      index === question.gold ? note("✓ Right answer", "gold") : null,
      index === reply.answer ? note("Answer of the model") : null,
      calibrated === null ? null : note(`uncalibrated ${percent(raw)}`));
    if (index === question.gold) item.classList.add("right");
    item.append(make("span", { className: "number", textContent: percent(shown), dir: "ltr" }), bar, notes);
    return item;
  }));
}

// A remark in English, whatever the language of the question around it.
const note = (text, className = "") =>
  make("span", { className, textContent: text, lang: "en", dir: "ltr" });

function explain(reply) {
  const fit = reply.calibration;
  if (!fit) return `Bars: probability among the choices (${reply.note ?? "not calibrated"}).`;
  const how = fit.method === "temperature"
    ? `temperature ${fit.temperature.toFixed(2)}`
    : `Platt scaling, slope ${fit.slope.toFixed(2)} and intercept ${fit.intercept.toFixed(2)}`;
  const on = `fitted on ${fit.num_answers} answers to ${fit.fitted_on} questions `
    + `(${fit.group}, ${fit.language}, ${fit.scoring}, ${fit.shots} examples)`;
  return `Bars: calibrated probability (${how}, ${on}); the line in a bar is the probability before.`;
}
