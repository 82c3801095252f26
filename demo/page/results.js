// Results as cards. A search moves and updates existing cards and loads only new images.

import { thumbnailUrl } from "./api.js";
import { $, $$, arrange, decimal, make, setText } from "./dom.js";
import { roleOf, TERM_HELP } from "./interpretation.js";
import { ITEM_TYPE } from "./references.js";
import { AUTO, hasQuery } from "./state.js";

const MAX_CACHED_CARDS = 600;
const WEAKER = "Weaker matches: scores closer to the average image than to the best match";
const ALL_WEAK = "Weak matches: no result scores above the average image";

const TALLEST = 3 / 4; // width by height of the box of a picture
const WHY = "mmretrieve-why"; // in the local storage: whether cards show contributions

// `act(action, card, pinned)` is called for the actions of a card.
export function results(act) {
  addWhyToggle();
  const current = column($("#current"), act);
  const pinned = column($("#pinned"), (action, card) => act(action, card, true));
  return (view, state) => {
    const isSearch = hasQuery(state);
    current(view.results, state);
    pinned(view.comparison ?? { cards: [], weights: {} }, state);
    $("#pinned").hidden = !view.comparison;
    $("#columns").classList.toggle("two", Boolean(view.comparison));
    $("#current h2").hidden = !view.comparison;
    if (view.comparison) showRankChanges(view);
    showStatus(view, isSearch, state);
    const count = countItems(view.results.cards);
    $("#no-match").hidden = !isSearch || !count || view.results.has_match;
    setText($("#no-match"), `No good match${state.controls === AUTO ? "" : " with these weights"}. The nearest images are shown.`);
    $("#show-more").hidden = !isSearch || count < state.k || count >= view.results.searched;
    $("#other-sample").hidden = isSearch || count >= view.results.searched;
  };
}

export const countItems = (cards) => cards.reduce((sum, card) => sum + 1 + card.copies.length, 0);

function column(section, act) {
  const list = $("ol", section);
  const cards = new Map();
  const divider = make("li", { class: "divider" });
  list.addEventListener("focusin", (event) => setTabStop(list, event.target.closest(".card")));
  return (results, state) => {
    const longest = Math.max(1e-9, ...results.cards.flatMap((card) => Object.values(card.contributions).map(Math.abs)));
    const ordered = sortCards(results.cards.map(withPosition), state.sort);
    const nodes = ordered.map((card) => {
      if (!cards.has(card.id)) cards.set(card.id, createCard(card.id, act));
      const one = cards.get(card.id);
      one.show(card, longest);
      return one.node;
    });
    const weak = state.sort ? -1 : ordered.findIndex((card) => card.weak);
    setText(divider, weak ? WEAKER : ALL_WEAK);
    if (weak >= 0) nodes.splice(weak, 0, divider);
    arrange(list, nodes);
    if (!$(".picture[tabindex='0']", list)) setTabStop(list, $(".card", list));
    if (cards.size > MAX_CACHED_CARDS) for (const id of [...cards.keys()]) if (!ordered.some((card) => card.id === id)) cards.delete(id);
  };
}

// Tab reaches the buttons of one card of a list; the arrow keys move to other cards.
function setTabStop(list, card) {
  if (!card) return;
  for (const button of $$("button[tabindex='0']", list)) if (!card.contains(button)) button.tabIndex = -1;
  for (const button of $$("button", card)) button.tabIndex = 0;
}

// The place of a card among the cards: a stack of near-copies takes one place, so ranks have gaps. Samples have no place.
const withPosition = (card, at) => ({ ...card, position: card.rank === null ? null : at + 1 });

// One card. Its elements are created once; `show` updates them.
function createCard(id, act) {
  const part = (name, attributes = {}) => make("span", { class: name, ...attributes });
  const [copies, rankChange, title, score] = [part("copies"), part("rank-change", { hidden: true }), part("title"), part("score")];
  const image = make("img", { src: thumbnailUrl(id), alt: "", loading: "lazy", decoding: "async", width: 256, height: 320, draggable: "true" });
  const main = make("button", { type: "button", class: "picture", tabindex: -1 }, image, copies, rankChange);
  const bars = make("div", { class: "bars" });
  const node = make("li", { class: "card", "data-id": id }, main, title, score, bars);
  node.append(quickActions((action) => act(action, node.card)));
  node.addEventListener("click", (event) => act(event.shiftKey ? "add" : "details", node.card));
  image.addEventListener("dragstart", (event) => event.dataTransfer.setData(ITEM_TYPE, id));
  image.addEventListener("load", () => fitBoxes(image));
  image.addEventListener("error", () => node.classList.add("missing-image"));
  const show = (card, longest) => {
    node.card = card;
    setText(title, card.title);
    title.title = card.title;
    setText(score, card.position === null ? "" : `${card.position} · score ${decimal(card.score)}`);
    setText(copies, card.copies.length ? `+${card.copies.length} nearly the same` : "");
    rankChange.hidden = true;
    main.setAttribute("aria-label", label(card));
    showContributions(bars, card.contributions, longest);
  };
  return { node, show };
}

