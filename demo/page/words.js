// What should be different, in words: prompts and their strengths, what to avoid, and items that are liked or not.

import { $, arrange, make, setText } from "./dom.js";

// `change(part, settled)` takes what was said; nothing is searched before it is settled.
export function words(change) {
  let held = null;
  const first = $("#prompt");
  const said = (text) => held.prompts.map((prompt, at) => (at === 0 ? { ...prompt, text } : prompt));

  $("#asking").addEventListener("submit", (event) => {
    event.preventDefault();
    change({ prompts: said(first.value), avoid: $("#avoid").value }, true);
  });
  $("#avoid").addEventListener("change", (event) => change({ avoid: event.target.value }, true));
  first.addEventListener("change", () => change({ prompts: said(first.value) }, true));
  $("#add-prompt").addEventListener("click", () => {
    change({ prompts: [...said(first.value), { text: "", strength: 1 }] }, false);
    $("#strengths li:last-child input[type=text]")?.focus();
  });

  return {
    show(state) {
      if (held?.prompts[0].text !== state.prompts[0].text) first.value = state.prompts[0].text;
      if (held?.avoid !== state.avoid) $("#avoid").value = state.avoid;
      held = state;
      showPrompts(state, change);
      showLiked(state, change);
      if (state.prompts.length > 1 || state.avoid) $("#more-words").open = true;
    },
    type(text) {
      first.value = text;
    },
    suggest(offered) {
      arrange($("#suggestions"), offered.map((word) => {
        const button = make("button", { type: "button", class: "chip" }, word);
        button.addEventListener("click", () => {
          first.value = word;
          change({ prompts: said(word) }, true);
        });
        return button;
      }));
    },
  };
}

// With one prompt its strength is PDV's business; with several each has its own.
function showPrompts(state, change) {
  const several = state.prompts.length > 1;
  const list = $("#strengths");
  if (list.dataset.count !== String(state.prompts.length)) {
    list.dataset.count = state.prompts.length;
    list.replaceChildren(make("ul", {}, ...state.prompts.map((_, at) => promptRow(at, change, () => list.state))));
  }
  list.state = state;
  list.hidden = !several;
  for (const [at, prompt] of state.prompts.entries()) {
    const row = list.firstChild.children[at];
    const [text, strength] = row.querySelectorAll("input");
    if (text.value !== prompt.text) text.value = prompt.text;
    strength.value = prompt.strength;
    setText(row.querySelector("output"), prompt.strength.toFixed(1));
  }
}

function promptRow(at, change, state) {
  const set = (with_, settled) => change({ prompts: state().prompts.map((prompt, other) => (other === at ? { ...prompt, ...with_ } : prompt)) }, settled);
  const text = make("input", { type: "text", maxlength: 2000, "aria-label": `Prompt ${at + 1}` });
  const strength = make("input", { type: "range", min: -2, max: 2, step: 0.1, "aria-label": `How far to go along prompt ${at + 1}` });
  const away = make("button", { type: "button", class: "quiet", "aria-label": `Remove prompt ${at + 1}` }, "✕");
  text.addEventListener("change", () => set({ text: text.value }, true));
  strength.addEventListener("change", () => set({ strength: Number(strength.value) }, true));
  away.addEventListener("click", () => change({ prompts: state().prompts.filter((_, other) => other !== at) }, true));
  return make("li", {}, text, strength, make("output"), away);
}

function showLiked(state, change) {
  const chips = ["more", "less"].flatMap((kind) =>
    state[kind].map((id) => {
      const away = make("button", { type: "button", class: `chip ${kind}`, title: id, "aria-label": `No longer ${kind} like ${id}` }, `${kind} like ${id} ✕`);
      away.addEventListener("click", () => change({ [kind]: state[kind].filter((other) => other !== id) }, true));
      return away;
    }),
  );
  arrange($("#liked"), chips);
}
