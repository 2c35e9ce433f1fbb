"""Log lines of mta-sts(8)."""

from typing import NamedTuple

__all__ = ["NoPolicy", "PolicyNews"]


class PolicyNews(NamedTuple):
    """A policy was fetched. patterns: of MX hosts, how many. max_age: seconds."""

    domain: str
    mode: str
    patterns: int
    max_age: int

    def text(self) -> str:
        """`example.org: policy fetched: mode=enforce, mx=2, max_age=86400`."""
        return (
            f"{self.domain}: policy fetched: mode={self.mode}, mx={self.patterns},"
            f" max_age={self.max_age}"
        )


class NoPolicy(NamedTuple):
    """A policy could not be fetched. kept: one of before stays in force."""

    domain: str
    reason: str
    kept: bool

    def text(self) -> str:
        """`example.org: policy not fetched, none is in force: reason`."""
        state = "the one of before stays in force" if self.kept else "none is in force"
        return f"{self.domain}: policy not fetched, {state}: {self.reason}"
