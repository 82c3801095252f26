// The dialog with the large image, contributions and fields of one result.

import { imageUrl, thumbnailUrl } from "./api.js";
import { $, decimal, make } from "./dom.js";

// `act(action, card)` is called for the buttons; `weights` has the weight of each term of the ranking.
export function detailsDialog(act) {
  const dialog = $("#details");
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return (card, weights) => {
    const button = (action, label) => {
      const element = make("button", { type: "button", class: "quiet" }, label);
      element.addEventListener("click", () => {
        dialog.close();
        act(action, card);
      });
      return element;
    };
    const close = make("button", { type: "button", class: "quiet close", "aria-label": "Close" }, "✕");
    close.addEventListener("click", () => dialog.close());
    const image = make("img", { src: imageUrl(card.id), alt: card.title });
    image.addEventListener("error", () => image.getAttribute("src").startsWith("api/image") && (image.src = thumbnailUrl(card.id)));
    dialog.replaceChildren(
      close,
      make("div", { class: "large" }, image),
      make("div", { class: "facts" },
        make("h2", {}, card.title),
        make("p", { class: "soft id" }, card.id),
        card.rank === null ? "" : make("p", {}, `Rank ${card.rank}, score ${decimal(card.score, 4)}`),
        card.rank === null ? "" : table(["term", "weight", "contribution"], Object.entries(card.contributions).map(([term, value]) => [term, decimal(weights[term] ?? 0), decimal(value, 4)])),
        table(["field", "value"], Object.entries(card.fields).filter(([, value]) => value !== null)),
        card.copies.length ? make("div", { class: "copies-list" }, make("h3", {}, "Near-duplicates"), ...card.copies.map((id) => make("img", { src: thumbnailUrl(id), alt: id, title: id, loading: "lazy" }))) : "",
        make("div", { class: "tools" }, button("choose", "Use as reference"), button("add", "Add as reference"), button("more_like", "More like this"), button("less_like", "Less like this")),
      ),
    );
    dialog.showModal();
  };
}

function table(head, rows) {
  if (!rows.length) return "";
  const cells = (kind, values) => make("tr", {}, ...values.map((value) => make(kind, {}, String(value))));
  return make("table", {}, make("thead", {}, cells("th", head)), make("tbody", {}, ...rows.map((row) => cells("td", row))));
}
