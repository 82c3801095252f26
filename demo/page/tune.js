// The triangle, the sliders beside it and the presets: four views of the same knobs.

import { $, $$, clamp, make, round, setText } from "./dom.js";
import * as plane from "./plane.js";
import { AUTO } from "./state.js";

const FIELD = { left: 10, right: 256, top: 10, bottom: 240 };
const CORNERS = [
  { at: [0, 0], name: "the image", anchor: "start", dx: 4, dy: 20 },
  { at: [1, 0], name: "its words", anchor: "start", dx: 11, dy: 5 },
  { at: [1, 1], name: "the prompt", anchor: "start", dx: 11, dy: 5 },
];
const SLIDERS = [
  { name: "beta", label: "beta", low: 0, high: 1, told: "0 starts at the image, 1 at its words" },
  { name: "alpha_image", label: "alpha image", low: plane.LOW, high: plane.HIGH, told: "how far the prompt moves the image" },
  { name: "alpha_text", label: "alpha text", low: plane.LOW, high: plane.HIGH, told: "how far it moves the words" },
  { name: "prompt", label: "prompt alone", low: 0, high: 3, told: "how much the prompt counts by itself" },
];
const STEP = 0.05;
const WIDE = 350; // of the drawing, in its own units
const NOWHERE = { beta: 2 / 3, alpha_image: 1 / 3, alpha_text: 1 / 3 }; // the middle of the triangle

const x = (beta) => FIELD.left + beta * (FIELD.right - FIELD.left);
const y = (gamma) => FIELD.bottom - ((gamma - plane.LOW) / (plane.HIGH - plane.LOW)) * (FIELD.bottom - FIELD.top);

// `change(knobs, settled)` is called while something moves, and once with `settled` when it has come to rest.
export function tune(start, change) {
  const pad = $("#pad");
  let knobs = start.setting; // while weights are automatic, those that are nearest to them
  const set = (next, settled) => {
    knobs = next;
    show(knobs, "by hand");
    change(knobs, settled);
  };
  const release = () => change(AUTO, true);

  drawField(pad);
  drawSliders((name, value, settled) => set({ ...knobs, [name]: value }, settled));
  drawPresets(start, (next) => set({ ...next, avoid: knobs.avoid ?? null }, true));
  movePad(pad, () => knobs, set, release);
  $("#automatic").addEventListener("click", release);

  return (state, view) => {
    const automatic = state.knobs === AUTO;
    const tunable = view?.tunable ?? false;
    knobs = automatic ? (view?.now.knobs ?? start.setting) : state.knobs;
    show(knobs, !automatic ? "by hand" : view?.now.knobs ? "automatic" : "automatic nowhere");
    setText($("#why"), reason(automatic, view));
    $("#untuned").hidden = tunable;
    $("#tuning").classList.toggle("idle", !tunable);
  };
}

// What the automatic weights rest on, in one line.
function reason(automatic, view) {
  if (!automatic) return view?.tunable === false ? "Nothing to set by hand here: weights are automatic" : "Set by hand. Press to let the weights be chosen again";
  const why = view?.now.why?.replace(/^automatic: /, "") ?? "weights are chosen for each question";
  const nowhere = view?.tunable && !view.now.knobs ? ". These weights are no point of the triangle" : "";
  return why[0].toUpperCase() + why.slice(1) + nowhere;
}

// The knobs, and how they came about: "by hand", "automatic", or "automatic nowhere" where the weights are no point of the plane.
function show(knobs, how) {
  const pad = $("#pad");
  const point = $(".point", pad);
  const at = how.endsWith("nowhere") ? NOWHERE : knobs;
  point.setAttribute("class", `point ${how}`);
  point.setAttribute("cx", x(at.beta));
  point.setAttribute("cy", y(clamp(plane.gamma(at), plane.LOW, plane.HIGH)));
  const { image, text, composed } = plane.weights(knobs);
  pad.setAttribute("aria-valuemin", 0);
  pad.setAttribute("aria-valuemax", 1);
  pad.setAttribute("aria-valuenow", round(knobs.beta));
  const automatic = how.startsWith("automatic");
  pad.setAttribute("aria-valuetext", `${automatic ? "automatic, near to " : ""}image ${image.toFixed(2)}, its words ${text.toFixed(2)}, with the prompt ${composed.toFixed(2)}`);
  for (const input of $$("#knobs input")) {
    if (Number(input.value) !== knobs[input.name]) input.value = knobs[input.name];
    setText(input.parentElement.querySelector("output"), Number(knobs[input.name]).toFixed(2));
  }
  for (const button of $$("#presets button")) {
    button.setAttribute("aria-pressed", !automatic && plane.same(JSON.parse(button.dataset.knobs), knobs));
  }
  $("#automatic").setAttribute("aria-pressed", automatic);
  setText($("#setting"), automatic ? "automatic" : "by hand");
}

