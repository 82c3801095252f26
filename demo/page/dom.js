// Small helpers over the document. Text is always set as text: a file may be called anything.

export const $ = (selector, within = document) => within.querySelector(selector);
export const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Lets the children of a list be those nodes, in that order, without touching one that is in its place.
export function arrange(list, nodes) {
  nodes.forEach((node, at) => {
    const there = list.children[at] ?? null;
    if (there === node) return;
    if (node.parentNode === list && list.moveBefore) list.moveBefore(node, there);
    else list.insertBefore(node, there);
  });
  while (list.children.length > nodes.length) list.lastElementChild.remove();
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
export const round = (value, step = 0.01) => Math.round(value / step) / Math.round(1 / step);
