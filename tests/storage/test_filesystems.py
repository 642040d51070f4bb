"""File systems of object stores: set up from the environment, and failures that say what to do."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from storage import files
from storage.filesystems import check_bucket, check_uri, lance_options, open_filesystem

SECRET = "wJalrXUtnFEMI"


@pytest.fixture
def answers(monkeypatch):
    """`answers([(status, code), ...])`: what a server for S3 says next; then all is well, each object b"whole"."""
    script: list[tuple[int, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, code = script.pop(0) if script else (200, "")
            data = b"" if self.command == "PUT" else b"<ListBucketResult/>" if "list-type" in self.path else b"whole"
            if code:
                data = f"<Error><Code>{code}</Code><Message>with {SECRET}</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = answer

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{httpd.server_port}")
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        yield script.extend
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://host/a", "s3://BUCKET/FOLDER and gs://BUCKET/FOLDER are"),
        ("birds/runs", "no uri of an object store"),
        ("s3://AKIA:secret@bucket/a", "carries no credentials"),
        ("s3://bucket/a?endpoint_override=x&secret_key=secret", "carries no query"),
        ("gs:///a", "names no bucket: write gs://BUCKET/FOLDER"),
        ("s3://b", "names no bucket"),
        ("s3://bucket//a", "empty part"),
        ("s3://bucket/a/../b", "'..' in its path"),
    ],
)
def test_a_uri_that_names_no_place_is_refused_and_its_secrets_are_not_repeated(uri, words):
    with pytest.raises(ValueError, match=words.replace("'..'", r"'\.\.'")) as raised:
        check_uri(uri)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "gs://my_bucket.eu/a b/ä#1?.jpg", "s3://bucket/a?b"])
def test_a_uri_of_any_other_name_is_taken_as_it_stands(uri):
    check_uri(uri)


def test_there_is_one_file_system_a_server_and_it_serves_many_threads(bucket, monkeypatch):
    found, path = open_filesystem(f"{bucket}/a/b/")
    assert path == f"{bucket.removeprefix('s3://')}/a/b"
    assert open_filesystem(f"{bucket}/other")[0] is found
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")  # this one comes first, as for other clients
    assert open_filesystem(bucket)[0] is not found


def test_lancedb_is_told_the_server_and_no_credentials(bucket, s3_server, monkeypatch):
    options = {"region": "us-east-1", "aws_endpoint": s3_server, "allow_http": "true"}
    assert lance_options(f"{bucket}/lance") == options
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio.example.org:9000")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    options = {"region": "eu-west-1", "aws_endpoint": "https://minio.example.org:9000", "allow_http": "false"}
    assert lance_options(f"{bucket}/lance") == options
    assert lance_options("gs://bucket/lance") == {}


def test_a_bucket_that_is_there_passes_and_a_missing_one_is_told_with_the_server(bucket, s3_server):
    check_bucket(f"{bucket}/not/there/yet")
    with pytest.raises(FileNotFoundError, match=f"no bucket 'absent' at {s3_server}: make it first"):
        check_bucket("s3://absent/runs")
    with pytest.raises(FileNotFoundError, match="no bucket 'absent'"):
        files.write_atomic("s3://absent/runs/a", b"x", run="r")


def test_what_passes_is_tried_again(answers):
    answers([(503, "SlowDown"), (500, "InternalError")])
    assert files.read_bytes("s3://bucket/a") == b"whole"
    answers([(503, "SlowDown")])
    files.write_atomic("s3://bucket/a", b"x", run="r")


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "AccessDenied", PermissionError, "access is denied: the credentials in AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", PermissionError, "access is denied"),
        (403, "InvalidAccessKeyId", PermissionError, "access is denied"),
        (400, "ExpiredToken", PermissionError, "have expired"),
        (404, "NoSuchBucket", FileNotFoundError, "no bucket 'bucket'"),
        (301, "PermanentRedirect", OSError, "another region: set AWS_REGION"),
        (400, "EntityTooLarge", OSError, "EntityTooLarge"),
    ],
)
def test_a_refusal_names_the_uri_and_what_to_do_and_no_secret(answers, status, code, kind, words):
    answers([(status, code)] * 8)
    with pytest.raises(kind) as raised:
        files.write_atomic("s3://bucket/a", b"x", run="r")
    message = str(raised.value)
    assert words in message
    assert "s3://bucket/a" in message
    assert SECRET not in message
    assert "AKIA" not in message


def test_who_may_list_only_a_part_of_a_bucket_may_keep_a_store_there(bucket, answers):
    answers([(403, "")])
    check_bucket("s3://bucket/mine")
    answers([(403, ""), (403, "AccessDenied")])
    with pytest.raises(PermissionError, match="access is denied"):
        check_bucket("s3://bucket/mine")


def test_without_credentials_it_is_said_which_to_set(answers, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    answers([(403, "AccessDenied")])
    with pytest.raises(PermissionError, match=r"AWS_ACCESS_KEY_ID is not set.*AWS_SECRET_ACCESS_KEY"):
        files.read_bytes("s3://bucket/a")


def test_a_server_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:1 does not answer: .*connect.*s3://bucket/runs"):
        check_bucket("s3://bucket/runs")
