// The PDV plane: every setting of the three knobs is a point (beta, gamma), and gamma is the weight of the words with the prompt.

import { clamp, round } from "./dom.js";
import { AUTO } from "./state.js";

export const LOW = -0.5;
export const HIGH = 2; // the range that the paper sweeps

export const gamma = (knobs) => (1 - knobs.beta) * knobs.alpha_image + knobs.beta * knobs.alpha_text;

export const weights = (knobs) => ({ image: 1 - knobs.beta, text: knobs.beta - gamma(knobs), composed: gamma(knobs), prompt: knobs.prompt });

// The knobs at a point. The two alphas keep their difference where the range lets them, else they become equal.
export function at(beta, height, knobs) {
  const to = { beta: round(clamp(beta, 0, 1)), gamma: clamp(height, LOW, HIGH) };
  const apart = knobs.alpha_image - knobs.alpha_text;
  const text = to.gamma - (1 - to.beta) * apart;
  const both = [text + apart, text];
  const fits = both.every((alpha) => alpha >= LOW && alpha <= HIGH);
  const [alpha_image, alpha_text] = fits ? both : [to.gamma, to.gamma];
  return { ...knobs, beta: to.beta, alpha_image: round(alpha_image), alpha_text: round(alpha_text) };
}

export const PRESETS = [
  { name: "Stick to the image", knobs: { beta: 0.1, alpha_image: 1.4, alpha_text: 1.4, prompt: 0 } },
  { name: "Follow the prompt", knobs: { beta: 1, alpha_image: 1.6, alpha_text: 1.6, prompt: 0.5 } },
];

export const same = (one, other) => ["beta", "alpha_image", "alpha_text", "prompt"].every((name) => one[name] === other[name]);

export function told(knobs) {
  if (knobs === AUTO) return "automatic";
  const prompt = knobs.prompt ? ` · prompt ${round(knobs.prompt)}` : "";
  return `beta ${round(knobs.beta)} · alpha image ${round(knobs.alpha_image)} · alpha text ${round(knobs.alpha_text)}${prompt}`;
}
