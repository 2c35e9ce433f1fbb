"""What directory entries mean: ldap_table(5), under result_attribute and its kin."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from libmail.tables.servers.ldap_results import (
    AttributeNames,
    Entry,
    Expansion,
    SearchRequest,
    TooDeep,
)

DIRECTORY = {
    "cn=alice": {"mail": ["alice@a", "alice2@a"], "maildrop": ["box"]},
    "cn=bob": {"mail": ["bob@a"]},
    "cn=team": {
        "mail": ["team@a"],
        "member": ["cn=alice", "cn=gone", "cn=bob"],
        "labeledURI": ["ldap:///dc=x?mail?sub?(uid=odd)"],
    },
    "cn=loop": {"member": ["cn=loop2"], "mail": ["loop@a"]},
    "cn=loop2": {"member": ["cn=loop"]},
    "cn=odd": {"mail": ["odd@a"]},
}


class Directory:
    """Answers searches for one entry, and one search by filter."""

    def __init__(self) -> None:
        self.requests: list[SearchRequest] = []
        self.missing: list[str] = []

    def search(self, request: SearchRequest) -> Sequence[Entry]:
        self.requests.append(request)
        dn = "cn=odd" if request.filter == "(uid=odd)" else request.base
        if dn not in DIRECTORY:
            return []
        wanted = {name.lower() for name in request.attributes}
        values = {
            name: [value.encode() for value in values]
            for name, values in DIRECTORY[dn].items()
            if name.lower() in wanted
        }
        return [Entry(dn, values)]

    def results(self, dn: str, names: AttributeNames, limit: int = 1000) -> list[str]:
        expansion = Expansion(names, self.search, limit, self.missing.append)
        return list(expansion.results(self.search(SearchRequest(dn, 2, "(x=y)", names.all))))


@pytest.mark.parametrize(
    ("dn", "names", "results"),
    [
        ("cn=alice", AttributeNames(["MAIL"]), ["alice@a", "alice2@a"]),
        ("cn=alice", AttributeNames(["cn"]), []),
        ("cn=none", AttributeNames(["mail"]), []),
        (
            "cn=team",
            AttributeNames(["mail"], ["member", "labeledURI"]),
            ["team@a", "alice@a", "alice2@a", "bob@a", "odd@a"],
        ),
        (
            "cn=team",
            AttributeNames([], ["member"], leaf=["mail"]),
            ["alice@a", "alice2@a", "bob@a"],
        ),
        (
            "cn=team",
            AttributeNames(["mail"], ["member"], leaf=["Mail"]),
            ["alice@a", "alice2@a", "bob@a"],
        ),
        ("cn=alice", AttributeNames(["mail"], ["mail"]), ["alice@a", "alice2@a"]),
        (
            "cn=team",
            AttributeNames(["mail"], ["member"], ["maildrop"]),
            ["team@a", "box", "bob@a"],
        ),
        ("cn=team", AttributeNames(["mail"], [], ["member"]), ["cn=alice", "cn=gone", "cn=bob"]),
        ("cn=bob", AttributeNames([], ["member"], leaf=["mail"]), ["bob@a"]),
    ],
)
def test_results(dn: str, names: AttributeNames, results: list[str]) -> None:
    directory = Directory()
    assert directory.results(dn, names) == results
    assert directory.missing == (
        ["cn=gone"] if "member" in names.special and dn == "cn=team" else []
    )


def test_search_further() -> None:
    directory = Directory()
    directory.results("cn=team", AttributeNames(["mail"], ["member", "labeledURI"]))
    assert directory.requests[1] == SearchRequest(
        "cn=alice", 0, "(objectClass=*)", ["mail", "member", "labeledURI"]
    )
    assert directory.requests[-1] == SearchRequest("dc=x", 2, "(uid=odd)", ["mail"])


@pytest.mark.parametrize(
    ("names", "attributes", "asked"),
    [
        (["mail", "cn"], "", ["mail", "cn"]),
        (["mail", "cn"], "CN,sn", ["cn"]),
        (["mail;lang-en"], "mail", ["mail;lang-en"]),
        (["mail"], "mail;lang-en", ["mail;lang-en"]),
        (["mail;lang-de"], "mail;lang-en", []),
    ],
)
def test_attributes_of_urls(names: list[str], attributes: str, asked: list[str]) -> None:
    requests: list[SearchRequest] = []

    def search(request: SearchRequest) -> Sequence[Entry]:
        requests.append(request)
        return []

    expansion = Expansion(AttributeNames(names, ["ref"]), search, 10, lambda _: None)
    url = f"ldap://h:389/ou=x%2Cy?{attributes}"
    assert list(expansion.results([Entry("", {"ref": [url.encode()]})])) == []
    wanted = [*asked, "ref"] if not attributes else asked
    assert [request.attributes for request in requests] == ([wanted] if wanted else [])
    assert all(request[:3] == ("ou=x,y", 0, "(objectClass=*)") for request in requests)


def test_loops_and_depth() -> None:
    names = AttributeNames(["mail"], ["member"])
    with pytest.raises(TooDeep, match="cn=loop2 points to itself"):
        Directory().results("cn=loop", names)
    with pytest.raises(TooDeep, match="recursion limit exceeded at cn=loop"):
        Directory().results("cn=loop", names, limit=1)


def test_bad_url() -> None:
    expansion = Expansion(AttributeNames([], ["ref"]), lambda _: [], 10, lambda _: None)
    with pytest.raises(ValueError, match=r"bad LDAP URL: ldap:///x\?\?all"):
        list(expansion.results([Entry("", {"ref": [b"ldap:///x??all"]})]))
