// The texts of a query: its prompts, each a chip; suggestions; strengths and phrases to avoid; and the items to be more or less like.

import { $, arrange, make, setText } from "./dom.js";
import { hasPrompt, withPrompt } from "./state.js";

const isTouch = () => matchMedia("(pointer: coarse)").matches;

// `change(part)` is called with the edited fields; a search follows.
export function prompts(change) {
  let state = null;
  let suggestions = [];
  const input = $("#prompt"); // a draft, which is no part of the state: submitting it adds a prompt

  const add = (text) => change({ prompts: withPrompt(state.prompts, { text }) });
  const remove = (at) => change({ prompts: state.prompts.filter((_, other) => other !== at) });
  const edit = (at) => {
    input.value = state.prompts[at].text;
    remove(at);
    input.focus();
  };
  const focusInput = () => isTouch() || input.focus({ preventScroll: true });

  $("#query-form").addEventListener("submit", (event) => {
    event.preventDefault();
    add(input.value);
    input.value = "";
    if (isTouch()) input.blur(); // puts the keyboard of the phone away
  });
  $("#avoid").addEventListener("change", (event) => change({ avoid: event.target.value }));

  function showSuggestions() {
    const chips = suggestions.filter((word) => !hasPrompt(state.prompts, word)).map((word) => {
      const chip = make("button", { type: "button", class: "chip" }, word);
      chip.addEventListener("click", () => (add(word), focusInput()));
      return chip;
    });
    arrange($("#suggestions"), chips.length ? [make("span", { class: "soft" }, "Try:"), ...chips] : []);
  }

  return {
    show(next) {
      if (state?.avoid !== next.avoid) $("#avoid").value = next.avoid;
      const isOther = JSON.stringify(state?.prompts) !== JSON.stringify(next.prompts);
      state = next;
      if (isOther) {
        arrange($("#prompts"), state.prompts.map((prompt, at) => promptChip(prompt, { edit: () => edit(at), remove: () => (remove(at), focusInput()) })));
        showSuggestions();
      }
      showStrengths(state.prompts, change);
      showFeedback(state, change);
      $("#query-form").classList.toggle("has-prompts", state.prompts.length > 0);
      input.placeholder = state.prompts.length ? "add more words" : "in red";
      if (state.prompts.some((prompt) => prompt.strength !== 1) || state.avoid) $("#more-options").open = true;
    },
    suggest(words) {
      suggestions = words;
      showSuggestions();
    },
  };
}

// A click on the words moves them back into the input, where they can be replaced.
function promptChip({ text }, { edit, remove }) {
  const words = make("button", { type: "button", class: "words", title: "Edit this prompt", "aria-label": `Edit ${text}` }, text);
  const cross = make("button", { type: "button", class: "remove", title: "Remove this prompt", "aria-label": `Remove ${text}` }, "×");
  words.addEventListener("click", edit);
  cross.addEventListener("click", remove);
  return make("li", { class: "chip prompt-chip" }, words, cross);
}

// Each of several prompts has a strength slider. A single prompt has none, because the weight controls move along its direction.
function showStrengths(prompts, change) {
  const list = $("#strengths");
  const texts = JSON.stringify(prompts.map((prompt) => prompt.text));
  if (list.dataset.texts !== texts) {
    list.dataset.texts = texts;
    list.replaceChildren(...(prompts.length > 1 ? prompts.map((prompt, at) => strengthRow(prompt, (strength) => change({ prompts: list.prompts.map((other, row) => (row === at ? { ...other, strength } : other)) }))) : []));
  }
  list.prompts = prompts;
  [...list.children].forEach((row, at) => {
    const strength = prompts[at].strength;
    $("input", row).value = strength;
    setText($("output", row), strength.toFixed(1).replace("-", "−"));
  });
}

function strengthRow({ text }, change) {
  const slider = make("input", { type: "range", min: -2, max: 2, step: 0.1, "aria-label": `Strength of ${text}`, title: "How far to follow the prompt. 0 ignores it, negative values reverse it." });
  slider.addEventListener("change", () => change(Number(slider.value)));
  return make("li", {}, make("span", {}, text), slider, make("output"));
}

function showFeedback(state, change) {
  const chips = [["more_like", "more like"], ["less_like", "less like"]].flatMap(([field, label]) =>
    state[field].map((id) => {
      const chip = make("button", { type: "button", class: `chip ${field}`, title: id, "aria-label": `Remove: ${label} ${id}` }, `${label} ${id} ✕`);
      chip.addEventListener("click", () => change({ [field]: state[field].filter((other) => other !== id) }));
      return chip;
    }),
  );
  arrange($("#feedback"), chips);
}
