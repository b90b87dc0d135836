"""Where each dataset keeps its files: one function a layout, and a row in the catalogue for each dataset that has it."""
