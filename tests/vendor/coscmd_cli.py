"""coscmd against the emulator: argument 1 is its port. It knows no other way to lead a host
name to an address, so the emulator is its HTTP proxy (requests come with absolute targets)."""

import os
import subprocess
import sys
import tempfile

PORT = int(sys.argv[1])
BUCKET = "examplebucket-1250000000"
COSCMD = os.path.join(os.path.dirname(sys.executable), "coscmd")
WORK = tempfile.TemporaryDirectory()
CONFIG = os.path.join(WORK.name, "cos.conf")
LOG = os.path.join(WORK.name, "cos.log")


def configure(secret_key):
    with open(CONFIG, "w") as config:
        config.write(
            "[common]\n"
            "secret_id = AKIDvendor\n"
            f"secret_key = {secret_key}\n"
            f"bucket = {BUCKET}\n"
            "endpoint = cos.local.test\n"
            "schema = http\n"
            "max_thread = 3\n"
            "part_size = 1\n"
            "multiupload_threshold = 20\n"
            "retry = 1\n"
            "timeout = 30\n"
            "verify = md5\n"
            "anonymous = False\n"
        )


def run(*arguments, fails=False):
    proxy = f"http://127.0.0.1:{PORT}"
    environment = {**os.environ, "http_proxy": proxy, "HTTP_PROXY": proxy, "no_proxy": "", "NO_PROXY": ""}
    command = [COSCMD, "-c", CONFIG, "-l", LOG, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode != 0) == fails, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


configure("vendor-secret")
small = os.path.join(WORK.name, "small \u4e2d+.txt")
large = os.path.join(WORK.name, "large")
with open(small, "wb") as file:
    file.write(b"small")
with open(large, "wb") as file:
    file.write(os.urandom(21 << 20))

for source, key in ((small, "cmd/small \u4e2d+.txt"), (large, "cmd/large")):
    run("upload", source, key)
    back = os.path.join(WORK.name, "back")
    run("download", "-f", key, back)
    with open(source, "rb") as sent, open(back, "rb") as got:
        assert sent.read() == got.read(), key

listing = run("list", "cmd/")
assert "cmd/large" in listing and "cmd/small" in listing, listing
run("delete", "-f", "cmd/large")
listing = run("list", "cmd/")
assert "cmd/large" not in listing and "cmd/small" in listing, listing

configure("wrong")
assert "SignatureDoesNotMatch" in run("list", "cmd/", fails=True)
print("ok")
