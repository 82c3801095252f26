// How the question was read: the reference in words, which can be corrected, what the prompt asks for and what it forbids.

import { $, clamp, make, setText } from "./dom.js";
import { inOrder } from "./state.js";

export const EXPLAINED = {
  image: "likeness to the reference picture",
  text: "likeness to the reference said in words",
  composed: "likeness to those words with the prompt applied",
  prompt: "likeness to the prompt alone",
  avoid: "likeness to what should not show",
  more: "likeness to what you like",
  less: "likeness to what you do not like",
};
const SOURCES = { given: "from you", fields: "from the item's fields", neighbors: "from similar items", tagger: "by the tagger" };

export const role = (term) => term.replace(/ \d+$/, "");

// `change(caption)` takes the words that a person gives; "" leaves them to the library.
export function reading(change) {
  const input = $("#caption");
  let used = "";
  const size = () => (input.size = clamp(input.value.length, 12, 60));
  input.addEventListener("input", size);
  input.addEventListener("change", () => input.value.trim() !== used && change(input.value.trim()));
  $("#uncaption").addEventListener("click", () => change(""));

  return (view, state) => {
    used = view.words.text ?? "";
    showCaption(view, state);
    if (document.activeElement !== input || !input.value.trim()) input.value = used;
    size();
    showPrompt(view);
    $("#weights").replaceChildren(...weights(view.now.weights));
  };
}

function showCaption(view, state) {
  $("#read-caption").hidden = !view.words.text;
  $("#caption").readOnly = inOrder(state.references).length > 1;
  setText($("#source"), SOURCES[view.caption_source] ?? view.caption_source ?? "");
  $("#source").title = view.caption_trust === null ? "" : `trusted ${Math.round(100 * view.caption_trust)} %`;
  $("#uncaption").hidden = !state.caption.trim() || view.caption_source !== "given";
  setText($("#rewritten"), view.words.composed ?? "");
}

function showPrompt(view) {
  const of = (wanted) => Object.entries(view.words).filter(([term]) => role(term) === wanted);
  const asked = of("prompt").map(([, words]) => make("q", {}, words));
  const avoided = of("avoid").map(([term, words]) => without(words, view.now.weights[term]));
  $("#read-prompt").replaceChildren(...(asked.length ? ["asked for: ", ...asked.flatMap((words) => [words, " "])] : []), ...avoided);
}

function without(words, weight) {
  const chip = make("span", { class: "without", title: weight ? EXPLAINED.avoid : "not counted under these settings" }, `without: ${words}`);
  chip.classList.toggle("uncounted", !weight);
  return chip;
}

function weights(weights) {
  return Object.entries(weights)
    .filter(([, weight]) => weight)
    .map(([term, weight]) => make("span", { class: `weight ${role(term)}`, title: EXPLAINED[role(term)] ?? "" }, `${term} × ${weight.toFixed(2)}`));
}
