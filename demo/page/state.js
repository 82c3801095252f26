// The state of the page is one plain object. The request body, the address and the history are made from it.
// Fields that go to the server unchanged have the names of the search request.

export const AUTO = "auto"; // instead of weight controls: the weights are chosen for each query
export const PAGE_SIZE = 24;
export const MAX_RESULTS = 240;
const RENAMED = { knobs: "controls", beside: "comparison", more: "more_like", less: "less_like", min: "min_score", alone: "exclude_reference", shown: "k" }; // in links of earlier versions
const MERGE_MS = 1200;
const LAST_STEP = "mmretrieve-top"; // in the session storage

const isText = (value) => typeof value === "string";
const isTexts = (value) => Array.isArray(value) && value.every(isText);
const isNumberOrNull = (value) => value === null || Number.isFinite(value);
const isNameOrNull = (value) => value === null || isText(value);
const isControls = (value) =>
  ["beta", "alpha_image", "alpha_text", "prompt"].every((name) => Number.isFinite(value?.[name])) && value.beta >= 0 && value.beta <= 1 && (value.avoid === undefined || isNumberOrNull(value.avoid));
const isSetting = (value) => value === AUTO || isControls(value);
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isRegion = (value) => value === null || (Array.isArray(value) && value.length === 4 && value.every(Number.isFinite));
const isReference = (value) => isText(value?.id ?? value?.upload) && isRegion(value.region) && Number.isFinite(value.weight);
const isPrompt = (value) => isText(value?.text) && Number.isFinite(value.strength);
const isFilter = (value) =>
  isObject(value) && Object.entries(value).every(([name, bound]) => (name === "any_of" ? isTexts(bound) : ["at_least", "at_most"].includes(name) && Number.isFinite(bound)));
const isCount = (value) => Number.isInteger(value) && value >= 0;

// Every field of the state: its initial value, and which values of a link are accepted.
const FIELDS = {
  references: [[], (value) => Array.isArray(value) && value.every(isReference)], // {id} or {upload}, with region [left, top, right, bottom] or null, and a weight
  prompts: [[], (value) => Array.isArray(value) && value.every(isPrompt)], // every prompt once: what was added to the search
  avoid: ["", isText],
  caption: ["", isText],
  more_like: [[], isTexts],
  less_like: [[], isTexts],
  composer: [null, isNameOrNull], // null: automatic
  rule: [null, isNameOrNull],
  controls: [AUTO, isSetting], // or {beta, alpha_image, alpha_text, prompt}, and avoid if phrases to avoid do not keep their base weights
  comparison: [null, (value) => value === null || isSetting(value)], // the controls of a second column
  filters: [{}, (value) => isObject(value) && Object.values(value).every(isFilter)], // field → {any_of: […]} or {at_least, at_most}
  where: ["", isText],
  min_score: [null, isNumberOrNull],
  exclude_reference: [true, (value) => typeof value === "boolean"],
  sort: ["", isText],
  k: [PAGE_SIZE, (value) => isCount(value) && value > 0 && value <= MAX_RESULTS],
  seed: [0, isCount],
};

export function blank() {
  return structuredClone(Object.fromEntries(Object.entries(FIELDS).map(([name, [initial]]) => [name, initial])));
}

export function hasQuery(state) {
  return Boolean(state.references.length || state.prompts.length || state.avoid.trim() || state.more_like.length || state.less_like.length);
}

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

// The prompts with one more. An empty one, or one that is there already, adds nothing.
export function withPrompt(prompts, { text, strength = 1 }) {
  const added = text.trim();
  return !added || hasPrompt(prompts, added) ? prompts : [...prompts, { text: added, strength }];
}

export function hasPrompt(prompts, text) {
  return prompts.some((prompt) => prompt.text.toLowerCase() === text.toLowerCase());
}

// The body of a request: fields are sent as they are, or as below.
export function toRequest(state) {
  const { references, prompts, sort: _, ...unchanged } = state; // the server has no fields of these names
  const readsCaption = state.caption.trim() && references.length === 1 && (prompts.length || state.avoid.trim());
  return {
    ...unchanged,
    upload: references.filter((one) => one.upload).map((one) => one.upload),
    reference_id: references.filter((one) => one.id).map((one) => one.id),
    region: references.some((one) => one.region) ? references.map((one) => one.region ?? null) : [],
    image_weight: references.length > 1 ? references.map((one) => one.weight) : [],
    prompt: prompts.map((prompt) => prompt.text),
    strength: prompts.some((prompt) => prompt.strength !== 1) ? prompts.map((prompt) => prompt.strength) : [],
    avoid: state.avoid.trim() ? [state.avoid.trim()] : [],
    caption: readsCaption ? [state.caption.trim()] : [],
    where: state.where.trim() || null,
    min_score: hasQuery(state) ? state.min_score : null,
    exclude_reference: state.exclude_reference && references.length > 0,
    filters: Object.entries(state.filters).map(([field, condition]) => ({ field, ...condition })),
  };
}

// The address holds every field that differs from a blank page.
export function toAddress(state) {
  const empty = blank();
  const changed = Object.fromEntries(Object.entries(state).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(empty[name])));
  const parameters = new URLSearchParams(location.search);
  parameters.delete("q");
  if (Object.keys(changed).length) parameters.set("q", JSON.stringify(changed));
  const query = parameters.toString();
  return location.pathname + (query ? `?${query}` : "");
}

// Links are untrusted input: fields that do not have the expected shape are ignored.
export function fromAddress(search) {
  const empty = blank();
  try {
    const fields = JSON.parse(new URLSearchParams(search).get("q") ?? "{}");
    const renamed = Object.entries(fields).map(([name, value]) => [Object.hasOwn(RENAMED, name) ? RENAMED[name] : name, value]);
    const state = { ...empty, ...Object.fromEntries(renamed.filter(([name, value]) => Object.hasOwn(FIELDS, name) && FIELDS[name][1](value))) };
    return { ...state, references: inOrder(state.references), prompts: state.prompts.reduce(withPrompt, []) };
  } catch {
    return empty;
  }
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
