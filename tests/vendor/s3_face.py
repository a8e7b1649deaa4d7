"""The S3 face of COS, for s3fs: S3's headers become COS's and back, and each request is signed anew as the
vendor's SDK signs. What COS's real endpoint does of this is described in its guide to S3 SDKs.

Arguments: the emulator's port, SecretId, SecretKey. Prints its own port, then serves until its input ends.
"""

import http.client
import http.server
import os
import sys
import threading
import types
from urllib.parse import parse_qsl, unquote, urlsplit

from qcloud_cos import CosConfig
from qcloud_cos.cos_auth import CosS3Auth

PORT, SECRET_ID, SECRET_KEY = sys.argv[1:]
CONFIG = CosConfig(Region="ap-guangzhou", SecretId=SECRET_ID, SecretKey=SECRET_KEY)
# What S3's signature is made of, and what belongs to one connection.
DROPPED = {"authorization", "connection", "expect", "host", "x-amz-content-sha256", "x-amz-date"}


class Face(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        # Path style in, virtual host out: only that way is the signed path the key's.
        bucket, _, key = urlsplit(self.path).path[1:].partition("/")
        query = urlsplit(self.path).query
        headers = {"Host": f"{bucket}.cos.ap-guangzhou.myqcloud.com"}
        for name, value in self.headers.items():
            name = name.lower()
            if name not in DROPPED:
                headers[name.replace("x-amz-", "x-cos-", 1)] = value
        params = dict(parse_qsl(query, keep_blank_values=True))
        request = types.SimpleNamespace(method=self.command, headers=headers, url=self.path)
        CosS3Auth(CONFIG, unquote(key), params)(request)
        connection = http.client.HTTPConnection("127.0.0.1", int(PORT), timeout=60)
        try:
            connection.request(self.command, f"/{key}?{query}" if query else f"/{key}", body or None, request.headers)
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        self.send_response_only(reply.status, reply.reason)
        for name, value in reply.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name.lower().replace("x-cos-", "x-amz-", 1), value)
        if reply.status != 204:
            told = reply.getheader("Content-Length") if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(told or 0))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", 0), Face)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
# Connections that are kept open would hold an orderly end up.
os._exit(0)
