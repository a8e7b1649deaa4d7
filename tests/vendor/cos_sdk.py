"""cos-python-sdk-v5 against the emulator: argument 1 is its port."""

import hashlib
import os
import sys
import tempfile
from unittest import mock

import crcmod
import requests
from qcloud_cos import CosConfig, CosS3Client, CosServiceError

PORT = int(sys.argv[1])
BUCKET = "examplebucket-1250000000"
SECRET_ID = "AKIDvendor"
SECRET_KEY = "vendor-secret"
AWKWARD = [
    "plain.txt",
    "with space/a b.txt",
    "\u4e2d\u6587/\u6587\u4ef6.txt",
    "plus+plus",
    "100%/%41",
    "tilde~star*paren(s)",
    "quote'and\"<&>",
    "dots/./in/../between",
    "a//b",
]
crc64 = crcmod.mkCrcFun(0x142F0E1EBA9EA3693, initCrc=0, xorOut=0xFFFFFFFFFFFFFFFF, rev=True)


def client(secret_id=SECRET_ID, secret_key=SECRET_KEY):
    config = CosConfig(
        Endpoint="cos.ap-guangzhou.myqcloud.com",
        Scheme="http",
        IP="127.0.0.1",
        Port=PORT,
        SecretId=secret_id,
        SecretKey=secret_key,
        ServiceDomain=f"127.0.0.1:{PORT}",
    )
    return CosS3Client(config, retry=0)


cos = client()


class ToEmulator(requests.adapters.HTTPAdapter):
    """Leads any host to the emulator, as the SDK's IP and Port do."""

    def send(self, request, **arguments):
        host = requests.utils.urlparse(request.url).netloc
        request.headers["Host"] = host
        request.url = request.url.replace(host, f"127.0.0.1:{PORT}", 1)
        return super().send(request, **arguments)


direct = requests.Session()
direct.trust_env = False
direct.mount("http://", ToEmulator())


def presigned(key):
    config = CosConfig(
        Endpoint="cos.ap-guangzhou.myqcloud.com", Scheme="http", SecretId=SECRET_ID, SecretKey=SECRET_KEY
    )
    return CosS3Client(config).get_presigned_url(BUCKET, key, "GET")


def refused(call, status, code):
    try:
        call()
    except CosServiceError as error:
        got = (error.get_status_code(), error.get_error_code())
        assert got == (status, code), got
        assert error.get_request_id() or code == "NoSuchResource"
        return
    raise AssertionError(f"not refused with {code}")


def read(key, **arguments):
    return cos.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].get_raw_stream().read()


def test_buckets():
    assert [bucket["Name"] for bucket in cos.list_buckets()["Buckets"]["Bucket"]] == [BUCKET]
    cos.head_bucket(Bucket=BUCKET)
    refused(lambda: cos.head_bucket(Bucket="nobucket-1250000000"), 404, "NoSuchResource")
    refused(lambda: cos.list_objects(Bucket="nobucket-1250000000"), 404, "NoSuchBucket")


def test_put_head_get():
    for number, key in enumerate(AWKWARD):
        body = f"body {number}".encode()
        put = cos.put_object(
            Bucket=BUCKET,
            Key=key,
            Body=body,
            EnableMD5=True,
            ContentType="text/x-test",
            Metadata={"x-cos-meta-mode": "33188", "x-cos-meta-md5": hashlib.md5(body).hexdigest()},
        )
        assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        assert put["x-cos-hash-crc64ecma"] == str(crc64(body))
        head = cos.head_object(Bucket=BUCKET, Key=key)
        assert head["ETag"] == put["ETag"]
        assert head["Content-Length"] == str(len(body))
        assert head["Content-Type"] == "text/x-test"
        assert head["x-cos-meta-mode"] == "33188"
        assert head["x-cos-hash-crc64ecma"] == str(crc64(body))
        assert "x-cos-storage-class" not in head
        assert read(key) == body
    refused(lambda: cos.head_object(Bucket=BUCKET, Key="absent"), 404, "NoSuchResource")
    refused(lambda: cos.get_object(Bucket=BUCKET, Key="absent"), 404, "NoSuchKey")
    refused(lambda: cos.put_object(Bucket=BUCKET, Key="k" * 851, Body=b""), 400, "KeyTooLong")
    assert cos.object_exists(Bucket=BUCKET, Key="plain.txt")
    assert not cos.object_exists(Bucket=BUCKET, Key="absent")


