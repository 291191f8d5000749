"""The demo page: ask a model about an image, with all visual tokens and with few, side by side.

`service` and `settings` do the work and know neither Gradio nor a browser; `page`, `wiring` and `server` put them on
screen and need the extra `web`.
"""
