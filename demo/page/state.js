// What a person asks, as one plain object: the page's memory, its address and its history are all made of it.

export const AUTO = "auto"; // in the place of knobs: weights are chosen for each question
export const SHOWN = 24;
export const MOST = 240;

export function blank() {
  return {
    references: [], // {id} or {upload}, with region [left, top, right, bottom] or null, and a weight
    prompts: [{ text: "", strength: 1 }],
    avoid: "",
    caption: "",
    more: [],
    less: [],
    knobs: AUTO, // or {beta, alpha_image, alpha_text, prompt}, and avoid where phrases to avoid count otherwise than by themselves
    beside: null, // the same of a second column
    filters: {}, // field → {any_of: […]} or {at_least, at_most}
    where: "",
    min: null,
    alone: true,
    sort: "",
    shown: SHOWN,
    seed: 0,
  };
}

export function isAsked(state) {
  return Boolean(state.references.length || said(state).length || state.avoid.trim() || state.more.length || state.less.length);
}

export function said(state) {
  return state.prompts.filter((prompt) => prompt.text.trim());
}

// The body of a request: uploads come before items, and region and weight follow that order.
export function toRequest(state) {
  const references = inOrder(state.references);
  const several = references.length > 1;
  const prompts = said(state);
  const captioned = state.caption.trim() && references.length === 1 && (prompts.length || state.avoid.trim());
  return {
    ask: {
      upload: references.filter((one) => one.upload).map((one) => one.upload),
      reference_id: references.filter((one) => one.id).map((one) => one.id),
      region: references.some((one) => one.region) ? references.map((one) => one.region ?? null) : [],
      image_weight: several ? references.map((one) => one.weight) : [],
      prompt: prompts.map((prompt) => prompt.text.trim()),
      strength: prompts.some((prompt) => prompt.strength !== 1) ? prompts.map((prompt) => prompt.strength) : [],
      avoid: state.avoid.trim() ? [state.avoid.trim()] : [],
      caption: captioned ? [state.caption.trim()] : [],
      more_like: state.more,
      less_like: state.less,
      where: state.where.trim() || null,
      min_score: isAsked(state) ? state.min : null,
      exclude_reference: state.alone && references.length > 0,
    },
    knobs: state.knobs,
    beside: state.beside,
    filters: Object.entries(state.filters).map(([field, wanted]) => ({ field, ...wanted })),
    shown: state.shown,
    seed: state.seed,
  };
}

// The references in that order.
export function inOrder(references) {
  return [...references.filter((one) => one.upload), ...references.filter((one) => one.id)];
}

// The address holds whatever differs from an empty page.
export function toAddress(state) {
  const empty = blank();
  const told = Object.fromEntries(Object.entries(state).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(empty[name])));
  const kept = new URLSearchParams(location.search);
  kept.delete("q");
  if (Object.keys(told).length) kept.set("q", JSON.stringify(told));
  const query = kept.toString();
  return location.pathname + (query ? `?${query}` : "");
}

// A link may come from anywhere: what does not have the shape of a state is left out.
export function fromAddress(search) {
  const empty = blank();
  try {
    const told = JSON.parse(new URLSearchParams(search).get("q") ?? "{}");
    const known = Object.entries(told).filter(([name, value]) => SHAPES[name]?.(value));
    return { ...empty, ...Object.fromEntries(known) };
  } catch {
    return empty;
  }
}

const isText = (value) => typeof value === "string";
const isTexts = (value) => Array.isArray(value) && value.every(isText);
const isKnobs = (value) =>
  ["beta", "alpha_image", "alpha_text", "prompt"].every((name) => Number.isFinite(value?.[name])) && value.beta >= 0 && value.beta <= 1 && (value.avoid === undefined || isNumberOrNone(value.avoid));
const isNumberOrNone = (value) => value === null || Number.isFinite(value);
const isSetting = (value) => value === AUTO || isKnobs(value);
const isRegion = (value) => value === null || (Array.isArray(value) && value.length === 4 && value.every(Number.isFinite));
const isFilter = (value) =>
  value !== null && typeof value === "object" && Object.entries(value).every(([name, wanted]) => (name === "any_of" ? isTexts(wanted) : ["at_least", "at_most"].includes(name) && Number.isFinite(wanted)));
const isWhole = (value) => Number.isInteger(value) && value >= 0;
const SHAPES = {
  references: (value) => Array.isArray(value) && value.every((one) => isText(one?.id ?? one?.upload) && isRegion(one.region) && Number.isFinite(one.weight)),
  prompts: (value) => Array.isArray(value) && value.length > 0 && value.every((one) => isText(one?.text) && Number.isFinite(one.strength)),
  avoid: isText,
  caption: isText,
  more: isTexts,
  less: isTexts,
  knobs: isSetting,
  beside: (value) => value === null || isSetting(value),
  filters: (value) => value !== null && typeof value === "object" && !Array.isArray(value) && Object.values(value).every(isFilter),
  where: isText,
  min: isNumberOrNone,
  alone: (value) => typeof value === "boolean",
  sort: isText,
  shown: (value) => isWhole(value) && value > 0 && value <= MOST,
  seed: isWhole,
};
