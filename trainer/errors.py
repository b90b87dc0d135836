"""The one exception whose message is meant for the person at the keyboard."""


class UserError(ValueError):
    """Something the user can mend: the message holds the value and the remedy, and the command line prints it without a traceback."""
