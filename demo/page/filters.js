// Filters: conditions on fields, a minimum score, an SQL condition, and leaving out the references.

import { $, $$, make, round, setText } from "./dom.js";

export function filters(start, change) {
  let state = null;
  const set = (field, condition) => {
    const others = Object.fromEntries(Object.entries(state.filters).filter(([name]) => name !== field));
    change({ filters: condition ? { ...others, [field]: condition } : others });
  };
  for (const facet of start.facets) $("#facets").append(facet.choices.length ? choices(facet, set) : range(facet, set));
  $("#where").placeholder = example(start.facets);
  $("#exclude-reference").addEventListener("change", (event) => change({ exclude_reference: event.target.checked }));
  $("#min-score").addEventListener("change", (event) => change({ min_score: event.target.value === "" ? null : Number(event.target.value) }));
  $("#where").addEventListener("change", (event) => change({ where: event.target.value }));
  $("#clear-filters").addEventListener("click", () => change({ filters: {}, where: "", min_score: null }));

  return (next) => {
    for (const box of $$("#facets input[type=checkbox]")) box.checked = next.filters[box.name]?.any_of?.includes(box.value) ?? false;
    for (const input of $$("#facets input[type=number]")) input.value = next.filters[input.name]?.[input.dataset.bound] ?? "";
    for (const group of $$("#facets details")) group.classList.toggle("active", Object.hasOwn(next.filters, group.dataset.field));
    $("#exclude-reference").checked = next.exclude_reference;
    $("#min-score").value = next.min_score ?? "";
    if (state?.where !== next.where) $("#where").value = next.where;
    const count = Object.keys(next.filters).length + (next.where.trim() ? 1 : 0) + (next.min_score === null ? 0 : 1);
    setText($("#filter-count"), count ? `${count} active` : "");
    state = next;
  };
}

// A condition on the first two fields of the gallery.
function example(facets) {
  const quoted = (text, mark) => mark + text.replaceAll(mark, mark + mark) + mark;
  const condition = ({ field, choices: [first], lowest, highest }) => `${/^[a-z_]\w*$/i.test(field) ? field : quoted(field, '"')} ${first ? `= ${quoted(first[0], "'")}` : `< ${round((lowest + highest) / 2)}`}`;
  return facets.slice(0, 2).map(condition).join(" AND ") || "width > 300";
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
  const bound = (name, label, placeholder) =>
    make("input", { type: "number", step: "any", name: facet.field, "data-bound": name, "aria-label": `${facet.field}, ${label}`, placeholder: placeholder ?? "" });
  const low = bound("at_least", "at least", facet.lowest);
  const high = bound("at_most", "at most", facet.highest);
  const group = make("details", { "data-field": facet.field }, make("summary", {}, facet.field), make("div", { class: "range" }, low, " to ", high));
  group.addEventListener("change", () => {
    const condition = Object.fromEntries([low, high].filter((input) => input.value !== "").map((input) => [input.dataset.bound, Number(input.value)]));
    set(facet.field, Object.keys(condition).length ? condition : null);
  });
  return group;
}