def test_storage_class_and_archive():
    cos.put_object(Bucket=BUCKET, Key="cold", Body=b"x", StorageClass="ARCHIVE")
    assert cos.head_object(Bucket=BUCKET, Key="cold")["x-cos-storage-class"] == "ARCHIVE"
    refused(lambda: cos.get_object(Bucket=BUCKET, Key="cold"), 403, "InvalidObjectState")
    source = {"Bucket": BUCKET, "Region": "ap-guangzhou", "Key": "cold"}
    refused(lambda: cos.copy_object(BUCKET, "thawed", source), 403, "InvalidObjectState")
    cos.delete_object(Bucket=BUCKET, Key="cold")


def test_ranges_and_conditions():
    body = os.urandom(100_000)
    etag = cos.put_object(Bucket=BUCKET, Key="ranged", Body=body)["ETag"]
    assert read("ranged", Range="bytes=10-19") == body[10:20]
    assert read("ranged", Range="bytes=99990-") == body[99_990:]
    assert read("ranged", Range="bytes=-7") == body[-7:]
    part = cos.get_object(Bucket=BUCKET, Key="ranged", Range="bytes=10-19", IfMatch=etag)
    assert part["Content-Range"] == "bytes 10-19/100000"
    assert part["x-cos-hash-crc64ecma"] == str(crc64(body)), "of the whole"
    refused(lambda: cos.get_object(Bucket=BUCKET, Key="ranged", Range="bytes=100000-"), 416, "InvalidRange")
    refused(lambda: cos.get_object(Bucket=BUCKET, Key="ranged", IfMatch='"other"'), 412, "PreconditionFailed")
    dated = {"IfUnmodifiedSince": "Tue, 14 Nov 2023 22:13:20 GMT"}
    refused(lambda: cos.get_object(Bucket=BUCKET, Key="ranged", **dated), 412, "PreconditionFailed")
    unchanged = direct.get(presigned("ranged"), headers={"If-None-Match": etag}, timeout=30)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert direct.get(presigned("ranged"), timeout=30).content == body
    assert direct.get(presigned("ranged").replace("ranged?", "other?"), timeout=30).status_code == 403


def test_multipart():
    chunks = [os.urandom(1 << 20), os.urandom(3 << 20), b"tail"]
    for key in ["multi", "multi \u4e2d+%"]:
        upload = cos.create_multipart_upload(Bucket=BUCKET, Key=key, Metadata={"x-cos-meta-uid": "7"})["UploadId"]
        parts = []
        for number, chunk in enumerate(chunks, 1):
            sent = cos.upload_part(BUCKET, key, chunk, number, upload, EnableMD5=True)
            assert sent["ETag"] == f'"{hashlib.md5(chunk).hexdigest()}"'
            assert sent["x-cos-hash-crc64ecma"] == str(crc64(chunk))
            parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        page = cos.list_parts(BUCKET, key, upload, MaxParts=2)
        assert [part["PartNumber"] for part in page["Part"]] == ["1", "2"]
        assert page["IsTruncated"] == "true"
        page = cos.list_parts(BUCKET, key, upload, PartNumberMarker=page["NextPartNumberMarker"])
        assert [part["Size"] for part in page["Part"]] == ["4"] and page["IsTruncated"] == "false"
        listed = cos.list_multipart_uploads(BUCKET, Prefix="multi", EncodingType="url")
        assert [entry["UploadId"] for entry in listed["Upload"]] == [upload]
        complete = lambda chosen: cos.complete_multipart_upload(BUCKET, key, upload, {"Part": chosen})
        refused(lambda: complete([parts[0], parts[2]]), 400, "InvalidPart")
        refused(lambda: complete([parts[1], parts[0], parts[2]]), 400, "InvalidPartOrder")
        refused(lambda: complete([{**parts[0], "ETag": '"beef"'}, *parts[1:]]), 400, "InvalidPart")
        done = complete(parts)
        assert done["ETag"].endswith('-3"')
        whole = b"".join(chunks)
        assert done["x-cos-hash-crc64ecma"] == str(crc64(whole))
        assert read(key) == whole
        assert read(key, Range="bytes=1048570-1048585") == whole[1_048_570:1_048_586]
        assert cos.head_object(Bucket=BUCKET, Key=key)["x-cos-meta-uid"] == "7"
        refused(lambda: complete(parts), 404, "NoSuchUpload")
    upload = cos.create_multipart_upload(Bucket=BUCKET, Key="small")["UploadId"]
    parts = []
    for number in (1, 2):
        etag = cos.upload_part(BUCKET, "small", b"tiny", number, upload)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    refused(lambda: cos.complete_multipart_upload(BUCKET, "small", upload, {"Part": parts}), 400, "EntityTooSmall")
    cos.abort_multipart_upload(BUCKET, "small", upload)
    refused(lambda: cos.abort_multipart_upload(BUCKET, "small", upload), 404, "NoSuchUpload")
    refused(lambda: cos.upload_part(BUCKET, "small", b"x", 1, upload), 404, "NoSuchUpload")


