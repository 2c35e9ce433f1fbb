"""What commands say about an option that makes no sense, in the words of getopt(3)."""

import getopt

__all__ = ["option_mistake"]


def option_mistake(err: getopt.GetoptError) -> str:
    """The line that follows the name of the command."""
    missing = err.msg.endswith("requires argument")
    return f"{'option requires an argument' if missing else 'invalid option'} -- '{err.opt}'"
