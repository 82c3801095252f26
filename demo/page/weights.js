// The weight controls: the PDV plane, the sliders and the presets show and set the same parameters.
// Every setting of the three PDV parameters is a point (beta, gamma) of the plane; gamma is the weight of the term composed.

import { $, $$, clamp, decimal, make, round, setText } from "./dom.js";
import { AUTO } from "./state.js";

const LOW = -0.5;
const HIGH = 2; // the range that the paper sweeps
const STEP = 0.05;
const PAD_WIDTH = 350; // of the drawing, in its own units
const FIELD = { left: 10, right: 256, top: 10, bottom: 240 };
const CORNERS = [
  { beta: 0, gamma: 0, term: "image", dx: 4, dy: 20 },
  { beta: 1, gamma: 0, term: "text", dx: 11, dy: 5 },
  { beta: 1, gamma: 1, term: "composed", dx: 11, dy: 5 },
];
const CENTER = { beta: 2 / 3, alpha_image: 1 / 3, alpha_text: 1 / 3 }; // of the triangle
const SLIDERS = [
  { name: "beta", label: "beta", low: 0, high: 1 },
  { name: "alpha_image", label: "alpha image", low: LOW, high: HIGH },
  { name: "alpha_text", label: "alpha text", low: LOW, high: HIGH },
  { name: "prompt", label: "prompt", low: 0, high: 3 },
];
const NAMES = SLIDERS.map((slider) => slider.name);
const PRESETS = [
  { name: "Keep the image", controls: { beta: 0.1, alpha_image: 1.4, alpha_text: 1.4, prompt: 0 } },
  { name: "Follow the prompt", controls: { beta: 1, alpha_image: 1.6, alpha_text: 1.6, prompt: 0.5 } },
];

const gammaOf = (controls) => (1 - controls.beta) * controls.alpha_image + controls.beta * controls.alpha_text;
const weightsOf = (controls) => ({ image: 1 - controls.beta, text: controls.beta - gammaOf(controls), composed: gammaOf(controls) });
const x = (beta) => FIELD.left + beta * (FIELD.right - FIELD.left);
const y = (gamma) => FIELD.bottom - ((gamma - LOW) / (HIGH - LOW)) * (FIELD.bottom - FIELD.top);

// The controls at a point. The two alphas keep their difference if both stay in range, else they become equal.
function controlsAt(beta, gamma, controls) {
  const to = { beta: round(clamp(beta, 0, 1)), gamma: clamp(gamma, LOW, HIGH) };
  const difference = controls.alpha_image - controls.alpha_text;
  const text = to.gamma - (1 - to.beta) * difference;
  const both = [text + difference, text];
  const inRange = both.every((alpha) => alpha >= LOW && alpha <= HIGH);
  const [alpha_image, alpha_text] = inRange ? both : [to.gamma, to.gamma];
  return { ...controls, beta: to.beta, alpha_image: round(alpha_image), alpha_text: round(alpha_text) };
}

// A setting as one line of text.
export function describe(setting) {
  if (setting === AUTO) return "automatic";
  const prompt = setting.prompt ? ` · prompt ${decimal(setting.prompt)}` : "";
  return `beta ${decimal(setting.beta)} · alpha image ${decimal(setting.alpha_image)} · alpha text ${decimal(setting.alpha_text)}${prompt}`;
}

// `change(setting, committed)` is called while a control moves, and once with `committed` when it is released.
export function weightControls(start, change) {
  const pad = $("#pad");
  let controls = start.setting; // of the state; with automatic weights, those that give the same ranking
  const set = (next, committed) => {
    controls = next;
    show(controls, { automatic: false, inPlane: true });
    change(controls, committed);
  };
  const setAutomatic = () => change(AUTO, true);

  drawField(pad);
  drawSliders(start.help, (name, value, committed) => set({ ...controls, [name]: value }, committed));
  drawPresets(start, (next) => set({ ...next, avoid: controls.avoid ?? null }, true));
  addPadEvents(pad, () => controls, set, setAutomatic);
  $("#automatic").addEventListener("click", setAutomatic);

  return (state, view) => {
    const automatic = state.controls === AUTO;
    const adjustable = view?.adjustable ?? false;
    controls = automatic ? (view?.results.controls ?? start.setting) : state.controls;
    show(controls, { automatic, inPlane: !automatic || Boolean(view?.results.controls) });
    setText($("#why"), explain(automatic, view));
    $("#controls-hint").hidden = adjustable;
    $("#weights-panel").classList.toggle("inactive", !adjustable);
  };
}

// One line on how the weights were chosen.
function explain(automatic, view) {
  if (!automatic) return view?.adjustable === false ? "The controls do not apply to this query. Its weights are automatic." : "Set manually. Press the button to choose the weights automatically.";
  const why = view?.results.why?.replace(/^automatic: /, "") ?? "weights are chosen for each query";
  const note = view?.adjustable && !view.results.controls ? ". These weights are not a point of the plane" : "";
  return why[0].toUpperCase() + why.slice(1) + note;
}

