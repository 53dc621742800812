// Sends the question to the server and shows each step as it arrives. A model's text is set as text only, never as markup.
"use strict";

const $ = (id) => document.getElementById(id);
const strategies = new Map([...document.querySelectorAll("#menu li")].map((item, i) => [item.dataset.strategy,
  { tone: `s${i}`, title: item.querySelector("b").textContent, instruction: item.dataset.instruction }]));
let running = null; // the AbortController of the current request

function element(name, className, text) {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}

function showStatus(text, wrong = false) {
  $("status").textContent = text;
  $("status").className = wrong ? "wrong" : "";
}

function beginTurn(strategy) {
  finishTurn();
  const known = strategies.get(strategy);
  const turn = element("li", `turn ${known.tone}`, "");
  const head = element("div", "head", "");
  const title = element("b", "", `${$("turns").children.length + 1}. ${known.title}`);
  head.append(title, element("q", "", known.instruction));
  turn.append(head, element("p", "", ""));
  turn.setAttribute("aria-busy", "true");
  $("turns").append(turn);
  showStatus(`Step ${$("turns").children.length}: ${known.title}`);
}

function finishTurn() {
  const turn = $("turns").lastElementChild;
  if (!turn) return;
  turn.removeAttribute("aria-busy");
  const shown = turn.querySelector("p");
  shown.textContent = shown.textContent.trimEnd();
}

function appendText(text) {
  const shown = $("turns").lastElementChild.querySelector("p");
  shown.textContent = (shown.textContent + text).trimStart();
}

// Yields the chunks of a stream of server-sent events.
async function* chunks(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The connection broke off.");
    buffer += value;
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}

function body() {
  const seed = $("seed").value;
  return JSON.stringify({
    messages: [{ role: "user", content: $("question").value }],
    temperature: Number($("temperature").value || 0),
    ...(seed === "" ? {} : { seed: Number(seed) }),
    stream: true,
    stream_options: { include_usage: true },
    rsim: { strategies: "reasoning_content" },
  });
}

async function ask(signal) {
  const headers = { "Content-Type": "application/json" };
  if ($("key")) headers.Authorization = `Bearer ${$("key").value}`;
  const response = await fetch("/v1/chat/completions", { method: "POST", headers, body: body(), signal });
  if (!response.ok) throw new Error((await response.json()).error.message);
  let stop = "", usage = null;
  for await (const chunk of chunks(response)) {
    usage = chunk.usage ?? usage;
    for (const choice of chunk.choices) {
      if (choice.rsim?.strategy) beginTurn(choice.rsim.strategy);
      if (choice.delta.content) appendText(choice.delta.content);
      stop = choice.rsim?.stop ?? stop;
    }
  }
  const { planner, reasoner } = usage.rsim;
  showStatus(`Ended by ${stop.replaceAll("_", " ")}. The reasoner wrote ${reasoner.completion_tokens} tokens, ` +
    `the planner ${planner.completion_tokens}.`);
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (running) return;
  running = new AbortController();
  $("turns").replaceChildren();
  $("send").disabled = true;
  $("stop").disabled = false;
  showStatus("Waiting for the planner …");
  try {
    await ask(running.signal);
  } catch (error) {
    showStatus(error.name === "AbortError" ? "Stopped." : error.message, error.name !== "AbortError");
  }
  finishTurn();
  running = null;
  $("send").disabled = false;
  $("stop").disabled = true;
});

$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
document.documentElement.dataset.ready = "yes";
