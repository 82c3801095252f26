// The reference images. The user chooses, drops or pastes them or takes them from the gallery; each has a weight and an optional region.

import { imageUrl, localImageUrl, upload } from "./api.js";
import { $, arrange, clamp, make, round, setText } from "./dom.js";
import { focusFirstResult } from "./keyboard.js";
import { keyOf, referencesOf, withReference } from "./state.js";

export const ITEM_TYPE = "application/x-mmretrieve-item";
const MIN_BOX_SIDE = 0.04; // as a share of the image; a smaller box counts as a click
const MIDDLE = [0.25, 0.25, 0.75, 0.75];

// `change(references)` gets the new list; `showError(error)` is called for a file that is not an image. `knowsDrawingsOnly`: its model is the built-in one.
export function references(change, showError, knowsDrawingsOnly) {
  let list = [];
  const tiles = new Map();
  const add = (reference) => change(withReference(list, reference));

  async function addFiles(files) {
    for (const file of files) {
      try {
        add({ upload: await upload(file) });
      } catch (error) {
        showError(error);
      }
    }
  }

  const file = $("#file");
  file.addEventListener("change", () => {
    addFiles([...file.files]);
    file.value = "";
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) event.preventDefault();
    addFiles(files);
  });
  addDropEvents({ addFiles, addItem: (id) => add({ id }), showError });
  addPicking((id) => add({ id }));

  return (state) => {
    const shown = referencesOf(state);
    if (shown.length !== list.length) $("#add-picture").open = shown.length === 0;
    list = shown;
    const update = (key, part) => change(list.map((one) => (keyOf(one) === key ? { ...one, ...part } : one)));
    const nodes = list.map((one, at) => {
      const key = keyOf(one);
      if (!tiles.has(key)) {
        tiles.set(key, tile(one, { update: (part) => update(key, part), remove: () => change(list.filter((other) => keyOf(other) !== key)) }));
      }
      tiles.get(key).show(one, at, list.length);
      return tiles.get(key).node;
    });
    arrange($("#tiles"), nodes);
    for (const key of [...tiles.keys()]) if (!list.some((one) => keyOf(one) === key)) tiles.delete(key);
    $("#query-form").classList.toggle("filled", list.length > 0);
    $("#query-form").classList.toggle("several", list.length > 1);
    $("#demo-note").hidden = !knowsDrawingsOnly || !list.some((one) => one.upload);
  };
}

function addDropEvents({ addFiles, addItem, showError }) {
  const form = $("#query-form");
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      form.classList.add("dropping");
    });
  }
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && form.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("dropping");
    const id = event.dataTransfer.getData(ITEM_TYPE);
    if (id && form.contains(event.target)) addItem(id);
    else if (event.dataTransfer.files.length) addFiles([...event.dataTransfer.files]);
    else if (!id && event.dataTransfer.types.includes("text/uri-list")) showError(new Error("The server does not fetch URLs. Save the image and drop its file."));
  });
}

// Picking: the next click on a result adds it as a reference, whatever a click does otherwise. Escape ends it.
function addPicking(addItem) {
  const hint = $("#pick-hint");
  const stop = () => {
    hint.hidden = true;
    if ($("#query-form").classList.contains("filled")) $("#add-picture").open = false;
  };
  $("#pick").addEventListener("click", () => {
    hint.hidden = false;
    focusFirstResult();
  });
  $("button", hint).addEventListener("click", stop);
  const unlessPicking = (handle) => (event) => hint.hidden || handle(event);
  document.addEventListener("keydown", unlessPicking((event) => event.key === "Escape" && stop()));
  document.addEventListener("click", unlessPicking((event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    event.stopPropagation();
    event.preventDefault();
    stop();
    addItem(card.dataset.id);
  }), true);
}

