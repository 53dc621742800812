"use strict";
// The episode browser. All episodes lie in this page as gzipped chunks; an index of all of them is opened at once,
// a chunk only when one of its episodes is shown or searched.

const PAGE = 25;
const KEPT_CHUNKS = 40;
const chunks = document.querySelectorAll("script.chunk");
const opened = new Map();
const at = (id) => document.getElementById(id);
const filters = at("filters");

let index, columns;     // of all episodes
let asked;              // the episodes of each question
let found = [];         // numbers of those that pass the filters
let page = 0;
let current = null, beside = null;
let search = 0;         // number of the latest search; an older one stops

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

async function chunk(number) {
  if (!opened.has(number)) {
    opened.set(number, unpack(chunks[number].textContent));
    if (opened.size > KEPT_CHUNKS) opened.delete(opened.keys().next().value);
  }
  return opened.get(number);
}

async function episode(number) {
  return (await chunk(Math.floor(number / index.chunk)))[number % index.chunk];
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const said = (number) => columns.condition[number] ? `${columns.kind[number]}, ${columns.condition[number]}`
  : `${columns.kind[number]} at step ${columns.step[number]}`;
const outcome = (number) => (columns.right[number] ? "right" : "wrong");
const decimals = (value, digits = 2) => (value == null ? "unknown" : (value + 0 || 0).toFixed(digits).replace("-", "−"));

// ---- filters --------------------------------------------------------------------------------------------------------

// A filter that has nothing to choose between is not shown.
function offered(select, values, label = String) {
  options(select, values, label);
  select.parentElement.hidden = values.length < 2;
}

function options(select, values, label = String) {
  for (const value of values) select.append(element("option", { value, textContent: label(value) }));
}

function offer() {
  const distinct = (name) => [...new Set(columns[name])];
  offered(filters.kind, distinct("kind"));
  offered(filters.condition, distinct("condition"));
  offered(filters.step, distinct("step").sort((a, b) => a - b));
  offered(filters.stop, distinct("stop"), (name) => name.replaceAll("_", " "));
  options(filters.strategy, index.titles.keys(), (number) => index.titles[number]);
}

function passes(number) {
  const { kind, condition, step, right, strategy, stop } = filters;
  return (!kind.value || columns.kind[number] === kind.value)
    && (!condition.value || columns.condition[number] === condition.value)
    && (!step.value || columns.step[number] === Number(step.value))
    && (!right.value || columns.right[number] === Number(right.value))
    && (!strategy.value || columns.strategies[number].includes(strategy.value))
    && (!stop.value || columns.stop[number] === stop.value);
}

const wanted = () => filters.text.value.trim().toLowerCase();
const holds = (record, text) => [record.question, record.truth, ...record.turns.map((turn) => turn.text)]
  .some((part) => part.toLowerCase().includes(text));

async function filter() {
  const mine = ++search, text = wanted();
  const chosen = [];
  for (let number = 0; number < index.count; number++) if (passes(number)) chosen.push(number);
  page = 0;
  if (!text) {
    found = chosen;
    at("status").textContent = `${count(found.length)} of ${count(index.count)} episodes`;
    return list();
  }
  found = [];
  list();
  for (let i = 0; i < chosen.length; i++) {
    const record = await episode(chosen[i]);
    if (mine !== search) return;
    if (holds(record, text)) {
      found.push(chosen[i]);
      if (found.length <= PAGE) list();
    }
    if (i % 200 === 0) {
      at("status").textContent = `Searching, ${Math.round((100 * i) / chosen.length)} %: ${count(found.length)} found`;
      await new Promise((resume) => setTimeout(resume));  // let the page breathe
    }
  }
  at("status").textContent = `${count(found.length)} of ${count(index.count)} episodes`;
  list();
}

const count = (value) => value.toLocaleString("en");

// ---- list -----------------------------------------------------------------------------------------------------------

function list() {
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  at("list").replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(row));
  at("page").textContent = `page ${count(page + 1)} of ${count(pages)}`;
  at("previous").disabled = page === 0;
  at("next").disabled = page >= pages - 1;
}

function row(number) {
  const used = [...columns.strategies[number]];
  const marks = element("span", { className: "marks" });
  for (const strategy of used) marks.append(element("span", { className: `s${strategy} marks` }, element("i")));
  marks.title = used.map((strategy) => index.titles[strategy]).join(", ");
  const verdict = element("span", { className: outcome(number), textContent: outcome(number) });
  const button = element("button", { type: "button" },
    element("span", {}, verdict, ` · ${said(number)}`), marks,
    element("span", { className: "text", textContent: index.snippets[columns.question[number]] }));
  button.dataset.number = number;
  button.setAttribute("aria-label", `${outcome(number)}, ${said(number)}, ${marks.title || "no turns"}: `
    + index.snippets[columns.question[number]]);
  if (number === current) button.setAttribute("aria-current", "true");
  button.addEventListener("click", async () => {
    await read(number);
    const below = at("reader").offsetTop > at("list").offsetTop + at("list").offsetHeight;  // on a small screen
    if (below) at("reader").scrollIntoView();
    else at("reader").scrollTop = 0;
  });
  return element("li", {}, button);
}

function turn(pages) {
  page += pages;
  list();
  at("list").scrollIntoView({ block: "nearest" });
}

// ---- reader ---------------------------------------------------------------------------------------------------------

async function read(number, other = counterpart(number)) {
  current = number;
  beside = other;
  for (const button of at("list").querySelectorAll("button"))
    if (Number(button.dataset.number) === number) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  const same = siblings(number);
  at("choose").hidden = !same.length;
  at("other").replaceChildren(element("option", { value: "", textContent: "none" }));
  options(at("other"), same, (one) => `${said(one)}, sample ${columns.sample[one]}: ${outcome(one)}`);
  at("other").value = other ?? "";
  await show();
  history.replaceState(null, "", `#episode-${number}`);
}

