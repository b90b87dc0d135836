"""The half of fewpair that may import torch: pairs -> train -> evaluate -> export."""
