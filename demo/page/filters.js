// What must hold of a result: fields, a lowest score, an expression.

import { $, $$, make, setText } from "./dom.js";

export function filters(start, change) {
  let held = null;
  const set = (field, wanted) => {
    const others = Object.fromEntries(Object.entries(held.filters).filter(([name]) => name !== field));
    change({ filters: wanted ? { ...others, [field]: wanted } : others });
  };
  for (const facet of start.facets) $("#facets").append(facet.choices.length ? choices(facet, set) : range(facet, set));
  $("#alone").addEventListener("change", (event) => change({ alone: event.target.checked }));
  $("#min").addEventListener("change", (event) => change({ min: event.target.value === "" ? null : Number(event.target.value) }));
  $("#where").addEventListener("change", (event) => change({ where: event.target.value }));
  $("#unfilter").addEventListener("click", () => change({ filters: {}, where: "", min: null }));

  return (state) => {
    for (const box of $$("#facets input[type=checkbox]")) box.checked = state.filters[box.name]?.any_of?.includes(box.value) ?? false;
    for (const input of $$("#facets input[type=number]")) input.value = state.filters[input.name]?.[input.dataset.bound] ?? "";
    for (const group of $$("#facets details")) group.classList.toggle("used", Object.hasOwn(state.filters, group.dataset.field));
    $("#alone").checked = state.alone;
    $("#min").value = state.min ?? "";
    if (held?.where !== state.where) $("#where").value = state.where;
    const count = Object.keys(state.filters).length + (state.where.trim() ? 1 : 0) + (state.min === null ? 0 : 1);
    setText($("#filtered"), count ? `${count} set` : "");
    held = state;
  };
}

function choices(facet, set) {
  const boxes = facet.choices.map(([value, count]) =>
    make("label", { class: "check" }, make("input", { type: "checkbox", name: facet.field, value }), ` ${value} `, make("span", { class: "soft" }, String(count))),
  );
  const group = make("details", { "data-field": facet.field }, make("summary", {}, facet.field), ...boxes);
  group.addEventListener("change", () => {
    const chosen = $$("input:checked", group).map((box) => box.value);
    set(facet.field, chosen.length ? { any_of: chosen } : null);
  });
  return group;
}

function range(facet, set) {
  const bound = (name, told, placeholder) =>
    make("input", { type: "number", step: "any", name: facet.field, "data-bound": name, "aria-label": `${facet.field}, ${told}`, placeholder: placeholder ?? "" });
  const low = bound("at_least", "at least", facet.lowest);
  const high = bound("at_most", "at most", facet.highest);
  const group = make("details", { "data-field": facet.field }, make("summary", {}, facet.field), make("div", { class: "range" }, low, " to ", high));
  group.addEventListener("change", () => {
    const wanted = Object.fromEntries([low, high].filter((input) => input.value !== "").map((input) => [input.dataset.bound, Number(input.value)]));
    set(facet.field, Object.keys(wanted).length ? wanted : null);
  });
  return group;
}
