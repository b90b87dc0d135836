"""report.html: one page for a run, or for several runs side by side."""
