// The state of the page is one plain object. The request body, the address and the history are made from it.
// Fields that go to the server unchanged have the names of the search request.

export const AUTO = "auto"; // instead of weight controls: the weights are chosen for each query
export const PAGE_SIZE = 24;
export const MAX_RESULTS = 240;
const MAX_JUDGED = 100;
const RENAMED = { knobs: "controls", beside: "comparison", more: "more_like", less: "less_like", min: "min_score", alone: "exclude_reference", shown: "k" }; // in links of earlier versions
const MERGE_MS = 1200;
const LAST_STEP = "mmretrieve-top"; // in the session storage

const isText = (value) => typeof value === "string";
const isListOf = (isOne) => (value) => Array.isArray(value) && value.every(isOne);
const isTexts = isListOf(isText);
const isNumberOrNull = (value) => value === null || Number.isFinite(value);
const isNameOrNull = (value) => value === null || isText(value);
const isControls = (value) =>
  ["beta", "alpha_image", "alpha_text", "prompt"].every((name) => Number.isFinite(value?.[name])) && value.beta >= 0 && value.beta <= 1 && (value.avoid === undefined || isNumberOrNull(value.avoid));
const isSetting = (value) => value === AUTO || isControls(value);
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isRegion = (value) => value === null || (Array.isArray(value) && value.length === 4 && value.every(Number.isFinite));
const isReference = (value) => isText(value?.id ?? value?.upload) && isRegion(value.region) && Number.isFinite(value.weight);
const isPrompt = (value) => isText(value?.text) && Number.isFinite(value.strength);
const isShare = (value) => Number.isFinite(value) && value >= 0 && value <= 1;
const isTurn = (value) => isObject(value) && Object.entries(value).every(([name, list]) => Object.hasOwn(TURN_FIELDS, name) && TURN_FIELDS[name](list));
const isFilter = (value) =>
  isObject(value) && Object.entries(value).every(([name, bound]) => (name === "any_of" ? isTexts(bound) : ["at_least", "at_most"].includes(name) && Number.isFinite(bound)));
const isCount = (value) => Number.isInteger(value) && value >= 0;

// What a turn can say, and which values of a link are accepted. References take the place of those of earlier turns; all else adds up.
const TURN_FIELDS = {
  references: isListOf(isReference), // {id} or {upload}, with region [left, top, right, bottom] or null, and a weight
  prompts: isListOf(isPrompt), // every prompt once in all turns
  more_like: isTexts,
  less_like: isTexts,
};

// Every field of the state: its initial value, and which values of a link are accepted.
const FIELDS = {
  turns: [[], isListOf(isTurn)], // the conversation, oldest turn first
  decay: [1, isShare], // how much of the strength of its prompts a turn keeps with each further turn
  avoid: ["", isText],
  axis: ["", isText], // words, separated by commas
  axis_opposite: ["", isText],
  axis_weight: [1, Number.isFinite],
  caption: ["", isText],
  composer: [null, isNameOrNull], // null: automatic
  rule: [null, isNameOrNull],
  controls: [AUTO, isSetting], // or {beta, alpha_image, alpha_text, prompt}, and avoid if phrases to avoid do not keep their base weights
  comparison: [null, (value) => value === null || isSetting(value)], // the controls of a second column
  filters: [{}, (value) => isObject(value) && Object.values(value).every(isFilter)], // field → {any_of: […]} or {at_least, at_most}
  where: ["", isText],
  min_score: [null, isNumberOrNull],
  exclude_reference: [true, (value) => typeof value === "boolean"],
  judge: [null, isNameOrNull],
  judge_k: [20, (value) => isCount(value) && value > 0 && value <= MAX_JUDGED],
  judge_weight: [1, (value) => value === "inf" || (Number.isFinite(value) && value >= 0)],
  sort: ["", isText],
  k: [PAGE_SIZE, (value) => isCount(value) && value > 0 && value <= MAX_RESULTS],
  seed: [0, isCount],
};

export function blank() {
  return structuredClone(Object.fromEntries(Object.entries(FIELDS).map(([name, [initial]]) => [name, initial])));
}

