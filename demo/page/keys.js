// What single keys do, where nobody is writing.

import { $, $$ } from "./dom.js";

const ON_CARD = { a: "add", m: "more", l: "less", d: "details" };

export function keys(act, trail) {
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !isWriting(event.target)) {
      event.preventDefault();
      if (event.shiftKey ? trail.canRedo : trail.canUndo) history.go(event.shiftKey ? 1 : -1);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isWriting(event.target) || $("dialog[open]")) return;
    const card = event.target.closest?.(".card");
    const key = event.key.toLowerCase();
    if (card && Object.hasOwn(ON_CARD, key)) act(ON_CARD[key], card.card, card.closest("#pinned") !== null);
    else if (card && event.key.startsWith("Arrow")) go(card, event.key);
    else if (event.key === "/") $("#prompt").focus();
    else if (event.key === "?") $("#keys").showModal();
    else if (key === "t") focusPad();
    else return;
    event.preventDefault();
  });
}

function focusPad() {
  $("#tuning").open = true;
  $("#pad").focus();
}

const isWriting = (target) => target.matches?.("input:not([type=range], [type=checkbox]), textarea, select, [contenteditable]") ?? false;

function go(card, key) {
  const cards = $$(".card", card.parentElement);
  const at = cards.indexOf(card);
  const across = cards.filter((other) => other.offsetTop === cards[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[key];
  $(".picture", cards[Math.max(0, Math.min(cards.length - 1, at + step))]).focus();
}
