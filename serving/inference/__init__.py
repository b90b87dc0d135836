"""From a decoded request to encoded outputs."""