def test_upload_file():
    body = os.urandom(5 << 20)
    with tempfile.NamedTemporaryFile() as source, tempfile.NamedTemporaryFile() as target:
        source.write(body)
        source.flush()
        cos.upload_file(BUCKET, "uploaded", source.name, PartSize=1, MAXThread=3, EnableMD5=True)
        assert cos.head_object(Bucket=BUCKET, Key="uploaded")["ETag"].endswith('-5"')
        cos.download_file(BUCKET, "uploaded", target.name, PartSize=1, MAXThread=3, EnableCRC=True)
        with open(target.name, "rb") as got:
            assert got.read() == body


def names(page):
    keys = [entry["Key"] for entry in page.get("Contents", [])]
    return keys, [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]


def test_list():
    keys = ["l/", "l/a", "l/b/1", "l/b/2", "l/c d/x", "l/e", "l/\u4e2d/1", "l/z+%"]
    for key in keys:
        cos.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    everything, _ = names(cos.list_objects(BUCKET, Prefix="l/"))
    assert everything == sorted(keys, key=lambda key: key.encode())
    # Asked for encoding, the SDK hands out what came; otherwise it asks by itself and decodes.
    page = cos.list_objects(BUCKET, Prefix="l/", Delimiter="/", EncodingType="url")
    assert names(page) == (["l/", "l/a", "l/e", "l/z%2B%25"], ["l/b/", "l/c%20d/", "l/%E4%B8%AD/"]), names(page)
    page = cos.list_objects(BUCKET, Prefix="l/", Delimiter="/")
    assert names(page) == (["l/", "l/a", "l/e", "l/z+%"], ["l/b/", "l/c d/", "l/\u4e2d/"]), names(page)
    assert page["IsTruncated"] == "false"
    for size in (1, 2, 3):
        found, marker = ([], []), ""
        for _ in range(20):
            page = cos.list_objects(BUCKET, Prefix="l/", Delimiter="/", Marker=marker, MaxKeys=size)
            some = names(page)
            assert len(some[0]) + len(some[1]) <= size
            found[0].extend(some[0])
            found[1].extend(some[1])
            if page["IsTruncated"] == "false":
                break
            marker = page["NextMarker"]
        assert found == (["l/", "l/a", "l/e", "l/z+%"], ["l/b/", "l/c d/", "l/\u4e2d/"]), found
    entry = cos.list_objects(BUCKET, Prefix="l/a")["Contents"][0]
    assert entry["Size"] == "3" and entry["ETag"] == f'"{hashlib.md5(b"l/a").hexdigest()}"'
    assert entry["StorageClass"] == "STANDARD" and entry["LastModified"].endswith(".000Z")


