"""The page: a Gradio app over a retriever. `python -m demo [GALLERY]`."""
