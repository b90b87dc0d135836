"""The networks of the papers, each a plain nn.Module that knows no config, loss or dataset."""
