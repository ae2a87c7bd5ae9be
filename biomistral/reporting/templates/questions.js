"use strict";
// Filters, counts and shows the questions. The data are scripts beside the page that call
// biomistral.index (at once) and biomistral.part (when a question of a part is to be shown).
const ABSENT = 255, NO_ANSWER = 254, PAGE_SIZE = 20, KEPT_PARTS = 128, LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const form = document.getElementById("filters");
const field = (name) => form.elements.namedItem(name);
const parts = new Map(); // number -> promise of its rows; the oldest are dropped
const waiting = new Map(); // number -> function that keeps its promise
let data, matches = [], page = 0, turn = 0;

// ---- data ----------------------------------------------------------------------------------------

const unpacked = (packed, length) => {
  if (packed.all !== undefined) return new Uint16Array(length).fill(packed.all);
  const text = atob(packed.base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  if (packed.width === 1) return bytes;
  const view = new DataView(bytes.buffer); // little-endian, whatever the machine
  return Uint16Array.from({ length }, (_, i) => view.getUint16(2 * i, true));
};

const lost = (path) => {
  document.getElementById("summary").textContent =
    `${path} cannot be read: keep the folder "questions" beside this page.`;
};

const loadPart = (number) => {
  if (!parts.has(number)) {
    parts.set(number, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      waiting.set(number, resolve);
      script.src = `questions/${number}.js`;
      script.onload = () => script.remove();
      script.onerror = () => { parts.delete(number); reject(new Error(script.getAttribute("src"))); };
      document.head.append(script);
    }));
    if (parts.size > KEPT_PARTS) parts.delete(parts.keys().next().value);
  }
  return parts.get(number);
};

const rowOf = async (row) => (await loadPart(Math.floor(row / data.partRows)))[row % data.partRows];

const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

// ---- filters -------------------------------------------------------------------------------------

const settingName = (track) => `${track.scoring} scoring, ${track.shots}-shot`;
const tracksAsked = () => data.tracks.filter((track) => settingName(track) === field("setting").value);
const trackNamed = (name) => tracksAsked().find((track) => track.model === name);

const outcome = {
  "": () => true,
  right: (track, row) => track.right[row] === track.asked[row],
  wrong: (track, row) => track.right[row] === 0,
  mixed: (track, row) => track.right[row] > 0 && track.right[row] < track.asked[row],
};
const isRight = (track, row) => track.choice[row] === data.gold[row];
const pairs = {
  "": () => true,
  differ: (a, b, row) => a.choice[row] !== b.choice[row],
  first: (a, b, row) => isRight(a, row) && !isRight(b, row),
  second: (a, b, row) => !isRight(a, row) && isRight(b, row),
  neither: (a, b, row) => !isRight(a, row) && !isRight(b, row),
};

// A task is chosen by its place, a group of tasks by its name.
const GROUP = "group:";
const isOfTask = (row, task) =>
  task === "" || (task.startsWith(GROUP) ? data.tasks[data.task[row]].group === task.slice(GROUP.length) : data.task[row] === Number(task));

// The rows that pass all filters but the words, in order.
const filtered = (track, other) => {
  const task = field("task").value, language = field("language").value;
  const [from, to] = [field("from"), field("to")].map((input) => Number(input.value));
  const wanted = outcome[field("answer").value], both = pairs[field("pair").value];
  const found = [];
  for (let row = 0; row < data.rows; row++) {
    if (!isOfTask(row, task)) continue;
    if (language !== "" && data.language[row] !== Number(language)) continue;
    if (track.choice[row] === ABSENT || track.sure[row] < from || track.sure[row] > to) continue;
    if (!wanted(track, row)) continue;
    if (other && (other.choice[row] === ABSENT || !both(track, other, row))) continue;
    found.push(row);
  }
  return inOrder(found, track);
};

const inOrder = (rows, track) => {
  const order = field("order").value;
  if (order === "sure") return rows.sort((a, b) => track.sure[b] - track.sure[a] || a - b);
  if (order === "unsure") return rows.sort((a, b) => track.sure[a] - track.sure[b] || a - b);
  if (order !== "hard") return rows;
  const asked = tracksAsked(), share = new Float64Array(data.rows);
  for (const row of rows) {
    const own = asked.filter((each) => each.choice[row] !== ABSENT);
    share[row] = own.filter((each) => isRight(each, row)).length / own.length;
  }
  return rows.sort((a, b) => share[a] - share[b] || a - b);
};

