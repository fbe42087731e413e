"""What goes wrong on the user's side."""


class UserError(Exception):
    """Something that the user asked for cannot be done; the message says why."""
