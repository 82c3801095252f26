// The weight controls: the PDV plane, the sliders and the presets show and set the same parameters.
// Every setting of the three PDV parameters is a point (beta, gamma) of the plane; gamma is the weight of the term composed.

import { $, $$, clamp, decimal, make, round, setText } from "./dom.js";
import { AUTO, hasQuery, promptsOf, referencesOf } from "./state.js";

const LOW = -0.5;
const HIGH = 2; // the range that the paper sweeps
const STEP = 0.05;
const PAD_WIDTH = 350; // of the drawing, in its own units
const FIELD = { left: 64, right: 250, top: 28, bottom: 240 }; // labels are outside, where the point cannot cover them
const LABEL_GAP = 16; // from the field: more than the radius of the point
const CORNERS = [
  { beta: 0, gamma: 0, term: "image" },
  { beta: 1, gamma: 0, term: "text" },
  { beta: 1, gamma: 1, term: "composed" },
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
function describe(setting) {
  if (setting === AUTO) return "automatic";
  const prompt = setting.prompt ? ` · prompt ${decimal(setting.prompt)}` : "";
  return `beta ${decimal(setting.beta)} · alpha image ${decimal(setting.alpha_image)} · alpha text ${decimal(setting.alpha_text)}${prompt}`;
}

// `change(part, committed)` is called with part of the state while a control moves, and once with `committed` when it is released.
export function weightControls(start, change) {
  const pad = $("#pad");
  let state = null;
  let controls = start.setting; // of the state; with automatic weights, those that give the same ranking
  const set = (next, committed) => {
    controls = next;
    show(controls, { automatic: false, inPlane: true });
    change({ controls }, committed);
  };
  const setAutomatic = () => change({ controls: AUTO }, true);

  // All settings with a name. The one to compare with is the first that differs.
  const named = [["automatic", AUTO], ["base method", start.base], ...PRESETS.map((preset) => [preset.name.toLowerCase(), preset.controls]), ["this gallery", start.setting], ...Object.entries(start.published)];
  const nameOf = (setting) => named.find(([, other]) => isSame(setting, other))?.[0] ?? describe(setting);
  addComparison(named, nameOf, () => state, change);
  addMethods(start, change);
  drawField(pad);
  drawSliders(start.help, (name, value, committed) => set({ ...controls, [name]: value }, committed));
  drawPresets(start, (next) => set({ ...next, avoid: controls.avoid ?? null }, true));
  addPadEvents(pad, () => controls, set, setAutomatic);
  $("#automatic").addEventListener("click", setAutomatic);

  return (next, view) => {
    state = next;
    showMethod(state);
    showComparison(state, nameOf);
    const automatic = state.controls === AUTO;
    const adjustable = view?.adjustable ?? false;
    controls = automatic ? (view?.results.controls ?? start.setting) : state.controls;
    show(controls, { automatic, inPlane: !automatic || Boolean(view?.results.controls) });
    setText($("#why"), hasQuery(state) ? explain(automatic, view) : "");
    $("#controls-hint").hidden = adjustable;
    $("#weights-panel").classList.toggle("inactive", !adjustable);
  };
}

// One line on how the weights were chosen.
function explain(automatic, view) {
  if (!automatic) return view?.adjustable === false ? "The weight controls do not apply to this query. Its weights are automatic." : "The weights are set by hand, in Fine-tune.";
  const why = view?.results.why?.replace(/^automatic: /, "");
  if (!why) return ""; // there is nothing to weigh
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
  setText($("#automatic"), automatic ? "automatic" : "reset to automatic");
}

function drawField(pad) {
  const svg = (tag, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  $(".triangle", pad).setAttribute("points", CORNERS.map(({ beta, gamma }) => `${x(beta)},${y(gamma)}`).join(" "));
  const { left, right, top, bottom } = FIELD;
  for (const [name, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) $(".field", pad).setAttribute(name, value);
  for (const level of [0, 1]) {
    $(".grid", pad).append(svg("line", { x1: FIELD.left, x2: FIELD.right, y1: y(level), y2: y(level) }));
  }
  for (const { beta, gamma, term } of CORNERS) {
    const side = beta === 0 ? { x: left - LABEL_GAP, "text-anchor": "end" } : { x: right + LABEL_GAP };
    $(".corners", pad).append(svg("circle", { cx: x(beta), cy: y(gamma), r: 4 }), svg("text", { ...side, y: y(gamma) + 5 }, term));
  }
  $(".corners", pad).append(svg("text", { x: (left + right) / 2, y: top - LABEL_GAP, "text-anchor": "middle", class: "faint" }, "↑ further along the prompt"));
}

// The composer and the rule. A caption is for the composer that it was written for.
function addMethods(start, change) {
  $("#composer").append(...start.composers.map((name) => new Option(name)));
  $("#rule").append(...start.rules.map((name) => new Option(name)));
  $("#composer").addEventListener("change", (event) => change({ composer: event.target.value || null, caption: "" }, true));
  $("#rule").addEventListener("change", (event) => change({ rule: event.target.value || null }, true));
}

function showMethod(state) {
  $("#composer").value = state.composer ?? "";
  $("#rule").value = state.rule ?? "";
  const isChosen = state.composer !== null || state.rule !== null;
  $("#method-hint").hidden = !isChosen || (referencesOf(state).length > 0 && promptsOf(state).length > 0);
  const parts = [state.composer, state.rule, state.controls === AUTO ? null : "weights by hand"].filter(Boolean);
  setText($("#setting"), parts.join(" · ") || "automatic");
}

// Two settings side by side: the left one is chosen here, the right one by the controls.
function addComparison(named, nameOf, getState, change) {
  $("#left-setting").append(...named.map(([name, setting]) => new Option(name, JSON.stringify(setting))));
  $("#left-setting").addEventListener("change", (event) => change({ comparison: JSON.parse(event.target.value) }, true));
  $("#compare").addEventListener("click", () => {
    const { comparison, controls } = getState();
    const isBase = isSame(controls, named[1][1]);
    change({ comparison: comparison ? null : isBase ? AUTO : named[1][1] }, true);
  });
  $("#right-setting").addEventListener("click", () => {
    $("#weights-panel").open = true;
    $("#pad").focus();
  });
}

function showComparison({ comparison, controls }, nameOf) {
  $("#compare").setAttribute("aria-pressed", Boolean(comparison));
  $("#compare-hint").hidden = !comparison;
  if (!comparison) return;
  setText($("#pinned h2"), `Left: ${nameOf(comparison)}`);
  setText($("#current h2"), `Right: ${nameOf(controls)}`);
  const list = $("#left-setting");
  const option = [...list.options].find((one) => isSame(JSON.parse(one.value), comparison)) ?? new Option(nameOf(comparison), JSON.stringify(comparison));
  if (!option.parentNode) list.append(option);
  list.value = option.value;
}

const isSame = (setting, other) => (setting === AUTO || other === AUTO ? setting === other : NAMES.every((name) => setting[name] === other[name]) && (setting.avoid ?? null) === (other.avoid ?? null));

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