def test_copy():
    body = b"to be copied"
    source = {"Bucket": BUCKET, "Region": "ap-guangzhou", "Key": "copy \u4e2d+%/source"}
    meta = {"x-cos-meta-a": "1"}
    etag = cos.put_object(BUCKET, body, source["Key"], Metadata=meta, ContentType="text/x-a")["ETag"]
    copied = cos.copy_object(BUCKET, "copied", source)
    assert copied["ETag"] == etag
    head = cos.head_object(BUCKET, "copied")
    assert head["x-cos-meta-a"] == "1" and head["Content-Type"] == "text/x-a"
    assert read("copied") == body
    cos.copy_object(BUCKET, "copied", source, CopyStatus="Replaced", Metadata={"x-cos-meta-b": "2"})
    head = cos.head_object(BUCKET, "copied")
    assert head["x-cos-meta-b"] == "2" and "x-cos-meta-a" not in head and head["Content-Type"] != "text/x-a"
    itself = {**source, "Key": "copied"}
    refused(lambda: cos.copy_object(BUCKET, "copied", itself), 400, "InvalidRequest")
    cos.copy_object(BUCKET, "copied", itself, CopyStatus="Replaced", Metadata={"x-cos-meta-c": "3"})
    assert cos.head_object(BUCKET, "copied")["x-cos-meta-c"] == "3"
    condition = {"CopySourceIfMatch": '"other"'}
    refused(lambda: cos.copy_object(BUCKET, "copied", source, **condition), 412, "PreconditionFailed")
    refused(lambda: cos.copy_object(BUCKET, "copied", {**source, "Key": "absent"}), 404, "NoSuchKey")
    big = os.urandom(3 << 20)
    cos.put_object(BUCKET, big, "big")
    upload = cos.create_multipart_upload(BUCKET, "assembled")["UploadId"]
    parts = []
    for number, span in ((1, "bytes=0-2097151"), (2, "bytes=2097152-3145727")):
        part = cos.upload_part_copy(BUCKET, "assembled", number, upload, {**source, "Key": "big"}, CopySourceRange=span)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    done = cos.complete_multipart_upload(BUCKET, "assembled", upload, {"Part": parts})
    assert done["x-cos-hash-crc64ecma"] == str(crc64(big))
    assert read("assembled") == big


def test_delete():
    for key in AWKWARD:
        cos.put_object(BUCKET, b"x", f"gone/{key}")
    doomed = {"Object": [{"Key": f"gone/{key}"} for key in [*AWKWARD, "never there"]], "Quiet": "false"}
    gone = cos.delete_objects(BUCKET, doomed)
    assert [entry["Key"] for entry in gone["Deleted"]] == [entry["Key"] for entry in doomed["Object"]]
    assert names(cos.list_objects(BUCKET, Prefix="gone/")) == ([], [])
    cos.delete_object(BUCKET, "gone/again")


def test_refusals():
    refused(lambda: client(secret_id="AKIDother").list_objects(BUCKET), 403, "InvalidAccessKeyId")
    refused(lambda: client(secret_key="wrong").list_objects(BUCKET), 403, "SignatureDoesNotMatch")
    refused(lambda: client(secret_key="wrong").put_object(BUCKET, b"x" * 3_000_000, "k"), 403, "SignatureDoesNotMatch")
    with mock.patch("qcloud_cos.cos_auth.time.time", return_value=1_600_000_000):
        refused(lambda: cos.list_objects(BUCKET), 403, "Request has expired")
    wrong = {"ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
    refused(lambda: cos.put_object(BUCKET, b"not empty", "k", **wrong), 400, "BadDigest")
    refused(lambda: cos.put_object(BUCKET, b"x", "k", ContentMD5="nonsense"), 400, "InvalidDigest")
    upload = cos.create_multipart_upload(BUCKET, "k")["UploadId"]
    refused(lambda: cos.upload_part(BUCKET, "k", b"not empty", 1, upload, **wrong), 400, "BadDigest")
    cos.abort_multipart_upload(BUCKET, "k", upload)
    assert not cos.object_exists(BUCKET, "k")
    refused(lambda: cos.put_object(BUCKET, b"x", "k", Metadata={"x-cos-meta-m": "v" * 2048}), 400, "InvalidArgument")
    cos.put_object(BUCKET, b"x", "once")
    forbid = {"x-cos-forbid-overwrite": "true"}
    refused(lambda: cos.put_object(BUCKET, b"y", "once", Metadata=forbid), 409, "FileAlreadyExists")
    assert read("once") == b"x"


for name, test in list(globals().items()):
    if name.startswith("test_"):
        test()
        print("ok", name)
