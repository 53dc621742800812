"use strict";
// Shows and filters the episodes. The page contains them as gzipped chunks. The index of all episodes is unpacked at
// once, a chunk only when one of its episodes is shown or searched.

const PAGE_EPISODES = 25;
const MAX_OPEN_CHUNKS = 40;  // bounds the memory of a search through a large log
const chunks = document.querySelectorAll("script.chunk");
const openChunks = new Map();
const byId = (id) => document.getElementById(id);
const filters = byId("filters");

let index, columns;          // of all episodes
let episodesOfQuestion;      // numbers of the episodes, by question
let matches = [];            // numbers of the episodes that pass the filters
let page = 0;
let current = null, compared = null;  // numbers of the shown episode and of the one beside it
let latestSearch = 0;        // an older search stops when this changes

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

async function chunk(number) {
  if (!openChunks.has(number)) {
    openChunks.set(number, unpack(chunks[number].textContent));
    if (openChunks.size > MAX_OPEN_CHUNKS) openChunks.delete(openChunks.keys().next().value);
  }
  return openChunks.get(number);
}

async function episode(number) {
  return (await chunk(Math.floor(number / index.chunk)))[number % index.chunk];
}

function element(tag, properties = {}, ...children) {
  const created = Object.assign(document.createElement(tag), properties);
  created.append(...children);
  return created;
}

const origin = (number) => columns.condition[number] ? `${columns.kind[number]}, ${columns.condition[number]}`
  : `${columns.kind[number]} at step ${columns.step[number]}`;
const outcome = (number) => (columns.right[number] ? "right" : "wrong");
const decimals = (value, digits = 2) => (value == null ? "unknown" : (value + 0 || 0).toFixed(digits).replace("-", "−"));

// ---- filters --------------------------------------------------------------------------------------------------------

// Fills a filter with its choices, and hides it if there is only one.
function fillFilter(select, values, label = String) {
  addOptions(select, values, label);
  select.parentElement.hidden = values.length < 2;
}

function addOptions(select, values, label = String) {
  for (const value of values) select.append(element("option", { value, textContent: label(value) }));
}

function fillFilters() {
  const distinct = (name) => [...new Set(columns[name])];
  fillFilter(filters.kind, distinct("kind"));
  fillFilter(filters.condition, distinct("condition"));
  fillFilter(filters.step, distinct("step").sort((a, b) => a - b));
  fillFilter(filters.stop, distinct("stop"), (name) => name.replaceAll("_", " "));
  addOptions(filters.strategy, index.titles.keys(), (number) => index.titles[number]);
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

const searchText = () => filters.text.value.trim().toLowerCase();
const contains = (record, text) => [record.question, record.truth, ...record.turns.map((turn) => turn.text)]
  .some((part) => part.toLowerCase().includes(text));

async function filter() {
  const thisSearch = ++latestSearch, text = searchText();
  const candidates = [];
  for (let number = 0; number < index.count; number++) if (passes(number)) candidates.push(number);
  page = 0;
  if (!text) {
    matches = candidates;
    byId("status").textContent = `${count(matches.length)} of ${count(index.count)} episodes`;
    return renderList();
  }
  matches = [];
  renderList();
  for (let i = 0; i < candidates.length; i++) {
    const record = await episode(candidates[i]);
    if (thisSearch !== latestSearch) return;  // the filters changed while the chunk was unpacked
    if (contains(record, text)) {
      matches.push(candidates[i]);
      if (matches.length <= PAGE_EPISODES) renderList();
    }
    if (i % 200 === 0) {
      const percent = Math.round((100 * i) / candidates.length);
      byId("status").textContent = `Searching, ${percent} %: ${count(matches.length)} found`;
      await new Promise((resume) => setTimeout(resume));  // lets the browser draw and handle input
    }
  }
  byId("status").textContent = `${count(matches.length)} of ${count(index.count)} episodes`;
  renderList();
}

const count = (value) => value.toLocaleString("en");

// ---- list -----------------------------------------------------------------------------------------------------------

function renderList() {
  const pages = Math.max(1, Math.ceil(matches.length / PAGE_EPISODES));
  byId("list").replaceChildren(...matches.slice(page * PAGE_EPISODES, (page + 1) * PAGE_EPISODES).map(listItem));
  byId("page").textContent = `page ${count(page + 1)} of ${count(pages)}`;
  byId("previous").disabled = page === 0;
  byId("next").disabled = page >= pages - 1;
}

function listItem(number) {
  const used = [...columns.strategies[number]];
  const marks = element("span", { className: "marks" });
  for (const strategy of used) marks.append(element("span", { className: `s${strategy} marks` }, element("i")));
  marks.title = used.map((strategy) => index.titles[strategy]).join(", ");
  const verdict = element("span", { className: outcome(number), textContent: outcome(number) });
  const button = element("button", { type: "button" },
    element("span", {}, verdict, ` · ${origin(number)}`), marks,
    element("span", { className: "text", textContent: index.snippets[columns.question[number]] }));
  button.dataset.number = number;
  button.setAttribute("aria-label", `${outcome(number)}, ${origin(number)}, ${marks.title || "no turns"}: `
    + index.snippets[columns.question[number]]);
  if (number === current) button.setAttribute("aria-current", "true");
  button.addEventListener("click", async () => {
    await openEpisode(number);
    // On a small screen the reader stands below the list, out of sight.
    const isBelowList = byId("reader").offsetTop > byId("list").offsetTop + byId("list").offsetHeight;
    if (isBelowList) byId("reader").scrollIntoView();
    else byId("reader").scrollTop = 0;
  });
  return element("li", {}, button);
}

function turnPage(pages) {
  page += pages;
  renderList();
  byId("list").scrollIntoView({ block: "nearest" });
}

// ---- reader ---------------------------------------------------------------------------------------------------------

async function openEpisode(number, other = counterpart(number)) {
  current = number;
  compared = other;
  for (const button of byId("list").querySelectorAll("button"))
    if (Number(button.dataset.number) === number) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  const others = siblings(number);
  byId("choose").hidden = !others.length;
  byId("other").replaceChildren(element("option", { value: "", textContent: "none" }));
  addOptions(byId("other"), others, (one) => `${origin(one)}, sample ${columns.sample[one]}: ${outcome(one)}`);
  byId("other").value = other ?? "";
  await show();
  history.replaceState(null, "", `#episode-${number}`);
}

async function show() {
  const order = (a, b) => columns.step[a] - columns.step[b]
    || (columns.condition[a] === "planner") - (columns.condition[b] === "planner") || a - b;
  const numbers = compared == null ? [current] : [current, compared].sort(order);
  const request = [current, compared].join();
  const records = await Promise.all(numbers.map(episode));
  // Another episode may have been chosen while these chunks were unpacked.
  if (request !== [current, compared].join()) return;
  byId("shown").replaceChildren(...records.map((record, i) => article(record, origin(numbers[i]))));
}

const siblings = (number) => episodesOfQuestion[columns.question[number]].filter((other) => other !== number);

// Returns the episode of the same question to show beside this one. For a validation it is an earlier one, or the last
// one if there is none. For an evaluation it is the planner's episode, or for the planner's own that of a control.
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
  const allParts = parts.map(([name, value]) => `${name} ${decimals(value)}`).join(", ");
  const nonZeroParts = parts.filter(([, value]) => value).map(([name, value]) => `${name} ${decimals(value)}`).join(", ");
  const reward = element("abbr", { title: allParts || "no parts",
    textContent: `planner's reward ${decimals(record.planner_reward)}` });
  const rewards = record.planner_reward == null ? []  // an evaluation has no rewards
    : [reward, nonZeroParts && ` (${nonZeroParts})`, ` · reasoner's ${decimals(record.reasoner_reward)} · `];
  const reason = record.reason && record.reason !== word ? ` (${record.reason.replaceAll("_", " ")})` : "";
  const container = element("article", {},
    element("h3", {}, `${title}: `, verdict, reason),
    element("p", { className: "facts" }, ...rewards,
      `ended by ${record.stop.replaceAll("_", " ")} · sample ${record.sample}`),
    element("p", { className: "question" }, ...marked(record.question)));
  record.turns.forEach((turn, position) => {
    container.append(turnView(turn, position, index.names.indexOf(turn.strategy)));
  });
  container.append(element("p", { className: "facts" }, "Ground truth: ", ...marked(record.truth || "none")));
  return container;
}

