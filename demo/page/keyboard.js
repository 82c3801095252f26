// Keyboard shortcuts. Single keys are ignored while a text is edited.

import { $, $$ } from "./dom.js";

const CARD_ACTIONS = { s: "choose", a: "add", m: "more_like", l: "less_like", d: "details" };

// `act(action, card, pinned)` is called for a shortcut on a card.
export function addShortcuts(act, steps) {
  $("#skip").addEventListener("click", (event) => {
    event.preventDefault();
    focusFirstResult();
  });
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !hasText(event.target)) {
      event.preventDefault();
      if (event.shiftKey ? steps.canRedo : steps.canUndo) history.go(event.shiftKey ? 1 : -1);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || $("dialog[open]")) return;
    const handled = isTextInput(event.target) ? leaveInput(event) : useShortcut(event, act);
    if (handled) event.preventDefault();
  });
}

// The first result gets the focus. Returns whether there is one.
export function focusFirstResult() {
  const picture = $("#current .card .picture");
  picture?.focus();
  return Boolean(picture);
}

// Escape leaves a text input, and the arrow down leads from the prompt to the results. Letters are text.
function leaveInput({ key, target }) {
  if (key === "Escape") target.blur();
  return key === "ArrowDown" && target.id === "prompt" && focusFirstResult();
}

function useShortcut(event, act) {
  const card = event.target.closest?.(".card");
  const key = event.key.toLowerCase();
  if (card && Object.hasOwn(CARD_ACTIONS, key)) act(CARD_ACTIONS[key], card.card, card.closest("#pinned") !== null);
  else if (card && event.key.startsWith("Arrow")) focusNeighbor(card, event.key);
  else if (event.key === "ArrowDown" && event.target.id === "skip") focusFirstResult();
  else if (event.key === "Escape") return closeSheet();
  else if (event.key === "/") $("#prompt").focus();
  else if (event.key === "?") $("#shortcuts").showModal();
  else if (key === "t") focusPad();
  else return false;
  return true;
}

// On a phone, filters and weights are sheets over the page.
function closeSheet() {
  const sheet = $("details.panel[open]");
  if (!sheet || getComputedStyle(sheet).position !== "fixed") return false;
  sheet.open = false;
  $("summary", sheet).focus();
  return true;
}

function focusPad() {
  $("#weights-panel").open = true;
  $("#pad").focus();
}

const isTextInput = (target) => target.matches?.("input:not([type=range], [type=checkbox]), textarea, select, [contenteditable]") ?? false;
const hasText = (target) => isTextInput(target) && target.value !== "";

// The next card in the direction of the arrow. Above the first row is the prompt.
function focusNeighbor(card, key) {
  const cards = $$(".card", card.parentElement);
  const at = cards.indexOf(card);
  const perRow = cards.filter((other) => other.offsetTop === cards[0].offsetTop).length;
  const next = at + { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perRow, ArrowDown: perRow }[key];
  if (cards[next]) $(".picture", cards[next]).focus();
  else if (key === "ArrowUp") $("#prompt").focus();
}