export function hasQuery(state) {
  return Boolean(state.turns.length || state.avoid.trim() || wordsOf(state.axis).length);
}

const wordsOf = (text) => text.split(",").map((word) => word.trim()).filter(Boolean);

// The references with one more at the end of its kind. Uploads come before items, as in a request, so the terms "image" and "image 2"
// belong to the first and the second reference.
export function withReference(references, { id = null, upload = null }) {
  const others = references.filter((one) => keyOf(one) !== keyOf({ id, upload }));
  return inOrder([...others, { ...(upload ? { upload } : { id }), region: null, weight: 1 }]);
}

export const keyOf = (reference) => reference.upload ?? `item ${reference.id}`;

function inOrder(references) {
  return [...references.filter((one) => one.upload), ...references.filter((one) => !one.upload)];
}

const EMPTY_TURN = { references: [], prompts: [], more_like: [], less_like: [] };

// The references of the conversation: those of the last turn that has any.
export const referencesOf = ({ turns }) => turns.findLast((turn) => turn.references.length)?.references ?? [];

// The prompts of all turns.
export const promptsOf = ({ turns }) => turns.flatMap((turn) => turn.prompts);

// The turns with what one says next. A prompt ends a turn: what follows begins another one.
export function withNext(turns, said) {
  const isOpen = turns.length > 0 && !turns.at(-1).prompts.length;
  const last = isOpen ? turns.at(-1) : EMPTY_TURN;
  const next = Object.fromEntries(Object.entries(last).map(([name, list]) => [name, name === "references" && said[name] ? said[name] : [...list, ...(said[name] ?? [])]]));
  return [...(isOpen ? turns.slice(0, -1) : turns), next];
}

// The turns with other references in the place of the present ones.
export function withReferences(turns, references) {
  const at = turns.findLastIndex((turn) => turn.references.length);
  return at < 0 ? withNext(turns, { references }) : withoutEmpty(turns.map((turn, other) => (other === at ? { ...turn, references } : turn)));
}

// The turns with one more prompt. An empty one, or one that is there already, adds nothing.
export function withPrompt(turns, { text, strength = 1 }) {
  const added = text.trim();
  return !added || hasPrompt(turns, added) ? turns : withNext(turns, { prompts: [{ text: added, strength }] });
}

export function hasPrompt(turns, text) {
  return promptsOf({ turns }).some((prompt) => prompt.text.toLowerCase() === text.toLowerCase());
}

// The turns in which each prompt is what `edit` returns for it; without those for which it returns null.
export function editPrompts(turns, edit) {
  return withoutEmpty(turns.map((turn) => ({ ...turn, prompts: turn.prompts.map(edit).filter(Boolean) })));
}

// The turns without an item to be more or less like.
export function withoutItem(turns, id) {
  const without = (list) => list.filter((other) => other !== id);
  return withoutEmpty(turns.map((turn) => ({ ...turn, more_like: without(turn.more_like), less_like: without(turn.less_like) })));
}

const withoutEmpty = (turns) => turns.filter((turn) => Object.values(turn).some((list) => list.length));

// The body of a request: fields are sent as they are, or as below. The last turn is the request itself.
export function toRequest(state) {
  const { turns, sort, judge, judge_k, judge_weight, axis, axis_opposite, axis_weight, ...unchanged } = state; // judge.js adds the judge
  const references = referencesOf(state);
  const readsCaption = state.caption.trim() && references.length === 1 && (promptsOf(state).length || state.avoid.trim());
  return {
    ...unchanged,
    ...turnRequest(turns.at(-1) ?? EMPTY_TURN),
    turns: turns.slice(0, -1).map(turnRequest),
    ...(wordsOf(axis).length && { axis: wordsOf(axis), axis_opposite: wordsOf(axis_opposite), axis_weight }),
    avoid: state.avoid.trim() ? [state.avoid.trim()] : [],
    caption: readsCaption ? [state.caption.trim()] : [],
    where: state.where.trim() || null,
    min_score: hasQuery(state) ? state.min_score : null,
    exclude_reference: state.exclude_reference && references.length > 0,
    filters: Object.entries(state.filters).map(([field, condition]) => ({ field, ...condition })),
  };
}

