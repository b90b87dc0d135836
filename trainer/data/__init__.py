"""Where samples come from: the catalogue of datasets, the choice of pairs, the loader, the built-in scenes."""
