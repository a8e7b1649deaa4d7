"""Compares what a mount delivered with its source, by cos-python-sdk-v5.

Arguments: the emulator's port, SecretId, SecretKey, the key prefix, the source directory.
"""

import os
import sys

import crcmod
from qcloud_cos import CosConfig, CosS3Client

PORT, SECRET_ID, SECRET_KEY, PREFIX, SOURCE = sys.argv[1:]
BUCKET = "examplebucket-1250000000"
crc64 = crcmod.mkCrcFun(0x142F0E1EBA9EA3693, initCrc=0, xorOut=0xFFFFFFFFFFFFFFFF, rev=True)

cos = CosS3Client(
    CosConfig(
        Endpoint="cos.ap-guangzhou.myqcloud.com",
        Scheme="http",
        IP="127.0.0.1",
        Port=int(PORT),
        SecretId=SECRET_ID,
        SecretKey=SECRET_KEY,
    ),
    retry=0,
)

wanted = {}
for folder, _, names in os.walk(SOURCE):
    for name in names:
        path = os.path.join(folder, name)
        wanted[PREFIX + os.path.relpath(path, SOURCE)] = path

found, marker = [], ""
while True:
    page = cos.list_objects(Bucket=BUCKET, Prefix=PREFIX, Marker=marker, MaxKeys=300)
    found += [entry["Key"] for entry in page.get("Contents", [])]
    if page["IsTruncated"] != "true":
        break
    marker = page["NextMarker"]

files = [key for key in found if not key.endswith("/")]
assert sorted(files) == sorted(wanted), sorted(set(files) ^ set(wanted))[:5]
for key in files:
    reply = cos.get_object(Bucket=BUCKET, Key=key)
    body = reply["Body"].get_raw_stream().read()
    with open(wanted[key], "rb") as source:
        assert body == source.read(), key
    assert int(reply["x-cos-hash-crc64ecma"]) == crc64(body), key
print(len(files))
