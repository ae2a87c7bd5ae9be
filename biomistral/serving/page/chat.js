// The conversation: what was said, what is being said, and the button that stops it.

import { stream } from "./api.js";
import { byId, make } from "./dom.js";

const said = []; // messages as the server wants them
let model = null;
let running = null; // AbortController of the answer that is being given

export function startChat(facts) {
  model = facts;
  byId("system-field").hidden = !model.chat;
  byId("text-label").textContent = model.chat ? "Message" : "Text to continue";
  byId("text").placeholder = model.chat ? "Write a message" : "Write the beginning of a text";
  byId("empty").textContent = model.chat
    ? "Ask something. Answers can be wrong, and wrong with confidence."
    : "This model has no chat template: it continues the text that it is given.";
  const longest = Math.max(1, Math.floor(model.max_model_len / 2));
  const field = byId("settings-form").elements.max_tokens;
  field.max = model.max_model_len - 1;
  if (Number(field.value) > longest) field.value = longest;
  byId("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  byId("stop").addEventListener("click", stop);
  byId("clear").addEventListener("click", clear);
  byId("settings-form").addEventListener("input", showSettings);
  byId("settings-form").addEventListener("submit", (event) => event.preventDefault());
  byId("text").addEventListener("keydown", (event) => {
    // An Enter that ends the choice of a character (Chinese, Arabic keyboards) is none that sends.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!running) byId("ask").requestSubmit();
    }
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") stop(); });
  showSettings();
}

function settings() {
  const fields = byId("settings-form").elements;
  const number = (name) => (fields[name].value === "" ? null : Number(fields[name].value));
  const found = {
    model: model.id, stream: true, stream_options: { include_usage: true },
    temperature: number("temperature"), top_p: number("top_p"), max_tokens: number("max_tokens"),
  };
  if (number("seed") !== null) found.seed = number("seed");
  return found;
}

function showSettings() {
  const fields = byId("settings-form").elements;
  const parts = [`temperature ${fields.temperature.value}`, `top p ${fields.top_p.value}`,
    `up to ${fields.max_tokens.value} tokens`];
  if (fields.seed.value !== "") parts.push(`seed ${fields.seed.value}`);
  if (model.chat && fields.system.value.trim()) parts.push("with an instruction");
  byId("settings-shown").textContent = parts.join(", ");
}

async function ask() {
  const text = byId("text").value;
  if (running || !text.trim()) return;
  if (!byId("settings-form").checkValidity()) {
    byId("settings").open = true;
    byId("settings-form").reportValidity();
    return;
  }
  byId("text").value = "";
  byId("empty").hidden = true;
  const system = byId("settings-form").elements.system.value.trim();
  if (!model.chat) {
    const prompt = { ...settings(), prompt: text };
    await receive(() => stream("v1/completions", prompt, running.signal), show("assistant", "", text));
    return;
  }
  said.push({ role: "user", content: text });
  show("user", text);
  const before = system ? [{ role: "system", content: system }] : [];
  const answer = show("assistant", "");
  const whole = await receive(() => conversation(settings(), before, answer), answer);
  // What was not answered is not part of the conversation: the next message would follow it.
  if (whole) said.push({ role: "assistant", content: whole });
  else said.pop();
}

// The events of an answer; where all that was said no longer fits, its beginning is left out.
async function* conversation(request, before, answer) {
  for (let numLeftOut = 0; ; numLeftOut += 2) {
    const messages = [...before, ...said.slice(numLeftOut)];
    try {
      for await (const event of stream("v1/chat/completions", { ...request, messages }, running.signal)) {
        said.splice(0, numLeftOut);
        numLeftOut = 0;
        yield event;
      }
      return;
    } catch (error) {
      if (error.code !== "context_length_exceeded" || said.length - numLeftOut < 3) throw error;
      const note = `The first ${numLeftOut + 2} messages no longer fit into the context and are left out.`;
      atEnd(() => {
        answer.note.textContent = note;
        answer.note.hidden = false;
      });
    }
  }
}

// Show an answer as its events come; return all of it.
async function receive(events, answer) {
  running = new AbortController();
  setBusy(true);
  answer.item.classList.add("busy");
  let text = "", first = null, used = null, finish = null;
  try {
    for await (const event of events()) {
      used = event.usage ?? used;
      const choice = event.choices[0];
      if (!choice) continue;
      first ??= performance.now();
      const part = choice.delta?.content ?? choice.text ?? "";
      finish = choice.finish_reason ?? finish;
      // Answers in a chat often begin with the blank that parts them from the template.
      const shown = text || !model.chat ? part : part.trimStart();
      text += shown;
      append(answer.said, shown);
    }
  } catch (error) {
    if (error.name === "AbortError") finish = "stopped";
    else atEnd(() => fault(answer.item, error));
  } finally {
    running = null;
    setBusy(false);
    answer.item.classList.remove("busy");
  }
  atEnd(() => cost(answer.item, { first, used, finish }));
  byId("status").textContent = finish === "stopped" ? "Answer stopped." : `Answer: ${text}`;
  byId("text").focus();
  return text;
}

function show(role, text, given = "") {
  const line = make("p", { className: "said", dir: "auto" });
  if (given) line.append(make("span", { className: "given", textContent: given }));
  line.append(text);
  const note = make("p", { className: "left-out", hidden: true });
  const who = { user: "You", assistant: model.id }[role];
  const item = make("li", { className: `message ${role}` },
    make("p", { className: "who", textContent: who }), note, line);
  const list = byId("messages");
  list.append(item);
  list.scrollTop = list.scrollHeight;
  return { item, note, said: line };
}

function append(line, text) {
  atEnd(() => {
    line.append(text);
    line.normalize();
  });
}

// Change the conversation, and stay at its end; whoever scrolled up reads there.
function atEnd(change) {
  const list = byId("messages");
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  change();
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

function cost(item, { first, used, finish }) {
  const parts = [];
  if (used) {
    const seconds = (performance.now() - first) / 1000;
    const rate = (used.completion_tokens - 1) / seconds;
    const isMeasured = used.completion_tokens >= 10 && seconds > 0;
    parts.push(`${used.completion_tokens} tokens`
      + (isMeasured ? `, ${rate.toFixed(rate < 10 ? 1 : 0)} a second` : ""));
  }
  if (finish === "length") parts.push("cut off: longest answer reached");
  if (finish === "stopped") parts.push("stopped");
  if (parts.length) item.append(make("p", { className: "cost", textContent: parts.join(" · ") }));
}

function fault(item, error) {
  const later = error.retryAfter ? ` (try again in ${error.retryAfter} s)` : "";
  item.append(make("p", { className: "fault", role: "alert", textContent: error.message + later }));
}

function setBusy(busy) {
  byId("send").hidden = busy;
  byId("stop").hidden = !busy;
  byId("clear").disabled = busy;
  byId("messages").setAttribute("aria-busy", busy);
  if (busy) byId("status").textContent = "The model is answering.";
}

function stop() {
  running?.abort();
}

function clear() {
  said.length = 0;
  byId("messages").replaceChildren();
  byId("empty").hidden = false;
  byId("text").focus();
}
