// How the query was interpreted: the caption of the reference, which can be edited, the prompts, phrases to avoid, and the weights.

import { $, clamp, decimal, make, setText } from "./dom.js";
import { referencesOf } from "./state.js";

export const TERM_HELP = {
  image: "similarity to the reference image",
  text: "similarity to the caption of the reference",
  composed: "similarity to the caption with the prompt applied",
  prompt: "similarity to the prompt by itself",
  avoid: "similarity to what should not be visible",
  more: "similarity to the items that results should be near to",
  less: "similarity to the items that results should be far from",
  joint: "similarity to image and prompt, encoded together",
  imagined: "similarity to the image, edited after the prompt",
  axis: "how far along the line between the two ends",
  judge: "what the judge made of the picture",
};
const CAPTION_SOURCES = { given: "given by you", fields: "from the item's fields", neighbors: "from similar items", tagger: "from the tagger" };

export const roleOf = (term) => term.replace(/ \d+$/, "");

// `change(caption)` is called with the caption that the user wrote; "" restores the generated caption.
export function interpretation(change) {
  const input = $("#caption");
  let used = "";
  const fitWidth = () => (input.size = clamp(input.value.length, 12, 60));
  input.addEventListener("input", fitWidth);
  input.addEventListener("change", () => input.value.trim() !== used && change(input.value.trim()));
  $("#reset-caption").addEventListener("click", () => change(""));

  return (view, state) => {
    used = view.words.text ?? "";
    showCaption(view, state);
    if (document.activeElement !== input || !input.value.trim()) input.value = used;
    fitWidth();
    showPrompts(view);
    $("#term-weights").replaceChildren(...weightChips(view.results.weights));
  };
}

function showCaption(view, state) {
  $("#caption-line").hidden = !view.words.text;
  $("#caption").readOnly = referencesOf(state).length > 1;
  setText($("#caption-source"), CAPTION_SOURCES[view.caption_source] ?? view.caption_source ?? "");
  $("#caption-source").title = view.caption_trust === null ? "" : `trust ${Math.round(100 * view.caption_trust)}%`;
  $("#reset-caption").hidden = !state.caption.trim() || view.caption_source !== "given";
  setText($("#rewritten-caption"), view.words.composed ?? "");
}

function showPrompts(view) {
  const textsOf = (role) => Object.entries(view.words).filter(([term]) => roleOf(term) === role);
  const quotes = textsOf("prompt").map(([, text]) => make("q", {}, text));
  const avoided = textsOf("avoid").map(([term, text]) => avoidChip(text, view.results.weights[term]));
  $("#prompt-line").replaceChildren(...(quotes.length ? ["Prompt: ", ...quotes.flatMap((quote) => [quote, " "])] : []), ...avoided);
}

function avoidChip(text, weight) {
  const chip = make("span", { class: "avoid-chip", title: weight ? TERM_HELP.avoid : "no weight in this setting" }, `avoid: ${text}`);
  chip.classList.toggle("unused", !weight);
  return chip;
}

function weightChips(weights) {
  return Object.entries(weights)
    .filter(([, weight]) => weight)
    .map(([term, weight]) => make("span", { class: `weight ${roleOf(term)}`, title: TERM_HELP[roleOf(term)] ?? "" }, `${term} × ${decimal(weight)}`));
}