async function show() {
  const order = (a, b) => columns.step[a] - columns.step[b]
    || (columns.condition[a] === "planner") - (columns.condition[b] === "planner") || a - b;
  const numbers = beside == null ? [current] : [current, beside].sort(order);
  const shown = [current, beside].join();
  const records = await Promise.all(numbers.map(episode));
  if (shown === [current, beside].join()) at("shown").replaceChildren(...records.map((record, i) => article(record, said(numbers[i]))));
}

const siblings = (number) => asked[columns.question[number]].filter((other) => other !== number);

// What a validation is compared with: the same question's first validation, or its last one for that first one. What an
// evaluation's answer is compared with: the planner's, or a control for the planner's own.
function counterpart(number) {
  if (columns.condition[number]) {
    const by = (condition) => siblings(number).find((other) => columns.condition[other] === condition
      && columns.sample[other] === columns.sample[number]);
    if (columns.condition[number] !== "planner") return by("planner") ?? null;
    return ["base_planner", "alone", "self_strategies", "random"].map(by).find((other) => other != null) ?? null;
  }
  const others = siblings(number).filter((other) => columns.kind[other] === columns.kind[number]
    && columns.step[other] !== columns.step[number] && columns.kind[number] !== "train");
  const step = columns.step[number];
  return others.find((other) => columns.step[other] < step) ?? others.at(-1) ?? null;
}

function article(record, title) {
  const word = record.acc >= 1 ? "right" : "wrong";
  const verdict = element("span", { className: word, textContent: word });
  const parts = Object.entries(record.planner_parts);
  const all = parts.map(([name, value]) => `${name} ${decimals(value)}`).join(", ");
  const some = parts.filter(([, value]) => value).map(([name, value]) => `${name} ${decimals(value)}`).join(", ");
  const reward = element("abbr", { title: all || "no parts", textContent: `planner's reward ${decimals(record.planner_reward)}` });
  const rewards = record.planner_reward == null ? []  // an evaluation has none
    : [reward, some && ` (${some})`, ` · reasoner's ${decimals(record.reasoner_reward)} · `];
  const reason = record.reason && record.reason !== word ? ` (${record.reason.replaceAll("_", " ")})` : "";
  const made = element("article", {},
    element("h3", {}, `${title}: `, verdict, reason),
    element("p", { className: "facts" }, ...rewards, `ended by ${record.stop.replaceAll("_", " ")} · sample ${record.sample}`),
    element("p", { className: "question" }, ...marked(record.question)));
  record.turns.forEach((one, position) => made.append(step(one, position, index.names.indexOf(one.strategy))));
  made.append(element("p", { className: "facts" }, "Ground truth: ", ...marked(record.truth || "none")));
  return made;
}

function step(one, position, strategy) {
  const chance = one.log_prob == null ? "" : `p = ${decimals(Math.exp(one.log_prob))} · `;
  const title = (one.strategy ? `Log-prob of the planner's choice: ${decimals(one.log_prob, 3)}\n` : "")
    + `Mean log-prob of the step's tokens: ${decimals(one.log_prob_mean, 3)}\n`
    + `${one.tokens} tokens, ended by ${one.end}` + (one.parsed ? "" : "\nThe planner named no strategy");
  const name = strategy < 0 ? one.strategy || "without a strategy" : index.titles[strategy];
  return element("div", { className: `turn s${strategy}`, title },
    element("div", { className: "head" }, element("b", { textContent: `${position + 1}. ${name}` }),
      element("span", { textContent: `${chance}${one.tokens} tokens · ${one.end}` })),
    element("p", {}, ...marked(one.text.trim() || "(nothing)")));
}

// The text, with what was searched for marked.
function marked(text) {
  const word = wanted(), lower = text.toLowerCase(), pieces = [];
  if (!word || lower.length !== text.length) return [text];
  let from = 0;
  for (let to; (to = lower.indexOf(word, from)) >= 0; from = to + word.length)
    pieces.push(text.slice(from, to), element("mark", { textContent: text.slice(to, to + word.length) }));
  return [...pieces, text.slice(from)];
}

// ---- start ----------------------------------------------------------------------------------------------------------

function arrows(event) {
  const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!move) return;
  const buttons = [...at("list").querySelectorAll("button")];
  buttons[buttons.indexOf(document.activeElement) + move]?.focus();
  event.preventDefault();
}

async function start() {
  if (!("DecompressionStream" in window)) {
    at("status").textContent = "This browser is too old to unpack the episodes (it has no DecompressionStream).";
    return;
  }
  index = await unpack(at("index").textContent);
  columns = index.columns;
  asked = index.snippets.map(() => []);
  columns.question.forEach((question, number) => asked[question].push(number));
  offer();
  let waiting;
  filters.text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 250);
  });
  filters.addEventListener("change", (event) => event.target !== filters.text && filter());
  filters.addEventListener("reset", () => setTimeout(filter));
  filters.addEventListener("submit", (event) => event.preventDefault());
  at("list").addEventListener("keydown", arrows);
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  at("other").addEventListener("change", (event) => {
    beside = event.target.value === "" ? null : Number(event.target.value);
    show();
  });
  await filter();
  const linked = Number(/^#episode-(\d+)$/.exec(location.hash)?.[1] ?? NaN);
  if (linked < index.count) await read(linked);
  else if (index.count) await read(found.find((number) => counterpart(number) != null) ?? 0);
  document.documentElement.dataset.ready = "yes";
}

start();
