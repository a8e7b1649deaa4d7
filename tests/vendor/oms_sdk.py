"""huaweicloudsdkoms against the emulator: argument 1 is the URL of the events.

The SDK's client does not URL-encode keys by itself."""

import sys
from datetime import datetime, timedelta
from unittest import mock
from urllib.parse import quote, urlparse

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions import exceptions
from huaweicloudsdkoms.v2 import CreateSyncEventsRequest, OmsClient, SyncObjectReq

URL = urlparse(sys.argv[1])
_, _, PROJECT, _, TASK, _ = URL.path.split("/")
KEYS = ["data/plain.txt", "with space", "\u4e2d\u6587", "plus+plus", "100%", "tilde~star*(x)"]


def send(keys, access="HWAK", secret="hw-secret", task=TASK):
    credentials = BasicCredentials(access, secret, PROJECT)
    builder = OmsClient.new_builder().with_credentials(credentials)
    client = builder.with_endpoint(f"http://{URL.netloc}").build()
    body = SyncObjectReq(object_keys=keys)
    return client.create_sync_events(CreateSyncEventsRequest(sync_task_id=task, body=body))


def refused(call, status, code):
    try:
        call()
    except exceptions.ClientRequestException as error:
        assert (error.status_code, error.error_code) == (status, code), (error.status_code, error.error_code)
        return
    raise AssertionError(f"not refused with {code}")


encoded = [quote(key, safe="") for key in KEYS]
assert send(encoded).status_code == 200
refused(lambda: send(encoded, secret="wrong"), 401, "APIGW.0301")
refused(lambda: send(encoded, access="other"), 401, "APIGW.0301")
refused(lambda: send([]), 400, "OMS.0001")
refused(lambda: send(["k"] * 11), 400, "OMS.0001")
refused(lambda: send(["100%"]), 400, "OMS.0001")
refused(lambda: send(encoded, task="no-task"), 404, "OMS.0404")


class Stale(datetime):
    """A clock an hour behind."""

    @classmethod
    def utcnow(cls):
        return datetime.utcnow() - timedelta(hours=1)


with mock.patch("huaweicloudsdkcore.signer.signer.datetime", Stale):
    refused(lambda: send(encoded), 401, "APIGW.0303")

print("ok")