function show(controls, { automatic, inPlane }) {
  const pad = $("#pad");
  const point = $(".point", pad);
  const shown = inPlane ? controls : CENTER;
  point.setAttribute("class", `point${automatic ? " automatic" : ""}${inPlane ? "" : " outside"}`);
  point.setAttribute("cx", x(shown.beta));
  point.setAttribute("cy", y(clamp(gammaOf(shown), LOW, HIGH)));
  pad.setAttribute("aria-valuemin", 0);
  pad.setAttribute("aria-valuemax", 1);
  pad.setAttribute("aria-valuenow", round(controls.beta));
  const { image, text, composed } = weightsOf(controls);
  pad.setAttribute("aria-valuetext", `${automatic ? "automatic, " : ""}image ${image.toFixed(2)}, text ${text.toFixed(2)}, composed ${composed.toFixed(2)}`);
  for (const input of $$("#controls input")) {
    if (Number(input.value) !== controls[input.name]) input.value = controls[input.name];
    setText(input.parentElement.querySelector("output"), decimal(Number(controls[input.name])));
  }
  for (const button of $$("#presets button")) {
    const preset = JSON.parse(button.dataset.controls);
    button.setAttribute("aria-pressed", !automatic && NAMES.every((name) => preset[name] === controls[name]));
  }
  $("#automatic").setAttribute("aria-pressed", automatic);
  setText($("#setting"), automatic ? "automatic" : "manual");
}

function drawField(pad) {
  const svg = (tag, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  $(".triangle", pad).setAttribute("points", CORNERS.map(({ beta, gamma }) => `${x(beta)},${y(gamma)}`).join(" "));
  for (const level of [0, 1]) {
    $(".grid", pad).append(svg("line", { x1: FIELD.left, x2: FIELD.right, y1: y(level), y2: y(level) }));
  }
  for (const { beta, gamma, term, dx, dy } of CORNERS) {
    $(".corners", pad).append(svg("circle", { cx: x(beta), cy: y(gamma), r: 4 }), svg("text", { x: x(beta) + dx, y: y(gamma) + dy }, term));
  }
  $(".corners", pad).append(svg("text", { x: FIELD.left + 10, y: FIELD.top + 18, class: "faint" }, "↑ further along the prompt"));
}

function drawSliders(help, move) {
  for (const { name, label, low, high } of SLIDERS) {
    const output = make("output");
    const input = make("input", { type: "range", name, id: `control-${name}`, min: low, max: high, step: STEP, "aria-describedby": `help-${name}` });
    input.addEventListener("input", () => move(name, Number(input.value), false));
    input.addEventListener("change", () => move(name, Number(input.value), true));
    $("#controls").append(make("label", { class: "control", for: input.id }, make("span", {}, label), output, input, make("small", { id: `help-${name}` }, help[name])));
  }
}

function drawPresets(start, choose) {
  for (const { name, controls } of [...PRESETS, { name: "Base method", controls: start.base }]) {
    const button = make("button", { type: "button", class: "chip", "data-controls": JSON.stringify(controls) }, name);
    button.addEventListener("click", () => choose(controls));
    $("#presets").append(button);
  }
  const list = $("#published");
  for (const [name, controls] of [["this gallery", start.setting], ...Object.entries(start.published)]) list.append(make("option", { value: JSON.stringify(controls) }, name));
  list.addEventListener("change", () => {
    if (list.value) choose(JSON.parse(list.value));
    list.value = "";
  });
}

function addPadEvents(pad, getControls, set, setAutomatic) {
  const moveTo = (event, committed) => {
    const box = pad.getBoundingClientRect();
    const scale = PAD_WIDTH / box.width;
    const beta = ((event.clientX - box.left) * scale - FIELD.left) / (FIELD.right - FIELD.left);
    const gamma = HIGH - (((event.clientY - box.top) * scale - FIELD.top) / (FIELD.bottom - FIELD.top)) * (HIGH - LOW);
    set(controlsAt(beta, gamma, getControls()), committed);
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    pad.focus({ preventScroll: true });
    event.preventDefault();
    moveTo(event, false);
  });
  pad.addEventListener("pointermove", (event) => pad.hasPointerCapture(event.pointerId) && moveTo(event, false));
  pad.addEventListener("pointerup", (event) => moveTo(event, true));
  pad.addEventListener("pointercancel", () => set(getControls(), true));
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  pad.addEventListener("keydown", (event) => {
    if (event.key === "Home") setAutomatic();
    else if (event.key in directions) {
      const [across, up] = directions[event.key].map((direction) => direction * STEP * (event.shiftKey ? 4 : 1));
      set(controlsAt(round(getControls().beta + across), gammaOf(getControls()) + up, getControls()), true);
    } else return;
    event.preventDefault();
  });
}
