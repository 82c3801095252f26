// The page: one state, changed by its parts, shown by all of them, and asked of the server when it changes.

import { details } from "./details.js";
import { $, setText } from "./dom.js";
import { filters } from "./filters.js";
import { keys } from "./keys.js";
import { reading } from "./reading.js";
import { references } from "./references.js";
import * as remote from "./remote.js";
import { results } from "./results.js";
import { blank, fromAddress, inOrder, isAsked, MOST, SHOWN, toAddress, toRequest } from "./state.js";
import { Trail } from "./trail.js";
import { tune } from "./tune.js";
import { words } from "./words.js";

const AGAIN = 1500; // milliseconds until a server that was away is asked again

export function open(start) {
  let state = fromAddress(location.search);
  let seen = null; // the last view
  const trail = new Trail(() => visit(fromAddress(location.search)));

  const change = (part, settled = true) => {
    const other = "references" in part && firstOf(part.references) !== firstOf(state.references);
    state = { ...state, ...(other ? { caption: "" } : {}), ...part }; // a caption is of the picture it was written for
    if (!("shown" in part) && !("knobs" in part) && !("beside" in part) && !("sort" in part)) state.shown = SHOWN;
    if (settled) trail.push(toAddress(state), Object.keys(part).join());
    if (settled) show();
    else showKnobs(state, seen);
    search(state);
  };
  const visit = (visited) => {
    state = visited;
    show();
    search(state);
  };

  const showReferences = references((list) => change({ references: list }), trouble);
  const said = words((part, settled) => (settled ? change(part) : ((state = { ...state, ...part }), show())));
  const showKnobs = tune(start, (knobs, settled) => change({ knobs }, settled));
  const showFilters = filters(start, change);
  const showReading = reading((caption) => change({ caption }));
  const showResults = results(act);
  const showDetails = details(act);

  const search = remote.latest((asked) => remote.post("page/view", toRequest(asked)), shown, failed);
  const suggest = remote.latest((asked) => remote.post("page/suggestions", toRequest(asked)), said.suggest, () => said.suggest([]));
  let suggested = null;

  function show() {
    showReferences(state);
    said.show(state);
    showKnobs(state, seen);
    showFilters(state);
    $("#undo").disabled = !trail.canUndo;
    $("#redo").disabled = !trail.canRedo;
    $("#beside").setAttribute("aria-pressed", Boolean(state.beside));
    $("#sort").value = state.sort;
    $("#export").disabled = !isAsked(state);
    const references = JSON.stringify(state.references);
    if (references !== suggested) {
      suggested = references;
      if (state.references.length) suggest(state);
      else said.suggest([]);
    }
  }

  function shown(view, asked) {
    seen = view;
    trouble(null);
    setText($("#total"), `${view.total.toLocaleString("en")} ${view.total === 1 ? "picture" : "pictures"}`);
    showKnobs(state, view);
    showReading(view, asked);
    showResults(view, asked, isAsked(asked));
    document.documentElement.dataset.shown = String(Number(document.documentElement.dataset.shown ?? 0) + 1);
  }

  async function failed(error, asked) {
    trouble(error);
    $("#columns").classList.add("stale");
    if (error instanceof remote.Away) setTimeout(() => search(state), AGAIN);
    else if (error instanceof remote.Expired && (await remote.sendAgain(asked.references.filter((one) => one.upload).map((one) => one.upload)))) search(asked);
  }

  function trouble(error) {
    $("#problem").hidden = !error;
    setText($("#problem"), error?.message ?? "");
    if (!error) $("#columns").classList.remove("stale");
  }

  function act(what, card, pinned = false) {
    const whole = { id: card.id, region: null, weight: 1 };
    const without = (list) => list.filter((id) => id !== card.id);
    if (what === "choose") change({ references: [whole], seed: 0 });
    if (what === "add") change({ references: [...state.references.filter((one) => one.id !== card.id), whole] });
    if (what === "more") change({ more: [...without(state.more), card.id], less: without(state.less) });
    if (what === "less") change({ less: [...without(state.less), card.id], more: without(state.more) });
    if (what === "details") showDetails(card, (pinned ? seen.beside : seen.now).weights);
    if (what === "choose") {
      scrollTo({ top: 0, behavior: "instant" });
      $("#prompt").focus({ preventScroll: true }); // what comes next is said there
    }
  }

  $("#undo").addEventListener("click", () => history.back());
  $("#redo").addEventListener("click", () => history.forward());
  $("#anew").addEventListener("click", () => change(blank()));
  $("#help").addEventListener("click", () => $("#keys").showModal());
  $("#beside").addEventListener("click", () => change({ beside: state.beside ? null : state.knobs }));
  $("#sort").addEventListener("change", (event) => change({ sort: event.target.value }));
  $("#show-more").addEventListener("click", () => change({ shown: Math.min(MOST, state.shown + SHOWN) }));
  $("#others").addEventListener("click", () => change({ seed: state.seed + 1 }));
  $("#export").addEventListener("change", exported);
  $("#share").addEventListener("click", share);

  async function exported(event) {
    const form = event.target.value;
    event.target.value = "";
    await remote.download(`page/export/${form}`, toRequest(state)).catch(trouble);
  }

  async function share() {
    const copied = await Promise.resolve(navigator.clipboard?.writeText(location.href)).then(() => Boolean(navigator.clipboard), () => false);
    setText($("#share span"), copied ? "Copied" : "Copy the address");
    setTimeout(() => setText($("#share span"), "Copy link"), 2500);
  }

  for (const facet of start.facets) $("#sort").append(new Option(`by ${facet.field}`, facet.field));
  if (matchMedia("(max-width: 640px)").matches) tuckAway($("#tuning"));
  keys(act, trail);
  visit(state);
}

// The reference that a caption is of.
function firstOf(references) {
  const [first] = inOrder(references);
  return first?.upload ?? first?.id;
}

// On a phone the triangle is a sheet over the results, which come into view above it when it opens.
function tuckAway(sheet) {
  sheet.open = false;
  sheet.addEventListener("toggle", () => sheet.open && $("#found").scrollIntoView({ block: "start" }));
}

// Gradio draws the page; this waits for its last piece.
async function ready(selector) {
  if ($(selector)) return;
  await new Promise((resolve) => {
    const watching = new MutationObserver(() => $(selector) && (watching.disconnect(), resolve()));
    watching.observe(document, { childList: true, subtree: true });
  });
}

const [start] = await Promise.all([remote.get("page/start"), ...["#undo", "#asking", "#pad", "#facets", "#keys"].map(ready)]);
open(start);