// Rows whose texts hold all words; reads the texts as it goes and shows what it has found so far.
const searched = async (rows, words, mine) => {
  const found = [], seen = new Set();
  for (const row of rows) {
    const part = Math.floor(row / data.partRows);
    if (!seen.has(part)) {
      seen.add(part);
      if (seen.size % 16 === 0) say(`Searching: ${found.length.toLocaleString("en")} found so far …`);
    }
    const { id, stem = "", choices = [], context = "" } = await rowOf(row);
    if (mine !== turn) return found;
    const text = plain([id, stem, ...choices, context].join(" "));
    if (words.every((word) => text.includes(word))) found.push(row);
  }
  return found;
};

// ---- showing -------------------------------------------------------------------------------------

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const say = (text) => { document.getElementById("summary").textContent = text; };
const percent = (fraction) => (Number.isFinite(fraction) ? `${(100 * fraction).toFixed(1)} %` : "–");

// Mean over the tables' groups is not taken here: this is the accuracy on the questions that are shown.
const accuracy = (track, rows) => {
  let sum = 0, count = 0;
  for (const row of rows) {
    if (track.choice[row] === ABSENT) continue;
    sum += track.right[row] / track.asked[row];
    count += 1;
  }
  return sum / count;
};

const histogram = (track, rows) => {
  const right = new Float64Array(10), wrong = new Float64Array(10);
  for (const row of rows) {
    const bin = Math.min(9, Math.floor(track.sure[row] / 10));
    (isRight(track, row) ? right : wrong)[bin] += 1;
  }
  const most = Math.max(1, ...right.map((count, bin) => count + wrong[bin]));
  const bars = element("div", { class: "bins", "aria-hidden": "true" });
  const words = [];
  for (let bin = 0; bin < 10; bin++) {
    const text = `${10 * bin} to ${bin === 9 ? 100 : 10 * bin + 9} %: ${right[bin]} right, ${wrong[bin]} wrong`;
    words.push(text);
    bars.append(element("div", { title: text },
      ...[right, wrong].map((counts) => element("i", { style: `height:${(100 * counts[bin]) / most}%` }))));
  }
  const ticks = element("div", { class: "ticks", "aria-hidden": "true" }, ...["0", "50", "100 %"].map((t) => element("span", {}, t)));
  const key = element("p", { class: "key", "aria-hidden": "true" }, element("i"), "right", element("i"), "wrong");
  key.children[1].before(" ");
  return element("figure", { role: "img", "aria-label": `Confidence of ${track.model}. ${words.join("; ")}` },
    element("figcaption", {}, element("b", {}, `Confidence of ${track.model}`)), bars, ticks, key);
};

const breakdown = (track, other, rows) => {
  const byTask = field("task").value === "" || field("task").value.startsWith(GROUP);
  if (!byTask && field("language").value !== "") return null;
  const groups = new Map();
  for (const row of rows) {
    const place = byTask ? data.task[row] : data.language[row];
    if (!groups.has(place)) groups.set(place, []);
    groups.get(place).push(row);
  }
  const shown = [track, ...(other ? [other] : [])];
  const head = [byTask ? "Task" : "Language", "Questions", ...shown.map((each) => each.model)];
  const body = [...groups].sort((a, b) => a[0] - b[0]).map(([place, own]) => element("tr", {},
    element("th", { scope: "row" }, byTask ? data.tasks[place].title : data.languages[place].name),
    ...[own.length.toLocaleString("en"), ...shown.map((each) => percent(accuracy(each, own)))]
      .map((text) => element("td", { class: "number" }, text))));
  const title = `Right among these, by ${byTask ? "task" : "language"}`;
  return element("figure", {}, element("figcaption", {}, element("b", {}, title)),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
      element("table", {}, element("thead", {}, element("tr", {}, ...head.map((text, i) =>
        element("th", { scope: "col", ...(i ? { class: "number" } : {}) }, text)))), element("tbody", {}, ...body))));
};