function turnView(turn, position, strategy) {
  const chance = turn.log_prob == null ? "" : `p = ${decimals(Math.exp(turn.log_prob))} · `;
  const title = (turn.strategy ? `Log-prob of the planner's choice: ${decimals(turn.log_prob, 3)}\n` : "")
    + `Mean log-prob of the step's tokens: ${decimals(turn.log_prob_mean, 3)}\n`
    + `${turn.tokens} tokens, ended by ${turn.end}` + (turn.parsed ? "" : "\nThe planner named no strategy");
  const name = strategy < 0 ? turn.strategy || "without a strategy" : index.titles[strategy];
  return element("div", { className: `turn s${strategy}`, title },
    element("div", { className: "head" }, element("b", { textContent: `${position + 1}. ${name}` }),
      element("span", { textContent: `${chance}${turn.tokens} tokens · ${turn.end}` })),
    element("p", {}, ...marked(turn.text.trim() || "(nothing)")));
}

// Returns the text with the search term marked.
function marked(text) {
  const word = searchText(), lower = text.toLowerCase(), pieces = [];
  // Lower case may change a text's length (İ becomes two characters); positions would then not fit.
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
  const buttons = [...byId("list").querySelectorAll("button")];
  buttons[buttons.indexOf(document.activeElement) + move]?.focus();
  event.preventDefault();
}

async function start() {
  if (!("DecompressionStream" in window)) {
    byId("status").textContent = "This browser cannot unpack the episodes (no DecompressionStream); use a newer one.";
    return;
  }
  index = await unpack(byId("index").textContent);
  columns = index.columns;
  episodesOfQuestion = index.snippets.map(() => []);
  columns.question.forEach((question, number) => episodesOfQuestion[question].push(number));
  fillFilters();
  let delay;
  filters.text.addEventListener("input", () => {
    clearTimeout(delay);
    delay = setTimeout(filter, 250);
  });
  filters.addEventListener("change", (event) => event.target !== filters.text && filter());
  filters.addEventListener("reset", () => setTimeout(filter));  // the event comes before the fields are cleared
  filters.addEventListener("submit", (event) => event.preventDefault());
  byId("list").addEventListener("keydown", arrows);
  byId("previous").addEventListener("click", () => turnPage(-1));
  byId("next").addEventListener("click", () => turnPage(1));
  byId("other").addEventListener("change", (event) => {
    compared = event.target.value === "" ? null : Number(event.target.value);
    show();
  });
  await filter();
  const linked = Number(/^#episode-(\d+)$/.exec(location.hash)?.[1] ?? NaN);
  if (linked < index.count) await openEpisode(linked);
  else if (index.count) await openEpisode(matches.find((number) => counterpart(number) != null) ?? 0);
  document.documentElement.dataset.ready = "yes";
}

start();
