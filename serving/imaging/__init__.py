"""Photos and label maps: decoding, resizing, tiling."""
