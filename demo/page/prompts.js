// What is said next: the input for a prompt, and suggestions. Strengths of prompts, how long they count, phrases to avoid, and an axis.

import { $, arrange, make, setText } from "./dom.js";
import { editPrompts, hasPrompt, promptsOf, withPrompt } from "./state.js";

const isTouch = () => matchMedia("(pointer: coarse)").matches;

// `change(part)` is called with the edited fields; a search follows.
export function prompts(change) {
  let state = null;
  let suggestions = [];
  const input = $("#prompt"); // a draft, which is no part of the state: submitting it adds a prompt

  const add = (text) => change({ turns: withPrompt(state.turns, { text }) });
  const focusInput = () => isTouch() || input.focus({ preventScroll: true });

  $("#query-form").addEventListener("submit", (event) => {
    event.preventDefault();
    add(input.value);
    input.value = "";
    if (isTouch()) input.blur(); // puts the keyboard of the phone away
  });
  $("#avoid").addEventListener("change", (event) => change({ avoid: event.target.value }));
  for (const name of ["axis", "axis_opposite"]) axisInput(name).addEventListener("change", (event) => change({ [name]: event.target.value }));
  for (const kind of ["input", "change"]) $("#axis-weight").addEventListener(kind, ({ target }) => {
    showAxisWeight({ axis: state.axis, axis_weight: Number(target.value) });
    change({ axis_weight: Number(target.value) }, kind === "change");
  });
  $("#decay").addEventListener("change", (event) => change({ decay: Number(event.target.value) }));

  function showSuggestions() {
    const chips = suggestions.filter((word) => !hasPrompt(state.turns, word)).map((word) => {
      const chip = make("button", { type: "button", class: "chip" }, word);
      chip.addEventListener("click", () => (add(word), focusInput()));
      return chip;
    });
    arrange($("#suggestions"), chips.length ? [make("span", { class: "soft" }, "Try:"), ...chips] : []);
  }

  return {
    show(next) {
      if (state?.avoid !== next.avoid) $("#avoid").value = next.avoid;
      for (const name of ["axis", "axis_opposite"]) if (state?.[name] !== next[name]) axisInput(name).value = next[name];
      const isOther = JSON.stringify(state?.turns) !== JSON.stringify(next.turns);
      state = next;
      if (isOther) showSuggestions();
      const all = promptsOf(state);
      showStrengths(all, ({ text }, strength) => change({ turns: editPrompts(state.turns, (prompt) => (prompt.text === text ? { ...prompt, strength } : prompt)) }));
      showDecay(state);
      showAxisWeight(state);
      $("#query-form").classList.toggle("has-prompts", all.length > 0);
      input.placeholder = all.length ? "add more words" : "in red";
      if (all.some((prompt) => prompt.strength !== 1) || state.avoid || state.axis || state.decay !== 1) $("#more-options").open = true;
    },
    // The words of a prompt that was removed go back into the input, where they can be replaced; without words it only gets the focus.
    edit(text) {
      if (text) input.value = text;
      if (text) input.focus();
      else focusInput();
    },
    suggest(words) {
      suggestions = words;
      showSuggestions();
    },
  };
}

// Each of several prompts has a strength slider. A single prompt has none, because the weight controls move along its direction.
function showStrengths(prompts, change) {
  const list = $("#strengths");
  const texts = JSON.stringify(prompts.map((prompt) => prompt.text));
  if (list.dataset.texts !== texts) {
    list.dataset.texts = texts;
    list.replaceChildren(...(prompts.length > 1 ? prompts.map((prompt) => strengthRow(prompt, (strength) => change(prompt, strength))) : []));
  }
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

const axisInput = (name) => $(`#${name.replace("_", "-")}`);

function showAxisWeight({ axis, axis_weight }) {
  $("#axis-weight").disabled = !axis.trim();
  $("#axis-weight").value = axis_weight;
  setText($("#axis-lines output"), axis_weight.toFixed(1).replace("-", "−"));
}

// Decay counts where the prompts of several turns add up.
function showDecay({ turns, decay }) {
  $("#decay-line").hidden = decay === 1 && turns.filter((turn) => turn.prompts.length).length < 2;
  $("#decay").value = decay;
  setText($("#decay-line output"), `${Math.round(100 * decay)}%`);
}
