"""Paper tables as data, the runner that produces missing results, and the pages written from them."""
