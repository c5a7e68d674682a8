"""The client of Kubeflow Pipelines over real HTTP: what it sends, how it logs in, what it says of errors."""

import datetime
import ipaddress
import json
import ssl
from pathlib import Path
from typing import Any

import kfp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kfp import dsl, kubernetes
from kfp.compiler import Compiler

from components.errors import UserError
from pipelines.cluster.connection import Connection, UnavailableError
from pipelines.cluster.server import Job, Server

HTML = "<!doctype html><html><title>Log in to Dex</title></html>"
RUN = "0f6d7a90-1c2b-4d3e-8f90-a1b2c3d4e5f6"
JOB = Job("mine", "pipeline-0", "version-0", {}, "experiment-0", "")


@pytest.fixture
def server(stub: Any) -> Server:
    """A client of a server that has an experiment."""
    server = Server(Connection(stub.host))
    assert server.experiment("b1k", create=True) == "experiment-0"
    return server


@dsl.container_component
def work(steps: int, rate: float) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image="example.org/tool:1", command=["work"], args=[steps, rate])


@dsl.pipeline(name="plain")
def plain(steps: int = 3, rate: float = 0.5) -> None:
    work(steps=steps, rate=rate).set_retry(2)


@dsl.pipeline(name="mounted")
def mounted(steps: int = 3, rate: float = 0.5) -> None:
    kubernetes.mount_pvc(work(steps=steps, rate=rate), "claim", "/data")


@pytest.mark.filterwarnings("ignore")  # kfp.Client warns of its own age
@pytest.mark.parametrize("pipeline", [plain, mounted])
@pytest.mark.parametrize("account", ["b1k-runner", ""])
def test_runs_and_schedules_are_sent_as_the_sdk_sends_them(
    pipeline: Any, account: str, stub: Any, server: Server, tmp_path: Path
) -> None:
    package = tmp_path / "pipeline.yaml"
    Compiler().compile(pipeline, str(package))
    parent = server.pipeline("small")
    assert server.pipeline("small") == parent, "it is made once"
    version = server.upload(parent, package.read_bytes(), "first", "what it is", commit="0a1b")
    assert (stub.versions[version]["description"], stub.versions[version]["tags"]) == (
        "what it is",
        {"commit": "0a1b"},
    )
    assert [one["pipeline_version_id"] for one in server.versions(parent)] == [version]

    arguments = {"steps": 7, "rate": 1.0}
    client = kfp.Client(host=stub.host)
    theirs: dict[str, Any] = {
        "experiment_id": "experiment-0",
        "job_name": "mine",
        "pipeline_id": parent,
        "version_id": version,
        "params": arguments,
        "service_account": account or None,
    }
    job = Job("mine", parent, version, arguments, "experiment-0", account)

    client.run_pipeline(**theirs)
    expected = json.loads(stub.bodies[-1])
    assert server.submit(job) == "run-1"
    assert json.loads(stub.bodies[-1]) == expected

    client.create_recurring_run(**theirs, cron_expression="@daily", max_concurrency=1, no_catchup=True)
    expected = json.loads(stub.bodies[-1])
    assert server.schedule(job, "@daily") in stub.schedules
    assert json.loads(stub.bodies[-1]) == expected


def test_runs_are_found_by_what_they_have(stub: Any, server: Server) -> None:
    for number in range(70):
        parent = "nightly" if number % 7 == 0 else "weekly"
        stub.runs[f"{number:02}-run"] = {
            "run_id": f"{number:02}-run", "experiment_id": "experiment-0", "recurring_run_id": parent
        }  # fmt: skip
    found = [one["run_id"] for one in server.runs("experiment-0", recurring_run_id="nightly")]
    assert found == [f"{number:02}-run" for number in range(63, -1, -7)]
    assert len(list(server.runs())) == 70
    assert server.run("42")["run_id"] == "42-run"
    with pytest.raises(UserError, match=r"runs begin with '4': 4.-run, "):
        server.run("4")


