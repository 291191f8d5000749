"""The demo page: ask a model about an image, with all visual tokens and with few, side by side.

`turns`, `stream` and `service` run the model for many visitors; `settings`, `gallery`, `controls`, `board` and `desk`
say what is asked and shown. None of them knows Gradio or a browser. `parts`, `wiring`, `page` and `server` put them on
the screen and need the extra `web`.
"""