// Pictures are shown whole. Their boxes are square until a taller picture is loaded; then all are as tall as it needs, up to TALLEST.
function fitBoxes({ naturalWidth, naturalHeight }) {
  const style = $("#columns").style;
  const aspect = Number(style.getPropertyValue("--aspect") || 1);
  const needed = Math.max(TALLEST, naturalWidth / naturalHeight);
  if (needed < aspect) style.setProperty("--aspect", needed);
}

// What can be done with a result at once. All actions are in the details.
function quickActions(act) {
  const button = (action, text, title) => {
    const element = make("button", { type: "button", class: action, title, "aria-label": title, tabindex: -1 }, text);
    element.addEventListener("click", (event) => {
      event.stopPropagation();
      act(action);
    });
    return element;
  };
  return make("div", { class: "actions" }, button("choose", "Search with this", "Search with this (S)"), button("more_like", "+", "More like this (M)"), button("less_like", "−", "Less like this (L)"));
}

const label = (card) =>
  card.position === null ? `Open ${card.title}` : `${card.position}: ${card.title}, score ${decimal(card.score)}${card.weak ? ", weak match" : ""}. Open`;

function addWhyToggle() {
  const show = (shown) => {
    $("#why-toggle").setAttribute("aria-pressed", shown);
    $("#columns").classList.toggle("why", shown);
  };
  $("#why-toggle").addEventListener("click", () => {
    const shown = localStorage.getItem(WHY) === null;
    if (shown) localStorage.setItem(WHY, "shown");
    else localStorage.removeItem(WHY);
    show(shown);
  });
  show(localStorage.getItem(WHY) !== null);
}

function showContributions(bars, contributions, longest) {
  const terms = Object.entries(contributions);
  if (bars.children.length !== terms.length) {
    bars.replaceChildren(...terms.map(() => make("span", { class: "contribution" }, make("span", { class: "term" }), make("span", { class: "track" }, make("span", {})), make("span", { class: "value" }))));
  }
  terms.forEach(([term, value], at) => {
    const [name, track, number] = bars.children[at].children;
    setText(name, term);
    bars.children[at].title = TERM_HELP[roleOf(term)] ?? "";
    setText(number, (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2));
    track.firstChild.className = `fill ${value < 0 ? "minus" : "plus"} ${roleOf(term)}`;
    track.firstChild.style.width = `${((100 * Math.abs(value)) / longest).toFixed(1)}%`;
  });
}

function sortCards(cards, field) {
  if (!field) return cards;
  const key = (card) => card.fields[field] ?? null;
  return [...cards].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === b) return 0;
    if (a === null || b === null) return a === null ? 1 : -1;
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  });
}

// How many places each card moved up or down, from the left to the right results.
function showRankChanges(view) {
  const positions = new Map(view.comparison.cards.map((card, at) => [card.id, at + 1]));
  for (const node of $$("#current .card")) {
    const before = positions.get(node.dataset.id);
    const rankChange = $(".rank-change", node);
    const up = before === undefined ? null : before - node.card.position;
    rankChange.hidden = up === 0;
    setText(rankChange, up === null ? "new" : up > 0 ? `↑ ${up}` : `↓ ${-up}`);
  }
}

function showStatus(view, isSearch, state) {
  const { cards, searched, hidden, note } = view.results;
  const count = countItems(cards);
  const total = searched.toLocaleString("en");
  const hiddenCounts = Object.entries(hidden).map(([reason, number]) => `${number.toLocaleString("en")} ${reason === "excluded" ? "left out" : "hidden by filters"}`);
  const noResults = searched && state.min_score !== null ? `None of ${total} images scores ${state.min_score} or more` : "No image passes the filters";
  const parts = [!count ? noResults : isSearch ? `Top ${count} of ${total} images` : `${count} of ${total} images`, ...hiddenCounts];
  if (note && !note.startsWith(`${count} of`)) parts.push(note);
  setText($("#status"), parts.join(" · "));
}
