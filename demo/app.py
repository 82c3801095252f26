"""The page's layout and wiring; what it does is in `handlers`, what results look like in `cards`."""

from __future__ import annotations

import io
import secrets
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


def page(shop: Shop, *, title: str, prompts: tuple[str, ...]) -> gr.Blocks:
    """The Gradio page."""
    start = shop.setting
    with gr.Blocks(
        title=f"{title} · mmretrieve", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)
    ) as blocks:
        gr.HTML(
            f"<header><h1>like this picture, <em>but …</em></h1><p>{title} · {len(shop.retriever.gallery):,} pictures</p></header>"
        )
        search_state, position_state = gr.State(None), gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=290, elem_id="desk"):
                picture = gr.Image(
                    type="filepath",
                    sources=["upload", "clipboard"],
                    label="Reference",
                    height=260,
                    buttons=[],
                    elem_id="reference",
                    placeholder="Drop or paste a picture here,\nor click one on the right",
                )
                picture.preprocess = _uploaded  # Gradio would open the file itself, and raise where ours explains
                prompt = gr.Textbox(
                    "", label="… but", placeholder="in red, with long sleeves", elem_id="prompt", max_length=2000
                )
                with gr.Row(elem_id="suggestions"):
                    suggestions = [gr.Button(words, size="sm") for words in prompts]
                go = gr.Button("Search", variant="primary", elem_id="go")
                with gr.Group(elem_id="knobs"):
                    gr.HTML(
                        "<p class='lead'>The prompt adds a direction to the words; how far should words and picture follow it?</p>"
                    )
                    beta = gr.Slider(
                        0, 1, start.beta, step=0.05, label="beta", info="0 follows the picture · 1 the words", elem_id="beta"
                    )
                    alpha_image = gr.Slider(
                        LOW_ALPHA,
                        HIGH_ALPHA,
                        start.alpha_image,
                        step=0.05,
                        label="alpha image",
                        info="how far the prompt moves the picture",
                        elem_id="alpha_image",
                    )
                    alpha_text = gr.Slider(
                        LOW_ALPHA,
                        HIGH_ALPHA,
                        start.alpha_text,
                        step=0.05,
                        label="alpha text",
                        info="how far the prompt moves the words",
                        elem_id="alpha_text",
                    )
                    with gr.Row(elem_id="presets"):
                        presets = {gr.Button(name, size="sm"): setting for name, setting in PRESETS.items()}
                with gr.Accordion("The reference in your own words", open=False):
                    caption = gr.Textbox(
                        "",
                        show_label=False,
                        placeholder="left empty, the encoder finds the words",
                        elem_id="caption",
                        max_length=2000,
                    )
                again = gr.Button("Show other pictures", size="sm", elem_id="again")
            with gr.Column(scale=3, min_width=320):
                results = gr.HTML(
                    cards.grid(shop.window(0), "Choose a picture to start from."), js_on_load=CLICKED, elem_id="results"
                )

        knobs = [alpha_image, alpha_text, beta]
        asking = [picture, position_state, prompt, caption, *knobs]
        found = [results, search_state]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}

        def search(image: str | None, position: int | None, words: str, said: str, *values: float) -> Outputs:
            return _search(shop, image, position, words, said, values)

        def choose(
            event: gr.EventData, _image: str | None, _position: int | None, words: str, said: str, *values: float
        ) -> Outputs:
            position = int(event.position)
            return (
                Image.open(io.BytesIO(shop.thumbnail(position))),
                position,
                *_search(shop, None, position, words, said, values),
            )

        def fold(state: Search | None, *values: float) -> Any:
            return gr.skip() if state is None else _shown(shop, state, values)

        results.click(choose, asking, [picture, position_state, *found], trigger_mode="once", **quiet)
        for fresh in (picture.upload, picture.clear):
            fresh(lambda: None, None, position_state, **quiet).then(search, asking, found, **quiet)
        for asked in (go.click, prompt.submit, caption.submit):
            asked(search, asking, found, **quiet)
        for button in suggestions:
            button.click(lambda words: words, button, prompt, **quiet).then(search, asking, found, **quiet)
        for knob in knobs:
            knob.input(fold, [search_state, *knobs], results, trigger_mode="always_last", **quiet)
        for button, setting in presets.items():
            values = [setting.alpha_image, setting.alpha_text, setting.beta]
            button.click(lambda values=values: values, None, knobs, **quiet).then(
                fold, [search_state, *knobs], results, **quiet
            )
        again.click(
            lambda: (cards.grid(shop.window(secrets.randbelow(1 << 30)), "Choose a picture to start from."), None),
            None,
            found,
            **quiet,
        )
    return blocks


def _search(
    shop: Shop, image: str | None, position: int | None, prompt: str | None, caption: str | None, knobs: tuple[float, ...]
) -> Outputs:
    """Results and the search behind them; a problem is shown where the results would be."""
    if image is None and position is None and not (prompt or "").strip():
        return cards.grid(shop.window(0), "Choose a picture to start from, or say what you are looking for."), None
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