const summary = (track, other, rows) => {
  const count = `${rows.length.toLocaleString("en")} question${rows.length === 1 ? "" : "s"}`;
  const words = [track, ...(other ? [other] : [])].map((each) => `${each.model} ${percent(accuracy(each, rows))} right`);
  say(rows.length ? `${count}; ${words.join(", ")}` : "No question passes all filters.");
  const figures = rows.length ? [histogram(track, rows), breakdown(track, other, rows)].filter(Boolean) : [];
  document.getElementById("aggregates").replaceChildren(...figures);
};

const answerRow = (track, row, thousandths, count) => {
  const picked = [field("model").value, field("other").value].includes(track.model);
  const line = element("tr", picked ? { class: "picked" } : {}, element("th", { scope: "row" }, track.model));
  for (let choice = 0; choice < count; choice++) {
    const share = thousandths ? thousandths[choice] / 10 : 0;
    const text = thousandths ? `${share.toFixed(0)} %` : "–";
    const gold = choice === data.gold[row] ? " gold" : "";
    line.append(element("td", { class: `number${gold}`, style: `--share:${share}%` },
      choice === track.choice[row] ? element("strong", {}, text) : text));
  }
  const right = track.right[row], asked = track.asked[row];
  const verdict = track.choice[row] === NO_ANSWER ? "no answer" : right === asked ? "right" : right ? `right with ${right} of ${asked} seeds` : "wrong";
  line.append(element("td", { class: `verdict${right ? " right" : ""}` }, verdict));
  return line;
};

const choiceItem = (row, choices, index) => {
  const text = choices ? choices[index] : "";
  const item = element("li", index === data.gold[row] ? { class: "gold" } : {},
    element("b", {}, LETTERS[index]), " ", element("span", { dir: "auto" }, text));
  if (index === data.gold[row]) item.append(" ", element("i", { lang: "en" }, "correct"));
  return item;
};

