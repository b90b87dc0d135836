"""Studio mode: pick, label and train in the browser, on a project folder of the command line."""
