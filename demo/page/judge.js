// A judge looks at the best results once they are shown and the query has not changed for a moment; its results take their place.

import * as api from "./api.js";
import { $, setText } from "./dom.js";
import { countItems } from "./results.js";
import { hasQuery, toRequest } from "./state.js";

const STILL_MS = 400; // a judge takes long: it does not follow each movement of a slider

// `onView(view, state)` is called with judged results. Returns `show(state)`; `look(state, view)`, for results without the judge that
// were just shown; and `stop()`, for the moment at which they no longer count.
export function judge(start, change, onView) {
  for (const name of start.judges) $("#judge").append(new Option(name, name));
  $("#judging-options").hidden = !start.judges.length;
  $("#judge").addEventListener("change", (event) => change({ judge: event.target.value || null }));
  $("#judge-k").addEventListener("change", (event) => change({ judge_k: Number(event.target.value) }));
  $("#judge-weight").addEventListener("change", (event) => change({ judge_weight: event.target.value === "inf" ? "inf" : Number(event.target.value) }));
  let timer = null;
  let sending = null;

  function show(state) {
    $("#judge").value = start.judges.includes(state.judge) ? state.judge : "";
    choose($("#judge-k"), state.judge_k);
    choose($("#judge-weight"), state.judge_weight);
    for (const select of [$("#judge-k"), $("#judge-weight")]) select.disabled = !$("#judge").value;
  }

  function stop() {
    clearTimeout(timer);
    sending?.abort();
    sending = null;
    setText($("#judging"), "");
  }

  function look(state, view) {
    stop();
    const count = Math.min(state.judge_k, countItems(view.results.cards));
    if (!state.judge || !hasQuery(state) || !count) return;
    setText($("#judging"), `Looking at the best ${count}…`);
    timer = setTimeout(() => send(state), STILL_MS);
  }

  async function send(state) {
    const own = (sending = new AbortController());
    const failed = (error) => (own === sending ? setText($("#judging"), `${error.message} This is the order without the judge.`) : null);
    const view = await api.post("page/view", toJudged(state), own.signal).catch(failed);
    if (own !== sending || !view) return; // a newer query has stopped it, or it failed
    stop();
    onView(view, state);
  }

  return { show, look, stop };
}

// The body of a request whose results the judge of the state orders, if it has one.
export const toJudged = ({ judge, judge_k, judge_weight, ...state }) => ({ ...toRequest(state), ...(judge && hasQuery(state) && { judge, judge_k, judge_weight }) });

// Chooses a value of a link, too, which may not be among the options.
function choose(select, value) {
  if (![...select.options].some((option) => option.value === String(value))) select.append(new Option(value, value));
  select.value = value;
}
