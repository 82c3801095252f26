// The reference images. The user chooses, drops or pastes them or takes them from the gallery; each has a weight and an optional region.

import { imageUrl, localImageUrl, upload } from "./api.js";
import { $, arrange, clamp, make, round } from "./dom.js";

export const ITEM_TYPE = "application/x-mmretrieve-item";
const MIN_BOX_SIDE = 0.04; // as a share of the image; a smaller box counts as a click

// `change(references)` gets the new list; `showError(error)` is called for a file that is not an image.
export function references(change, showError) {
  let list = [];
  const tiles = new Map();

  async function add(files) {
    for (const file of files) {
      try {
        const token = await upload(file);
        list = [...list.filter((one) => one.upload !== token), { upload: token, region: null, weight: 1 }];
        change(list);
      } catch (error) {
        showError(error);
      }
    }
  }

  const file = $("#file");
  file.addEventListener("change", () => {
    add([...file.files]);
    file.value = "";
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) event.preventDefault();
    add(files);
  });
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
    if (id && form.contains(event.target)) change([...list.filter((one) => one.id !== id), { id, region: null, weight: 1 }]);
    else if (event.dataTransfer.files.length) add([...event.dataTransfer.files]);
    else if (!id && event.dataTransfer.types.includes("text/uri-list")) showError(new Error("The server does not fetch URLs. Save the image and drop its file."));
  });

  return (state) => {
    list = state.references;
    const update = (key, part) => change(list.map((one) => (keyOf(one) === key ? { ...one, ...part } : one)));
    const nodes = list.map((one) => {
      const key = keyOf(one);
      if (!tiles.has(key)) {
        tiles.set(key, tile(one, { update: (part) => update(key, part), remove: () => change(list.filter((other) => keyOf(other) !== key)) }));
      }
      tiles.get(key).show(one, list.length);
      return tiles.get(key).node;
    });
    arrange($("#tiles"), nodes);
    for (const key of [...tiles.keys()]) if (!list.some((one) => keyOf(one) === key)) tiles.delete(key);
    $("#references").classList.toggle("filled", list.length > 0);
    $("#references").classList.toggle("several", list.length > 1);
  };
}

const keyOf = (one) => one.upload ?? `item ${one.id}`;

function tile(one, { update, remove }) {
  const name = one.id ?? "uploaded image";
  const image = make("img", { src: one.id ? imageUrl(one.id) : (localImageUrl(one.upload) ?? `api/uploads/${one.upload}`), alt: `Reference: ${name}`, draggable: "false" });
  const box = make("div", { class: "box", tabindex: 0, role: "group", "aria-label": "Region of the reference. The arrow keys move it, with Shift they resize it, Escape removes it.", hidden: true });
  const frame = make("div", { class: "frame" }, image, box);
  const regionButton = make("button", { type: "button", class: "quiet region", title: "Search by a region: drag a box over the image" }, "▣ region");
  const removeButton = make("button", { type: "button", class: "quiet remove", "aria-label": `Remove ${name}` }, "✕");
  const weight = make("input", { type: "range", min: 0, max: 2, step: 0.1, "aria-label": `Weight of ${name}` });
  const node = make("li", { class: "tile" }, frame, make("div", { class: "tile-tools" }, regionButton, weight, removeButton));
  removeButton.addEventListener("click", () => {
    remove();
    $("#file").focus();
  });
  regionButton.addEventListener("click", () => {
    update({ region: box.hidden ? [0.25, 0.25, 0.75, 0.75] : null });
    if (!box.hidden) box.focus();
  });
  weight.addEventListener("change", () => update({ weight: Number(weight.value) }));
  addBoxEvents(frame, box, (region) => update({ region }));
  return {
    node,
    show(current, count) {
      showBox(box, current.region);
      regionButton.setAttribute("aria-pressed", Boolean(current.region));
      weight.hidden = count < 2;
      weight.value = current.weight;
    },
  };
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
  });
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
