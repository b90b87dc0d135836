"""A paper's table rebuilt: the table as data, the runs that are missing, and the page that sets ours beside the paper's."""
