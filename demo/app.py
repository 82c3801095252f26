"""The page's layout and wiring; what it does is in `handlers`, what results look like in `cards`."""

from __future__ import annotations

import io
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, HTTPException, Response
from PIL import Image

from demo import cards
from demo.handlers import HIGH_ALPHA, LOW_ALPHA, Search, Shop
from mmretrieve import PDV, PUBLISHED, MMRetrieveError

HERE = Path(__file__).parent
PRESETS = {
    "Words only": PDV(),
    "Balanced": PUBLISHED["cirevl"],
    "Stick to the picture": PDV(alpha_image=1.4, alpha_text=1.0, beta=0.1),
}
CLICKED = "element.addEventListener('click', event => { const card = event.target.closest('[data-position]'); if (card) trigger('click', {position: Number(card.dataset.position)}); });"
START = "Choose a picture to start from, or say what you are looking for."
PDV_IN_ONE_SENTENCE = "The prompt adds a direction to the words; how far should words and picture follow it?"
Outputs = tuple[Any, ...]


def build(shop: Shop, *, title: str, prompts: tuple[str, ...] = ()) -> FastAPI:
    """The whole server: thumbnails by number, and the page at the root."""
    server = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)

    @server.get("/thumbnails/{position}")
    def thumbnail(position: int) -> Response:
        try:
            picture = shop.thumbnail(position)
        except MMRetrieveError as error:
            raise HTTPException(404, str(error)) from error
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})

    mounted: FastAPI = gr.mount_gradio_app(
        server,
        page(shop, title=title, prompts=prompts),
        path="/",
        server_name="127.0.0.1",
        footer_links=[],
        max_file_size="20mb",
        show_error=False,
        css_paths=[HERE / "style.css"],
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )
    return mounted


@dataclass(frozen=True)
class Desk:
    """The left side of the page: everything a person can set."""

    picture: gr.Image
    prompt: gr.Textbox
    suggestions: list[gr.Button]
    go: gr.Button
    knobs: list[gr.Slider]  # alpha image, alpha text, beta
    presets: dict[gr.Button, PDV]
    caption: gr.Textbox
    again: gr.Button


def page(shop: Shop, *, title: str, prompts: tuple[str, ...]) -> gr.Blocks:
    """The Gradio page."""
    options = {"analytics_enabled": False, "fill_width": True, "delete_cache": (3600, 3600)}
    with gr.Blocks(title=f"{title} · mmretrieve", **options) as blocks:
        gr.HTML(cards.header(title, len(shop.retriever.gallery)))
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=290, elem_id="desk"):
                desk = _desk(shop.setting, prompts)
            with gr.Column(scale=3, min_width=320):
                results = gr.HTML(cards.grid(shop.window(0), START), js_on_load=CLICKED, elem_id="results")
        _wire(shop, desk, results)
    return blocks


def _desk(start: PDV, prompts: tuple[str, ...]) -> Desk:
    looks: dict[str, Any] = {"sources": ["upload", "clipboard"], "height": 260, "buttons": []}
    invitation = "Drop or paste a picture here,\nor click one on the right"
    picture = gr.Image(type="filepath", label="Reference", elem_id="reference", placeholder=invitation, **looks)
    picture.preprocess = _uploaded  # Gradio would open the file itself, and raise where ours explains
    prompt = gr.Textbox("", label="… but", placeholder="in red, with long sleeves", elem_id="prompt", max_length=2000)
    with gr.Row(elem_id="suggestions"):
        suggestions = [gr.Button(words, size="sm") for words in prompts]
    go = gr.Button("Search", variant="primary", elem_id="go")
    with gr.Group(elem_id="knobs"):
        gr.HTML(f"<p class='lead'>{PDV_IN_ONE_SENTENCE}</p>")
        beta = gr.Slider(0, 1, start.beta, step=0.05, label="beta", info="0 follows the picture · 1 the words", elem_id="beta")
        alpha_image = _alpha("alpha image", start.alpha_image, "how far the prompt moves the picture")
        alpha_text = _alpha("alpha text", start.alpha_text, "how far the prompt moves the words")
        with gr.Row(elem_id="presets"):
            presets = {gr.Button(name, size="sm"): setting for name, setting in PRESETS.items()}
    with gr.Accordion("The reference in your own words", open=False):
        empty = "left empty, the encoder finds the words"
        caption = gr.Textbox("", show_label=False, placeholder=empty, elem_id="caption", max_length=2000)
    again = gr.Button("Show other pictures", size="sm", elem_id="again")
    return Desk(picture, prompt, suggestions, go, [alpha_image, alpha_text, beta], presets, caption, again)


