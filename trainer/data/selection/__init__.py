"""Which photos to label and to train on: pairs.json, selection rules, features, contact sheet, rare-class sampling."""
