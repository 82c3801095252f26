// The page: its parts change one state and show it; every change requests new results.

import * as api from "./api.js";
import { detailsDialog } from "./details.js";
import { $, setText, whenPresent } from "./dom.js";
import { filters } from "./filters.js";
import { interpretation } from "./interpretation.js";
import { judge, toJudged } from "./judge.js";
import { addShortcuts } from "./keyboard.js";
import { prompts } from "./prompts.js";
import { references } from "./references.js";
import { countItems, results } from "./results.js";
import { blank, fromAddress, hasQuery, MAX_RESULTS, PAGE_SIZE, promptsOf, referencesOf, StateHistory, toAddress, toRequest, withNext, withoutItem, withReference, withReferences } from "./state.js";
import { conversation } from "./turns.js";
import { weightControls } from "./weights.js";

const RETRY_MS = 1500; // after a failed connection
const KEEPS_PAGE_SIZE = ["k", "controls", "comparison", "sort", "judge", "judge_k", "judge_weight"]; // changes that do not return to the first results

export function open(start) {
  let state = fromAddress(location.search);
  let lastView = null;
  let suggestedFor = null;
  const steps = new StateHistory(() => visit(fromAddress(location.search)));

  // `committed` is false while a slider or the point moves; these states are not added to the history.
  const change = (part, committed = true) => {
    const isOtherImage = "turns" in part && firstOf(referencesOf(part)) !== firstOf(referencesOf(state));
    state = { ...state, ...(isOtherImage ? { caption: "" } : {}), ...part }; // a caption describes one image
    if (!KEEPS_PAGE_SIZE.some((name) => name in part)) state.k = PAGE_SIZE;
    if (committed) steps.push(toAddress(state), Object.keys(part).join());
    if (committed) show();
    else showControls(state, lastView);
    search(state);
  };
  const visit = (other) => {
    state = other;
    show();
    search(state);
  };

  const showReferences = references((list) => change({ turns: withReferences(state.turns, list) }), showError, start.built_in_model);
  const promptPart = prompts(change);
  const showTurns = conversation((turns) => change({ turns }), promptPart.edit);
  const showControls = weightControls(start, change);
  const showFilters = filters(start, change);
  const showInterpretation = interpretation((caption) => change({ caption }));
  const showResults = results(act);
  const showDetails = detailsDialog(act);
  const judging = judge(start, change, showView);

  const firstStage = api.latest((sent) => api.post("page/view", toRequest(sent)), showFirstStage, handleError);
  const suggest = api.latest((sent) => api.post("page/suggestions", toRequest(sent)), promptPart.suggest, () => promptPart.suggest([]));

  function show() {
    showReferences(state);
    showTurns(state);
    promptPart.show(state);
    showControls(state, lastView);
    showFilters(state);
    judging.show(state);
    $("#undo").disabled = !steps.canUndo;
    $("#redo").disabled = !steps.canRedo;
    $("#sort").value = state.sort;
    $("#export").disabled = !hasQuery(state);
    const shownImages = JSON.stringify([referencesOf(state), state.seed]);
    if (shownImages === suggestedFor) return;
    suggestedFor = shownImages;
    suggest(state);
  }

  function search(sent) {
    judging.stop();
    firstStage(sent);
  }

  function showFirstStage(view, sent) {
    showView(view, sent);
    if (sent === state) judging.look(sent, view);
  }

  function showView(view, sent) {
    lastView = view;
    showError(null);
    setText($("#total"), `${view.total.toLocaleString("en")} ${view.total === 1 ? "image" : "images"}`);
    showControls(state, view);
    showInterpretation(view, sent);
    showResults(view, sent);
    setText($("#announcement"), announcement(view, sent));
    document.documentElement.dataset.shown = String(Number(document.documentElement.dataset.shown ?? 0) + 1);
  }

  async function handleError(error, sent) {
    showError(error);
    $("#columns").classList.add("stale");
    if (error instanceof api.ConnectionError) setTimeout(() => search(state), RETRY_MS);
    else if (error instanceof api.ExpiredUploadError && (await api.uploadAgain(uploadsOf(sent)))) search(sent);
  }

  function showError(error) {
    $("#error").hidden = !error;
    setText($("#error"), error?.message ?? "");
    if (!error) $("#columns").classList.remove("stale");
  }

  // `pinned` says whether the card is in the column of the comparison.
  function act(action, card, pinned = false) {
    const { turns } = state;
    if (action === "choose") change({ turns: withNext(turns, { references: withReference([], card) }), seed: 0 });
    if (action === "add") change({ turns: withReferences(turns, withReference(referencesOf(state), card)) });
    if (action === "more_like" || action === "less_like") change({ turns: withNext(withoutItem(turns, card.id), { [action]: [card.id] }) });
    if (action === "details") showDetails(card, (pinned ? lastView.comparison : lastView.results).weights);
    if (action === "choose") {
      scrollTo({ top: 0, behavior: "instant" });
      $("#prompt").focus({ preventScroll: true });
    }
  }

  async function exportResults(event) {
    const format = event.target.value;
    event.target.value = "";
    await api.download(`page/export/${format}`, toJudged(state)).catch(showError);
  }

  async function copyLink() {
    const copied = await Promise.resolve(navigator.clipboard?.writeText(location.href)).then(() => Boolean(navigator.clipboard), () => false);
    setText($("#copy-link span"), copied ? "Copied" : "Copy the address of this page");
    setTimeout(() => setText($("#copy-link span"), "Copy link"), 2500);
  }

  $("#undo").addEventListener("click", () => history.back());
  $("#redo").addEventListener("click", () => history.forward());
  $("#new-search").addEventListener("click", () => change(blank()));
  $("#help").addEventListener("click", () => $("#shortcuts").showModal());
  $("#sort").addEventListener("change", (event) => change({ sort: event.target.value }));
  $("#show-more").addEventListener("click", () => change({ k: Math.min(MAX_RESULTS, state.k + PAGE_SIZE) }));
  $("#other-sample").addEventListener("click", () => change({ seed: state.seed + 1 }));
  $("#export").addEventListener("change", exportResults);
  $("#copy-link").addEventListener("click", copyLink);

  for (const facet of start.facets) $("#sort").append(new Option(`by ${facet.field}`, facet.field));
  addShortcuts(act, steps);
  visit(state);
}

const uploadsOf = ({ turns }) => turns.flatMap((turn) => turn.references.filter((one) => one.upload).map((one) => one.upload));

// The reference that a caption describes.
function firstOf(references) {
  const [first] = references;
  return first?.upload ?? first?.id;
}

// What a screen reader says when results are shown.
function announcement({ results }, state) {
  const count = countItems(results.cards);
  const texts = promptsOf(state).map((prompt) => prompt.text).join(", ");
  return `${count} ${count === 1 ? "result" : "results"}${texts && `: ${texts}`}`;
}

const [start] = await Promise.all([api.get("page/start"), ...["#undo", "#query-form", "#pad", "#facets", "#shortcuts"].map(whenPresent)]);
open(start);