// The fields of a request that a turn names. One that it does not name has the value of the turns before it.
function turnRequest({ references, prompts, more_like, less_like }) {
  const uploads = references.filter((one) => one.upload).map((one) => one.upload);
  const ids = references.filter((one) => one.id).map((one) => one.id);
  return {
    ...(uploads.length && { upload: uploads }),
    ...(ids.length && { reference_id: ids }),
    ...(references.some((one) => one.region) && { region: references.map((one) => one.region ?? null) }),
    ...(references.length > 1 && { image_weight: references.map((one) => one.weight) }),
    ...(prompts.length && { prompt: prompts.map((prompt) => prompt.text) }),
    ...(prompts.some((prompt) => prompt.strength !== 1) && { strength: prompts.map((prompt) => prompt.strength) }),
    ...(more_like.length && { more_like }),
    ...(less_like.length && { less_like }),
  };
}

// The address holds every field that differs from a blank page.
export function toAddress(state) {
  const empty = blank();
  const changed = Object.fromEntries(Object.entries(state).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(empty[name])));
  const parameters = new URLSearchParams(location.search);
  parameters.delete("q");
  if (Object.keys(changed).length) parameters.set("q", JSON.stringify(changed, withoutEmptyLists));
  const query = parameters.toString();
  return location.pathname + (query ? `?${query}` : "");
}

const withoutEmptyLists = (_, value) => (Array.isArray(value) && !value.length ? undefined : value);

// Links are untrusted input: fields that do not have the expected shape are ignored.
export function fromAddress(search) {
  const empty = blank();
  try {
    const fields = JSON.parse(new URLSearchParams(search).get("q") ?? "{}");
    const renamed = Object.entries(fields).map(([name, value]) => [Object.hasOwn(RENAMED, name) ? RENAMED[name] : name, value]);
    const accepted = (expected) => Object.fromEntries(renamed.filter(([name, value]) => Object.hasOwn(expected, name) && expected[name](value)));
    const state = { ...empty, ...accepted(Object.fromEntries(Object.entries(FIELDS).map(([name, [, isExpected]]) => [name, isExpected]))) };
    const only = accepted(TURN_FIELDS); // links of earlier versions have one turn, whose fields are those of the state
    return { ...state, turns: tidy(Object.keys(only).length ? [only] : state.turns) };
  } catch {
    return empty;
  }
}

// The turns of a link with all their fields, the uploads first, and each prompt once.
function tidy(turns) {
  const complete = turns.map((turn) => ({ ...EMPTY_TURN, ...turn, references: inOrder(turn.references ?? []) }));
  const seen = new Set([""]);
  return editPrompts(complete, ({ text, strength }) => {
    const prompt = { text: text.trim(), strength };
    const isNew = !seen.has(prompt.text.toLowerCase());
    seen.add(prompt.text.toLowerCase());
    return isNew ? prompt : null;
  });
}

// Undo and redo are the browser's back and forward; this class tracks whether each is possible.
export class StateHistory {
  constructor(visit) {
    const isNew = history.state?.at === undefined; // opened by an address, not by going back to it
    if (isNew) history.replaceState({ at: 0 }, "");
    this.last = isNew ? 0 : Number(sessionStorage.getItem(LAST_STEP) ?? 0);
    addEventListener("popstate", () => visit());
  }

  get at() {
    return history.state?.at ?? 0;
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.last;
  }

  // Changes of the weight controls that follow each other within MERGE_MS, such as those by arrow keys, are one step.
  push(address, kind) {
    if (address === location.pathname + location.search) return;
    const merges = kind === "controls" && kind === this.kind && performance.now() - this.when < MERGE_MS;
    [this.kind, this.when] = [kind, performance.now()];
    if (merges) {
      history.replaceState(history.state, "", address);
      return;
    }
    this.last = this.at + 1;
    sessionStorage.setItem(LAST_STEP, this.last);
    history.pushState({ at: this.last }, "", address);
  }
}
