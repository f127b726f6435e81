"""A visitor without a browser: the server's own protocol, spoken as Streamlit's script in the browser speaks it.

A page that draws itself again on a timer is not asked for again: :meth:`Visitor.again` does that.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
_EARLY = 2  # a run that ended because another begins
_MEDIA = re.compile(rb"/media/([0-9a-f]+)\.\w+")  # named by a hash of its content
_INLINE = re.compile(rb"data:image/\w+;base64,([A-Za-z0-9+/=]+)")


class Visitor:
    """One session of the app at ``address``, such as ``http://127.0.0.1:8501``. ``heard`` is given all that the server sends.

    ``token`` is that of another one, for a second tab of the same browser or after a reload.
    """

    def __init__(self, address: str, timeout: float = 120, heard: Callable[[bytes], None] | None = None, token: str = "") -> None:
        from websockets.sync.client import connect

        self.address, self.timeout = address, timeout
        self.host = address.removeprefix("http://")
        with urllib.request.urlopen(f"{address}/_stcore/host-config", timeout=timeout) as answer:
            answer.read()
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=timeout) as answer:
            cookies = [answer.headers.get("Set-Cookie", "")]
        found = re.search(r"_streamlit_xsrf=([^;]+)", ";".join(cookies))
        self.token = token or (found.group(1).strip('"') if found else "")
        self.session = self.page = self.query = ""
        self.pages: dict[str, str] = {}
        self.elements: dict[tuple[int, ...], Any] = {}  # what is on the page: the messages of its elements, by place
        self._heard = heard
        self._values: dict[str, Any] = {}  # of widgets that the visitor set, by id: the browser sends them every time
        self._socket = connect(
            f"ws://{self.host}/_stcore/stream", subprotocols=["streamlit", self.token or "none"],  # type: ignore[list-item]
            additional_headers={"Cookie": f"_streamlit_xsrf={self.token}"}, origin=address, max_size=None, open_timeout=timeout,  # type: ignore[arg-type]
        )  # fmt: skip

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_problem: object) -> None:
        self._socket.close()

    # --- what a visitor does --------------------------------------------------------------------------------

    def open(self, view: str = "", **query: str) -> Visitor:
        """Turn to a view with a URL, as at the start or by a click on another page."""
        self.query = urllib.parse.urlencode(query)
        self.page = self.pages.get(view, "")
        return self._rerun({}, page_name="" if self.page else view)

    def again(self) -> Visitor:
        """The page drawn once more."""
        return self._rerun({})

    def click(self, key: str) -> Visitor:
        """A button."""
        return self._rerun({key: True})

    def set(self, values: Mapping[str, Any], click: str = "") -> Visitor:
        """Values of widgets by their keys, and a button after it (of a form, say)."""
        return self._rerun({**values, **({click: True} if click else {})})

    def upload(self, key: str, name: str, data: bytes) -> Visitor:
        """A file into a box."""
        return self._rerun({key: [self.send(name, data)]})

    def send(self, name: str, data: bytes) -> Any:
        """Bring a file to the server; what the box is told of it then."""
        from streamlit.proto.BackMsg_pb2 import BackMsg
        from streamlit.proto.Common_pb2 import UploadedFileInfo

        asked = BackMsg()
        asked.file_urls_request.request_id = uuid.uuid4().hex
        asked.file_urls_request.session_id = self.session
        asked.file_urls_request.file_names.append(name)
        self._socket.send(asked.SerializeToString())
        urls = self._until("file_urls_response").file_urls_response.file_urls[0]
        status = self.put(urls.upload_url, name, data, {"X-Xsrftoken": self.token, "Cookie": f"_streamlit_xsrf={self.token}"})
        if status != 204:
            raise AssertionError(f"the upload of {name} was answered with {status}")
        return UploadedFileInfo(file_id=urls.file_id, name=name, size=len(data), file_urls=urls)

    def put(self, path: str, name: str, data: bytes, headers: Mapping[str, str]) -> int:
        """The upload's own request; gives its status."""
        line = uuid.uuid4().hex
        safe = name.replace('"', "%22")
        body = (
            f'--{line}\r\nContent-Disposition: form-data; name="file"; filename="{safe}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        ).encode()
        body += data + f"\r\n--{line}--\r\n".encode()
        connection = http.client.HTTPConnection(self.host, timeout=self.timeout)
        try:
            connection.request("PUT", path, body, {"Content-Type": f"multipart/form-data; boundary={line}", **headers})
            return connection.getresponse().status
        finally:
            connection.close()

    def download(self, key: str) -> bytes:
        """What a download button gives."""
        with urllib.request.urlopen(self.made(key), timeout=self.timeout) as stream:
            content: bytes = stream.read()
        return content

    def made(self, key: str) -> str:
        """Click a download button: the address of the file that the server made for it."""
        from streamlit.proto.BackMsg_pb2 import BackMsg

        button = self.widget(key)
        asked = BackMsg()
        asked.backend_operation_request.request_id = uuid.uuid4().hex
        asked.backend_operation_request.session_id = self.session
        asked.backend_operation_request.deferred_file.file_id = button.deferred_file_id
        self._socket.send(asked.SerializeToString())
        answer = self._until("backend_operation_response").backend_operation_response
        if answer.error_msg:
            raise AssertionError(f"{key}: {answer.error_msg}")
        return self.address + str(answer.deferred_file.url)

    # --- what a visitor sees --------------------------------------------------------------------------------

    def widget(self, key: str) -> Any:
        """The message of a widget by its key; ``KeyError`` where it is not on the page."""
        return self._find(key)[0]

    def has(self, key: str) -> bool:
        return any(getattr(value, "id", "").endswith(f"-{key}") for _kind, value, _fragment in self._all())

    def widget_keys(self) -> list[str]:
        """Of all widgets on the page."""
        return [value.id.split("-", 2)[-1] for _kind, value, _fragment in self._all() if getattr(value, "id", "").startswith("$$ID-")]

    def texts(self) -> list[str]:
        """Everything that is drawn as Markdown or HTML or as a message."""
        found = []
        for kind, value, _fragment in self._all():
            if kind in ("markdown", "html", "alert", "heading", "code"):
                found.append(str(getattr(value, "body", "") or getattr(value, "code_text", "")))
            elif kind == "exception":
                found.append(f"{value.type}: {value.message} {' '.join(value.stack_trace)}")
        return found

    def exceptions(self) -> list[str]:
        """What the page says of errors in the program."""
        return [f"{value.type}: {value.message} {list(value.stack_trace)}" for kind, value, _fragment in self._all() if kind == "exception"]

    def pictures(self) -> frozenset[str]:
        """Every picture on the page, by its content."""
        found: set[str] = set()
        for _kind, value, _fragment in self._all():
            content = value.SerializeToString()
            found |= {one.decode() for one in _MEDIA.findall(content)}
            found |= {str(hash(one)) for one in _INLINE.findall(content)}
        return frozenset(found)

    def busy(self) -> bool:
        """Whether the page shows work under way."""
        return any(kind == "progress" for kind, _value, _fragment in self._all())

    def _all(self) -> Iterator[tuple[str, Any, str]]:
        for delta in list(self.elements.values()):
            kind = delta.new_element.WhichOneof("type")
            yield kind, getattr(delta.new_element, kind), delta.fragment_id

    def _find(self, key: str) -> tuple[Any, str, str]:
        for kind, value, fragment in self._all():
            if getattr(value, "id", "").endswith(f"-{key}"):
                return value, kind, fragment
        raise KeyError(f"{key!r} is not on this page: {[value.id for _kind, value, _fragment in self._all() if getattr(value, 'id', '')]}")

    # --- the protocol ---------------------------------------------------------------------------------------

    def _rerun(self, values: Mapping[str, Any], page_name: str = "") -> Visitor:
        from streamlit.proto.BackMsg_pb2 import BackMsg

        asked = BackMsg()
        state = asked.rerun_script
        state.query_string, state.page_script_hash, state.page_name = self.query, self.page, page_name
        state.context_info.timezone, state.context_info.locale, state.context_info.url = "UTC", "en", f"{self.address}/"
        here = {value.id: value for _kind, value, _fragment in self._all() if getattr(value, "id", "")}
        for name, kept in self._values.items():
            if name in here and not getattr(here[name], "set_value", False):  # else the app has set another since
                state.widget_states.widgets.append(kept)
        for key, value in values.items():
            element, kind, fragment = self._find(key)
            state.fragment_id = fragment
            given = state.widget_states.widgets.add(id=element.id)
            if kind == "button":
                given.trigger_value = True
            elif kind == "file_uploader":
                given.file_uploader_state_value.uploaded_file_info.extend(value)
            elif kind in ("button_group", "multiselect"):
                given.string_array_value.data.extend(_listed(value))
            elif kind == "slider":
                if isinstance(value, str):
                    given.string_array_value.data.append(value)
                else:
                    given.double_array_value.data.append(value)
            elif kind == "number_input":
                given.double_value = value
            elif kind == "checkbox":
                given.bool_value = value
            else:
                given.string_value = value
            if kind != "button":
                self._values[element.id] = given
        self._socket.send(asked.SerializeToString())
        while self._until("script_finished").script_finished == _EARLY:
            pass
        return self

    def _until(self, wanted: str) -> Any:
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        end = time.monotonic() + self.timeout
        while True:
            try:
                raw = self._socket.recv(max(0.01, end - time.monotonic()))
            except TimeoutError:
                raise TimeoutError(f"no {wanted} within {self.timeout:.0f} s") from None
            assert isinstance(raw, bytes)
            if self._heard is not None:
                self._heard(raw)
            message = ForwardMsg.FromString(raw)
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self._begin(message.new_session, set(message.metadata.run.fragment_ids))
            elif kind == "navigation":
                self.pages = {page.url_pathname: page.page_script_hash for page in message.navigation.app_pages}
                self.page = message.navigation.page_script_hash or self.page
            elif kind == "page_info_changed":
                self.query = message.page_info_changed.query_string
            elif kind == "delta":
                place = tuple(message.metadata.delta_path)
                if message.delta.WhichOneof("type") == "new_element":
                    self.elements[place] = message.delta
                elif message.delta.WhichOneof("type") == "add_block":
                    self.elements.pop(place, None)
            if kind == wanted:
                return message

    def _begin(self, started: Any, fragments: set[str]) -> None:
        self.session = started.initialize.session_id or self.session
        self.elements = {place: delta for place, delta in self.elements.items() if fragments and delta.fragment_id not in fragments}


def _listed(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


@contextmanager
def serving(log: Path, command: Sequence[str] = (), **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The app as a user starts it, from the repository root so that config.toml is found; gives its address and process.

    ``command`` in place of Streamlit's own, to which the port is added.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    whole = [*(command or (sys.executable, "-m", "streamlit", "run", "explorer/app.py")), f"--server.port={port}"]
    # Into a file: nobody reads a pipe here, and a full one would stop the server.
    with log.open("w") as stream:
        process = subprocess.Popen(whole, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **environment})
    try:
        end = time.monotonic() + 180
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
