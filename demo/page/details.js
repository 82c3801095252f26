// Everything about one result, larger.

import { $, make } from "./dom.js";
import { picture, thumbnail } from "./remote.js";

// `act(what, card)` as for cards; `weights` are of each term of the ranking that is shown.
export function details(act) {
  const dialog = $("#details");
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return (card, weights) => {
    const button = (what, label) => {
      const element = make("button", { type: "button", class: "quiet" }, label);
      element.addEventListener("click", () => {
        dialog.close();
        act(what, card);
      });
      return element;
    };
    const close = make("button", { type: "button", class: "quiet close", "aria-label": "Close" }, "✕");
    close.addEventListener("click", () => dialog.close());
    const seen = make("img", { src: picture(card.id), alt: card.name });
    seen.addEventListener("error", () => seen.getAttribute("src").startsWith("api/image") && (seen.src = thumbnail(card.id)));
    dialog.replaceChildren(
      close,
      make("div", { class: "large" }, seen),
      make("div", { class: "facts" },
        make("h2", {}, card.name),
        make("p", { class: "soft id" }, card.id),
        card.rank === null ? "" : make("p", {}, `Rank ${card.rank}, score ${card.score.toFixed(4)}`),
        card.rank === null ? "" : table(["term", "weight", "gave"], Object.entries(card.gave).map(([term, gave]) => [term, (weights[term] ?? 0).toFixed(2), gave.toFixed(4)])),
        table(["field", "value"], Object.entries(card.fields).filter(([, value]) => value !== null)),
        card.copies.length ? make("div", { class: "under" }, make("h3", {}, "Nearly the same"), ...card.copies.map((id) => make("img", { src: thumbnail(id), alt: id, title: id, loading: "lazy" }))) : "",
        make("div", { class: "tools" }, button("choose", "Make it the reference"), button("add", "Add as a reference"), button("more", "More like this"), button("less", "Less like this")),
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
