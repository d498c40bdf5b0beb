"use strict";
// The search, the rest for pictures that move, and a closed list of headings where there is no room for it.

const root = document.documentElement.dataset.root;
const MOST = 30; // results shown

const field = document.querySelector("#search input");
const found = document.querySelector("#found");
let loading = false;

/** The index comes when it is first needed. A script may be read from disk, other files may not. */
function load() {
  if (loading) return;
  loading = true;
  const script = document.createElement("script");
  script.src = root + "search_index.js";
  script.onload = show;
  document.head.append(script);
}

/** Blocks that hold every word, best first: titles and headings, whole words, the words as they were typed. */
function search(words, typed) {
  const results = [];
  for (const [place, title, blocks] of window.zflibIndex) {
    for (const [id, heading, text] of blocks) {
      const low = text.toLowerCase();
      if (!words.every((word) => low.includes(word))) continue;
      const whole = words.filter((word) => (" " + low).includes(" " + word)).length;
      const score = 4 * (text === title) + 3 * (text === heading) + 2 * low.includes(typed) + whole;
      results.push({ place, title, id, heading, text, score });
    }
  }
  return results.sort((a, b) => b.score - a.score);
}

/** The sentence that holds the most of the words, cut where it is long. */
function sentence(text, words) {
  const held = (part) => words.filter((word) => part.toLowerCase().includes(word)).length;
  const parts = text.split(/(?<=[.!?:])\s+/);
  const best = parts.reduce((a, b) => (held(b) > held(a) ? b : a));
  const from = Math.max(0, best.toLowerCase().indexOf(words.find((word) => best.toLowerCase().includes(word))) - 90);
  const cut = best.slice(from ? best.indexOf(" ", from) + 1 : 0);
  return (from ? "… " : "") + (cut.length > 220 ? cut.slice(0, cut.lastIndexOf(" ", 220)) + " …" : cut);
}

/** The text with its words marked, as nodes: nothing in it can be taken for HTML. */
function marked(text, words) {
  const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return text.split(new RegExp(`(${escaped.join("|")})`, "gi")).map((part, number) => {
    if (number % 2 === 0) return part;
    const mark = document.createElement("mark");
    mark.textContent = part;
    return mark;
  });
}

function result({ place, title, id, heading, text }, words) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  const where = document.createElement("small");
  link.href = `${root}${place}#${encodeURIComponent(id)}`;
  where.textContent = heading && heading !== title ? `${title} › ${heading}` : title;
  link.append(...marked(sentence(text, words), words), where);
  link.addEventListener("click", close);
  item.append(link);
  return item;
}

function show() {
  const typed = field.value.trim().toLowerCase();
  const words = [...new Set(typed.split(/\s+/))].filter(Boolean);
  found.hidden = typed.length < 2 || !window.zflibIndex;
  if (found.hidden) return;
  const results = search(words, typed);
  const shown = results.slice(0, MOST);
  const count = results.length === 1 ? "1 result" : `${results.length} results`;
  found.querySelector("[role=status]").textContent = results.length > MOST ? `${count}, the best ${MOST}` : count;
  found.querySelector("ol").replaceChildren(...shown.map((one) => result(one, words)));
  found.scrollTop = 0;
}

function close() {
  found.hidden = true;
}

/** Arrows go through the results, Enter follows the first one or the one in focus, Escape leaves. */
function steer(event) {
  const links = [...found.querySelectorAll("a")];
  const place = links.indexOf(document.activeElement);
  if (event.key === "Escape") {
    close();
    field.focus();
  } else if (event.key === "ArrowDown" && !found.hidden) {
    links[Math.min(place + 1, links.length - 1)]?.focus();
  } else if (event.key === "ArrowUp" && place >= 0) {
    (links[place - 1] || field).focus();
  } else if (event.key === "Enter" && document.activeElement === field && !found.hidden) {
    links[0]?.click();
  } else {
    return;
  }
  event.preventDefault();
}

field.addEventListener("focus", () => { load(); show(); });
field.addEventListener("input", show);
field.parentElement.addEventListener("keydown", steer);
document.addEventListener("pointerdown", (event) => field.parentElement.contains(event.target) || close());
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  event.preventDefault();
  field.focus();
});

/** A button under each picture that moves; it rests from the start for those who asked for less movement. */
for (const figure of document.querySelectorAll(".moves")) {
  const source = figure.querySelector("source");
  const button = document.createElement("button");
  let rests = matchMedia(source.media).matches;
  const tell = () => {
    source.media = rests ? "all" : "not all";
    button.textContent = rests ? "Play" : "Pause";
  };
  button.type = "button";
  button.className = "rest";
  button.addEventListener("click", () => { rests = !rests; tell(); });
  tell();
  figure.querySelector("a").after(button);
}

/** What a link points to may lie in a closed hint. */
function open() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", open);
if (location.hash) open();

const headings = document.querySelector(".headings");
if (headings) headings.open = matchMedia("(min-width: 1330px)").matches;
