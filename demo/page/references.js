// The pictures to start from: chosen, dropped, pasted or taken from the gallery, whole or a part of them.

import { $, arrange, clamp, make, round } from "./dom.js";
import { localPicture, picture, upload } from "./remote.js";

export const ITEM = "application/x-mmretrieve-item";
const LEAST = 0.04; // of a side: a smaller box was a click

// `change(references)` is called with the new list; `trouble(error)` where a file is no picture.
export function references(change, trouble) {
  let held = [];
  const tiles = new Map();

  async function add(files) {
    for (const file of files) {
      try {
        const token = await upload(file);
        held = [...held.filter((one) => one.upload !== token), { upload: token, region: null, weight: 1 }];
        change(held);
      } catch (error) {
        trouble(error);
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
  const desk = $("#asking");
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      desk.classList.add("dropping");
    });
  }
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && desk.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    desk.classList.remove("dropping");
    const id = event.dataTransfer.getData(ITEM);
    if (id && desk.contains(event.target)) change([...held.filter((one) => one.id !== id), { id, region: null, weight: 1 }]);
    else if (event.dataTransfer.files.length) add([...event.dataTransfer.files]);
    else if (!id && event.dataTransfer.types.includes("text/uri-list")) trouble(new Error("An address is not a picture, and none is fetched: save the picture, then drop its file."));
  });

  return (state) => {
    held = state.references;
    const update = (key, with_) => change(held.map((one) => (keyOf(one) === key ? { ...one, ...with_ } : one)));
    const nodes = held.map((one) => {
      const key = keyOf(one);
      if (!tiles.has(key)) {
        tiles.set(key, tile(one, { update: (with_) => update(key, with_), remove: () => change(held.filter((other) => keyOf(other) !== key)) }));
      }
      tiles.get(key).show(one, held.length);
      return tiles.get(key).node;
    });
    arrange($("#tiles"), nodes);
    for (const key of [...tiles.keys()]) if (!held.some((one) => keyOf(one) === key)) tiles.delete(key);
    $("#references").classList.toggle("filled", held.length > 0);
    $("#references").classList.toggle("several", held.length > 1);
  };
}

const keyOf = (one) => one.upload ?? `item ${one.id}`;

function tile(one, { update, remove }) {
  const name = one.id ?? "your picture";
  const seen = make("img", { src: one.id ? picture(one.id) : (localPicture(one.upload) ?? `api/uploads/${one.upload}`), alt: `Reference: ${name}`, draggable: "false" });
  const box = make("div", { class: "box", tabindex: 0, role: "group", "aria-label": "The part that counts. Arrow keys move it, with Shift they resize it, Escape takes it away", hidden: true });
  const frame = make("div", { class: "frame" }, seen, box);
  const part = make("button", { type: "button", class: "quiet part", title: "Search by a part: drag a box over the picture" }, "▣ part");
  const away = make("button", { type: "button", class: "quiet remove", "aria-label": `Remove ${name}` }, "✕");
  const weight = make("input", { type: "range", min: 0, max: 2, step: 0.1, "aria-label": `How much ${name} counts` });
  const node = make("li", { class: "tile" }, frame, make("div", { class: "tile-tools" }, part, weight, away));
  away.addEventListener("click", () => {
    remove();
    $("#file").focus();
  });
  part.addEventListener("click", () => {
    update({ region: box.hidden ? [0.25, 0.25, 0.75, 0.75] : null });
    if (!box.hidden) box.focus();
  });
  weight.addEventListener("change", () => update({ weight: Number(weight.value) }));
  dragBox(frame, box, (region) => update({ region }));
  return {
    node,
    show(now, count) {
      place(box, now.region);
      part.setAttribute("aria-pressed", Boolean(now.region));
      weight.hidden = count < 2;
      weight.value = now.weight;
    },
  };
}

function place(box, region) {
  box.hidden = !region;
  if (!region) return;
  const [left, top, right, bottom] = region;
  box.dataset.region = JSON.stringify(region);
  Object.assign(box.style, { left: `${left * 100}%`, top: `${top * 100}%`, width: `${(right - left) * 100}%`, height: `${(bottom - top) * 100}%` });
}

function dragBox(frame, box, done) {
  let from = null;
  let drawn = null;
  const shares = (event) => {
    const seen = frame.getBoundingClientRect();
    return [clamp((event.clientX - seen.left) / seen.width, 0, 1), clamp((event.clientY - seen.top) / seen.height, 0, 1)];
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
    if (region[2] - region[0] > LEAST && region[3] - region[1] > LEAST) place(box, (drawn = region));
  });
  frame.addEventListener("pointerup", () => {
    from = null;
    if (drawn) done(drawn);
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, -0.05], ArrowDown: [0, 0.05] }[event.key];
    if (event.key === "Escape") done(null);
    else if (step) done(moved(JSON.parse(box.dataset.region), step, event.shiftKey));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

function moved([left, top, right, bottom], [across, down], resize) {
  if (resize) return [left, top, clamp(right + across, left + 0.05, 1), clamp(bottom + down, top + 0.05, 1)].map((side) => round(side, 0.001));
  const x = clamp(across, -left, 1 - right);
  const y = clamp(down, -top, 1 - bottom);
  return [left + x, top + y, right + x, bottom + y].map((side) => round(side, 0.001));
}
