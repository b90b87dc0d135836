"""A small synthetic data set of street scenes: photo and label map are rendered together, at any size."""
