"""The command lines of traffic generators and of their servers."""

import getopt
from collections.abc import Callable, Sequence
from typing import Final

from libmail.log import Fatal
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain

__all__ = ["Options", "parse", "run"]

_MOST: Final = 1 << 31


class Options:
    """What stands on a command line. words: what is no option. Values raise Fatal."""

    def __init__(self, pairs: Sequence[tuple[str, str]], words: list[str]) -> None:
        self.words = words
        self.pairs = pairs
        self._last = dict(pairs)

    def __contains__(self, name: str) -> bool:
        """Whether the option is there."""
        return name in self._last

    def count(self, name: str) -> int:
        """How often it is there."""
        return sum(1 for option, _ in self.pairs if option == name)

    def text(self, name: str, usual: str) -> str:
        """Its value, the last one."""
        return self._last.get(name, usual)

    def number(self, name: str, usual: int, least: int = 0) -> int:
        """Its value as a number."""
        text = self._last.get(name)
        if text is None:
            return usual
        if not (text.isascii() and text.isdigit() and least <= int(text[:12]) < _MOST):
            raise Fatal(f"bad value of option {name}: {text}")
        return int(text)


def parse(arguments: Sequence[str], letters: str, words: int) -> Options:
    """The options of a command line that has so many words besides. Raises GetoptError, Fatal."""
    pairs, rest = getopt.getopt(arguments, letters)
    if len(rest) != words:
        raise Fatal("")
    return Options(pairs, list(rest))


def run(program: str, usage: str, work: Callable[[], None]) -> int:
    """Do the work; the exit status. What is wrong is said on standard error."""
    try:
        work()
    except getopt.GetoptError as err:
        complain(program, option_mistake(err))
        complain(program, f"fatal: {usage}")
        return 1
    except Fatal as err:
        complain(program, f"fatal: {str(err) or usage}")
        return 1
    except OSError as err:
        complain(program, f"fatal: {err.strerror or err}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
