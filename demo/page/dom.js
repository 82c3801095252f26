// Helpers for the document. Text is always set as text, because a file may have any name.

export const $ = (selector, within = document) => within.querySelector(selector);
export const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Makes these nodes the children of a list, in this order, without touching a node that is already in its place.
export function arrange(list, nodes) {
  nodes.forEach((node, at) => {
    const child = list.children[at] ?? null;
    if (child === node) return;
    if (node.parentNode === list && list.moveBefore) list.moveBefore(node, child);
    else list.insertBefore(node, child);
  });
  while (list.children.length > nodes.length) list.lastElementChild.remove();
}

// Resolves when the element exists: Gradio builds the page step by step.
export async function whenPresent(selector) {
  if ($(selector)) return;
  await new Promise((resolve) => {
    const observer = new MutationObserver(() => $(selector) && (observer.disconnect(), resolve()));
    observer.observe(document, { childList: true, subtree: true });
  });
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
export const round = (value, step = 0.01) => Math.round(value / step) / Math.round(1 / step);
export const decimal = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