def _alpha(label: str, value: float, info: str) -> gr.Slider:
    return gr.Slider(LOW_ALPHA, HIGH_ALPHA, value, step=0.05, label=label, info=info, elem_id=label.replace(" ", "_"))


def _wire(shop: Shop, desk: Desk, results: gr.HTML) -> None:
    """What happens when: questions encode and search, knobs only fold what the last question left in `state`."""
    state, position = gr.State(None), gr.State(None)
    asking = [desk.picture, position, desk.prompt, desk.caption, *desk.knobs]
    found = [results, state]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}

    def ask(image: str | None, chosen: int | None, words: str, said: str, *values: float) -> Outputs:
        return _search(shop, image, chosen, words, said, values)

    def choose(event: gr.EventData, _image: str | None, _chosen: int | None, words: str, said: str, *values: float) -> Outputs:
        chosen = int(event.position)
        picture = Image.open(io.BytesIO(shop.thumbnail(chosen)))
        return (picture, chosen, *_search(shop, None, chosen, words, said, values))

    def fold(search: Search | None, *values: float) -> Any:
        return gr.skip() if search is None else _shown(shop, search, values)

    def browse() -> Outputs:
        return cards.grid(shop.window(secrets.randbelow(1 << 30)), START), None

    results.click(choose, asking, [desk.picture, position, *found], trigger_mode="once", **quiet)
    for fresh in (desk.picture.upload, desk.picture.clear):
        fresh(lambda: None, None, position, **quiet).then(ask, asking, found, **quiet)
    for asked in (desk.go.click, desk.prompt.submit, desk.caption.submit):
        asked(ask, asking, found, **quiet)
    for button in desk.suggestions:
        button.click(lambda words: words, button, desk.prompt, **quiet).then(ask, asking, found, **quiet)
    for knob in desk.knobs:
        knob.input(fold, [state, *desk.knobs], results, trigger_mode="always_last", **quiet)
    for button, setting in desk.presets.items():
        values = [setting.alpha_image, setting.alpha_text, setting.beta]
        set_knobs = button.click(lambda values=values: values, None, desk.knobs, **quiet)
        set_knobs.then(fold, [state, *desk.knobs], results, **quiet)
    desk.again.click(browse, None, found, **quiet)


def _search(
    shop: Shop, image: str | None, position: int | None, prompt: str | None, caption: str | None, knobs: tuple[float, ...]
) -> Outputs:
    """Results and the search behind them; a problem is shown where the results would be."""
    if image is None and position is None and not (prompt or "").strip():
        return cards.grid(shop.window(0), START), None
    try:
        state = shop.begin(image, position, prompt, caption)
        return _shown(shop, state, knobs), state
    except MMRetrieveError as error:
        return cards.problem(str(error).replace(str(image), "This file")), None


def _uploaded(payload: Any) -> str | None:
    """The path of an uploaded picture, as it came."""
    return None if payload is None else payload.path


def _shown(shop: Shop, state: Search, knobs: tuple[float, ...]) -> str:
    ranking = shop.rank(state, *knobs)
    return cards.grid(shop.cards(ranking), cards.note(ranking.words, ranking.weights, ranking.note))
