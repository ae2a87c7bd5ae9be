// The server's interface: JSON, streams of server-sent events, and the key if it asks for one.

import { byId } from "./dom.js";

const KEY = "biomistral-key";

export class Refusal extends Error {
  constructor(status, message, { retryAfter, code } = {}) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
    this.code = code;
  }
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  const found = { "Content-Type": "application/json" };
  if (key) found.Authorization = `Bearer ${key}`;
  return found;
}

async function askKey() {
  const dialog = byId("key-dialog");
  byId("key").value = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  sessionStorage.setItem(KEY, byId("key").value.trim());
}

// Send a request; asks for the key and tries again where one is missing or wrong.
async function send(path, options) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: headers() });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal(0, "The server does not answer. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 401 && !byId("key-dialog").open) {
      await askKey();
      continue;
    }
    const text = await response.text();
    let message = `The server answers with status ${response.status}.`;
    let code;
    try {
      ({ message, code } = JSON.parse(text).error);
    } catch { /* no JSON: the status has to do */ }
    throw new Refusal(response.status, message, { retryAfter: response.headers.get("Retry-After"), code });
  }
}

export const get = async (path) => (await send(path, {})).json();

export const post = async (path, body, signal) =>
  (await send(path, { method: "POST", body: JSON.stringify(body), signal })).json();

// The events of a stream, each as an object, until [DONE].
export async function* stream(path, body, signal) {
  const response = await send(path, { method: "POST", body: JSON.stringify(body), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refusal(0, "The answer breaks off: the connection was lost.");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const parsed = JSON.parse(data);
      if (parsed.error) throw new Refusal(500, parsed.error.message);
      yield parsed;
    }
  }
}
