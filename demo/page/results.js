// Results as cards. A search moves and updates existing cards and loads only new images.

import { thumbnailUrl } from "./api.js";
import { $, $$, arrange, decimal, make, setText } from "./dom.js";
import { roleOf, TERM_HELP } from "./interpretation.js";
import { ITEM_TYPE } from "./references.js";
import { AUTO, hasQuery } from "./state.js";
import { describe } from "./weights.js";

const MAX_CACHED_CARDS = 600;
const WEAKER = "Weaker matches: scores closer to the average image than to the best match";
const ALL_WEAK = "Weak matches: no result scores above the average image";

// `act(action, card, pinned)` is called for the actions of a card.
export function results(act) {
  const current = column($("#current"), act);
  const pinned = column($("#pinned"), (action, card) => act(action, card, true));
  return (view, state) => {
    const isSearch = hasQuery(state);
    current(view.results, state);
    pinned(view.comparison ?? { cards: [], weights: {} }, state);
    $("#pinned").hidden = !view.comparison;
    $("#columns").classList.toggle("two", Boolean(view.comparison));
    $("#current h2").hidden = !view.comparison;
    if (view.comparison) {
      setText($("#pinned h2"), `Pinned: ${describe(state.comparison)}`);
      setText($("#current h2"), `Current: ${describe(state.controls)}`);
      showRankChanges(view);
    }
    showStatus(view, isSearch, state);
    $("#no-match").hidden = !isSearch || view.results.has_match;
    setText($("#no-match"), `No good match${state.controls === AUTO ? "" : " with these weights"}. The nearest images are shown.`);
    const count = countItems(view.results.cards);
    $("#show-more").hidden = !isSearch || count < state.k || count >= view.results.searched;
    $("#other-sample").hidden = isSearch || count >= view.results.searched;
  };
}

const countItems = (cards) => cards.reduce((sum, card) => sum + 1 + card.copies.length, 0);

function column(section, act) {
  const list = $("ol", section);
  const cards = new Map();
  const divider = make("li", { class: "divider" });
  list.addEventListener("focusin", (event) => setTabStop(list, event.target.closest(".card")));
  return (results, state) => {
    const longest = Math.max(1e-9, ...results.cards.flatMap((card) => Object.values(card.contributions).map(Math.abs)));
    const ordered = sortCards(results.cards, state.sort);
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

// One card. Its elements are created once; `show` updates them.
function createCard(id, act) {
  const part = (name, attributes = {}) => make("span", { class: name, ...attributes });
  const [rank, copies, rankChange, name, score] = [part("rank"), part("copies"), part("rank-change", { hidden: true }), part("name"), part("score")];
  const image = make("img", { src: thumbnailUrl(id), alt: "", loading: "lazy", decoding: "async", width: 256, height: 256, draggable: "true" });
  const hint = make("span", { class: "hint", "aria-hidden": "true" }, "use as reference");
  const main = make("button", { type: "button", class: "picture", tabindex: -1 }, image, rank, copies, rankChange, hint);
  const bars = make("div", { class: "bars" });
  const node = make("li", { class: "card", "data-id": id, title: id }, main, make("span", { class: "title" }, name, score), bars);
  node.append(tools((action) => act(action, node.card)));
  node.addEventListener("click", (event) => act(event.shiftKey ? "add" : "choose", node.card));
  image.addEventListener("dragstart", (event) => event.dataTransfer.setData(ITEM_TYPE, id));
  image.addEventListener("error", () => node.classList.add("missing-image"));
  const show = (card, longest) => {
    node.card = card;
    setText(name, card.title);
    setText(rank, card.rank === null ? "" : String(card.rank));
    setText(score, card.score === null ? "" : decimal(card.score, 3));
    setText(copies, card.copies.length ? `+${card.copies.length} near-duplicate${card.copies.length > 1 ? "s" : ""}` : "");
    rank.hidden = card.rank === null;
    rankChange.hidden = true;
    node.classList.toggle("stack", card.copies.length > 0);
    main.setAttribute("aria-label", label(card));
    showContributions(bars, card.contributions, longest);
  };
  return { node, show };
}

function tools(act) {
  const button = (action, text, title) => {
    const element = make("button", { type: "button", class: action, title, tabindex: -1 }, text);
    element.addEventListener("click", (event) => {
      event.stopPropagation();
      act(action);
    });
    return element;
  };
  return make("div", { class: "tools" }, button("more_like", "+ more", "More like this (M)"), button("less_like", "− less", "Less like this (L)"), button("details", "details", "Details (D)"));
}

const label = (card) =>
  card.rank === null
    ? `Use ${card.title} as the reference`
    : `Rank ${card.rank}: ${card.title}, score ${decimal(card.score, 3)}${card.weak ? ", weak match" : ""}. Use as the reference`;

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

// The change of the rank of each card from the pinned to the current results.
function showRankChanges(view) {
  const pinnedRanks = new Map(view.comparison.cards.map((card) => [card.id, card.rank]));
  for (const node of $$("#current .card")) {
    const pinnedRank = pinnedRanks.get(node.dataset.id);
    const rankChange = $(".rank-change", node);
    const up = pinnedRank === undefined ? null : pinnedRank - node.card.rank;
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
