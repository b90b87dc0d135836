"""How the built-in scenes are drawn: a layout in metres, a canvas with depth, and what goes onto it."""
