"""Signs every OMS request that the emulator saw again, by huaweicloudsdkcore's own signer.

Arguments: the emulator's port, access key, secret key. Prints how many requests and keys were checked.
"""

import json
import sys
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from urllib.request import ProxyHandler, build_opener

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

PORT, ACCESS_KEY, SECRET_KEY = sys.argv[1:]
MOST_KEYS = 10

direct = build_opener(ProxyHandler({}))
with direct.open(f"http://127.0.0.1:{PORT}/_emulator/oms-requests", timeout=60) as reply:
    requests = json.load(reply)


def signed_again(seen):
    """The Authorization header that the official signer gives to what was sent."""
    url = urlsplit(seen["url"])
    headers = dict(seen["headers"])
    assert len(headers) == len(seen["headers"]), "a header twice"
    authorization = headers["authorization"]
    names = authorization.split("SignedHeaders=")[1].split(",")[0].split(";")
    spelt = {"x-sdk-date": "X-Sdk-Date", "content-type": "Content-Type", "host": "Host"}
    request = SdkRequest(
        method=seen["method"],
        schema=url.scheme,
        host=url.netloc,
        resource_path=url.path,
        uri=url.path,
        query_params=parse_qsl(url.query, keep_blank_values=True),
        # Those that were signed: what HTTP adds afterwards is not for the signer.
        header_params={spelt.get(name, name): headers[name] for name in names},
        body=seen["body"],
    )
    signer = Signer(BasicCredentials(ACCESS_KEY, SECRET_KEY, "project"))
    return signer.sign(request).header_params["Authorization"]


keys = 0
for seen in requests:
    headers = dict(seen["headers"])
    assert seen["method"] == "POST" and headers["content-type"].startswith("application/json"), seen
    assert {"x-sdk-date", "host"} <= set(headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";"))
    assert signed_again(seen) == headers["authorization"], (signed_again(seen), headers["authorization"])
    # The comparison tells signatures apart.
    assert signed_again({**seen, "body": seen["body"] + " "}) != headers["authorization"]
    body = json.loads(seen["body"])
    assert list(body) == ["object_keys"] and 1 <= len(body["object_keys"]) <= MOST_KEYS, body
    for key in body["object_keys"]:
        assert key == quote(unquote(key, errors="strict"), safe=""), f"not URL-encoded: {key}"
    keys += len(body["object_keys"])
print(len(requests), keys)
