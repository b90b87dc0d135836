"""Where each dataset keeps its files: a function per layout."""
