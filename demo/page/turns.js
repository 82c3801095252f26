// The conversation: what each turn said. A click on an earlier turn returns to it; each word and each item can be taken back.

import { localImageUrl, thumbnailUrl } from "./api.js";
import { $, arrange, make } from "./dom.js";
import { editPrompts, keyOf, withoutItem } from "./state.js";

const FEEDBACK = { more_like: "more like", less_like: "less like" };

// `change(turns)` gets the new turns; `edit(text)` is called after it with the words of a removed prompt to write again, or "".
export function conversation(change, edit) {
  const list = $("#turns");
  let shown = "";
  return ({ turns }) => {
    if (shown === JSON.stringify(turns)) return;
    shown = JSON.stringify(turns);
    const remove = ({ text }, rewritten) => {
      change(editPrompts(turns, (prompt) => (prompt.text === text ? null : prompt)));
      edit(rewritten);
    };
    const rows = turns.map((turn, at) => {
      const isLast = at === turns.length - 1;
      const prompts = turn.prompts.map((prompt) => promptChip(prompt, { edit: () => remove(prompt, prompt.text), remove: () => remove(prompt, "") }));
      const items = Object.keys(FEEDBACK).flatMap((kind) => turn[kind].map((id) => itemChip(kind, id, () => change(withoutItem(turns, id)))));
      return make("li", { class: "turn", "aria-current": isLast && "step" }, returnButton(turn, at, isLast, () => change(turns.slice(0, at + 1))), ...prompts, ...items);
    });
    arrange(list, rows);
    list.classList.toggle("several", turns.length > 1);
  };
}

// The number of a turn and its references. The last turn is where the search is.
function returnButton({ references }, at, isLast, onClick) {
  const thumbnails = references.map((one) => make("img", { src: one.id ? thumbnailUrl(one.id) : (localImageUrl(one.upload) ?? `api/uploads/${one.upload}`), alt: "", title: keyOf(one) }));
  const button = make("button", { type: "button", class: "return", disabled: isLast, title: isLast ? null : "Return to this turn", "aria-label": isLast ? `Turn ${at + 1}` : `Return to turn ${at + 1}` }, `${at + 1}`, ...thumbnails);
  button.addEventListener("click", onClick);
  return button;
}

// A click on the words moves them back into the input.
function promptChip({ text }, { edit, remove }) {
  const words = make("button", { type: "button", class: "words", title: "Edit this prompt", "aria-label": `Edit ${text}` }, text);
  const cross = make("button", { type: "button", class: "remove", title: "Remove this prompt", "aria-label": `Remove ${text}` }, "×");
  words.addEventListener("click", edit);
  cross.addEventListener("click", remove);
  return make("span", { class: "chip prompt-chip" }, words, cross);
}

function itemChip(kind, id, remove) {
  const chip = make("button", { type: "button", class: `chip ${kind}`, title: id, "aria-label": `Remove: ${FEEDBACK[kind]} ${id}` }, FEEDBACK[kind], make("img", { src: thumbnailUrl(id), alt: "" }), "×");
  chip.addEventListener("click", remove);
  return chip;
}
