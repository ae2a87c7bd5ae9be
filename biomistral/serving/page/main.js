// Start: what model is here, what it can do, and which of the two views is shown.

import { get } from "./api.js";
import { startBenchmark } from "./benchmark.js";
import { startChat } from "./chat.js";
import { byId, make, showTrouble } from "./dom.js";

function showFacts(model) {
  document.title = `${model.id} · biomistral`;
  byId("model-name").textContent = model.id;
  const millions = model.parameters / 1e6;
  const facts = {
    Size: millions >= 1000 ? `${(millions / 1000).toFixed(1)} billion` : `${millions.toFixed(1)} million`,
    Precision: model.quantization ? `${model.quantization}, ${model.precision}` : model.precision,
    Context: `${model.max_model_len.toLocaleString("en")} tokens`,
    Device: model.device,
    Calibration: model.calibration ? "yes" : "none",
  };
  byId("model-facts").replaceChildren(...Object.entries(facts).map(([name, value]) =>
    make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }))));
}

function showView(name) {
  for (const each of ["chat", "benchmark"]) {
    const tab = byId(`tab-${each}`);
    tab.setAttribute("aria-selected", each === name);
    tab.tabIndex = each === name ? 0 : -1;
    byId(each).hidden = each !== name;
  }
  showTrouble("");
  if (location.hash !== `#${name}`) history.replaceState(null, "", `#${name}`);
}

function startTabs() {
  const tabs = ["chat", "benchmark"].map((name) => byId(`tab-${name}`));
  for (const tab of tabs) {
    tab.addEventListener("click", () => showView(tab.getAttribute("aria-controls")));
    tab.addEventListener("keydown", (event) => {
      const shown = tabs.filter((each) => !each.hidden);
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      const next = shown[(shown.indexOf(tab) + step + shown.length) % shown.length];
      showView(next.getAttribute("aria-controls"));
      next.focus();
    });
  }
}

try {
  const wanted = location.hash.slice(1);
  startTabs();
  const model = (await get("v1/models")).data[0];
  showFacts(model);
  startChat(model);
  const hasQuestions = await startBenchmark(model);
  byId("tab-benchmark").hidden = !hasQuestions;
  showView(hasQuestions && wanted === "benchmark" ? "benchmark" : "chat");
  if (byId("chat").hidden === false && matchMedia("(min-width: 45rem)").matches) byId("text").focus();
  document.documentElement.dataset.ready = "yes";
} catch (error) {
  showTrouble(error.message);
}