const article = (row, question) => {
  const task = data.tasks[data.task[row]], language = data.languages[data.language[row]];
  const text = element("div", { lang: language.code, dir: language.direction });
  if (question.context) {
    text.append(element("details", {}, element("summary", { dir: "ltr", lang: "en" }, "Passage to read first"), element("p", {}, question.context)));
  }
  if (question.stem === undefined) {
    text.append(element("p", { lang: "en", dir: "ltr" }, `The text is not shown here: its licence (${task.licence || "none is named"}) may not allow passing it on.`));
  } else {
    text.append(element("p", { class: "stem" }, question.stem));
  }
  text.append(element("ol", { class: "choices" }, ...Array.from({ length: question.n }, (_, i) => choiceItem(row, question.choices, i))));
  const letters = Array.from({ length: question.n }, (_, i) => element("th", { scope: "col", ...(i === data.gold[row] ? { class: "gold" } : {}) }, LETTERS[i]));
  const lines = tracksAsked().filter((track) => track.choice[row] !== ABSENT)
    .map((track) => answerRow(track, row, question.p[data.tracks.indexOf(track)], question.n));
  const table = element("table", { class: "answers" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Model"), ...letters, element("th", { scope: "col" }, "Answer"))),
    element("tbody", {}, ...lines));
  return element("article", { class: "sample" },
    element("header", {}, `${task.title}, ${language.name}, `, element("code", {}, question.id)), text,
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Answers to this question" }, table));
};

const showPage = async (mine) => {
  const last = Math.max(0, Math.ceil(matches.length / PAGE_SIZE) - 1);
  page = Math.min(Math.max(page, 0), last);
  const rows = matches.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  const questions = await Promise.all(rows.map(rowOf));
  if (mine !== turn) return;
  document.getElementById("questions").replaceChildren(...rows.map((row, i) => article(row, questions[i])));
  for (const bar of document.querySelectorAll(".pages")) {
    bar.hidden = matches.length <= PAGE_SIZE;
    bar.querySelector("span").textContent = `page ${(page + 1).toLocaleString("en")} of ${(last + 1).toLocaleString("en")}`;
    bar.querySelector("[data-step='-1']").disabled = page === 0;
    bar.querySelector("[data-step='1']").disabled = page === last;
  }
};

// A change while something is read makes what is under way stop: only the newest turn is shown.
const update = async () => {
  const mine = ++turn;
  const track = trackNamed(field("model").value), other = trackNamed(field("other").value);
  const words = plain(field("words").value).split(/\s+/).filter(Boolean);
  try {
    const rows = filtered(track, other);
    const found = words.length ? await searched(rows, words, mine) : rows;
    if (mine !== turn) return;
    matches = found;
    summary(track, other, matches);
    await showPage(mine);
  } catch (error) {
    lost(error.message);
  }
  if (mine === turn) document.documentElement.dataset.ready = String(performance.now());
};

// ---- the form and the address ----------------------------------------------------------------------

const NAMES = ["language", "task", "words", "setting", "model", "answer", "from", "to", "other", "pair", "order"];
const PLAIN = { from: "0", to: "100" };

const options = (name, pairs) => {
  const old = field(name).value;
  field(name).replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
  if (pairs.some(([value]) => value === old)) field(name).value = old;
};

const offerModels = () => {
  const models = tracksAsked().map((track) => [track.model, track.model]);
  options("model", models);
  options("other", [["", "none"], ...models]);
};

const remember = () => {
  const kept = NAMES.map((name) => [name, field(name).value]).filter(([name, value]) => value !== (PLAIN[name] ?? ""));
  if (page) kept.push(["page", String(page + 1)]);
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
};

// Tasks and languages may be named in an address, as links from the report do.
const recall = () => {
  const given = new URLSearchParams(location.hash.slice(1));
  const place = (list, key, value) => {
    const found = list.findIndex((each) => each[key] === value);
    return found < 0 ? value : String(found);
  };
  const read = { task: (v) => place(data.tasks, "name", v), language: (v) => place(data.languages, "code", v) };
  if (given.has("setting")) field("setting").value = given.get("setting");
  if (!field("setting").value) field("setting").selectedIndex = 0;
  offerModels();
  for (const name of NAMES.filter((each) => given.has(each))) {
    field(name).value = read[name] ? read[name](given.get(name)) : given.get(name);
    if (field(name).selectedIndex === -1) field(name).selectedIndex = 0;
  }
  page = Math.max(0, (Number(given.get("page")) || 1) - 1);
};

const start = (value) => {
  data = value;
  for (const name of ["task", "language", "gold"]) data[name] = unpacked(data[name], data.rows);
  for (const track of data.tracks) {
    for (const name of ["choice", "sure", "right", "asked"]) track[name] = unpacked(track[name], data.rows);
  }
  const used = (column) => new Set(column);
  const [tasks, languages] = [used(data.task), used(data.language)];
  const groups = [...new Set(data.tasks.filter((_, i) => tasks.has(i)).map((task) => task.group))];
  const grouped = groups.length > 1 ? groups.map((group) => [GROUP + group, `all ${group}`]) : [];
  options("task", [["", "all"], ...grouped, ...data.tasks.map((task, i) => [String(i), task.title]).filter((_, i) => tasks.has(i))]);
  options("language", [["", "all"], ...data.languages.map((each, i) => [String(i), each.name]).filter((_, i) => languages.has(i))]);
  options("setting", [...new Set(data.tracks.map(settingName))].map((name) => [name, name]));
  form.hidden = false;
  recall();
  update();
};

let pause;
const changed = ({ target }) => {
  if (target.name === "setting") offerModels();
  page = 0;
  clearTimeout(pause);
  pause = setTimeout(() => { update(); remember(); }, target.type === "search" ? 250 : 0);
};
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", changed);
form.addEventListener("reset", (event) => setTimeout(() => { offerModels(); changed(event); }));
window.addEventListener("hashchange", () => {
  form.reset(); // whose own answer comes in a moment and goes to the first page: read the address behind it
  setTimeout(() => { clearTimeout(pause); recall(); update(); });
});
for (const bar of document.querySelectorAll(".pages")) {
  bar.addEventListener("click", async ({ target }) => {
    if (!target.dataset.step) return;
    page += Number(target.dataset.step);
    remember();
    await showPage(turn);
    document.getElementById("questions").scrollIntoView();
  });
}
globalThis.biomistral = { index: start, part: (number, rows) => { waiting.get(number)?.(rows); waiting.delete(number); }, lost };
