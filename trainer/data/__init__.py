"""Where samples come from: the catalogue of datasets, the choice of pairs, the loader, the synthetic scenes."""
