// The texts of a query: prompts with their strengths, phrases to avoid, suggestions; and the items to be more or less like.

import { $, arrange, make, setText } from "./dom.js";

// `change(part, committed)` is called with the edited fields; if `committed` is true, a search follows.
export function prompts(change) {
  let state = null;
  const input = $("#prompt");
  const withFirst = (text) => state.prompts.map((prompt, at) => (at === 0 ? { ...prompt, text } : prompt));

  $("#query-form").addEventListener("submit", (event) => {
    event.preventDefault();
    change({ prompts: withFirst(input.value), avoid: $("#avoid").value }, true);
  });
  $("#avoid").addEventListener("change", (event) => change({ avoid: event.target.value }, true));
  input.addEventListener("change", () => change({ prompts: withFirst(input.value) }, true));
  $("#add-prompt").addEventListener("click", () => {
    change({ prompts: [...withFirst(input.value), { text: "", strength: 1 }] }, false);
    $("#prompts li:last-child input[type=text]")?.focus();
  });

  return {
    show(next) {
      if (state?.prompts[0].text !== next.prompts[0].text) input.value = next.prompts[0].text;
      if (state?.avoid !== next.avoid) $("#avoid").value = next.avoid;
      state = next;
      showPrompts(state, change);
      showFeedback(state, change);
      if (state.prompts.length > 1 || state.avoid) $("#more-options").open = true;
    },
    suggest(words) {
      arrange($("#suggestions"), words.map((word) => {
        const button = make("button", { type: "button", class: "chip" }, word);
        button.addEventListener("click", () => {
          input.value = word;
          change({ prompts: withFirst(word) }, true);
        });
        return button;
      }));
    },
  };
}

// Each of several prompts has a strength slider. A single prompt has none, because the weight controls move along its direction.
function showPrompts(state, change) {
  const list = $("#prompts");
  if (list.dataset.count !== String(state.prompts.length)) {
    list.dataset.count = state.prompts.length;
    list.replaceChildren(make("ul", {}, ...state.prompts.map((_, at) => promptRow(at, change, () => list.state))));
  }
  list.state = state;
  list.hidden = state.prompts.length < 2;
  for (const [at, prompt] of state.prompts.entries()) {
    const row = list.firstChild.children[at];
    const [text, strength] = row.querySelectorAll("input");
    if (text.value !== prompt.text) text.value = prompt.text;
    strength.value = prompt.strength;
    setText(row.querySelector("output"), prompt.strength.toFixed(1));
  }
}

function promptRow(at, change, getState) {
  const update = (part) => change({ prompts: getState().prompts.map((prompt, other) => (other === at ? { ...prompt, ...part } : prompt)) }, true);
  const text = make("input", { type: "text", maxlength: 2000, "aria-label": `Prompt ${at + 1}` });
  const strength = make("input", { type: "range", min: -2, max: 2, step: 0.1, "aria-label": `Strength of prompt ${at + 1}`, title: "How far to follow the prompt. 0 ignores it, negative values reverse it." });
  const remove = make("button", { type: "button", class: "quiet", "aria-label": `Remove prompt ${at + 1}` }, "✕");
  text.addEventListener("change", () => update({ text: text.value }));
  strength.addEventListener("change", () => update({ strength: Number(strength.value) }));
  remove.addEventListener("click", () => change({ prompts: getState().prompts.filter((_, other) => other !== at) }, true));
  return make("li", {}, text, strength, make("output"), remove);
}

function showFeedback(state, change) {
  const chips = [["more_like", "more like"], ["less_like", "less like"]].flatMap(([field, label]) =>
    state[field].map((id) => {
      const chip = make("button", { type: "button", class: `chip ${field}`, title: id, "aria-label": `Remove: ${label} ${id}` }, `${label} ${id} ✕`);
      chip.addEventListener("click", () => change({ [field]: state[field].filter((other) => other !== id) }, true));
      return chip;
    }),
  );
  arrange($("#feedback"), chips);
}