function tile(one, { update, remove }) {
  const name = one.id ?? "uploaded image";
  const image = make("img", { src: one.id ? imageUrl(one.id) : (localImageUrl(one.upload) ?? `api/uploads/${one.upload}`), alt: `Reference: ${name}`, draggable: "false" });
  const box = make("div", { class: "box", tabindex: 0, role: "group", "aria-label": "Part of the reference. The arrow keys move it, with Shift they resize it, Escape removes it.", hidden: true });
  const frame = make("div", { class: "frame" }, image, box);
  const partButton = make("button", { type: "button", class: "quiet part", "aria-pressed": "false", title: "Search by a part of the image" }, "Part");
  const removeButton = make("button", { type: "button", class: "quiet remove", "aria-label": `Remove ${name}` }, "✕");
  const term = make("span");
  const weight = make("input", { type: "range", min: 0, max: 2, step: 0.1, "aria-label": `Weight of ${name}` });
  const weightLine = make("label", { class: "tile-weight" }, term, weight);
  const node = make("li", { class: "tile" }, frame, make("div", { class: "tile-tools" }, partButton, removeButton), weightLine);
  image.addEventListener("load", () => frame.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight));
  removeButton.addEventListener("click", () => {
    remove();
    $("#add-picture summary").focus();
  });
  weight.addEventListener("change", () => update({ weight: Number(weight.value) }));
  const setRegion = (region) => update({ region });
  addPartEvents({ frame, box, button: partButton }, setRegion);
  addBoxEvents(frame, box, setRegion);
  return {
    node,
    show(current, at, count) {
      showBox(box, current.region);
      frame.classList.remove("drawing");
      partButton.setAttribute("aria-pressed", Boolean(current.region));
      weightLine.hidden = count < 2;
      setText(term, at ? `image ${at + 1}` : "image"); // the name of its term in the ranking
      weight.value = current.weight;
    },
  };
}

// The button removes the box, or asks for one. Until it is drawn, the whole image is searched.
function addPartEvents({ frame, box, button }, change) {
  const hint = make("button", { type: "button", class: "frame-hint", "aria-label": "Drag over the part that counts, or press Enter for a box in the middle" }, "Drag over the part that counts");
  frame.append(hint);
  const setDrawing = (drawing) => {
    frame.classList.toggle("drawing", drawing);
    button.setAttribute("aria-pressed", drawing);
    (drawing ? hint : button).focus({ preventScroll: true });
  };
  button.addEventListener("click", () => (box.hidden ? setDrawing(!frame.classList.contains("drawing")) : change(null)));
  hint.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      change(MIDDLE);
      box.focus();
    } else if (event.key === "Escape") setDrawing(false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

function showBox(box, region) {
  box.hidden = !region;
  if (!region) return;
  const [left, top, right, bottom] = region;
  box.dataset.region = JSON.stringify(region);
  Object.assign(box.style, { left: `${left * 100}%`, top: `${top * 100}%`, width: `${(right - left) * 100}%`, height: `${(bottom - top) * 100}%` });
}

function addBoxEvents(frame, box, change) {
  let from = null;
  let drawn = null;
  const shares = (event) => {
    const bounds = frame.getBoundingClientRect();
    return [clamp((event.clientX - bounds.left) / bounds.width, 0, 1), clamp((event.clientY - bounds.top) / bounds.height, 0, 1)];
  };
  frame.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" && !frame.classList.contains("drawing")) return; // a finger scrolls the page
    from = shares(event);
    drawn = null;
    frame.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  frame.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = shares(event);
    const region = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])].map((side) => round(side, 0.001));
    if (region[2] - region[0] > MIN_BOX_SIDE && region[3] - region[1] > MIN_BOX_SIDE) showBox(box, (drawn = region));
  });
  frame.addEventListener("pointerup", () => {
    from = null;
    if (drawn) change(drawn);
    drawn = null;
  });
  frame.addEventListener("pointercancel", () => (from = drawn = null));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, -0.05], ArrowDown: [0, 0.05] }[event.key];
    if (event.key === "Escape") change(null);
    else if (step) change(moveRegion(JSON.parse(box.dataset.region), step, event.shiftKey));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

function moveRegion([left, top, right, bottom], [across, down], resize) {
  if (resize) return [left, top, clamp(right + across, left + 0.05, 1), clamp(bottom + down, top + 0.05, 1)].map((side) => round(side, 0.001));
  const x = clamp(across, -left, 1 - right);
  const y = clamp(down, -top, 1 - bottom);
  return [left + x, top + y, right + x, bottom + y].map((side) => round(side, 0.001));
}
