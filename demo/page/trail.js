// Undo and redo are the browser's own back and forward; this knows how far each of them goes.

const TOP = "mmretrieve-top";

export class Trail {
  constructor(visit) {
    this.top = Number(sessionStorage.getItem(TOP) ?? 0);
    if (history.state?.at === undefined) history.replaceState({ at: 0 }, "");
    addEventListener("popstate", () => visit());
  }

  get at() {
    return history.state?.at ?? 0;
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.top;
  }

  push(address) {
    if (address === location.pathname + location.search) return;
    this.top = this.at + 1;
    sessionStorage.setItem(TOP, this.top);
    history.pushState({ at: this.top }, "", address);
  }
}