function drawField(pad) {
  const svg = (tag, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  $(".triangle", pad).setAttribute("points", CORNERS.map(({ at: [b, g] }) => `${x(b)},${y(g)}`).join(" "));
  for (const level of [0, 1]) {
    $(".grid", pad).append(svg("line", { x1: FIELD.left, x2: FIELD.right, y1: y(level), y2: y(level) }));
  }
  for (const { at: [b, g], name, anchor, dx, dy } of CORNERS) {
    $(".corners", pad).append(
      svg("circle", { cx: x(b), cy: y(g), r: 4 }),
      svg("text", { x: x(b) + dx, y: y(g) + dy, "text-anchor": anchor }, name),
    );
  }
  const side = svg("text", { x: FIELD.left + 10, y: FIELD.top + 18, class: "faint" }, "↑ further along the prompt");
  $(".corners", pad).append(side);
}

function drawSliders(moved) {
  for (const { name, label, low, high, told } of SLIDERS) {
    const output = make("output");
    const input = make("input", { type: "range", name, id: `knob-${name}`, min: low, max: high, step: STEP, "aria-describedby": `told-${name}` });
    input.addEventListener("input", () => moved(name, Number(input.value), false));
    input.addEventListener("change", () => moved(name, Number(input.value), true));
    $("#knobs").append(make("label", { class: "knob", for: input.id }, make("span", {}, label), output, input, make("small", { id: `told-${name}` }, told)));
  }
}

function drawPresets(start, choose) {
  for (const { name, knobs } of [...plane.PRESETS, { name: "Base method", knobs: start.base }]) {
    const button = make("button", { type: "button", class: "chip", "data-knobs": JSON.stringify(knobs) }, name);
    button.addEventListener("click", () => choose(knobs));
    $("#presets").append(button);
  }
  const list = $("#published");
  for (const [name, knobs] of [["this gallery's", start.setting], ...Object.entries(start.published)]) list.append(make("option", { value: JSON.stringify(knobs) }, name));
  list.addEventListener("change", () => {
    if (list.value) choose(JSON.parse(list.value));
    list.value = "";
  });
}

function movePad(pad, knobs, set, release) {
  const place = (event, settled) => {
    const seen = pad.getBoundingClientRect();
    const scale = WIDE / seen.width;
    const beta = ((event.clientX - seen.left) * scale - FIELD.left) / (FIELD.right - FIELD.left);
    const height = plane.HIGH - (((event.clientY - seen.top) * scale - FIELD.top) / (FIELD.bottom - FIELD.top)) * (plane.HIGH - plane.LOW);
    set(plane.at(beta, height, knobs()), settled);
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    pad.focus({ preventScroll: true });
    event.preventDefault();
    place(event, false);
  });
  pad.addEventListener("pointermove", (event) => pad.hasPointerCapture(event.pointerId) && place(event, false));
  pad.addEventListener("pointerup", (event) => place(event, true));
  pad.addEventListener("pointercancel", () => set(knobs(), true));
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  pad.addEventListener("keydown", (event) => {
    if (event.key === "Home") release();
    else if (event.key in steps) {
      const [across, up] = steps[event.key].map((step) => step * STEP * (event.shiftKey ? 4 : 1));
      set(plane.at(round(knobs().beta + across), plane.gamma(knobs()) + up, knobs()), true);
    } else return;
    event.preventDefault();
  });
}
