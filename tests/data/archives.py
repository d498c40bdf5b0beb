"""Small archives in the layout of the official zip, and a server on this machine that can misbehave."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
import zipfile
from contextlib import contextmanager

from PIL import Image

WNIDS = ["n02", "n01"]


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def jpeg(grey: int, mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, grey).convert(mode).save(file, "JPEG", quality=95)
    return file.getvalue()


def tiny_files() -> dict[str, bytes]:
    """Two classes: three training images of each (one of them greyscale), three to validate, and what nothing reads."""
    files = {"wnids.txt": b"n02\nn01\n", "words.txt": b"n01\tgoldfish, Carassius auratus\nn02\tbullfrog\nn03\tbee\n"}
    for value, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"0\t0\t63\t63\n"
        for i in range(3):  # the real one has greyscale files too
            image = jpeg(40 * (3 * value + i + 1), "L" if i == 2 else "RGB")
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = image
    rows = [("val_0.JPEG", "n02"), ("val_1.JPEG", "n01"), ("val_2.JPEG", "n02")]
    for i, (name, _) in enumerate(rows):
        files[f"val/images/{name}"] = jpeg(10 + i)
    files["val/val_annotations.txt"] = "".join(f"{name}\t{wnid}\t0\t0\t63\t63\n" for name, wnid in rows).encode()
    files["test/images/test_0.JPEG"] = jpeg(99)
    return files


def zipped(files: dict[str, bytes], top: str = "tiny-imagenet-200/") -> bytes:
    """The bytes of a zip with the folder `top` at its head; a key may be a ZipInfo too, taken as it is."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        if top:
            archive.writestr(zipfile.ZipInfo(top), b"")
        for name, content in files.items():
            archive.writestr(name if isinstance(name, zipfile.ZipInfo) else top + name, content)
    return file.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends `server.content`, or less, or something else, as the attributes of the server say."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, content = self.server, self.server.content
        asked = self.headers["Range"]
        server.asked.append(asked)
        if server.status != 200:
            return self.send_error(server.status)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(content) and asked and server.ranges:
            return self.send_error(416)
        self.send_response(206 if asked and server.ranges else 200)
        if asked and server.ranges:
            self.send_header("Content-Range", f"bytes {start + server.shift}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", server.kind)
        if server.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : server.cut])
        server.stalled.wait(5 if server.stall else 0)


@contextmanager
def serving(content: bytes):
    """A server on 127.0.0.1 whose attributes a test may change; `asked` lists the Range of every request."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.asked, server.status, server.ranges, server.shift = content, [], 200, True, 0
    server.kind, server.length, server.cut, server.stall = "application/zip", True, None, False
    server.stalled, server.url = threading.Event(), f"http://127.0.0.1:{server.server_port}/tiny.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stalled.set()
        server.shutdown()
        server.server_close()
        thread.join()
