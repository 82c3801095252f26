// The dialog with the large image of one result, what can be done with it, its fields, its near-copies, and why it is a result.

import { imageUrl, thumbnailUrl } from "./api.js";
import { $, decimal, make } from "./dom.js";

const ACTIONS = [["choose", "Search with this"], ["add", "Add as reference"], ["more_like", "More like this"], ["less_like", "Less like this"]];

// `act(action, card)` is called for the buttons; `weights` has the weight of each term of the ranking.
export function detailsDialog(act) {
  const dialog = $("#details");
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return (card, weights) => {
    const buttons = ACTIONS.map(([action, label]) => {
      const button = make("button", { type: "button", class: action === "choose" ? "primary" : "quiet" }, label);
      button.addEventListener("click", () => {
        dialog.close();
        act(action, card);
      });
      return button;
    });
    const close = make("button", { type: "button", class: "quiet close", "aria-label": "Close" }, "✕");
    close.addEventListener("click", () => dialog.close());
    dialog.replaceChildren(
      close,
      make("div", { class: "large" }, largeImage(card)),
      make("div", { class: "facts" }, make("h2", {}, card.title), make("div", { class: "actions" }, ...buttons), fields(card), copies(card), reason(card, weights)),
    );
    dialog.showModal();
  };
}

function largeImage(card) {
  const image = make("img", { src: imageUrl(card.id), alt: card.title });
  const link = make("a", { href: imageUrl(card.id), target: "_blank", rel: "noopener", title: "Open the image alone" }, image);
  image.addEventListener("error", () => {
    if (image.getAttribute("src").startsWith("api/image")) image.src = thumbnailUrl(card.id); // the file is gone
    link.removeAttribute("href");
  });
  return link;
}

function fields(card) {
  const rows = Object.entries(card.fields).filter(([, value]) => value !== null && value !== "" && value !== card.title);
  return table(["field", "value"], [...rows, ["id", card.id]]);
}

function copies(card) {
  if (!card.copies.length) return "";
  const images = card.copies.map((id) => make("a", { href: imageUrl(id), target: "_blank", rel: "noopener", title: id }, make("img", { src: thumbnailUrl(id), alt: id, loading: "lazy" })));
  return make("div", { class: "copies-list" }, make("h3", {}, `${card.copies.length} nearly the same`), ...images);
}

function reason(card, weights) {
  if (card.rank === null) return "";
  const rows = Object.entries(card.contributions).map(([term, value]) => [term, decimal(weights[term] ?? 0), decimal(value, 4)]);
  return make("div", { class: "reason" }, make("h3", {}, "Why it is here"), make("p", {}, `Rank ${card.rank}, score ${decimal(card.score, 4)}`), table(["term", "weight", "contribution"], rows));
}

function table(head, rows) {
  if (!rows.length) return "";
  const cells = (kind, values) => make("tr", {}, ...values.map((value) => make(kind, {}, String(value))));
  return make("table", {}, make("thead", {}, cells("th", head)), make("tbody", {}, ...rows.map((row) => cells("td", row))));
}
