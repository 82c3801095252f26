// Results as cards that stay where they are: a search moves and changes them, and loads only pictures that are new.

import { $, $$, arrange, make, setText } from "./dom.js";
import { told } from "./plane.js";
import { EXPLAINED, role } from "./reading.js";
import { ITEM } from "./references.js";
import { thumbnail } from "./remote.js";
import { AUTO } from "./state.js";

const WEAKER = "Weaker matches: nearer to the average picture than to the best match";
const WEAK = "Weak matches: none is nearer to the question than the average picture";

// `act(what, card)` is called for what a person does with a card.
export function results(act) {
  const now = column($("#current"), act);
  const pinned = column($("#pinned"), (what, card) => act(what, card, true));
  return (view, state, asked) => {
    now(view.now, state);
    pinned(view.beside ?? { cards: [], weights: {} }, state);
    $("#pinned").hidden = !view.beside;
    $("#columns").classList.toggle("two", Boolean(view.beside));
    $("#current h2").hidden = !view.beside;
    if (view.beside) {
      setText($("#pinned h2"), `Kept: ${told(state.beside)}`);
      setText($("#current h2"), `Now: ${told(state.knobs)}`);
      markMoves(view);
    }
    showStatus(view, asked, state);
    $("#no-match").hidden = !asked || view.now.has_match;
    setText($("#no-match"), `No good match${state.knobs === AUTO ? "" : " under this setting"}: these are only the nearest.`);
    const shown = view.now.cards.reduce((sum, card) => sum + 1 + card.copies.length, 0);
    $("#show-more").hidden = !asked || shown < state.shown || shown >= view.now.searched;
    $("#others").hidden = asked || shown >= view.now.searched;
  };
}

function column(section, act) {
  const list = $("ol", section);
  const cards = new Map();
  const divider = make("li", { class: "divider" });
  list.addEventListener("focusin", (event) => rove(list, event.target.closest(".card")));
  return (shown, state) => {
    const longest = Math.max(1e-9, ...shown.cards.flatMap((card) => Object.values(card.gave).map(Math.abs)));
    const ordered = sorted(shown.cards, state.sort);
    const nodes = ordered.map((card) => {
      if (!cards.has(card.id)) cards.set(card.id, drawn(card.id, act));
      const one = cards.get(card.id);
      one.show(card, longest);
      return one.node;
    });
    const weak = state.sort ? -1 : ordered.findIndex((card) => card.weak);
    setText(divider, weak ? WEAKER : WEAK);
    if (weak >= 0) nodes.splice(weak, 0, divider);
    arrange(list, nodes);
    if (!$(".picture[tabindex='0']", list)) rove(list, $(".card", list));
    if (cards.size > 600) for (const id of [...cards.keys()]) if (!ordered.some((card) => card.id === id)) cards.delete(id);
  };
}

// The buttons of one card of a list can be reached with Tab; the arrow keys go on to other cards.
function rove(list, card) {
  if (!card) return;
  for (const button of $$("button[tabindex='0']", list)) if (!card.contains(button)) button.tabIndex = -1;
  for (const button of $$("button", card)) button.tabIndex = 0;
}

// One card, drawn once; `show` is all that changes in it.
function drawn(id, act) {
  const part = (name, attributes = {}) => make("span", { class: name, ...attributes });
  const [rank, copies, move, name, score] = [part("rank"), part("copies"), part("move", { hidden: true }), part("name"), part("score")];
  const seen = make("img", { src: thumbnail(id), alt: "", loading: "lazy", decoding: "async", width: 256, height: 256, draggable: "true" });
  const hint = make("span", { class: "hint", "aria-hidden": "true" }, "make this the reference");
  const main = make("button", { type: "button", class: "picture", tabindex: -1 }, seen, rank, copies, move, hint);
  const bars = make("div", { class: "bars" });
  const node = make("li", { class: "card", "data-id": id, title: id }, main, make("span", { class: "title" }, name, score), bars);
  node.append(tools((what) => act(what, node.card)));
  node.addEventListener("click", (event) => act(event.shiftKey ? "add" : "choose", node.card));
  seen.addEventListener("dragstart", (event) => event.dataTransfer.setData(ITEM, id));
  seen.addEventListener("error", () => node.classList.add("lost"));
  const show = (card, longest) => {
    node.card = card;
    setText(name, card.name);
    setText(rank, card.rank === null ? "" : String(card.rank));
    setText(score, card.score === null ? "" : card.score.toFixed(3));
    setText(copies, card.copies.length ? `+${card.copies.length} nearly the same` : "");
    rank.hidden = card.rank === null;
    move.hidden = true;
    node.classList.toggle("stack", card.copies.length > 0);
    main.setAttribute("aria-label", label(card));
    showBars(bars, card.gave, longest);
  };
  return { node, show };
}

function tools(act) {
  const button = (what, text, title) => {
    const element = make("button", { type: "button", class: what, title, tabindex: -1 }, text);
    element.addEventListener("click", (event) => {
      event.stopPropagation();
      act(what);
    });
    return element;
  };
  return make("div", { class: "tools" }, button("more", "+ more", "More like this (M)"), button("less", "− less", "Less like this (L)"), button("details", "details", "Details (D)"));
}

const label = (card) =>
  card.rank === null
    ? `Make ${card.name} the reference`
    : `${card.rank}: ${card.name}, score ${card.score.toFixed(3)}${card.weak ? ", a weak match" : ""}. Make it the reference`;

function showBars(bars, gave, longest) {
  const terms = Object.entries(gave);
  if (bars.children.length !== terms.length) {
    bars.replaceChildren(...terms.map(() => make("span", { class: "gave" }, make("span", { class: "term" }), make("span", { class: "track" }, make("span", {})), make("span", { class: "value" }))));
  }
  terms.forEach(([term, value], at) => {
    const [name, track, number] = bars.children[at].children;
    setText(name, term);
    bars.children[at].title = EXPLAINED[role(term)] ?? "";
    setText(number, (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2));
    track.firstChild.className = `fill ${value < 0 ? "minus" : "plus"} ${role(term)}`;
    track.firstChild.style.width = `${((100 * Math.abs(value)) / longest).toFixed(1)}%`;
  });
}

function sorted(cards, field) {
  if (!field) return cards;
  const key = (card) => card.fields[field] ?? null;
  return [...cards].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === b) return 0;
    if (a === null || b === null) return a === null ? 1 : -1;
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  });
}

// How far each card has come from where the kept settings had it.
function markMoves(view) {
  const before = new Map(view.beside.cards.map((card) => [card.id, card.rank]));
  for (const node of $$("#current .card")) {
    const from = before.get(node.dataset.id);
    const move = $(".move", node);
    const up = from === undefined ? null : from - node.card.rank;
    move.hidden = up === 0;
    setText(move, up === null ? "new" : up > 0 ? `↑ ${up}` : `↓ ${-up}`);
  }
}

function showStatus(view, asked, state) {
  const { cards, searched, hidden, note } = view.now;
  const count = cards.reduce((sum, card) => sum + 1 + card.copies.length, 0);
  const away = Object.entries(hidden).map(([why, number]) => `${number.toLocaleString("en")} ${why === "excluded" ? "left out" : "hidden by filters"}`);
  const of = searched.toLocaleString("en");
  const none = searched && state.min !== null ? `None of ${of} scores ${state.min} or more` : "Nothing is left";
  const parts = [!count ? none : asked ? `The best ${count} of ${of}` : `${count} of ${of} to start from`, ...away];
  if (note && !note.startsWith(`${count} of`)) parts.push(note);
  setText($("#status"), parts.join(" · "));
}
