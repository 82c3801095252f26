// Undo and redo are the browser's own back and forward; this knows how far each of them goes.

const TOP = "mmretrieve-top";
const TOGETHER = 1200; // milliseconds

export class Trail {
  constructor(visit) {
    const fresh = history.state?.at === undefined; // opened by an address, not by going back to it
    if (fresh) history.replaceState({ at: 0 }, "");
    this.top = fresh ? 0 : Number(sessionStorage.getItem(TOP) ?? 0);
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

  // Steps of one kind that follow each other quickly are one, as those of a slider moved by its keys.
  push(address, kind) {
    if (address === location.pathname + location.search) return;
    const goesOn = kind === "knobs" && kind === this.kind && performance.now() - this.when < TOGETHER;
    [this.kind, this.when] = [kind, performance.now()];
    if (goesOn) {
      history.replaceState(history.state, "", address);
      return;
    }
    this.top = this.at + 1;
    sessionStorage.setItem(TOP, this.top);
    history.pushState({ at: this.top }, "", address);
  }
}