def test_active_runs_are_those_that_have_not_ended(stub: Any, server: Server) -> None:
    for number in range(100):
        state = "SUCCEEDED" if number % 4 else ("PENDING", "RUNNING", "CANCELING", "FAILED")[number // 4 % 4]
        stub.runs[f"run-{number}"] = {"run_id": f"run-{number}", "state": state, "experiment_id": "e"}
    stub.runs["new"] = {"run_id": "new", "experiment_id": "e"}
    stub.requests.clear()
    found = [one["run_id"] for one in server.active_runs()]
    assert (len(found), found[0]) == (20, "new")
    assert len(stub.requests) == 1, "the server leaves out the others"


def test_a_server_that_does_not_know_a_filter(stub: Any, server: Server) -> None:
    everything = {"runs": [{"run_id": "one", "state": "FAILED"}, {"run_id": "two", "state": "RUNNING"}]}
    stub.trouble("GET .*/runs", (200, json.dumps(everything)))
    assert [one["run_id"] for one in server.active_runs()] == ["two"]


def test_all_pages_are_read(stub: Any, server: Server) -> None:
    for number in range(120):
        stub._new_experiment({"display_name": f"old-{number}"})
    assert server.experiment("old-119", create=False) == "experiment-120"


def test_an_experiment_that_somebody_else_creates_at_the_same_time(
    stub: Any, kfp_stub: Any, server: Server
) -> None:
    def other(handler: Any) -> None:
        stub._new_experiment({"display_name": "new"})
        kfp_stub.send(handler, 409, '{"message": "Already exist error"}')

    stub.trouble("POST .*/experiments", other)
    assert server.experiment("new", create=True) == "experiment-1"


def test_a_pipeline_that_somebody_else_creates_at_the_same_time(
    stub: Any, kfp_stub: Any, server: Server
) -> None:
    def other(handler: Any) -> None:
        stub.pipelines["theirs"] = {"pipeline_id": "theirs", "display_name": "small", "namespace": ""}
        kfp_stub.send(handler, 409, '{"message": "Already exist error"}')

    stub.trouble("POST .*/pipelines", other)
    assert server.pipeline("small") == "theirs"
    stub.trouble("POST .*/pipelines", (409, '{"message": "Already exist error"}'))
    with pytest.raises(UserError, match=r"cannot create the pipeline other: it exists already \(409\)"):
        server.pipeline("other")


@pytest.mark.parametrize("code", [200, 500])
def test_a_log_is_asked_for_by_every_name(code: int, stub: Any, server: Server) -> None:
    stub.logs["second"] = "said\n"
    stub.trouble("GET .*/first/log", (code, '{"error_message": "no pod first"}'))
    assert server.log(RUN, ["first", "second"]) == b"said\n"
    stub.trouble("GET .*/first/log", (code, '{"error_message": "no pod first"}'))
    with pytest.raises(UserError, match=r"cannot read the log of first\. It says: no pod first") as caught:
        server.log(RUN, ["first", "third"])
    assert not isinstance(caught.value, UnavailableError)


@pytest.mark.parametrize("answer", [(503, "{}"), (500, HTML), lambda handler: handler.connection.close()])
def test_a_dead_server_is_asked_for_a_log_once(answer: Any, stub: Any, server: Server) -> None:
    stub.requests.clear()
    stub.trouble("GET .*/log", answer, times=2)
    with pytest.raises(UnavailableError):
        server.log(RUN, ["first", "second"])
    assert len(stub.requests) == 1


def test_identities_are_parts_of_the_path(stub: Any, server: Server) -> None:
    with pytest.raises(UserError, match="404"):
        server.cancel("a/b?c")
    assert stub.requests[-1] == ("POST", "/apis/v2beta1/runs/a%2Fb%3Fc:terminate")


@pytest.mark.parametrize(
    ("code", "text", "message"),
    [
        (401, '{"message": "no identity"}', "does not accept no token (401)"),
        (403, '{"message": "no"}', "not allowed to start a run (403); ask for the role"),
        (404, '{"message": "no such experiment"}', "does not have it (404); is this the address"),
        (409, '{"error": "duplicate"}', "it exists already (409). It says: duplicate"),
        (400, '{"message": "bad\\ninput"}', "the server refuses (400). It says: bad input"),
        (429, "slow down", "the server failed (429); try again"),
        (500, '{"message": "database is locked"}', "the server failed (500); try again"),
        (500, HTML, "the server failed (500); try again"),
        (200, "{not json", "is not the Kubeflow Pipelines API v2beta1"),
        (200, HTML, "or its login page"),
        (200, "{}", "is not the Kubeflow Pipelines API v2beta1"),
        (200, "[]", "is not the Kubeflow Pipelines API v2beta1"),
    ],
)
def test_errors_of_the_server_are_said_in_words(
    code: int, text: str, message: str, stub: Any, server: Server
) -> None:
    stub.trouble("POST .*/runs", (code, text))
    with pytest.raises(UserError) as caught:
        server.submit(JOB)
    said = str(caught.value)
    assert message in said
    assert "<" not in said
    assert len(said.splitlines()) == 1
    assert isinstance(caught.value, UnavailableError) == (code in (429, 500))


@pytest.mark.parametrize(
    "asked", ["GET .*/healthz", "GET .*/experiments", "GET .*/v2beta1/runs/", "GET .*/v1beta1/runs/"]
)
@pytest.mark.parametrize(("code", "text"), [(500, "{}"), (200, HTML), (200, "{"), (403, "forbidden")])
def test_errors_are_said_at_every_step(asked: str, code: int, text: str, stub: Any, b1k: Any) -> None:
    stub.trouble(asked, (code, text))
    stub.runs[RUN] = {"run_id": RUN}
    exit_code, out, err = b1k("status", RUN) if "runs" in asked else b1k("status")
    assert (exit_code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_a_slow_server_is_not_waited_for_longer_than_said(stub: Any, b1k: Any) -> None:
    stub.trouble("GET", (200, "{}", 30), times=9)
    assert "no answer within 1 s" in b1k("status", "--timeout", "1")[2]
    assert "no answer within 1 s" in b1k("status", "--timeout", "1", "--namespace", "team")[2]
    assert len(stub.requests) == 2, "each was sent once"


def test_a_request_that_was_sent_is_not_sent_again(stub: Any, server: Server) -> None:
    stub.trouble("POST .*/runs", lambda handler: handler.connection.close(), times=2)
    with pytest.raises(UnavailableError, match="no server answers"):
        server.submit(JOB)
    assert stub.requests.count(("POST", "/apis/v2beta1/runs")) == 1


def test_an_answer_that_is_cut_off(stub: Any, server: Server) -> None:
    def cut(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"{")
        handler.connection.close()

    stub.trouble("GET .*/runs/", cut)
    with pytest.raises(UnavailableError, match="no server answers"):
        server.run(RUN)


def test_no_server(stub: Any, b1k: Any) -> None:
    code, _, err = b1k("status", host="http://127.0.0.1:1")
    assert code == 2
    assert "no server answers at http://127.0.0.1:1" in err
    assert "Connection refused" in err
    assert "kubectl port-forward" in err
    assert "expected the URL" in b1k("status", host="ml-pipeline:8888")[2]
    assert "cannot ask the server" in b1k("status", host="http://:1")[2]


def test_certificates_of_a_private_authority(kfp_stub: Any, tmp_path: Path) -> None:
    _write_certificate(tmp_path / "ca.pem", tmp_path / "key.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    stub = kfp_stub.Stub(tls)
    with pytest.raises(UserError, match=r"CERTIFICATE_VERIFY_FAILED.*Give its certificates with --ca-file"):
        Server(Connection(stub.host))
    with pytest.raises(UserError, match="cannot ask the server"):
        Server(Connection(stub.host, ca_file=tmp_path / "missing.pem"))
    server = Server(Connection(stub.host, ca_file=tmp_path / "ca.pem"))
    assert server.experiment("b1k", create=True) == "experiment-0"
    stub.close()


def _write_certificate(certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stub")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(addresses, critical=False)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    formats = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, *formats))


def test_the_token_is_read_from_a_file_for_every_request(stub: Any, secret: str, tmp_path: Path) -> None:
    stub.token = secret
    with pytest.raises(UserError, match=r"does not accept no token \(401\)"):
        Server(Connection(stub.host))
    file = tmp_path / "token"
    file.write_text(f"{secret}\n")
    server = Server(Connection(stub.host, token_file=file))
    server.experiment("b1k", create=True)
    stub.token = "another"
    file.write_text("another")
    assert server.experiment("b1k", create=False) == "experiment-0"


def test_a_netrc_does_not_replace_the_token(
    stub: Any, secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password something")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "token").write_text(secret)
    stub.token = secret
    Server(Connection(stub.host, token_file=tmp_path / "token"))


def test_a_service_accounts_token_is_found_where_it_is_mounted(
    stub: Any, b1k: Any, secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.token = secret
    (tmp_path / "mounted").write_text(secret)
    monkeypatch.setattr("pipelines.cluster.connection.MOUNTED_TOKEN", tmp_path / "mounted")
    assert Server(Connection(stub.host)).experiment("b1k", create=True)
    (tmp_path / "wrong").write_text("wrong")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "wrong"))
    assert f"does not accept the token in {tmp_path / 'wrong'} (401)" in b1k("status")[2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the token file"),
        (" \n", "is empty"),
        ("{secret}\nX: {secret}", "more than a token"),
    ],
)
def test_a_bad_token_file_is_named(
    content: str | None, message: str, b1k: Any, secret: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content.format(secret=secret))
    code, _, err = b1k("status", "--token-file", str(file))
    assert code == 2
    assert message in err


def test_a_token_that_the_server_repeats_is_not_shown(
    stub: Any, b1k: Any, secret: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(secret)
    stub.trouble("GET .*/experiments", (401, json.dumps({"message": f"bad token Bearer {secret}"})))
    assert "bad token Bearer ***" in b1k("status", "--token-file", str(tmp_path / "token"))[2]


def test_the_namespace_of_multi_user_kubeflow_is_used(stub: Any) -> None:
    server = Server(Connection(stub.host, namespace="team"))
    server.experiment("b1k", create=True)
    assert stub.experiments["experiment-0"]["namespace"] == "team"
    assert server.experiment("b1k", create=False) == "experiment-0"
    assert "healthz" not in str(stub.requests)
    stub.trouble("POST .*/runs", (403, "{}"))
    with pytest.raises(UserError, match="not allowed to start a run in the namespace team"):
        server.submit(JOB)


def test_a_pod_of_multi_user_kubeflow_knows_its_namespace(
    stub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cluster.connection.POD_NAMESPACE", tmp_path / "namespace")
    (tmp_path / "namespace").write_text("team\n")
    assert Server(Connection(stub.host)).namespace == "", "the server has one user"
    stub.multi_user = True
    assert Server(Connection(stub.host)).namespace == "team"
    (tmp_path / "namespace").unlink()
    with pytest.raises(UserError, match="many users, and no --namespace is given; give the namespace"):
        Server(Connection(stub.host))
    assert Server(Connection(stub.host, namespace="mine")).namespace == "mine"


def test_the_stub_refuses_what_is_not_the_api(kfp_stub: Any) -> None:
    with pytest.raises(kfp_stub.RefusedError, match="unknown fields"):
        kfp_stub.read(b'{"display_name": "x", "colour": "red"}', "V2beta1Experiment")
    with pytest.raises(kfp_stub.RefusedError, match="is 3, not str"):
        kfp_stub.read(b'{"display_name": 3}', "V2beta1Run")
