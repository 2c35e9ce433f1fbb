"""As much of a MongoDB server as a lookup needs: documents, and equality. Debian 12 has no other.

It speaks the wire protocol with what pymongo sends: a greeting in the oldest form (OP_QUERY),
everything else as OP_MSG.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Final

import bson

_HEADER: Final = struct.Struct("<iiii")  # length, request, answer to, operation
_REPLY, _QUERY, _MESSAGE = 1, 2004, 2013
Document = Mapping[str, object]


class MongoServer:
    """Answers `find` with the documents that match; a context manager."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents
        self.filters: list[Document] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> MongoServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for client in self._clients:
            client.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client.makefile("rb") as stream:
                while len(head := stream.read(_HEADER.size)) == _HEADER.size:
                    length, request, _, operation = _HEADER.unpack(head)
                    body = stream.read(length - _HEADER.size)
                    client.sendall(self._reply(request, operation, body))
        except OSError:
            pass  # the client has gone, or the server

    def _reply(self, request: int, operation: int, body: bytes) -> bytes:
        if operation == _QUERY:
            start = body.index(b"\0", 4) + 1 + 8  # flags, name of the collection, two numbers
            content = struct.pack("<iqii", 8, 0, 0, 1)
            content += bson.encode(self._answer(bson.decode(body[start:])))
            operation = _REPLY
        else:
            content = b"\0" * 5 + bson.encode(self._answer(bson.decode(body[5:])))
        return _HEADER.pack(_HEADER.size + len(content), 0, request, operation) + content

    def _answer(self, command: Document) -> Document:
        name = next(iter(command))
        if name.lower() in ("hello", "ismaster"):
            return {
                "ok": 1,
                "helloOk": True,
                "ismaster": True,
                "isWritablePrimary": True,
                "minWireVersion": 0,
                "maxWireVersion": 21,
                "maxBsonObjectSize": 16777216,
                "maxMessageSizeBytes": 48000000,
                "maxWriteBatchSize": 100000,
                "readOnly": False,
            }
        if name != "find":
            return {"ok": 1}
        wanted = command["filter"]
        assert isinstance(wanted, dict)
        self.filters.append(wanted)
        if "fail" in wanted:
            return {"ok": 0, "errmsg": "it fails", "code": 2, "codeName": "BadValue"}
        found = [document for document in self.documents if _matches(document, wanted)]
        fields = command.get("projection")
        if isinstance(fields, dict) and fields:
            found = [{k: v for k, v in one.items() if fields.get(k)} for one in found]
        namespace = f"{command['$db']}.{command['find']}"
        return {"ok": 1, "cursor": {"id": 0, "ns": namespace, "firstBatch": found}}


def _matches(document: Document, wanted: Document) -> bool:
    for name, value in wanted.items():
        if name == "$or":
            assert isinstance(value, list)
            if not any(_matches(document, one) for one in value):
                return False
        elif document.get(name) != value:
            return False
    return True
