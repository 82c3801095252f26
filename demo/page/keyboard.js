// Keyboard shortcuts. Single keys are ignored while a text is edited.

import { $, $$ } from "./dom.js";

const CARD_ACTIONS = { s: "choose", a: "add", m: "more_like", l: "less_like", d: "details" };

// `act(action, card, pinned)` is called for a shortcut on a card.
export function addShortcuts(act, steps) {
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !isTextInput(event.target)) {
      event.preventDefault();
      if (event.shiftKey ? steps.canRedo : steps.canUndo) history.go(event.shiftKey ? 1 : -1);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isTextInput(event.target) || $("dialog[open]")) return;
    const card = event.target.closest?.(".card");
    const key = event.key.toLowerCase();
    if (card && Object.hasOwn(CARD_ACTIONS, key)) act(CARD_ACTIONS[key], card.card, card.closest("#pinned") !== null);
    else if (card && event.key.startsWith("Arrow")) focusNeighbor(card, event.key);
    else if (event.key === "/") $("#prompt").focus();
    else if (event.key === "?") $("#shortcuts").showModal();
    else if (key === "t") focusPad();
    else return;
    event.preventDefault();
  });
}

function focusPad() {
  $("#weights-panel").open = true;
  $("#pad").focus();
}

const isTextInput = (target) => target.matches?.("input:not([type=range], [type=checkbox]), textarea, select, [contenteditable]") ?? false;

function focusNeighbor(card, key) {
  const cards = $$(".card", card.parentElement);
  const at = cards.indexOf(card);
  const perRow = cards.filter((other) => other.offsetTop === cards[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perRow, ArrowDown: perRow }[key];
  $(".picture", cards[Math.max(0, Math.min(cards.length - 1, at + step))]).focus();
}
