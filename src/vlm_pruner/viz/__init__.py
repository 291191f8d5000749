"""Pictures of what a method kept, drawn from a `Selection`, the geometry of its tokens and the image alone.

Pillow is enough, but for the two plots, which need matplotlib (extra `viz`).
"""

from vlm_pruner.viz.compare import Choice, side_by_side, strip
from vlm_pruner.viz.film import film, film_layout, film_pages, kept_per_frame, save_film
from vlm_pruner.viz.geometry import Layout, Panel
from vlm_pruner.viz.growth import growth_frames, save_growth
from vlm_pruner.viz.merges import merge_map, merge_panels
from vlm_pruner.viz.notebook import selection_html, session_html
from vlm_pruner.viz.overlay import overlay, overlay_panels
from vlm_pruner.viz.page import Entry, data_uri, report_page
from vlm_pruner.viz.plots import Curve, budget_plot, dot_plot, time_plot
from vlm_pruner.viz.seen import Window, image_window, seen_windows
from vlm_pruner.viz.squares import picture_layout

__all__ = [
    "Choice",
    "Curve",
    "Entry",
    "Layout",
    "Panel",
    "Window",
    "budget_plot",
    "data_uri",
    "dot_plot",
    "film",
    "film_layout",
    "film_pages",
    "growth_frames",
    "image_window",
    "kept_per_frame",
    "merge_map",
    "merge_panels",
    "overlay",
    "overlay_panels",
    "picture_layout",
    "report_page",
    "save_film",
    "save_growth",
    "seen_windows",
    "selection_html",
    "session_html",
    "side_by_side",
    "strip",
    "time_plot",
]
